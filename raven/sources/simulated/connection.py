"""One client's WebSocket: its subscriptions, its control messages, its pings, and what it is sent."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections import deque
from collections.abc import Callable, Iterable
from itertools import takewhile
from typing import Final

from aiohttp import WSCloseCode, WSMsgType, web
from aiohttp.abc import AbstractStreamWriter

from raven.clock import now_us
from raven.sources.simulated.control import ControlError, Request, parse, result
from raven.sources.simulated.damage import Damage
from raven.sources.simulated.frames import FIN_PONG, FIN_TEXT, BlockFrames, Style, Wanted, one_frame
from raven.sources.simulated.venue import Venue

_LOG: Final = logging.getLogger("raven.simulated")

_HIGH_WATER_BYTES: Final = 1 << 20
_CUT_OFF_BYTES: Final = 64 << 20
_LINGER_S: Final = 1.0


class Connection:
    """A client of the exchange.

    `name` is what logs call it. `streams` are the names it can get trades of, each with kind and symbol; others are
    acknowledged and stay silent.
    `on_change` is called whenever its subscriptions change.
    """

    def __init__(
        self,
        name: str,
        venue: Venue,
        streams: dict[str, tuple[str, str]],
        style: Style,
        *,
        ping_interval_s: float,
        on_change: Callable[[], None],
    ) -> None:
        self.name = name
        # no permessage-deflate: its clients are simply not granted it
        self._socket = web.WebSocketResponse(compress=False, autoping=False, timeout=1.0)
        self._writer: AbstractStreamWriter | None = None
        self._transport: asyncio.WriteTransport | None = None
        self._venue = venue
        self._streams = streams
        self._style = style
        self._ping_interval_s = ping_interval_s
        self._on_change = on_change
        self._subscribed: dict[str, None] = {}
        self._wanted: Wanted | None = None
        self._damages: list[tuple[Damage, asyncio.Future[bool]]] = []
        self._flowing = asyncio.Event()
        self._flowing.set()
        self._queued: list[memoryview | bytes] = []
        self._message_times: deque[float] = deque(maxlen=venue.max_messages_per_s)
        self._last_pong_s = time.monotonic()

    @property
    def is_reader(self) -> bool:
        """Whether it is subscribed to a stream that is played."""
        is_open = self._transport is not None and not self._transport.is_closing() and not self._socket.closed
        return is_open and self._wanted is not None

    def reads(self, symbol: str) -> bool:
        """Whether it is subscribed to a stream of `symbol`; if that is empty, to any."""
        kinds = () if self._wanted is None else self._wanted.symbols
        return any(not symbol or symbol in symbols for _, symbols in kinds)

    async def serve(self, request: web.Request, streams: Iterable[str]) -> web.WebSocketResponse:
        """Upgrade the request, subscribe to `streams`, and answer until either side closes."""
        self._writer = await self._socket.prepare(request)
        transport = request.transport
        if not isinstance(transport, asyncio.WriteTransport):
            return self._socket
        transport.set_write_buffer_limits(high=_HIGH_WATER_BYTES)
        self._transport = transport
        self._subscribe(streams)
        pinger = asyncio.create_task(self._ping())
        try:
            await self._listen()
        except ConnectionError:
            _LOG.info("a client left without closing")
        finally:
            pinger.cancel()
            # after either side closed, a client that reads no more must not hold up the play
            asyncio.get_running_loop().call_later(_LINGER_S, _abort, request)
            self._wanted = None
            for _, struck in self._damages:
                struck.cancel()
            self._on_change()
        return self._socket

    def deliver(self, frames: BlockFrames, start: int, stop: int) -> None:
        """Send what it wants of the rows start <= row < stop: the one place every market-data frame passes.

        Frames are written to the transport at once and whole, so that what aiohttp writes itself (pings, closing)
        falls between two frames.
        """
        if self._wanted is None or not self.is_reader:
            return
        wire = frames.wire(self._wanted, self._style)
        self._write(self._damaged(wire.frames(start, stop)) if self._damages else wire.between(start, stop))

    async def drained(self) -> None:
        """Wait until the client has read enough for more to be sent."""
        if self._writer is not None and self.is_reader:
            try:
                await self._flowing.wait()
                await self._writer.drain()
            except ConnectionError:
                _LOG.info("a client left while it was sent trades")

    def cut_off_if_slow(self) -> None:
        """End a connection whose client does not read, as the exchange does."""
        unread = sum(map(len, self._queued))
        if self._transport is None or self._transport.get_write_buffer_size() + unread < _CUT_OFF_BYTES:
            return
        _LOG.warning("a client was cut off: it left %d MiB unread", _CUT_OFF_BYTES >> 20)
        self._transport.abort()

    async def close(self, code: WSCloseCode, reason: str) -> None:
        """Close from the exchange's side, without waiting for the client to read what was sent before."""
        await self._socket.close(code=code, message=reason.encode(), drain=False)

    def abort(self) -> None:
        """Break off, as a network does."""
        if self._transport is not None:
            self._transport.abort()

    async def damage(self, damage: Damage) -> bool:
        """Let `damage` change the next frames; False when the connection ended before it struck."""
        struck = asyncio.get_running_loop().create_future()
        self._damages.append((damage, struck))
        await asyncio.wait([struck])
        return not struck.cancelled()

    async def stall(self, seconds: float, *, is_cut: bool) -> None:
        """Send nothing at all, neither frames nor pings nor answers; then what was queued meanwhile, or break off."""
        self._flowing.clear()
        await asyncio.sleep(seconds)
        self._flowing.set()
        self._last_pong_s = time.monotonic()
        if is_cut:
            self.abort()
        queued, self._queued = self._queued, []
        for data in queued:
            self._write(data)

    async def announce_shutdown(self, seconds: float) -> None:
        """Tell the client that the connection will close, and close it so much later."""
        event = {"e": "serverShutdown", "E": now_us() // 1_000}
        message = {"stream": "!serverShutdown", "data": event} if self._style.combined else event
        self._send(json.dumps(message, separators=(",", ":")))
        await asyncio.sleep(seconds)
        await self.close(WSCloseCode.GOING_AWAY, "server shutdown")

    def release(self) -> None:
        """Send what damage held back: nothing more is played."""
        for damage, _ in self._damages:
            self._write(b"".join(damage.held()))

    def _send(self, text: str) -> None:
        self._write(one_frame(FIN_TEXT, text.encode()))

    def _write(self, data: memoryview | bytes) -> None:
        if not data or self._transport is None or self._transport.is_closing():
            return
        if self._flowing.is_set():
            self._transport.write(data)
        else:
            self._queued.append(data)

    def _damaged(self, frames: list[bytes]) -> bytes:
        together = list(takewhile(lambda entry: not entry[0].is_lie, self._damages)) or self._damages[:1]
        for damage, struck in together:
            frames = damage.apply(frames)
            if damage.has_struck and not struck.done():
                struck.set_result(True)
        self._damages = [entry for entry in self._damages if not entry[0].is_over]
        return b"".join(frames)

    async def _listen(self) -> None:
        while True:
            message = await self._socket.receive()
            if message.type not in (WSMsgType.TEXT, WSMsgType.BINARY, WSMsgType.PING, WSMsgType.PONG):
                return
            if self._is_too_fast():
                await self.close(WSCloseCode.POLICY_VIOLATION, "Too many requests")
                return
            if message.type is WSMsgType.PONG:
                self._last_pong_s = time.monotonic()
            elif message.type is WSMsgType.PING:
                self._write(one_frame(FIN_PONG, message.data))
            elif message.type is WSMsgType.TEXT:
                self._answer(message.data)
            else:
                self._send(ControlError(3, "Invalid JSON: expected text").reply())

    def _is_too_fast(self) -> bool:
        now = time.monotonic()
        is_full = len(self._message_times) == self._venue.max_messages_per_s
        is_too_fast = is_full and now - self._message_times[0] < 1.0
        self._message_times.append(now)
        return is_too_fast

    def _answer(self, text: str) -> None:
        try:
            request = parse(text)
            self._check_room(request)
        except ControlError as error:
            self._send(error.reply())
            return
        if request.method == "UNSUBSCRIBE":  # before the answer, so that nothing comes after it
            self._unsubscribe(request.params)
        self._send(result(self._value(request), request.id))
        if request.method == "SUBSCRIBE":  # after the answer, so that nothing comes before it
            self._subscribe(request.params)

    def _check_room(self, request: Request) -> None:
        if request.method == "SUBSCRIBE":
            count = len(self._subscribed.keys() | set(request.params))
            if count > self._venue.max_streams:
                raise ControlError(4, "Too many subscriptions", request.id)

    def _value(self, request: Request) -> object:
        if request.method == "LIST_SUBSCRIPTIONS":
            return list(self._subscribed)
        if request.method == "GET_PROPERTY":
            return self._style.combined
        if request.method == "SET_PROPERTY":
            self._style = Style(combined=request.params[1], micros=self._style.micros)
        return None

    def _subscribe(self, streams: Iterable[str]) -> None:
        self._subscribed.update(dict.fromkeys(streams))
        self._changed()

    def _unsubscribe(self, streams: Iterable[str]) -> None:
        for stream in streams:
            self._subscribed.pop(stream, None)
        self._changed()

    def _changed(self) -> None:
        by_kind: dict[str, set[str]] = {}
        for kind, symbol in (self._streams[name] for name in self._subscribed if name in self._streams):
            by_kind.setdefault(kind, set()).add(symbol)
        kinds = sorted(by_kind.items())
        self._wanted = Wanted(tuple((kind, frozenset(symbols)) for kind, symbols in kinds)) if kinds else None
        self._on_change()

    async def _ping(self) -> None:
        """Ping at the venue's interval; a client that leaves pings unanswered is closed."""
        while not self._socket.closed:
            await asyncio.sleep(self._ping_interval_s)
            await self._flowing.wait()
            if time.monotonic() - self._last_pong_s > self._ping_interval_s + self._venue.pong_timeout_s:
                await self.close(WSCloseCode.POLICY_VIOLATION, "Pong timeout")
                return
            try:
                await self._socket.ping(str(now_us() // 1_000).encode())
            except ConnectionError:
                return


def _abort(request: web.Request) -> None:
    transport = request.transport  # None once the connection is gone
    if isinstance(transport, asyncio.WriteTransport):
        transport.abort()
