"""Clients of the simulated exchange, and markets to play, for its tests."""

from __future__ import annotations

import asyncio
import json
import socket
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import aiohttp
import polars as pl
from websockets.asyncio.client import ClientConnection, connect

from raven.batches.schema import ORIGIN_ARCHIVE, TRADE_DTYPES
from raven.sources.simulated import Market, SimulatedExchange

START_US = 1_767_225_600_000_000  # 2026-01-01


class Rest:
    """A REST client: `get` gives the body, whatever the status; the last status and headers are kept."""

    def __init__(self, session: aiohttp.ClientSession, url: str) -> None:
        self._session = session
        self._url = url
        self.status = 0
        self.headers: Any = {}

    async def get(self, path: str, *, micros: bool = False, **params: object) -> Any:
        headers = {"X-MBX-TIME-UNIT": "MICROSECOND"} if micros else {}
        texts = {name: str(value) for name, value in params.items()}
        async with self._session.get(self._url + path, params=texts, headers=headers) as reply:
            self.status, self.headers = reply.status, reply.headers
            return await reply.json()

    async def weight(self, path: str, time_path: str, **params: object) -> int:
        """What a request adds to the weight used, seen within one minute of the clock."""
        while True:
            minute = time.time() // 60
            await self.get(time_path)
            before = int(self.headers["X-MBX-USED-WEIGHT-1M"])
            await self.get(path, **params)
            assert self.status == 200
            if time.time() // 60 == minute:
                return int(self.headers["X-MBX-USED-WEIGHT-1M"]) - before

    async def last_id(self, symbol: str = "BTCUSDT") -> int:
        trades = await self.get("/api/v3/trades", symbol=symbol, limit=1)
        return trades[0]["id"] if trades else 0


@asynccontextmanager
async def running(market: Market, **arguments: Any) -> AsyncIterator[tuple[SimulatedExchange, Rest]]:
    failures: list[Any] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: failures.append(context))
    exchange = SimulatedExchange(market, port=0, **arguments)
    await exchange.start()
    try:
        async with aiohttp.ClientSession() as session:
            yield exchange, Rest(session, exchange.rest_url)
    finally:
        await exchange.stop()
    assert failures == []


def client(exchange: SimulatedExchange, path: str, **options: Any) -> connect:
    # a client that leaves with frames unread waits in vain for the answer to its close
    return connect(exchange.ws_url + path, proxy=None, close_timeout=0.1, **options)


@contextmanager
def socket_that_never_reads(exchange: SimulatedExchange, path: str) -> Iterator[socket.socket]:
    """A client that upgrades and then neither reads nor answers nor leaves by itself."""
    host, port = exchange.ws_url.removeprefix("ws://").split(":")
    with socket.socket() as raw:
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
        raw.connect((host, int(port)))
        raw.sendall(
            f"GET {path} HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n".encode()
        )
        yield raw


async def take(ws: ClientConnection, count: int) -> list[Any]:
    async with asyncio.timeout(10 + count / 2_000):  # it shows a hang, not the machine's pace
        return [json.loads(await ws.recv()) for _ in range(count)]


async def take_until(ws: ClientConnection, name: str, values: set[str]) -> list[Any]:
    """Frames until each of `values` was in the field `name`, and no other; a busy symbol may have long bursts."""
    frames = await take(ws, 1)
    while {frame[name] for frame in frames} < values:
        frames += await take(ws, 1)
    assert {frame[name] for frame in frames} == values
    return frames


async def ask(ws: ClientConnection, method: str, params: list[Any] | None = None, number: int = 1) -> list[Any]:
    """Send a control message; everything that comes until its answer, which is the last."""
    await ws.send(json.dumps({"method": method, "params": params, "id": number}))
    got: list[Any] = []
    async with asyncio.timeout(10):
        while not got or got[-1].get("id") != number or "e" in got[-1]:
            got.append(json.loads(await ws.recv()))
    return got


def made(symbol: str, count: int, *, first_id: int = 1) -> pl.DataFrame:
    numbers = pl.DataFrame({"trade_id": range(first_id, first_id + count)})
    time_us = pl.from_epoch(START_US + pl.col("trade_id") * 1_000, "us").dt.replace_time_zone("UTC")
    return numbers.select(
        symbol=pl.lit(symbol), trade_id="trade_id", ts_event=time_us, ts_recv=time_us,
        price=100 + pl.col("trade_id") / 8, quantity=pl.lit(0.5), side=pl.lit(1), origin=ORIGIN_ARCHIVE,
    ).select(pl.col(name).cast(dtype) for name, dtype in TRADE_DTYPES.items())  # fmt: skip
