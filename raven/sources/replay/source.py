"""A recording in the place of a venue's source: its batches are journaled and published as if they came just now.

It begins when the first symbol is wanted, and rests while none is. A session begins before the first batch (see
`Hub.session_start`), so whoever asks later gets everything, too. The own journal says how far it came: each batch
names its place in the recording as its `input`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Final

import polars as pl

from raven.batches.batch import BatchMeta, Cursor
from raven.batches.instrument import Instrument
from raven.batches.schema import TRADE_DTYPES, to_frame, to_record_batch
from raven.clock import monotonic_ns, now_us
from raven.rpc.hub import Hub
from raven.rpc.limits import MOST_SUGGESTED
from raven.rpc.pb import control_pb2
from raven.rpc.subscriptions import SubscriptionTable
from raven.sources.replay.recording import SHOWN, Recorded, Recording, not_recorded
from raven.telemetry import Telemetry

UPSTREAM: Final = "recording"
READ_AHEAD: Final = 32
POLL_S: Final = 0.2
OVER: Final = "replayed to the end"
LONGEST_WINDOW_US: Final = 366 * 86_400_000_000

Report = Callable[[int, int], None]
"""Hears of each batch: its rows, and when it was recorded (UTC, microseconds)."""


class Pace:
    """When what was recorded at some time is due: `speed` times as fast as it was recorded; None: at once."""

    def __init__(self, speed: float | None) -> None:
        self._speed = speed
        self._began: tuple[int, int] | None = None

    def rest(self) -> None:
        """Time that passes until the next batch does not count."""
        self._began = None

    def wait_s(self, due_us: int, now_ns: int) -> float:
        """How long to wait for what was recorded at `due_us`; the first batch is due at once."""
        if self._speed is None:
            return 0.0
        if self._began is None:
            self._began = due_us, now_ns
        first_us, began_ns = self._began
        return max(0.0, (due_us - first_us) / self._speed / 1e6 - (now_ns - began_ns) / 1e9)


class ReplaySource:
    """Publishes `recording` through `hub`, once; see Source.

    `once`: `run` returns when it is over and every consumer has acknowledged all of it. Raises InputError when the
    journal of `hub` is at no place of the recording.
    """

    def __init__(
        self, recording: Recording, hub: Hub, *, speed: float | None, once: bool, telemetry: Telemetry, report: Report
    ) -> None:
        self.venue = recording.venue
        self.facts = SubscriptionTable()
        self.on_symbols: Callable[[], Awaitable[None]] | None = None
        self.is_over = False
        self._recording = recording
        self._hub = hub
        self._pace = Pace(speed)
        self._once = once
        self._telemetry = telemetry
        self._report = report
        self._wanted: set[str] = set()
        self._is_wanted = asyncio.Event()

    async def check(self, symbols: Sequence[str]) -> Mapping[str, str]:
        """Symbols that the recording has no rows of."""
        known = self._recording.symbols
        unknown = [symbol for symbol in symbols if symbol not in known]
        return {
            symbol: not_recorded(symbol, known if place < MOST_SUGGESTED else known[:SHOWN])
            for place, symbol in enumerate(unknown)
        }

    async def matching(self, pattern: str) -> Sequence[str]:
        """The recorded symbols that match."""
        one = Instrument(self.venue, pattern)
        return [symbol for symbol in self._recording.symbols if one.matches(symbol)]

    def want(self, symbols: Mapping[str, int | None]) -> None:
        """Let it begin, or go on."""
        self._wanted.update(symbols)
        if self._wanted:
            self._is_wanted.set()
        if self.is_over:
            self._tell_over()

    async def leave(self, symbols: Sequence[str]) -> None:
        """Let it rest when nothing is wanted any more."""
        self._wanted.difference_update(symbols)
        if not self._wanted:
            self._is_wanted.clear()

    def last_id(self, symbol: str) -> int | None:  # noqa: ARG002
        """None: every session begins before the first trade."""
        return None

    @property
    def acknowledged(self) -> set[str]:
        """The symbols whose rows are being replayed."""
        return self._wanted

    def links(self) -> list[control_pb2.Link]:
        """The recording."""
        return [control_pb2.Link(name=UPSTREAM, target=self._recording.name, connected=True, needed=True)]

    def problems(self) -> list[str]:
        """None: what is wrong with a recording ends the service."""
        return []

    async def run(self) -> None:
        """Publish from where the journal ends; raises InputError or JournalError when it cannot be gone on with."""
        self._tell_left_out()
        batches = self._recording.batches(await asyncio.to_thread(self._place), self._hub.journal.tail_ids())
        await self._rest()
        while ahead := await asyncio.to_thread(_take, batches):
            await self._until_consumers_follow()
            for recorded in ahead:
                if not self._is_wanted.is_set():
                    await self._rest()
                if wait_s := self._pace.wait_s(recorded.due_us, monotonic_ns()):
                    await asyncio.sleep(wait_s)
                await self._publish(recorded)
        await self._close_windows()
        self.is_over = True
        self._tell_over()
        self._telemetry.info("replayed", f"{self._recording.name}: {OVER}", rows=self._telemetry.totals.get("rows", 0))
        if self._once:
            await self._until_acknowledged()
        else:
            await asyncio.Event().wait()

    def _tell_left_out(self) -> None:
        left_out = self._recording.left_out
        if left_out.repeats:
            self._telemetry.add("duplicate_rows", left_out.repeats)
        for sentence in left_out.sentences():
            self._telemetry.warning("left_out", f"{self._recording.name}: {sentence}")

    async def _close_windows(self) -> None:
        """Say that no trade will come: windows that are still open are sent as they stand, as on a live day's end."""
        newest = await asyncio.to_thread(self._newest)
        if newest is None or (newest.watermark_us is not None and newest.watermark_us > now_us()):
            return  # nothing was replayed, or it was said before a restart
        # what was recorded lies in the past, whatever its own last watermark says
        end = BatchMeta(watermark_us=now_us() + LONGEST_WINDOW_US, input=newest.input)
        await self._hub.publish(to_record_batch(pl.DataFrame(schema=TRADE_DTYPES), self._hub.journal.schema), end)

    def _place(self) -> Cursor | None:
        """How far the recording is in the journal."""
        newest = self._newest()
        return None if newest is None or newest.input is None else newest.input[1]

    def _newest(self) -> BatchMeta | None:
        """The newest batch in the journal."""
        journal, newest = self._hub.journal, None
        for entry in journal.read(max(0, journal.last_sequence - 1)):
            newest = entry.meta
        return newest

    async def _rest(self) -> None:
        await self._is_wanted.wait()
        self._pace.rest()

    async def _publish(self, recorded: Recorded) -> None:
        entry = await self._hub.publish(recorded.batch, recorded.meta)
        telemetry, meta = self._telemetry, recorded.meta
        telemetry.add("batches", upstream=UPSTREAM)
        telemetry.add("rows", entry.rows, upstream=UPSTREAM)
        if recorded.duplicates:
            telemetry.add("duplicate_rows", recorded.duplicates)
        if meta.gaps:
            self.facts.observe_gaps(self.venue, meta.gaps)
            for gap in meta.gaps:
                telemetry.add("gaps", reason=gap.reason)
                telemetry.add("missing_ids", gap.missing_ids)
        if recorded.hole is not None:
            telemetry.error(
                "recording_hole", "batches of the recording were dropped while it was read", hole=recorded.hole
            )
        if meta.watermark_us is not None:
            telemetry.set("watermark_us", meta.watermark_us)
        if entry.rows:
            self.facts.observe(self.venue, to_frame(recorded.batch), id_="trade_id", time="ts_event", price="price")
        self._report(entry.rows, recorded.due_us)

    def _tell_over(self) -> None:
        for symbol in self._wanted:
            self.facts.of(self.venue, symbol).message = OVER

    async def _until_consumers_follow(self) -> None:
        """A journal keeps only so much for consumers that are slow: never get further ahead of them than half of it."""
        most_bytes = self._hub.journal.options.max_bytes // 2
        while await asyncio.to_thread(self._behind_bytes) > most_bytes:
            await asyncio.sleep(POLL_S)
            self._pace.rest()

    def _behind_bytes(self) -> int:
        return max((consumer.behind_bytes for consumer in self._hub.journal.consumers()), default=0)

    async def _until_acknowledged(self) -> None:
        journal = self._hub.journal
        while True:
            consumers = journal.consumers()
            if consumers and all(consumer.sequence >= journal.last_sequence for consumer in consumers):
                return
            await asyncio.sleep(POLL_S)


def _take(batches: Iterator[Recorded]) -> list[Recorded]:
    return list(islice(batches, READ_AHEAD))
