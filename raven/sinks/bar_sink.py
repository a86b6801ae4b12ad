"""The sink of bars."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import polars as pl

from raven.batches.batch import Cursor
from raven.sinks.sink import Sink
from raven.sinks.store import BarFlush, BarStore, WriteResult


class BarSink(Sink[BarStore]):
    """Feeds a store of bars of one kind."""

    def _observe(self, upstream: str, rows: pl.DataFrame) -> None:  # noqa: ARG002
        for (venue,), part in rows.partition_by("venue", as_dict=True).items():
            self.facts.observe(venue, part, id_="last_trade_id", time="close_time", price="close")

    def _write_once(self, items: Sequence[tuple[str, pl.DataFrame]], positions: Mapping[str, Cursor]) -> WriteResult:
        return self._store.write(BarFlush([rows for _, rows in items], positions))
