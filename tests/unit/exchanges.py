"""A small exchange for tests of connections: real sockets, and misbehaviour the simulated exchange has no word for."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any

from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response

from raven.batches.accumulator import Accumulator
from raven.clock import tomorrow_us
from raven.settings import BinanceSettings, BinanceSpotSettings
from raven.sources.binance.connection import Frame
from raven.sources.binance.feed import Feed
from raven.sources.binance.messages import decode_frames
from raven.sources.binance.protocol import SPOT, VenueProtocol
from raven.telemetry import Telemetry


@dataclass(eq=False)
class Client:
    """One connection as the exchange sees it."""

    socket: ServerConnection
    streams: set[str] = field(default_factory=set)
    message_times: list[float] = field(default_factory=list)
    opened_s: float = field(default_factory=time.monotonic)


class Exchange:
    """Sends every wanted stream a trade each few milliseconds, all clients the same ones."""

    def __init__(self) -> None:
        self.clients: list[Client] = []
        self.seen: list[Client] = []
        self.handshakes: list[float] = []
        self.paths: list[str] = []
        self.status: HTTPStatus | None = None
        self.headers: dict[str, str] = {}
        self.refused: set[str] = set()
        self.bare_errors = False
        self.acknowledge_after_s = 0.0
        self.trading = True
        self.last_id = 0
        self.most_open = 0
        self.port = 0

    @property
    def url(self) -> str:
        return f"ws://127.0.0.1:{self.port}"

    @asynccontextmanager
    async def running(self, port: int = 0) -> AsyncIterator[Exchange]:
        async with serve(self._serve, "127.0.0.1", port, process_request=self._handshake, close_timeout=1) as server:
            self.port = server.sockets[0].getsockname()[1]
            play = asyncio.ensure_future(self._play())
            try:
                yield self
            finally:
                play.cancel()
                await asyncio.gather(play, return_exceptions=True)

    def streams(self) -> list[set[str]]:
        return [client.streams for client in self.clients]

    async def drop(self, client: Client) -> None:
        """End a connection without a goodbye."""
        client.socket.transport.abort()
        await client.socket.wait_closed()

    async def shut_down(self, clients: Sequence[Client]) -> None:
        for client in clients:
            await client.socket.send(json.dumps({"e": "serverShutdown", "E": 1}))

    async def _handshake(self, connection: ServerConnection, request: Request) -> Response | None:
        self.handshakes.append(time.monotonic())
        self.paths.append(request.path)
        if self.status is None:
            return None
        response = connection.respond(self.status, "no")
        response.headers.update(self.headers)
        return response

    async def _serve(self, socket: ServerConnection) -> None:
        client = Client(socket)
        self.clients.append(client)
        self.seen.append(client)
        self.most_open = max(self.most_open, len(self.clients))
        try:
            async for text in socket:
                client.message_times.append(time.monotonic())
                await asyncio.sleep(self.acknowledge_after_s)
                await self._answer(client, json.loads(text))
        except ConnectionClosed:
            pass
        finally:
            self.clients.remove(client)

    async def _answer(self, client: Client, request: dict[str, Any]) -> None:
        streams = set(request["params"])
        if request["method"] == "UNSUBSCRIBE":
            client.streams -= streams
        elif streams & self.refused:
            error = {"code": 2, "msg": "Invalid request: no such stream"}
            reply = error if self.bare_errors else {"error": error, "id": request["id"]}
            await client.socket.send(json.dumps(reply))
            return
        await client.socket.send(json.dumps({"result": None, "id": request["id"]}))
        if request["method"] == "SUBSCRIBE":
            client.streams |= streams

    async def _play(self) -> None:
        for self.last_id in itertools.count(1):
            for client in list(self.clients):
                for stream in client.streams if self.trading else ():
                    with contextlib.suppress(ConnectionClosed):
                        await client.socket.send(trade(stream, self.last_id))
            await asyncio.sleep(0.005)


def trade(stream: str, number: int) -> str:
    symbol, _, event = stream.partition("@")
    data = {
        "e": event, "s": symbol.upper(), "t" if event == "trade" else "a": number, "p": "1.5", "q": "1",
        "T": 1_760_000_000_000_000 + number, "m": False,
    }  # fmt: skip
    return json.dumps({"stream": stream, "data": data}, separators=(",", ":"))


class Taker:
    """What a source does with a feed: takes its frames, hands it the replies among them, notes the trades' ids."""

    def __init__(
        self, settings: BinanceSettings, protocol: VenueProtocol = SPOT,
        is_behind: Callable[[Sequence[str]], Awaitable[bool]] | None = None,
    ) -> None:  # fmt: skip
        self.frames: Accumulator[Frame] = Accumulator(max_rows=10_000, max_age_ns=0)
        self.telemetry = Telemetry("test")
        self.carried: set[str] = set()
        self.feed = Feed(
            settings,
            protocol,
            frames=self.frames,
            telemetry=self.telemetry,
            is_behind=is_behind or _is_not_behind,
            carried_again=self.carried.update,
        )
        self.ids: dict[str, list[int]] = {}
        self.paused = False
        self._event = protocol.event

    def missing(self, symbol: str) -> set[int]:
        """Ids between the first and the last that came which never came."""
        ids = set(self.ids[symbol])
        return set(range(min(ids), max(ids))) - ids

    @asynccontextmanager
    async def running(self, symbols: Iterable[str] = ()) -> AsyncIterator[Taker]:
        tasks = [asyncio.ensure_future(self.feed.run()), asyncio.ensure_future(self.take())]
        self.feed.want(symbols)
        try:
            yield self
        finally:
            for task in tasks:
                task.cancel()
            done = await asyncio.gather(*tasks, return_exceptions=True)
            assert all(isinstance(error, asyncio.CancelledError) for error in done), done

    async def take(self) -> None:
        while True:
            await self.feed.arrived.wait()
            await asyncio.sleep(0.005)
            if self.paused:
                continue
            self.feed.arrived.clear()
            if not (items := self.frames.take()):
                continue
            self.feed.drained()
            frames, stamps, connections = zip(*items, strict=True)
            decoded = decode_frames(frames, stamps, event=self._event, latest_us=tomorrow_us())
            assert not decoded.dead
            for reply, position in zip(decoded.control, decoded.control_at, strict=True):
                self.feed.answered(reply, connections[position])
            for symbol, number in decoded.trades.select("symbol", "trade_id").iter_rows():
                self.ids.setdefault(symbol, []).append(number)


async def _is_not_behind(symbols: Sequence[str]) -> bool:
    assert symbols
    return False


def spot(url: str, **options: Any) -> BinanceSpotSettings:
    return BinanceSpotSettings(websocket_url=url, connect_timeout_s=options.pop("connect_timeout_s", 2.0), **options)


async def until(condition: Callable[[], object], timeout_s: float = 20) -> None:
    async with asyncio.timeout(timeout_s):
        while not condition():
            await asyncio.sleep(0.02)
