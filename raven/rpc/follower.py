"""Following an upstream: ask it for what is wanted here, subscribe, hand each batch on, reconnect for ever.

What is wanted no more is taken up to where its session ended at the upstream, and only then left: `stop` loses nothing
that was there when it was said.

Where to begin is the consumer's position. A symbol that joins later may have begun before that position; then the
follower goes back to where the symbol's session began and reads on from there. What was taken already is dropped
by its ids, so going back costs time and never counts twice.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Final

from raven.batches.batch import Cursor
from raven.batches.instrument import Instrument, by_venue
from raven.batches.ipc import decode
from raven.clock import Backoff, monotonic_ns, now_us
from raven.errors import AccessError, InputError, UpstreamError
from raven.rpc.access import Access
from raven.rpc.client import Begin, Client, UnknownJournalError
from raven.rpc.consumer import Consumer
from raven.rpc.cursors import from_message
from raven.rpc.limits import MAX_SYMBOLS_PER_REQUEST
from raven.rpc.pb import control_pb2, market_data_pb2
from raven.rpc.streams import until
from raven.rpc.wishes import NOWHERE, Wishes
from raven.telemetry import Telemetry

LEAVE_S: Final = 8.0
"""How long a stop waits for what lies before it; an answer that came sooner would end downstream too early."""

FREE_AFTER_S: Final = 15.0
START_S: Final = 30.0
"""How long services that are started together may take until each answers the others."""
GRANTED = (
    control_pb2.SYMBOL_STATE_STREAMING,
    control_pb2.SYMBOL_STATE_WAITING,
    control_pb2.SYMBOL_STATE_CONNECTING,
    control_pb2.SYMBOL_STATE_NOT_TRADING,
)


class Follower:
    """Follows the service `name` at `target` for `consumer`.

    - `venue`: the only one the upstream serves; empty when it serves several.
    - `requester`: in whose name symbols are asked for. `consumer_name`: in whose name the upstream keeps batches until
      they are acknowledged; followers of one service share the former and have each their own of the latter.
    - `key`: tells followers of one upstream apart within their service; by default its name.
    - `freeing`: held while holds and wishes are freed there; followers of one upstream and requester share it.
    """

    def __init__(
        self,
        name: str,
        target: str,
        access: Access,
        *,
        venue: str = "",
        requester: str,
        consumer_name: str = "",
        key: str = "",
        consumer: Consumer,
        telemetry: Telemetry,
        freeing: asyncio.Lock | None = None,
    ) -> None:
        self.name = name
        self.key = key or name
        self.target = target
        self.venue = venue
        self.connected = False
        self.error = ""
        self.lag_us = 0
        self.backlog = market_data_pb2.AcknowledgeResponse()
        self._requester = requester
        self._consumer_name = consumer_name or requester
        self.consumer = consumer
        self._telemetry = telemetry
        self._client = Client(target, access)
        self._wishes = Wishes()
        self._left = asyncio.Event()
        self._may_hold = True  # the upstream may keep batches, or collect symbols, for this consumer
        self._freeing = freeing or asyncio.Lock()
        self._changed = asyncio.Event()
        self._starting_until_ns = monotonic_ns() + int(START_S * 1e9)

    @property
    def is_starting(self) -> bool:
        """Whether the upstream has never been reached, in the time in which it may be starting, too."""
        return monotonic_ns() < self._starting_until_ns

    @property
    def is_wanted(self) -> bool:
        """Whether anything is wanted of the upstream."""
        return bool(self._wishes.wanted)

    @property
    def is_needed(self) -> bool:
        """Whether anything is wanted of the upstream, or still to be taken."""
        return bool(self._wishes)

    @property
    def refused(self) -> dict[Instrument, str]:
        """What is wanted and the upstream refuses, and why."""
        return self._wishes.refusals

    async def add(self, instruments: Sequence[Instrument], *, joining: bool) -> list[control_pb2.SymbolResult]:
        """Want `instruments`; `joining`: the position does not cover them yet. Refused ones are not kept."""
        self._wishes.want(instruments, joining=joining)
        if not joining:
            self.consumer.want(self.name, instruments)
        try:
            results = await self._request(instruments, is_new=joining)
        except UpstreamError as error:
            self._failed(error)
            refused = isinstance(error, AccessError)
            results = [
                control_pb2.SymbolResult(
                    venue=instrument.venue,
                    symbol=instrument.symbol,
                    state=control_pb2.SYMBOL_STATE_CONNECTING,
                    message=self.error if refused else f"waiting for {self.name} at {self.target}",
                )
                for instrument in instruments
            ]
        if joining:
            self._wishes.drop_refused(instruments)
        self._changed.set()
        return results

    async def remove(self, instruments: Iterable[Instrument]) -> None:
        """Want `instruments` no more; returns when their last rows were taken, or after `LEAVE_S`.

        An upstream that cannot be reached is told when it can be again; what was there is taken then.
        """
        leaving = self._wishes.leave(instruments)
        try:
            await self._release()
        except UpstreamError:
            self._changed.set()
            return
        await self._leave_ended()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LEAVE_S if self.consumer.ready.is_set() else 0):
                while leaving & set(self._wishes.ending):
                    self._left.clear()
                    await self._left.wait()

    def resume_joining(self, instruments: Iterable[Instrument]) -> None:
        """They are to be added joining, and were stopped before without having joined: they begin where they did then.

        After a restart it is not known where that was, only that it was not before the journal.
        """
        self._wishes.resume_joining(instruments)

    def resume_leaving(self, instruments: Sequence[Instrument], *, joining: Sequence[Instrument]) -> None:
        """They were stopped before a restart; `joining`: those that the position did not cover yet."""
        self.consumer.want(self.name, [one for one in instruments if one not in joining])
        self._wishes.resume_leaving(instruments, joining=joining)
        self._changed.set()

    async def acknowledge(self, cursor: Cursor | None) -> None:
        """Let the upstream forget what lies up to `cursor`; a lost acknowledgement is made good by the next.

        None acknowledges nothing: the upstream keeps what it has. `backlog` is how far behind the upstream says we are.
        """
        if not self.is_needed and self.consumer.is_durable(self.name):
            return  # its hold is free; an acknowledgement would take it up again
        with contextlib.suppress(UpstreamError):
            self.backlog = await self._client.acknowledge(self._consumer_name, cursor)

    async def close(self) -> None:
        """Close the channel."""
        await self._client.close()

    async def run(self) -> None:
        """Follow until cancelled."""
        await self.consumer.ready.wait()
        backoff = Backoff()
        begin_earliest = False
        while True:
            await self._until_wanted()
            try:
                await self._release()
                await self._leave_ended()
                if not self._wishes.wanted and not self._wishes.ending:
                    continue
                await self._request(self._wishes.not_granted)
                await self._rewind_for_joining()
                position = None if begin_earliest else self.consumer.position(self.name)
                begin: Begin = "earliest" if position is None else position
                begin_earliest = False
                await self._read(begin, backoff)
            except UnknownJournalError as error:
                self._telemetry.warning("journal_changed", f"{error}; going on by trade ids from its beginning")
                begin_earliest = True
                self._wishes.journal_changed()
            except UpstreamError as error:
                await self._lost(error, backoff)

    async def _lost(self, error: UpstreamError, backoff: Backoff) -> None:
        self._telemetry.warning("upstream_lost", str(error), upstream=self.name)
        if self.connected or not self.error:
            self._telemetry.add("reconnects", peer=self.name)
        self.connected = False
        self._failed(error)
        self._wishes.ask_again()
        await asyncio.sleep(backoff.next_s())

    def _failed(self, error: UpstreamError) -> None:
        self.error = str(error)
        if isinstance(error, AccessError):
            self._starting_until_ns = 0  # it is there

    async def _until_wanted(self) -> None:
        while not self.is_needed:
            self.connected = False
            try:
                async with asyncio.timeout(FREE_AFTER_S if self._may_hold else None):
                    await self._changed.wait()
            except TimeoutError:
                if self.consumer.is_durable(self.name):
                    await self._free_hold()
            self._changed.clear()

    async def _free_hold(self) -> None:
        """Nothing is wanted, and all is durable: the upstream need keep and collect nothing for this consumer."""
        with contextlib.suppress(UpstreamError):
            async with self._freeing:
                for name in {self._consumer_name, self._requester}:
                    if self.is_needed:
                        return
                    await self._client.forget(name)
                self._may_hold = False

    async def _read(self, begin: Begin, backoff: Backoff) -> None:
        """Take batches until the wanted symbols change or the connection is lost."""
        stream = self._client.subscribe(begin, consumer=self._consumer_name)
        self._may_hold = True
        async with contextlib.aclosing(stream):
            async for cursor, payload in until(stream, self._changed):
                if not self.connected:
                    self.connected, self.error, self._starting_until_ns = True, "", 0
                    backoff.reset()
                    self._telemetry.info("upstream_connected", f"following {self.name} at {self.target}", after=cursor)
                if payload is None:
                    self.lag_us = 0
                    self._telemetry.set("lag_us", 0, upstream=self.name)
                    continue
                try:
                    batch, meta = decode(payload)
                except InputError as error:
                    await self.consumer.set_aside(self.name, cursor, payload, error.message)
                    continue
                self.lag_us = max(0, now_us() - meta.appended_us)
                self._telemetry.set("lag_us", self.lag_us, upstream=self.name)
                self._telemetry.add("bytes", len(payload), upstream=self.name)
                await self.consumer.take(self.name, batch, meta)
                if self._wishes.ending:
                    await self._leave_ended()
        self._changed.clear()

    async def _request(
        self, instruments: Sequence[Instrument], *, is_new: bool = False
    ) -> list[control_pb2.SymbolResult]:
        """Ask the upstream for these; what is refused when it is new is told to whoever asked, and not logged."""
        async with self._freeing:
            pass  # a session that began before what is under way arrives there would be ended by it
        results = []
        for venue, symbols in _requests(instruments):
            results += await self._client.start(symbols, venue=venue, requester=self._requester)
        for result in results:
            instrument = Instrument(result.venue, result.symbol)
            if result.state in GRANTED:
                self._wishes.grant(instrument, from_message(result.session_start))
            elif self._wishes.refuse(instrument, result.message) and not is_new:
                self._telemetry.error("symbol_refused", f"{self.name} refuses {instrument}: {result.message}")
        return results

    async def _release(self) -> None:
        """Tell the upstream what is wanted no more; it answers up to where that is to be taken."""
        leaving = self._wishes.leaving
        ends = dict.fromkeys(leaving, NOWHERE)
        for venue, symbols in _requests(leaving):
            for result in await self._client.stop(symbols, venue=venue, requester=self._requester):
                ends[Instrument(result.venue, result.symbol)] = from_message(result.session_end)
        self._wishes.told(ends)

    async def _leave_ended(self) -> None:
        """Leave what was taken up to its end, and what never joined."""
        if not self.consumer.ready.is_set():
            return
        ended = self._wishes.take_over(self.consumer.position(self.name))
        if ended:
            await self.consumer.leave(self.name, ended)
            self._left.set()
            if not self.is_needed:
                self._changed.set()  # there is nothing to follow any more

    async def _rewind_for_joining(self) -> None:
        joined = self._wishes.rewind()
        if joined is not None:
            instruments, first, is_all = joined
            await self.consumer.rewind(self.name, first, instruments, forward=is_all)


def _requests(instruments: Iterable[Instrument]) -> Iterator[tuple[str, list[str]]]:
    """The symbols of each venue, as many at once as a request may have."""
    for venue, symbols in by_venue(instruments).items():
        for first in range(0, len(symbols), MAX_SYMBOLS_PER_REQUEST):
            yield venue, symbols[first : first + MAX_SYMBOLS_PER_REQUEST]
