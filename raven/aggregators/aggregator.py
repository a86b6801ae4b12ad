"""The aggregator: takes trade batches of its upstreams, steps the kernels, publishes the bars, checkpoints.

For each input batch there is at most one output batch, which names the input's cursor. After a crash the last
checkpoint is loaded and the input read again from there; what the output journal already holds is not published
a second time.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import polars as pl
import pyarrow as pa

from raven.aggregators import checkpoint as checkpoints
from raven.aggregators.checkpoint import Checkpoint, Position
from raven.bars.kernel import Kernel
from raven.bars.state import restore, snapshot
from raven.batches import gate, intake
from raven.batches.batch import BatchMeta, Cursor, Gap, TradeBatch
from raven.batches.instrument import Instrument
from raven.batches.schema import TRADE_DTYPES, TRADE_SCHEMA, to_frame, to_record_batch
from raven.batches.selection import Selection
from raven.batches.sequence import check_sequence
from raven.errors import StateError
from raven.rpc.consumer import Progress, goes_back
from raven.rpc.hub import Hub
from raven.rpc.subscriptions import SubscriptionTable
from raven.tasks import finish
from raven.telemetry import Telemetry


@dataclass(slots=True)
class UpstreamState:
    """What the aggregator holds of one upstream: its venue, place, ids and a state per kernel."""

    venue: str
    states: dict[str, pl.DataFrame]
    cursor: Cursor | None = None
    last_ids: dict[str, int] = field(default_factory=dict)
    selection: Selection = field(default_factory=Selection)
    published_through: Cursor | None = None


class Aggregator:
    """Steps `kernels` (all of one kind) over the trades of each upstream in `venues` (upstream name → venue)."""

    def __init__(
        self,
        kernels: Sequence[Kernel],
        hub: Hub,
        checkpoint_path: Path,
        *,
        venues: Mapping[str, str],
        schema: pa.Schema,
        telemetry: Telemetry,
        joined: Progress,
        left: Progress = lambda *_: None,
    ) -> None:
        self._kernels = {kernel.spec: kernel for kernel in kernels}
        self._hub = hub
        self._path = checkpoint_path
        self._schema = schema
        self._telemetry = telemetry
        self._joined = joined
        self._left = left
        self._turn = asyncio.Lock()
        self._unsaved: set[str] = set()
        self._untold: list[Callable[[], None]] = []
        self.problem = ""
        self.ready = asyncio.Event()
        self.ready.set()
        self.facts = SubscriptionTable()
        self._upstreams = self._recover(venues)

    def _recover(self, venues: Mapping[str, str]) -> dict[str, UpstreamState]:
        saved = checkpoints.load(self._path)
        published: dict[str, Cursor] = {}
        for entry in self._hub.journal.read(saved.output_sequence):
            if entry.meta.input is not None:
                upstream, cursor = entry.meta.input
                published[upstream] = cursor
        for upstream, spec in saved.states:
            if spec not in self._kernels:
                self._telemetry.warning(
                    "state_dropped", f"the state of {spec} is given up: it is not built any more", upstream=upstream
                )
        upstreams = {}
        for upstream, venue in venues.items():
            position = saved.positions.get(upstream, Position())
            states = {spec: self._state(saved, upstream, kernel) for spec, kernel in self._kernels.items()}
            through = published.get(upstream, position.published_through)
            upstreams[upstream] = UpstreamState(
                venue, states, position.cursor, dict(position.last_ids), published_through=through
            )
        return upstreams

    def _state(self, saved: Checkpoint, upstream: str, kernel: Kernel) -> pl.DataFrame:
        data = saved.states.get((upstream, kernel.spec))
        if data is None:
            return kernel.initial()
        try:
            return restore(kernel, data)
        except StateError as error:
            self._telemetry.warning("state_refused", f"{kernel.spec} starts anew: {error}", upstream=upstream)
            return kernel.initial()

    def want(self, upstream: str, instruments: Sequence[Instrument]) -> None:
        """Take rows of these from now on."""
        self._upstreams[upstream].selection.update(instruments)

    async def leave(self, upstream: str, instruments: Sequence[Instrument]) -> None:
        """Take no more rows of these; their open time bars are published as they stand."""
        await finish(self._leave(upstream, instruments))
        await self._save_then(partial(self._left, upstream, instruments))

    async def _leave(self, upstream: str, instruments: Sequence[Instrument]) -> None:
        async with self._turn:
            state = self._upstreams[upstream]
            left = Selection(instruments)
            state.selection.discard(instruments)
            if state.cursor is None:
                return
            parts = []
            for spec, kernel in self._kernels.items():
                if kernel.kind == "time_bars":
                    bars = left.filter(kernel.open_bars(state.states[spec], state.venue))
                    kept = state.selection.filter(bars)  # another entry still wants these
                    parts.append(bars.join(kept, on="symbol", how="anti", maintain_order="left"))
            await self._publish((upstream, state.cursor), parts)

    def position(self, upstream: str) -> Cursor | None:
        """What has been taken of `upstream`."""
        return self._upstreams[upstream].cursor

    async def rewind(
        self, upstream: str, position: Cursor, instruments: Sequence[Instrument], *, forward: bool = False
    ) -> None:
        """Take rows of what joined, and go to `position` for it; a restart before that is saved joins again."""
        state = self._upstreams[upstream]
        async with self._turn:
            state.selection.update(instruments)
            here = state.cursor
            if here is None or forward or goes_back(here, position):
                state.cursor = position
                state.published_through = None  # what was published did not hold these symbols
                self._unsaved.add(upstream)
        await self._save_then(partial(self._joined, upstream, instruments))

    async def _save_then(self, tell: Callable[[], None]) -> None:
        """Tell once a checkpoint holds what was done, now or later."""
        self._untold.append(tell)
        await self.save()

    async def take(self, upstream: str, batch: pa.RecordBatch, meta: BatchMeta) -> None:
        """Step every kernel over one input batch and publish what came out; state and output change together."""
        await finish(self._take(upstream, batch, meta))

    async def _take(self, upstream: str, batch: pa.RecordBatch, meta: BatchMeta) -> None:
        async with self._turn:
            state = self._upstreams[upstream]
            rows = self._intake(upstream, batch, meta)
            checked = check_sequence(rows, state.last_ids)
            trades = TradeBatch(state.venue, checked.accepted, meta.watermark_us, frozenset(meta.held))
            stepped = {spec: kernel.step(state.states[spec], trades) for spec, kernel in self._kernels.items()}
            if not self._is_published(state, meta.cursor):
                await self._publish((upstream, meta.cursor), [bars for _, bars in stepped.values()], meta.watermark_us)
            state.cursor = meta.cursor
            spec, (after, _) = next(iter(stepped.items()))
            self._count_late(trades, state.states[spec], after)
            state.states = {spec: stepped_state for spec, (stepped_state, _) in stepped.items()}
            new_gaps = [
                gap
                for gap in meta.gaps
                if Instrument(state.venue, gap.symbol) in state.selection
                and gap.before_id > state.last_ids.get(gap.symbol, -1)
            ]
            self._count_gaps(state.venue, new_gaps)
            held = [symbol for symbol in meta.held if Instrument(state.venue, symbol) in state.selection]
            self.facts.observe_held(state.venue, dict.fromkeys(held, 0))
            state.last_ids = checked.last_ids
            self._unsaved.add(upstream)
        if rows.height:
            self._count(upstream, rows, checked.accepted)

    def _intake(self, upstream: str, batch: pa.RecordBatch, meta: BatchMeta) -> pl.DataFrame:
        """The wanted rows of a batch that keep the rules. The ids of the others are missing in the bars."""
        misfit = intake.misfit(batch.schema, TRADE_SCHEMA)
        if misfit:
            self._refuse_batch(upstream, meta.cursor, misfit, rows=batch.num_rows)
            return pl.DataFrame(schema=TRADE_DTYPES)
        state = self._upstreams[upstream]
        taken = intake.take(
            to_frame(batch.select(TRADE_SCHEMA.names)),
            lambda rows: state.selection.filter(rows, state.venue),
            partial(gate.check, most_id=gate.MOST_ID),
            latest_us=intake.latest_us(meta),
        )
        for reason, refused in gate.count(taken.refusals).items():
            self._telemetry.add("refused_rows", refused, upstream=upstream, reason=reason)
            self._telemetry.error(
                "rows_unfit", f"rows of {upstream} are left out of the bars: {gate.RULES[reason]}",
                rows=refused, batch=meta.sequence,
            )  # fmt: skip
        return taken.rows

    def _refuse_batch(self, upstream: str, cursor: Cursor, reason: str, *, rows: int) -> None:
        self._telemetry.add("refused_batches", upstream=upstream)
        self._telemetry.add("refused_rows", rows, upstream=upstream, reason=gate.BadReason.UNKNOWN_SHAPE)
        self._telemetry.error(
            "batch_unfit", f"no bar is made of a batch of {upstream}: {reason}",
            rows=rows, journal=cursor.journal_id, batch=cursor.sequence,
        )  # fmt: skip

    async def set_aside(self, upstream: str, cursor: Cursor, payload: bytes, reason: str) -> None:  # noqa: ARG002
        """Go past a batch that cannot be read: its trades are missing in the bars, which are not complete then."""
        async with self._turn:
            self._refuse_batch(upstream, cursor, reason, rows=0)
            self._upstreams[upstream].cursor = cursor
            self._unsaved.add(upstream)

    def _count_gaps(self, venue: str, gaps: Sequence[Gap]) -> None:
        self.facts.observe_gaps(venue, gaps)
        for gap in gaps:
            self._telemetry.add("gaps", reason=gap.reason)
            self._telemetry.add("missing_ids", gap.missing_ids)

    def _count_late(self, batch: TradeBatch, before: pl.DataFrame, after: pl.DataFrame) -> None:
        """Note the rows that a step folded late; every kernel counts the same ones, so one is asked."""
        late: int = after.select(pl.col("late_ticks").sum()).item() - before.select(pl.col("late_ticks").sum()).item()
        if late:
            self._telemetry.add("late_rows", late)
            came = pl.col("symbol").is_in(batch.trades.get_column("symbol").implode())
            self.facts.observe_late(batch.venue, after.filter(came).select("symbol", "late_ticks").iter_rows())

    @staticmethod
    def _is_published(state: UpstreamState, cursor: Cursor) -> bool:
        through = state.published_through
        if through is None:
            return False
        if through.journal_id == cursor.journal_id and cursor.sequence <= through.sequence:
            return True
        state.published_through = None
        return False

    async def _publish(
        self, source: tuple[str, Cursor], parts: Sequence[pl.DataFrame], watermark_us: int | None = None
    ) -> None:
        bars = pl.concat(parts) if parts else pl.DataFrame()
        if bars.is_empty():
            return
        meta = BatchMeta(watermark_us=watermark_us, input=source)
        await self._hub.publish(to_record_batch(bars, self._schema), meta)
        for spec, count in bars.group_by("spec").len().iter_rows():
            self._telemetry.add("bars", count, spec=spec)

    def _count(self, upstream: str, rows: pl.DataFrame, accepted: pl.DataFrame) -> None:
        venue = self._upstreams[upstream].venue
        self._telemetry.add("batches", upstream=upstream)
        self._telemetry.add("rows", rows.height, upstream=upstream)
        if duplicates := rows.height - accepted.height:
            self._telemetry.add("duplicate_rows", duplicates)
            self.facts.observe_duplicates(venue, rows, accepted)
        self.facts.observe(venue, accepted, id_="trade_id", time="ts_event", price="price")

    async def save(self) -> dict[str, Cursor]:
        """Write a checkpoint; the positions it holds may be acknowledged: none when the disk refuses it."""
        async with self._turn:
            untold = list(self._untold)
            positions = {
                name: Position(state.cursor, state.last_ids, state.published_through)
                for name, state in self._upstreams.items()
            }
            states = {
                (name, spec): snapshot(kernel, state.states[spec])
                for name, state in self._upstreams.items()
                for spec, kernel in self._kernels.items()
            }
            saved = Checkpoint(positions, states, self._hub.last_sequence)
            try:
                await asyncio.to_thread(checkpoints.save, self._path, saved)
            except OSError as error:
                self._unsaved.update(self._upstreams)  # tried again, and what was taken is not done with before
                self._telemetry.warning(
                    "upkeep_failed", f"{self._path} cannot be written: {error.strerror or error}; it is tried again"
                )
                return {}
            self._unsaved.clear()
            del self._untold[: len(untold)]
        for tell in untold:
            tell()
        return {name: position.cursor for name, position in positions.items() if position.cursor is not None}

    def is_durable(self, upstream: str) -> bool:
        """Whether all that was taken of `upstream` is in the last checkpoint."""
        return upstream not in self._unsaved
