"""What a service knows of each symbol it collects, for `list`, `status` and the live table."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import polars as pl

from raven.batches.batch import Gap
from raven.batches.hold import Missing
from raven.batches.schema import ORIGIN_REST
from raven.rpc.pb import control_pb2


@dataclass(slots=True)
class SymbolFacts:
    """Counts since the service started, and the last row seen; `waits_for`: missing ids that are waited for now."""

    venue: str
    rows: int = 0
    last_id: int = 0
    last_us: int = 0
    last_price: float = 0.0
    gaps: int = 0
    missing_ids: int = 0
    duplicates: int = 0
    late: int = 0
    healed: int = 0
    waits_for: int = 0
    message: str = ""


class SubscriptionTable:
    """Facts by (venue, symbol), updated once a batch."""

    def __init__(self) -> None:
        self._facts: dict[tuple[str, str], SymbolFacts] = {}
        self._waiting: set[str] = set()

    def of(self, venue: str, symbol: str) -> SymbolFacts:
        """The facts of one symbol; empty ones when it was never seen."""
        return self._facts.setdefault((venue, symbol), SymbolFacts(venue))

    def symbols(self, venue: str) -> list[str]:
        """The symbols of `venue` that anything is known of, sorted."""
        return sorted(symbol for known, symbol in self._facts if known == venue)

    def forget(self, venue: str, symbols: Iterable[str]) -> None:
        """Stopped symbols start from nothing next time."""
        for symbol in symbols:
            self._facts.pop((venue, symbol), None)

    def observe(self, venue: str, rows: pl.DataFrame, *, id_: str, time: str, price: str) -> None:
        """Note the rows of one batch; `id_`, `time` and `price` name its columns."""
        last = (
            rows.lazy()
            .group_by("symbol")
            .agg(pl.len(), pl.col(id_).last(), pl.col(time).last().dt.epoch("us"), pl.col(price).last())
        )
        for symbol, count, last_id, last_us, last_price in last.collect().iter_rows():
            facts = self.of(venue, symbol)
            facts.rows += count
            facts.last_id, facts.last_us, facts.last_price = last_id or 0, last_us, last_price

    def observe_gaps(self, venue: str, gaps: Iterable[Gap]) -> None:
        """Note the gaps of one batch."""
        for gap in gaps:
            facts = self.of(venue, gap.symbol)
            facts.gaps += 1
            facts.missing_ids += gap.missing_ids

    def observe_healed(self, venue: str, rows: pl.DataFrame) -> int:
        """Note the rows of one batch that were fetched because they did not come; how many."""
        healed = rows.filter(pl.col("origin") == ORIGIN_REST)
        for symbol, count in healed.get_column("symbol").value_counts().iter_rows() if healed.height else ():
            self.of(venue, symbol).healed += count
        return healed.height

    def observe_missing(self, venue: str, missing: Iterable[Missing]) -> None:
        """Note what is waited for now; what was before and is not any more has come or is a gap."""
        for symbol in self._waiting:
            self.of(venue, symbol).waits_for = 0
        self._waiting = set()
        for item in missing:
            self.of(venue, item.symbol).waits_for += item.missing_ids
            self._waiting.add(item.symbol)

    def subscription(
        self, venue: str, symbol: str, *, connected: bool, wanted_by: Iterable[str], pattern: str = ""
    ) -> control_pb2.Subscription:
        """One symbol as `list` and `status` show it; `pattern`: the one it is collected by."""
        facts = self.of(venue, symbol)
        if not connected:
            state = control_pb2.SYMBOL_STATE_CONNECTING
        elif facts.rows:
            state = control_pb2.SYMBOL_STATE_STREAMING
        else:
            state = control_pb2.SYMBOL_STATE_WAITING
        message = facts.message or (f"waits for {facts.waits_for} missing trades" if facts.waits_for else "")
        return control_pb2.Subscription(
            venue=venue, symbol=symbol, state=state, message=message, wanted_by=wanted_by, rows=facts.rows,
            last_trade_id=facts.last_id, last_event_us=facts.last_us, last_price=facts.last_price, gaps=facts.gaps,
            missing_ids=facts.missing_ids, duplicates=facts.duplicates, late=facts.late, pattern=pattern,
        )  # fmt: skip
