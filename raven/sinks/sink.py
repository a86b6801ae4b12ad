"""The loop of a sink: takes batches, collects a flush, writes it, acknowledges; waits out a store that is down.

Nothing is dropped: while the store cannot be written the sink keeps trying and stops reading once its buffer is
full, and the upstream's journal keeps what it has not acknowledged. Nothing that a journal holds stops it either: a
row that breaks a rule is no store's, nor is a batch of another kind; they become dead letters, and the others go on.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final, Generic, TypeVar

import polars as pl
import pyarrow as pa

from raven.batches import intake
from raven.batches.accumulator import Accumulator
from raven.batches.batch import BatchMeta, Cursor
from raven.batches.gate import BadReason, count
from raven.batches.instrument import Instrument
from raven.batches.ipc import encode
from raven.batches.schema import to_frame
from raven.batches.selection import Selection
from raven.clock import monotonic_ns
from raven.errors import StoreError
from raven.rpc.consumer import Progress, goes_back
from raven.rpc.subscriptions import SubscriptionTable
from raven.sinks.dead_letters import BATCH_SCHEMA, BATCHES, DeadLetters
from raven.sinks.gates import Gate
from raven.sinks.store import Store, WriteResult
from raven.sinks.worker import StoreWorker
from raven.telemetry import Telemetry

S = TypeVar("S", bound=Store)
BUFFER_FLUSHES: Final = 4
CLOSE_S: Final = 3.0
POSITION_S: Final = 60.0
Acknowledge = Callable[[str, Cursor | None], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class FlushLimits:
    """`rows` and `age_s` bound a flush, whichever is reached first; the table is maintained every `maintain_s`.

    `probe_s`: how often a store is tried that needs mending.
    """

    rows: int
    age_s: float
    maintain_s: float = 600.0
    probe_s: float = 30.0


@dataclass(frozen=True, slots=True)
class Letters:
    """Rows for the dead letters: the columns of `table`, and `reason`; `rows` is how many they stand for."""

    table: str
    refused: pl.DataFrame
    rows: int


@dataclass(frozen=True, slots=True)
class Flight:
    """A flush on its way into the store: rows by upstream, the positions after them, what joined and left with it.

    `letters` are what it brought that is no store's, once they are kept none; `refused` is how many rows they were.
    """

    items: Sequence[tuple[str, pl.DataFrame]]
    letters: list[Letters]
    refused: int
    positions: dict[str, Cursor]
    joining: dict[str, list[Instrument]]
    leaving: dict[str, list[Instrument]]


class Sink(ABC, Generic[S]):
    """Feeds one store with the rows of `upstreams`. `ready` is set once the store is open and its position known.

    What may be stored of them, and no other, goes to the store; the rest to `dead_letters`.
    """

    def __init__(
        self,
        store: S,
        limits: FlushLimits,
        *,
        upstreams: Sequence[str],
        gate: Gate,
        dead_letters: DeadLetters,
        facts: SubscriptionTable,
        telemetry: Telemetry,
        joined: Progress,
        left: Progress = lambda *_: None,
    ) -> None:
        self.facts = facts
        self.acknowledge: Acknowledge | None = None
        self.upstreams = upstreams
        self.worker = StoreWorker(store, telemetry, probe_s=limits.probe_s)
        self.ready = asyncio.Event()
        self._store = store
        self._gate = gate
        self._dead_letters = dead_letters
        self._letters: list[Letters] = []
        self._maintain_s = limits.maintain_s
        self._telemetry = telemetry
        self._joined = joined
        self._left = left
        self._rows: Accumulator[tuple[str, pl.DataFrame]] = Accumulator(
            max_rows=limits.rows, max_age_ns=int(limits.age_s * 1e9)
        )
        self._buffer_rows = limits.rows * BUFFER_FLUSHES
        self._selections = {upstream: Selection() for upstream in upstreams}
        self._joining: dict[str, list[Instrument]] = {}
        self._leaving: dict[str, list[Instrument]] = {}
        self._buffered: set[str] = set()  # the upstreams of `_rows`
        self._in_flight: Flight | None = None
        self._taken = asyncio.Event()
        self._drained = asyncio.Event()
        self._positions: dict[str, Cursor] = {}
        self._stored_positions: dict[str, Cursor] = {}

    @property
    def problem(self) -> str:
        """Why the store cannot be written now; empty when it can."""
        return self.worker.problem

    async def open(self) -> None:
        """Open the store, trying until it can be; then the position is known.

        What cannot be mended by waiting is told, and waited for all the same.
        """
        self._stored_positions = await self.worker.until_done(self._open)
        self._positions = dict(self._stored_positions)
        self.ready.set()

    def _open(self) -> dict[str, Cursor]:
        self._store.open()
        for torn in self._store.cut:
            self._telemetry.warning(
                "torn_commit", f"{self.worker.label}: set aside {torn}, torn by a crash before it counted"
            )
        if self._store.unreadable:
            self._telemetry.warning("store_unreadable", f"{self.worker.label} is written: {self._store.unreadable}")
        stored = {upstream: self._store.position(upstream) for upstream in self.upstreams}
        return {upstream: cursor for upstream, cursor in stored.items() if cursor is not None}

    def want(self, upstream: str, instruments: Sequence[Instrument]) -> None:
        """Take rows of these from now on."""
        self._selections[upstream].update(instruments)

    async def leave(self, upstream: str, instruments: Sequence[Instrument]) -> None:
        """Take no more rows of these; what was taken is still written."""
        self._selections[upstream].discard(instruments)
        self._leaving.setdefault(upstream, []).extend(instruments)
        self._leave_stored()

    def position(self, upstream: str) -> Cursor | None:
        """What has been taken of `upstream`."""
        return self._positions.get(upstream)

    async def rewind(
        self, upstream: str, position: Cursor, instruments: Sequence[Instrument], *, forward: bool = False
    ) -> None:
        """Take rows of what joins, and go to where it begins.

        They count as joined once a flush has stored a position from there on.
        """
        self.want(upstream, instruments)
        here = self.position(upstream)
        if here is None or forward or goes_back(here, position):
            self._positions[upstream] = position
        self._joining.setdefault(upstream, []).extend(instruments)

    async def take(self, upstream: str, batch: pa.RecordBatch, meta: BatchMeta) -> None:
        """Put the wanted rows of one batch into the next flush; waits while the buffer is full."""
        misfit = intake.misfit(batch.schema, self._gate.schema)
        if misfit:
            await self._aside(upstream, meta.cursor, encode(batch, meta), misfit, rows=batch.num_rows)
            return
        taken = intake.take(
            to_frame(batch.select(self._gate.schema.names)),
            lambda rows: self._select(upstream, rows),
            self._gate.check,
            latest_us=intake.latest_us(meta),
        )
        self._positions[upstream] = meta.cursor
        if not taken.rows.is_empty():
            self._observe(upstream, taken.rows)
            self._telemetry.add("batches", upstream=upstream)
            self._telemetry.add("rows", taken.rows.height, upstream=upstream)
        letters = None
        if taken.refusals:
            for reason, refused in count(taken.refusals).items():
                self._telemetry.add("refused_rows", refused, upstream=upstream, reason=reason)
            why = pl.Series("reason", list(map(self._gate.why, taken.refusals)), dtype=pl.String)
            named = self._as_letters(upstream, taken.refused).with_columns(why)
            letters = Letters(self._store.table, named, named.height)
        await self._add(upstream, taken.rows, letters)

    async def set_aside(self, upstream: str, cursor: Cursor, payload: bytes, reason: str) -> None:
        """Keep a batch that cannot be read among the dead letters, and go on behind it."""
        await self._aside(upstream, cursor, payload, reason, rows=0)

    async def _aside(self, upstream: str, cursor: Cursor, payload: bytes, reason: str, *, rows: int) -> None:
        self._telemetry.add("refused_batches", upstream=upstream)
        self._telemetry.add("refused_rows", rows, upstream=upstream, reason=BadReason.UNKNOWN_SHAPE)
        self._telemetry.error(
            "batch_unfit", f"a batch of {upstream} is kept from {self.worker.label}: {reason}",
            rows=rows, journal=cursor.journal_id, batch=cursor.sequence,
        )  # fmt: skip
        self._positions[upstream] = cursor
        kept = pl.DataFrame([(upstream, cursor.journal_id, cursor.sequence, rows, payload)], BATCH_SCHEMA, orient="row")
        letters = Letters(BATCHES, kept.with_columns(reason=pl.lit(reason)), rows)
        await self._add(upstream, pl.DataFrame(), letters)

    async def _add(self, upstream: str, rows: pl.DataFrame, letters: Letters | None) -> None:
        """To the next flush: `rows` for the store, and what is not; waits while the buffer is full."""
        if rows.is_empty() and letters is None:
            return
        if letters is not None:
            self._letters.append(letters)
        refused = 0 if letters is None else max(letters.rows, 1)
        self._rows.add((upstream, rows), monotonic_ns(), rows.height + refused)
        self._buffered.add(upstream)
        self._count_pending()
        self._taken.set()
        while self._rows.rows >= self._buffer_rows:
            self._drained.clear()
            await self._drained.wait()

    async def run(self) -> None:
        """Open the store, flush when due and keep the table in shape, until cancelled."""
        await self.open()
        maintained = time.monotonic()
        while True:
            await self._until_due()
            await self.flush()
            if time.monotonic() - maintained >= self._maintain_s:
                maintained = time.monotonic()
                await self._maintain()

    async def _until_due(self) -> None:
        """Until a flush is due by rows or age; without rows until the position alone is worth a commit."""
        quiet_until_ns = monotonic_ns() + int(POSITION_S * 1e9)
        while True:
            now_ns = monotonic_ns()
            wait_ns = self._rows.wait_ns(now_ns)
            left_ns = quiet_until_ns - now_ns if wait_ns is None else wait_ns
            if left_ns <= 0:
                return
            self._taken.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(left_ns / 1e9):
                    await self._taken.wait()

    async def flush(self) -> None:
        """Write what is buffered and the positions, trying until the store takes them; then acknowledge.

        A flush that was cut short is gone on with first: its rows lie before every later position.
        """
        if self._in_flight is None:
            if self._is_all_durable and not self._joining:
                return
            items = [(upstream, rows) for upstream, rows in self._rows.take() if not rows.is_empty()]
            refused = sum(letters.rows for letters in self._letters)
            positions = dict(self._positions)
            self._in_flight = Flight(items, self._letters, refused, positions, self._joining, self._leaving)
            self._letters, self._buffered, self._joining, self._leaving = [], set(), {}, {}
            self._count_pending()
            self._drained.set()
        flight = self._in_flight
        result = await self._write(flight)
        result = replace(result, dead=result.dead + flight.refused)
        self._in_flight = None
        self._count_pending()
        self._stored_positions = flight.positions
        self.worker.count(result)
        for upstream, instruments in flight.joining.items():
            self._joined(upstream, instruments)
        self._tell_left(flight.leaving)
        self._leave_stored()
        await self.tell_positions()

    def is_durable(self, upstream: str) -> bool:
        """Whether all that was taken of `upstream` is in the store."""
        flying = () if self._in_flight is None else self._in_flight.items
        waits = upstream in self._buffered or any(name == upstream for name, _ in flying)
        return not waits and self._positions.get(upstream) == self._stored_positions.get(upstream)

    @property
    def _is_all_durable(self) -> bool:
        return self._in_flight is None and all(map(self.is_durable, self.upstreams))

    def _leave_stored(self) -> None:
        """What leaves has left when there is nothing to be stored any more."""
        if self._is_all_durable:
            leaving, self._leaving = self._leaving, {}
            self._tell_left(leaving)

    def _tell_left(self, leaving: Mapping[str, Sequence[Instrument]]) -> None:
        """All that there was of these is stored, but of those that have been wanted again since."""
        for upstream, instruments in leaving.items():
            again = {*self._selections[upstream], *self._leaving.get(upstream, [])}
            self._left(upstream, [one for one in instruments if one not in again])

    async def tell_positions(self) -> None:
        """Acknowledge to each upstream what is stored of it, which may be nothing; it answers how far behind we are."""
        if self.acknowledge is not None:
            stored = self._stored_positions
            await asyncio.gather(*(self.acknowledge(upstream, stored.get(upstream)) for upstream in self.upstreams))

    async def _write(self, flight: Flight) -> WriteResult:
        def write() -> tuple[WriteResult, float]:
            began = time.monotonic()
            self._keep(flight.letters)
            result = self._write_once(flight.items, flight.positions)
            return result, time.monotonic() - began

        result, took_s = await self.worker.until_done(write)
        self._telemetry.observe("flush_s", took_s, store=self.worker.label)
        self._telemetry.set("last_flush_ms", took_s * 1e3, store=self.worker.label)
        return result

    def _keep(self, letters: list[Letters]) -> None:
        """They are on the disk before the position goes past them; after a crash they may be there twice."""
        by_table: dict[str, list[pl.DataFrame]] = {}
        for one in letters:
            by_table.setdefault(one.table, []).append(one.refused)
        for table, refused in by_table.items():
            self._dead_letters.keep(self._store.name, table, pl.concat(refused))
        letters.clear()

    def _count_pending(self) -> None:
        in_flight = 0 if self._in_flight is None else sum(rows.height for _, rows in self._in_flight.items)
        self._telemetry.set("pending_rows", self._rows.rows + in_flight, queue=self.worker.label)

    async def _maintain(self) -> None:
        try:
            done = await self.worker.once(self._store.maintain)
        except StoreError as error:
            self._telemetry.warning("not_maintained", f"{self.worker.label}: {error}; trying again later")
            return
        if done:
            self._telemetry.info("maintained", f"{self.worker.label} was compacted", **done)

    async def close(self) -> None:
        """Write what is left, without waiting for a store that is down, and let go of it."""
        try:
            async with asyncio.timeout(CLOSE_S):
                await self._flush_all()
        except TimeoutError:
            if not self._is_all_durable:  # else it was the upstream that did not answer
                self._telemetry.warning(
                    "not_flushed", f"{self.worker.label} is down; the upstream's journal keeps what is left"
                )
        await self.worker.close(CLOSE_S)

    async def _flush_all(self) -> None:
        if self.ready.is_set():
            if self._in_flight is not None:
                await self.flush()
            await self.flush()

    def _select(self, upstream: str, rows: pl.DataFrame) -> pl.DataFrame:
        """The rows of a batch that are wanted."""
        return self._selections[upstream].filter(rows)

    @abstractmethod
    def _as_letters(self, upstream: str, refused: pl.DataFrame) -> pl.DataFrame:
        """Rows of a batch in the columns of their table."""

    @abstractmethod
    def _observe(self, upstream: str, rows: pl.DataFrame) -> None:
        """Note the rows for `list` and `status`."""

    @abstractmethod
    def _write_once(self, items: Sequence[tuple[str, pl.DataFrame]], positions: Mapping[str, Cursor]) -> WriteResult:
        """One try, in the store's thread."""
