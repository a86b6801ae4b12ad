"""Following an upstream: ask it for the symbols wanted here, subscribe, hand each batch on, reconnect for ever.

Where to begin is the consumer's position. A symbol that joins later may have begun before that position; then the
follower goes back to where the symbol's session began and reads on from there. What was taken already is dropped
by its ids, so going back costs time and never counts twice.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterable, Sequence
from typing import Protocol, TypeVar

import pyarrow as pa

from raven.batches.batch import BatchMeta, Cursor
from raven.batches.ipc import decode
from raven.clock import Backoff, now_us
from raven.errors import UpstreamError
from raven.rpc.client import Begin, Client, UnknownJournalError
from raven.rpc.cursors import from_message
from raven.rpc.pb import control_pb2
from raven.telemetry import Telemetry

T = TypeVar("T")
GRANTED = (
    control_pb2.SYMBOL_STATE_STREAMING,
    control_pb2.SYMBOL_STATE_WAITING,
    control_pb2.SYMBOL_STATE_CONNECTING,
)


class Consumer(Protocol):
    """Who takes the batches of a follower, and of them the rows of the symbols it was told to want.

    `problem` says why what was taken cannot be dealt with now; empty when it can.
    """

    problem: str

    def want(self, upstream: str, symbols: Sequence[str]) -> None:
        """Take rows of these symbols: the position covers them."""

    async def leave(self, upstream: str, symbols: Sequence[str]) -> None:
        """Take no more rows of these symbols."""

    def position(self, upstream: str) -> Cursor | None:
        """What has been taken so far; None: nothing yet."""

    async def take(self, upstream: str, batch: pa.RecordBatch, meta: BatchMeta) -> None:
        """Take one batch. Its cursor becomes the position."""

    async def rewind(self, upstream: str, position: Cursor, symbols: Sequence[str]) -> None:
        """`symbols` join: take their rows from `position` on, going back to it where it lies before the present one."""


class Follower:
    """Follows the service `name` at `target` for the consumer called `consumer_name`."""

    def __init__(self, name: str, target: str, *, consumer_name: str, consumer: Consumer, telemetry: Telemetry) -> None:
        self.name = name
        self.target = target
        self.connected = False
        self.error = ""
        self.lag_us = 0
        self._consumer_name = consumer_name
        self.consumer = consumer
        self._telemetry = telemetry
        self._client = Client(target)
        self._wanted: set[str] = set()
        self._granted: set[str] = set()
        self._joining: set[str] = set()
        self._leaving: set[str] = set()
        self._session_starts: dict[str, Cursor] = {}
        self.refused: dict[str, str] = {}
        self._changed = asyncio.Event()

    async def add(self, symbols: Sequence[str], *, joining: bool) -> list[control_pb2.SymbolResult]:
        """Want `symbols`; `joining`: the position does not cover them yet. Refused ones are not kept."""
        self._wanted.update(symbols)
        self._leaving.difference_update(symbols)
        if joining:
            self._joining.update(symbols)  # their rows are taken from where they begin, not before
        else:
            self.consumer.want(self.name, symbols)
        try:
            results = await self._request(symbols)
        except UpstreamError as error:
            self.error = str(error)
            results = [
                control_pb2.SymbolResult(
                    symbol=symbol,
                    state=control_pb2.SYMBOL_STATE_CONNECTING,
                    message=f"waiting for {self.name} at {self.target}",
                )
                for symbol in symbols
            ]
        if joining:
            self._forget_refused(symbols)
        self._changed.set()
        return results

    def _forget_refused(self, symbols: Sequence[str]) -> None:
        """A symbol that was refused when it was first asked for is not wanted here."""
        refused = {symbol for symbol in symbols if symbol in self.refused}
        self._wanted -= refused
        self._joining -= refused
        for symbol in refused:
            del self.refused[symbol]

    async def remove(self, symbols: Iterable[str]) -> None:
        """Want `symbols` no more; the upstream is told now, or when it can be reached again."""
        leaving = self._wanted & set(symbols)
        self._wanted -= leaving
        self._granted -= leaving
        self._joining -= leaving
        self._leaving |= leaving
        for symbol in leaving:
            self.refused.pop(symbol, None)
        with contextlib.suppress(UpstreamError):  # told again on the next connection
            await self._release()

    async def acknowledge(self, cursor: Cursor) -> None:
        """Let the upstream forget what lies up to `cursor`; a lost acknowledgement is made good by the next."""
        with contextlib.suppress(UpstreamError):
            await self._client.acknowledge(self._consumer_name, cursor)

    async def close(self) -> None:
        """Close the channel."""
        await self._client.close()

    async def run(self) -> None:
        """Follow until cancelled."""
        backoff = Backoff()
        begin_earliest = False
        while True:
            await self._until_wanted()
            try:
                await self._release()
                if not self._wanted:
                    continue
                await self._request(sorted(self._wanted - self._granted))
                await self._rewind_for_joining()
                position = None if begin_earliest else self.consumer.position(self.name)
                begin: Begin = "earliest" if position is None else position
                begin_earliest = False
                await self._read(begin, backoff)
            except UnknownJournalError as error:
                self._telemetry.warning("journal_changed", f"{error}; going on by trade ids from its beginning")
                begin_earliest = True
            except UpstreamError as error:
                await self._lost(error, backoff)

    async def _lost(self, error: UpstreamError, backoff: Backoff) -> None:
        self._telemetry.warning("upstream_lost", str(error), upstream=self.name)
        if self.connected or not self.error:
            self._telemetry.add("reconnects", peer=self.name)
        self.connected = False
        self.error = str(error)
        self._granted.clear()
        await asyncio.sleep(backoff.next_s())

    async def _until_wanted(self) -> None:
        while not self._wanted and not self._leaving:
            self.connected = False
            await self._changed.wait()
            self._changed.clear()

    async def _read(self, begin: Begin, backoff: Backoff) -> None:
        """Take batches until the wanted symbols change or the connection is lost."""
        stream = self._client.subscribe(begin, consumer=self._consumer_name)
        async with contextlib.aclosing(stream):
            async for cursor, payload in _until(stream, self._changed):
                if not self.connected:
                    self.connected, self.error = True, ""
                    backoff.reset()
                    self._telemetry.info("upstream_connected", f"following {self.name} at {self.target}", after=cursor)
                if payload is None:
                    self.lag_us = 0
                    self._telemetry.set("lag_us", 0, upstream=self.name)
                    continue
                batch, meta = decode(payload)
                self.lag_us = max(0, now_us() - meta.appended_us)
                self._telemetry.set("lag_us", self.lag_us, upstream=self.name)
                self._telemetry.add("bytes", len(payload), upstream=self.name)
                await self.consumer.take(self.name, batch, meta)
        self._changed.clear()

    async def _request(self, symbols: Sequence[str]) -> list[control_pb2.SymbolResult]:
        if not symbols:
            return []
        results = await self._client.start(symbols, requester=self._consumer_name)
        for result in results:
            if result.state in GRANTED:
                self._granted.add(result.symbol)
                self._session_starts[result.symbol] = from_message(result.session_start)
                self.refused.pop(result.symbol, None)
            elif self.refused.get(result.symbol) != result.message:
                self.refused[result.symbol] = result.message
                self._telemetry.error("symbol_refused", f"{self.name} refuses {result.symbol}: {result.message}")
        return results

    async def _release(self) -> None:
        leaving = sorted(self._leaving)
        if leaving:
            await self._client.stop(leaving, requester=self._consumer_name)
            self._leaving.difference_update(leaving)  # more may have left meanwhile

    async def _rewind_for_joining(self) -> None:
        joined = sorted(self._joining & self._granted)
        if joined:
            first = min((self._session_starts[symbol] for symbol in joined), key=lambda cursor: cursor.sequence)
            await self.consumer.rewind(self.name, first, joined)
            self._joining.difference_update(joined)


async def _until(stream: AsyncIterator[T], stop: asyncio.Event) -> AsyncIterator[T]:
    """Items of `stream` until `stop` is set; an item that has been read is always handed on."""
    stopped = asyncio.ensure_future(stop.wait())
    try:
        while True:
            read = asyncio.ensure_future(anext(stream))
            try:
                await asyncio.wait({read, stopped}, return_when=asyncio.FIRST_COMPLETED)
                if not read.done():
                    return
                try:
                    item = read.result()
                except StopAsyncIteration:
                    return
            finally:
                if not read.done():
                    read.cancel()
                    with contextlib.suppress(asyncio.CancelledError):
                        await read
            yield item
            if stopped.done():
                return
    finally:
        stopped.cancel()
