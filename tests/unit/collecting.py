"""A source over a journal of its own, for tests, and what it wrote there."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import polars as pl
from websockets.asyncio.server import ServerConnection, serve

from raven.batches.batch import BatchMeta
from raven.batches.ipc import decode
from raven.batches.schema import to_frame
from raven.journal import Journal
from raven.rpc.hub import Hub
from raven.settings import BinanceSettings
from raven.sources.binance.protocol import SPOT, VenueProtocol
from raven.sources.binance.source import BinanceSource, trade_stream
from raven.telemetry import Telemetry

SPOT_STREAM = trade_stream("BINANCE_SPOT")
NOWHERE = "http://127.0.0.1:1"


def settings(ws_url: str, rest_url: str = NOWHERE, **changes: float) -> BinanceSettings:
    """Small batches; nothing is waited for long, unless asked for, since most servers here have no REST."""
    values = {"batch_max_rows": 500, "batch_max_age_ms": 10, "connect_timeout_s": 5.0, "hold_max_s": 0.1, **changes}
    return BinanceSettings.model_validate({"websocket_url": ws_url, "rest_url": rest_url, **values})


Serve = Callable[[ServerConnection], Awaitable[None]]


@asynccontextmanager
async def serving(script: Serve) -> AsyncIterator[str]:
    """A WebSocket server that runs `script` on each connection after it acknowledged the subscription."""

    async def handle(socket: ServerConnection) -> None:
        request = json.loads(await socket.recv())
        await socket.send(json.dumps({"result": None, "id": request["id"]}))
        await script(socket)

    async with serve(handle, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        yield f"ws://127.0.0.1:{port}"


@asynccontextmanager
async def collecting(
    folder: Path, ws_url: str, rest_url: str = NOWHERE, *, protocol: VenueProtocol = SPOT, **changes: float
) -> AsyncIterator[BinanceSource]:
    chosen = settings(ws_url, rest_url, **changes)
    with Journal.open(folder, trade_stream(protocol.venue)) as journal:
        source = BinanceSource(Hub(journal), chosen, protocol, folder=folder, telemetry=Telemetry("test"))
        run = asyncio.ensure_future(source.run())
        try:
            yield source
        finally:
            run.cancel()
            await asyncio.gather(run, return_exceptions=True)
            await source.close()


def recorded(folder: Path, venue: str = "BINANCE_SPOT") -> tuple[pl.DataFrame, list[BatchMeta]]:
    """Every row and every batch's metadata in the journal of a source that has ended."""
    with Journal.open(folder, trade_stream(venue)) as journal:
        entries = list(journal.read())
    frames = [to_frame(decode(entry.payload)[0]) for entry in entries]
    return pl.concat(frames), [entry.meta for entry in entries]


async def until(condition: Callable[[], bool], timeout_s: float = 15) -> None:
    async with asyncio.timeout(timeout_s):
        while not condition():
            await asyncio.sleep(0.02)


def rows_of(source: BinanceSource) -> int:
    return total(source, "rows")


def total(source: BinanceSource, counter: str) -> int:
    """What a counter of the source's telemetry stands at."""
    return source._telemetry.totals.get(counter, 0)


def begin(source: BinanceSource, symbol: str) -> None:
    """Begin a session."""
    source.want({symbol: source.last_id(symbol)})
