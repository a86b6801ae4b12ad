"""The sink of trades."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import polars as pl

from raven.batches.batch import Cursor
from raven.rpc.consumer import Progress
from raven.rpc.subscriptions import SubscriptionTable
from raven.sinks.dead_letters import DeadLetters
from raven.sinks.encode import trade_letters
from raven.sinks.gates import TRADE_GATE
from raven.sinks.sink import FlushLimits, Sink
from raven.sinks.store import TradeFlush, TradeStore, WriteResult
from raven.telemetry import Telemetry


class TradeSink(Sink[TradeStore]):
    """Feeds a store of trades; `venues` names the venue of each upstream."""

    def __init__(
        self,
        store: TradeStore,
        limits: FlushLimits,
        *,
        venues: Mapping[str, str],
        dead_letters: DeadLetters,
        facts: SubscriptionTable,
        telemetry: Telemetry,
        joined: Progress,
        left: Progress = lambda *_: None,
    ) -> None:
        super().__init__(
            store, limits, upstreams=list(venues), gate=TRADE_GATE, dead_letters=dead_letters, facts=facts,
            telemetry=telemetry, joined=joined, left=left,
        )  # fmt: skip
        self._venues = venues

    def _select(self, upstream: str, rows: pl.DataFrame) -> pl.DataFrame:
        return self._selections[upstream].filter(rows, self._venues[upstream])

    def _as_letters(self, upstream: str, refused: pl.DataFrame) -> pl.DataFrame:
        return trade_letters(self._venues[upstream], refused)

    def _observe(self, upstream: str, rows: pl.DataFrame) -> None:
        self.facts.observe(self._venues[upstream], rows, id_="trade_id", time="ts_event", price="price")

    def _write_once(self, items: Sequence[tuple[str, pl.DataFrame]], positions: Mapping[str, Cursor]) -> WriteResult:
        trades = [(self._venues[upstream], rows) for upstream, rows in items]
        return self._store.write(TradeFlush(trades, positions))
