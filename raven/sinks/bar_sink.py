"""The sink of bars."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import polars as pl

from raven.batches.batch import Cursor
from raven.rpc.consumer import Progress
from raven.rpc.subscriptions import SubscriptionTable
from raven.sinks.dead_letters import DeadLetters
from raven.sinks.gates import BAR_GATES
from raven.sinks.sink import FlushLimits, Sink
from raven.sinks.store import BarFlush, BarStore, WriteResult
from raven.telemetry import Telemetry


class BarSink(Sink[BarStore]):
    """Feeds a store of bars of one kind."""

    def __init__(
        self,
        store: BarStore,
        limits: FlushLimits,
        *,
        upstreams: Sequence[str],
        dead_letters: DeadLetters,
        facts: SubscriptionTable,
        telemetry: Telemetry,
        joined: Progress,
        left: Progress = lambda *_: None,
    ) -> None:
        super().__init__(
            store, limits, upstreams=upstreams, gate=BAR_GATES[store.kind], dead_letters=dead_letters, facts=facts,
            telemetry=telemetry, joined=joined, left=left,
        )  # fmt: skip

    def _as_letters(self, upstream: str, refused: pl.DataFrame) -> pl.DataFrame:  # noqa: ARG002
        return refused

    def _observe(self, upstream: str, rows: pl.DataFrame) -> None:  # noqa: ARG002
        for (venue,), part in rows.partition_by("venue", as_dict=True).items():
            self.facts.observe(venue, part, id_="last_trade_id", time="close_time", price="close")

    def _write_once(self, items: Sequence[tuple[str, pl.DataFrame]], positions: Mapping[str, Cursor]) -> WriteResult:
        return self._store.write(BarFlush([rows for _, rows in items], positions))
