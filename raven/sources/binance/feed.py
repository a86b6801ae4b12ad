"""One WebSocket connection to Binance: combined streams, control messages, watchdog, reconnect.

The hot path is `_receive`: receive, stamp, append. Nothing else happens per frame.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Final

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import InvalidHandshake, InvalidStatus, WebSocketException

from raven.batches.accumulator import Accumulator
from raven.clock import Backoff
from raven.errors import InputError
from raven.sources.binance import TradeEvent
from raven.sources.binance.messages import ControlReply, stream_name, subscribe_message, unsubscribe_message
from raven.sources.binance.rest import BLOCKED
from raven.telemetry import Telemetry

MAX_STREAMS: Final = 1024
STREAMS_PER_MESSAGE: Final = 200
CONTROL_INTERVAL_S: Final = 0.25  # the exchange takes 5 messages a second
ATTEMPT_INTERVAL_S: Final = 1.0  # 300 attempts per 5 minutes
MAX_PENDING_FRAMES: Final = 400_000
YIELD_EVERY_FRAMES: Final = 1_000
REFUSED_RETRY_S: Final = 30.0

Frame = tuple[bytes, int]
"""A raw frame and when it was received, UTC nanoseconds."""


class Feed:
    """Keeps the streams of the wanted symbols open and puts their raw frames into `frames`."""

    def __init__(
        self, url: str, *, event: TradeEvent, frames: Accumulator[Frame], stale_s: float, connect_timeout_s: float,
        telemetry: Telemetry,
        is_behind: Callable[[Sequence[str]], Awaitable[bool]],
    ) -> None:  # fmt: skip
        self.url = f"{url.rstrip('/')}/stream?timeUnit=MICROSECOND"
        self.frames = frames
        self.arrived = asyncio.Event()
        self.connected = False
        self.error = ""
        self.acknowledged: set[str] = set()
        self.refused: dict[str, str] = {}
        self.connections = 0
        self._event = event
        self._stale_s = stale_s
        self._connect_timeout_s = connect_timeout_s
        self._telemetry = telemetry
        self._is_behind = is_behind
        self._symbols: set[str] = set()
        self._changed = asyncio.Event()
        self._drained = asyncio.Event()
        self._replies: dict[int | str, asyncio.Future[str]] = {}
        self._next_id = 0

    def want(self, symbols: Iterable[str]) -> None:
        """Open the streams of these symbols too; raises InputError when a connection cannot hold as many."""
        wanted = self._symbols | set(symbols)
        if len(wanted) > MAX_STREAMS:
            raise InputError(f"{len(wanted)} symbols; a connection holds at most {MAX_STREAMS} streams")
        self._symbols = wanted
        self._changed.set()

    def leave(self, symbols: Iterable[str]) -> None:
        """Close the streams of these symbols."""
        self._symbols -= set(symbols)
        self._changed.set()

    @property
    def wanted(self) -> set[str]:
        """The symbols whose streams are kept open."""
        return self._symbols

    def drained(self) -> None:
        """The frames were taken: a paused receiver may go on."""
        self._drained.set()

    async def run(self) -> None:
        """Keep connected while any symbol is wanted, until cancelled."""
        backoff = Backoff(first_s=0.5, most_s=30.0)
        while True:
            while not self._symbols:
                await self._changed.wait()
                self._changed.clear()
            began = time.monotonic()
            try:
                await self._connection(backoff)
                backoff.reset()
            except (OSError, WebSocketException, TimeoutError) as error:
                self._lost(explain(error, self.url))
                pause = max(backoff.next_s(), ATTEMPT_INTERVAL_S - (time.monotonic() - began))
                await asyncio.sleep(pause)

    def _lost(self, reason: str) -> None:
        if self.connected or self.error != reason:
            self._telemetry.warning("exchange_lost", reason, symbols=len(self._symbols))
        self._telemetry.add("reconnects", peer="exchange")
        self.connected = False
        self.error = reason
        self.acknowledged.clear()
        self._replies.clear()

    async def _connection(self, backoff: Backoff) -> None:
        """One connection, until nothing is wanted (returns) or it breaks (raises)."""
        async with connect(
            self.url, compression=None, max_size=2**20, max_queue=1024, ping_interval=20, ping_timeout=20,
            open_timeout=self._connect_timeout_s, close_timeout=1, proxy=True,
        ) as socket:  # fmt: skip
            self.connected, self.error = True, ""
            self.connections += 1
            self._telemetry.info("exchange_connected", f"connected to {self.url}", symbols=len(self._symbols))
            tasks = {
                asyncio.ensure_future(self._receive(socket)),
                asyncio.ensure_future(self._subscribe(socket, backoff)),
                asyncio.ensure_future(self._watch()),
            }
            try:
                done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    task.result()
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)
        self.connected = False
        self.acknowledged.clear()

    async def _receive(self, socket: ClientConnection) -> None:
        frames, arrived, now_ns, monotonic_ns = self.frames, self.arrived, time.time_ns, time.monotonic_ns
        until_yield = YIELD_EVERY_FRAMES
        while True:
            frame = await socket.recv(decode=False)
            frames.add((frame, now_ns()), monotonic_ns())
            arrived.set()
            until_yield -= 1
            if not until_yield:
                until_yield = YIELD_EVERY_FRAMES
                await asyncio.sleep(0)  # a full socket never waits, and others must run
                while frames.rows >= MAX_PENDING_FRAMES:
                    self._drained.clear()
                    await self._drained.wait()

    async def _subscribe(self, socket: ClientConnection, backoff: Backoff) -> None:
        """Bring the open streams in line with the wanted symbols; returns when none is wanted."""
        open_symbols: set[str] = set()
        while self._symbols or open_symbols:
            self._changed.clear()
            self.refused.clear()
            wanted = set(self._symbols)  # it may change while requests are answered
            for symbols, make in (
                (sorted(open_symbols - wanted), unsubscribe_message),
                (sorted(wanted - open_symbols), subscribe_message),
            ):
                for first in range(0, len(symbols), STREAMS_PER_MESSAGE):
                    await self._request(socket, symbols[first : first + STREAMS_PER_MESSAGE], make)
            open_symbols = wanted - set(self.refused)
            backoff.reset()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(REFUSED_RETRY_S if self.refused else None):
                    await self._changed.wait()

    async def _request(
        self, socket: ClientConnection, symbols: list[str], make: Callable[[list[str], int], str]
    ) -> None:
        self._next_id += 1
        number = self._next_id
        reply: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._replies[number] = reply
        await socket.send(make([stream_name(symbol, self._event) for symbol in symbols], number))
        pause = asyncio.ensure_future(asyncio.sleep(CONTROL_INTERVAL_S))
        async with asyncio.timeout(self._connect_timeout_s):
            refusal = await reply
        if make is unsubscribe_message:
            self.acknowledged.difference_update(symbols)
        elif refusal:
            self.refused.update(dict.fromkeys(symbols, f"the exchange refuses the stream: {refusal}"))
        else:
            self.acknowledged.update(symbols)
        await pause

    def answered(self, reply: ControlReply) -> None:
        """A reply to a control message, found among the frames."""
        future = self._replies.pop(reply.id, None) if reply.id is not None else None
        if reply.kind == "shutdown":
            self._telemetry.warning("exchange_shutdown", "the exchange will close the connection soon")
        if reply.error:
            self._telemetry.error("exchange_refused", f"the exchange refused a request: {reply.error}")
        if future is not None and not future.done():
            future.set_result(reply.error)

    async def _watch(self) -> None:
        """Break the connection when no frame came for `stale_s` although the exchange has traded.

        A connection that is dead altogether is found by the library's pings; a quiet market is no fault.
        """
        seen, quiet_since = self._telemetry.totals.get("frames", 0), time.monotonic()
        while True:
            await asyncio.sleep(min(1.0, self._stale_s / 4))
            frames = self._telemetry.totals.get("frames", 0) + self.frames.rows
            if frames != seen or not self.acknowledged:
                seen, quiet_since = frames, time.monotonic()
            elif time.monotonic() - quiet_since > self._stale_s:
                if await self._is_behind(sorted(self.acknowledged)):
                    raise TimeoutError(f"no frame for {self._stale_s:g} s although the exchange has traded")
                quiet_since = time.monotonic()


def explain(error: Exception, url: str) -> str:
    """What a failed connection means, in words."""
    if isinstance(error, InvalidStatus):
        status = error.response.status_code
        if status in BLOCKED:
            return f"{url} answers {status}: this region is blocked; try wss://data-stream.binance.vision"
        return f"{url} answers {status}"
    if isinstance(error, InvalidHandshake):
        return f"{url} did not open a WebSocket: {error}"
    if isinstance(error, TimeoutError):
        return f"{url}: {error or 'timed out'}"
    return f"{url}: {error or type(error).__name__}"
