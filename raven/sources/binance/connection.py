"""One WebSocket connection to Binance: combined streams, control messages, watchdog.

The hot path is `_receive`: receive, stamp, append. Nothing else happens per frame.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import Final

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import WebSocketException

from raven.batches.accumulator import Accumulator
from raven.errors import ExchangeError
from raven.settings import BinanceSettings
from raven.sources.binance.endpoints import Endpoint
from raven.sources.binance.failures import Failure, classify_websocket
from raven.sources.binance.limits import SlidingWindow
from raven.sources.binance.messages import ControlReply, stream_name, subscribe_message, unsubscribe_message
from raven.sources.binance.protocol import VenueProtocol
from raven.telemetry import Telemetry

STREAMS_PER_MESSAGE: Final = 200
MESSAGES_LEFT: Final = 2  # of a second's messages: pings and pongs count too
MESSAGES_PERIOD_S: Final = 1.1  # a second, and some for what the network crowds together
MAX_PENDING_FRAMES: Final = 400_000
YIELD_EVERY_FRAMES: Final = 1_000
REFUSED_RETRY_S: Final = 30.0
LOST: Final = (OSError, WebSocketException, ExchangeError)

Frame = tuple[bytes, int, int]
"""A raw frame, when it was received (UTC nanoseconds), and the number of its connection."""


class Inbox:
    """Where the frames of all connections go; their receivers pause while it is full."""

    def __init__(self, frames: Accumulator[Frame]) -> None:
        self.frames = frames
        self.arrived = asyncio.Event()
        self._drained = asyncio.Event()

    @property
    def is_full(self) -> bool:
        """Whether receivers pause."""
        return self.frames.rows >= MAX_PENDING_FRAMES

    async def room(self) -> None:
        """Wait until the frames have been taken, where there are too many."""
        while self.is_full:
            self._drained.clear()
            await self._drained.wait()

    def drained(self) -> None:
        """The frames were taken."""
        self._drained.set()


@dataclass(frozen=True, slots=True)
class Shared:
    """What all connections of a feed have in common."""

    settings: BinanceSettings
    protocol: VenueProtocol
    endpoint: Endpoint
    inbox: Inbox
    telemetry: Telemetry
    is_behind: Callable[[Sequence[str]], Awaitable[bool]]
    attempts: SlidingWindow
    replacements: SlidingWindow
    numbers: Iterator[int] = field(default_factory=lambda: count(1))
    request_ids: Iterator[int] = field(default_factory=lambda: count(1))


class Connection:
    """One socket and its streams.

    - `number`: what its frames carry. `is_open`, `was_open`: whether the socket is, and whether it ever was.
    - `failure`: what broke it or kept it from opening; None while nothing has.
    - `acknowledged`, `refused`: symbols whose streams the exchange sends, and those it will not, each with why.
    - `ready`: every wanted stream was answered once. `ending`: the exchange will close it soon.
    - `task`: ends with the connection, without raising. `on_acknowledged`: called at its first acknowledged streams.
    """

    def __init__(self, shared: Shared, symbols: Iterable[str], on_acknowledged: Callable[[Connection], None]) -> None:
        self.number = next(shared.numbers)
        self.url = shared.endpoint.url
        self.is_open = False
        self.was_open = False
        self.failure: Failure | None = None
        self.acknowledged: set[str] = set()
        self.refused: dict[str, str] = {}
        self.ready = asyncio.Event()
        self.ending = asyncio.Event()
        self._shared = shared
        self._wanted = set(symbols)
        self._changed = asyncio.Event()
        self._on_acknowledged = on_acknowledged
        self._messages = SlidingWindow(shared.protocol.max_messages_per_s - MESSAGES_LEFT, MESSAGES_PERIOD_S)
        self._pending: tuple[int, asyncio.Future[str]] | None = None
        self._has_flowed = False
        self._received = 0
        self.task = asyncio.ensure_future(self._run())

    def want(self, symbols: Iterable[str]) -> None:
        """Have the streams of exactly these symbols."""
        self._wanted = set(symbols)
        self._changed.set()

    async def close(self) -> None:
        """Close the socket."""
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)

    def answered(self, reply: ControlReply) -> None:
        """What the exchange says about this connection, found among its frames."""
        if reply.kind == "shutdown":
            self.ending.set()
        elif self._pending is not None and reply.id in (None, self._pending[0]):  # a bare refusal names no request
            future = self._pending[1]
            if not future.done():
                future.set_result((reply.error or f"code {reply.code}") if reply.kind == "error" else "")

    async def _run(self) -> None:
        try:
            await self._connected()
        except LOST as error:
            self.failure = classify_websocket(error)

    async def _connected(self) -> None:
        """Open, subscribe, receive; raises what broke it."""
        shared = self._shared
        async with connect(
            f"{self.url}/stream{shared.protocol.stream_query}", proxy=shared.endpoint.proxy,
            compression=None, max_size=2**20, max_queue=1024, ping_interval=20, ping_timeout=20,
            open_timeout=shared.settings.connect_timeout_s, close_timeout=1,
        ) as socket:  # fmt: skip
            self.is_open = self.was_open = True
            shared.telemetry.info(
                "exchange_connected", f"connected to {self.url}", connection=self.number, symbols=len(self._wanted)
            )
            work = [self._receive(socket), self._subscribe(socket), self._watch()]
            tasks = [asyncio.ensure_future(part) for part in work]
            try:
                done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    task.result()
            finally:
                self.is_open = False
                self.acknowledged.clear()
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)

    async def _receive(self, socket: ClientConnection) -> None:
        inbox, number, now_ns, monotonic_ns = self._shared.inbox, self.number, time.time_ns, time.monotonic_ns
        frames, arrived = inbox.frames, inbox.arrived
        while True:
            frame = await socket.recv(decode=False)
            frames.add((frame, now_ns(), number), monotonic_ns())
            arrived.set()
            self._received += 1
            if not self._received % YIELD_EVERY_FRAMES:
                await asyncio.sleep(0)  # a full socket never waits, and others must run
                await inbox.room()

    async def _subscribe(self, socket: ClientConnection) -> None:
        """Keep the open streams in line with the wanted symbols."""
        while True:
            self._changed.clear()
            wanted = set(self._wanted)  # it may change while requests are answered
            self.refused = {symbol: why for symbol, why in self.refused.items() if symbol in wanted}
            for symbols in _bulks(self.acknowledged - wanted):
                await self._request(socket, unsubscribe_message, symbols)
                self.acknowledged.difference_update(symbols)
            retried = [[symbol] for symbol in self.refused]
            await self._ask_for(socket, deque([*_bulks(wanted - self.acknowledged - self.refused.keys()), *retried]))
            self.ready.set()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(REFUSED_RETRY_S if self.refused else None):
                    await self._changed.wait()

    async def _ask_for(self, socket: ClientConnection, bulks: deque[list[str]]) -> None:
        """Subscribe bulk by bulk; a refused one is halved until the stream that spoils it is alone."""
        while bulks:
            symbols = bulks.popleft()
            refusal = await self._request(socket, subscribe_message, symbols)
            if not refusal:
                self.acknowledged.update(symbols)
                for symbol in symbols:
                    self.refused.pop(symbol, None)
                if not self._has_flowed:
                    self._has_flowed = True
                    self._on_acknowledged(self)
            elif len(symbols) > 1:
                middle = len(symbols) // 2
                bulks.extend((symbols[:middle], symbols[middle:]))
            else:
                self._refuse(symbols[0], f"the exchange refuses the stream: {refusal}")

    def _refuse(self, symbol: str, reason: str) -> None:
        self._shared.telemetry.error("exchange_refused", f"{symbol}: {reason}", symbol=symbol)
        self.refused[symbol] = reason

    async def _request(
        self, socket: ClientConnection, make: Callable[[list[str], int], str], symbols: Sequence[str]
    ) -> str:
        """Send one control message, within the rate; why the exchange refuses it, empty when it does not."""
        await take_turn(self._messages)
        number = next(self._shared.request_ids)
        future: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._pending = (number, future)
        timeout_s = self._shared.settings.connect_timeout_s
        try:
            await socket.send(make([stream_name(symbol, self._shared.protocol.event) for symbol in symbols], number))
            async with asyncio.timeout(timeout_s):
                return await future
        except TimeoutError as error:
            raise ExchangeError(f"did not answer a control message in {timeout_s:g} s") from error
        finally:
            self._pending = None

    async def _watch(self) -> None:
        """Break the connection when no frame came for `stale_s` although the exchange has traded.

        A connection that is dead altogether is found by the library's pings; a quiet market is no fault.
        """
        stale_s = self._shared.settings.stale_s
        seen, quiet_since = self._received, time.monotonic()
        while True:
            await asyncio.sleep(min(1.0, stale_s / 4))
            if self._received != seen or not self.acknowledged or self._shared.inbox.is_full:
                seen, quiet_since = self._received, time.monotonic()
            elif time.monotonic() - quiet_since > stale_s:
                if await self._shared.is_behind(sorted(self.acknowledged)):
                    raise ExchangeError(f"sent no frame for {stale_s:g} s although it has traded")
                quiet_since = time.monotonic()


async def take_turn(window: SlidingWindow) -> None:
    """Wait until `window` lets one more through, and take it."""
    while True:
        now_s = time.monotonic()
        wait_s = window.wait_s(now_s)
        if wait_s <= 0:
            window.take(now_s)
            return
        await asyncio.sleep(wait_s)


def _bulks(symbols: Iterable[str]) -> Iterator[list[str]]:
    ordered = sorted(symbols)
    for first in range(0, len(ordered), STREAMS_PER_MESSAGE):
        yield ordered[first : first + STREAMS_PER_MESSAGE]
