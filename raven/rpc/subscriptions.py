"""What a service knows of each symbol it collects, for `list`, `status`, the live table and the metrics."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import polars as pl

from raven.batches.batch import Gap
from raven.batches.schema import ORIGIN_REST
from raven.batches.sequence import group_symbols
from raven.clock import now_us
from raven.rpc.pb import control_pb2


@dataclass(slots=True)
class SymbolFacts:
    """Counts since the service started, and the last row seen.

    - `first_seen_us`: when the first row came (UTC, microseconds); `last_us`: the venue's time of the last row.
      Both are 0 while `rows` is.
    - `duplicates`: rows dropped because their id was taken before. `healed`: rows that came over REST.
    - `held`: the symbol waits for missing ids; its rows follow once they came or are given up. `waits_for`: how many
      ids, where that is known.
    """

    venue: str
    rows: int = 0
    first_seen_us: int = 0
    last_id: int = 0
    last_us: int = 0
    last_price: float = 0.0
    gaps: int = 0
    missing_ids: int = 0
    duplicates: int = 0
    late: int = 0
    healed: int = 0
    held: bool = False
    waits_for: int = 0
    message: str = ""
    is_trading: bool = True


class SubscriptionTable:
    """Facts by (venue, symbol), updated once a batch by the event loop; `ages_s` may be asked from any thread."""

    def __init__(self) -> None:
        self._facts: dict[tuple[str, str], SymbolFacts] = {}
        self._held: dict[str, set[str]] = {}

    def of(self, venue: str, symbol: str) -> SymbolFacts:
        """The facts of one symbol that is wanted; empty ones when it was never seen."""
        key = (venue, symbol)
        facts = self._facts.get(key)
        if facts is None:
            facts = self._facts[key] = SymbolFacts(venue)
        return facts

    def symbols(self, venue: str) -> list[str]:
        """The symbols of `venue` that anything is known of, sorted."""
        return sorted(symbol for known, symbol in self._facts if known == venue)

    def forget(self, venue: str, symbols: Iterable[str]) -> None:
        """Stopped symbols start from nothing next time."""
        for symbol in symbols:
            self._facts.pop((venue, symbol), None)
            self._held.get(venue, set()).discard(symbol)

    def observe(self, venue: str, rows: pl.DataFrame, *, id_: str, time: str, price: str) -> int:
        """Note the rows of one batch; `id_`, `time` and `price` name its columns. How many of them came over REST."""
        if rows.is_empty():
            return 0
        symbols, order, firsts = group_symbols(rows.get_column("symbol"))
        ends = np.append(firsts[1:], rows.height)
        healed = np.zeros(len(symbols), dtype=np.int64)
        if "origin" in rows.columns:
            healed = np.add.reduceat(rows.get_column("origin").to_numpy()[order] == ORIGIN_REST, firsts, dtype=np.int64)
        last = rows.select(id_, time, price)[order[ends - 1]]
        now = now_us()
        for symbol, count, rest, last_id, last_us, last_price in zip(
            symbols,
            (ends - firsts).tolist(),
            healed.tolist(),
            last.get_column(id_).to_list(),
            last.get_column(time).dt.epoch("us").to_list(),
            last.get_column(price).to_list(),
            strict=True,
        ):
            facts = self.of(venue, symbol)
            if facts.rows == 0:
                facts.first_seen_us = now
            facts.rows += count
            facts.healed += rest
            facts.last_id, facts.last_us, facts.last_price = last_id or 0, last_us, last_price
        return int(healed.sum())

    def observe_gaps(self, venue: str, gaps: Iterable[Gap]) -> None:
        """Note the gaps of one batch."""
        for gap in gaps:
            facts = self.of(venue, gap.symbol)
            facts.gaps += 1
            facts.missing_ids += gap.missing_ids

    def observe_duplicates(self, venue: str, rows: pl.DataFrame, accepted: pl.DataFrame) -> None:
        """Note which symbols' `rows` are not among the `accepted`; for batches that had duplicates."""
        counts = rows.get_column("symbol").value_counts(name="before")
        left = accepted.get_column("symbol").value_counts(name="after")
        both = counts.join(left, on="symbol", how="left").with_columns(pl.col("after").fill_null(0))
        for symbol, before, after in both.filter(pl.col("before") > pl.col("after")).iter_rows():
            self.of(venue, symbol).duplicates += before - after

    def observe_late(self, venue: str, late: Iterable[tuple[str, int]]) -> None:
        """Note how many rows of each symbol came late, all told."""
        for symbol, rows in late:
            self.of(venue, symbol).late = rows

    def observe_held(self, venue: str, waits_for: Mapping[str, int]) -> None:
        """These symbols of the venue wait for so many missing ids each (0: not known), and no others wait."""
        for symbol in self._held.get(venue, set()) | waits_for.keys():
            facts = self.of(venue, symbol)
            facts.held, facts.waits_for = symbol in waits_for, waits_for.get(symbol, 0)
        self._held[venue] = set(waits_for)

    def ages_s(self) -> dict[tuple[str, ...], float]:
        """How long ago, in seconds, the last row of each (venue, symbol) was traded; may be asked from any thread."""
        now = now_us()
        return {
            key: (now - facts.last_us) / 1e6
            for key, facts in self._facts.copy().items()  # the loop goes on changing the table
            if facts.rows > 0
        }

    def subscription(
        self, venue: str, symbol: str, *, connected: bool, wanted_by: Iterable[str], pattern: str = ""
    ) -> control_pb2.Subscription:
        """One symbol as `list` and `status` show it; `pattern`: the one it is collected by."""
        facts = self.of(venue, symbol)
        if not facts.is_trading:
            state = control_pb2.SYMBOL_STATE_NOT_TRADING
        elif not connected:
            state = control_pb2.SYMBOL_STATE_CONNECTING
        elif facts.rows:
            state = control_pb2.SYMBOL_STATE_STREAMING
        else:
            state = control_pb2.SYMBOL_STATE_WAITING
        message = facts.message
        if facts.held and not message:
            message = f"waits for {facts.waits_for} missing trades" if facts.waits_for else "waits for missing trades"
        return control_pb2.Subscription(
            venue=venue, symbol=symbol, state=state, message=message, wanted_by=wanted_by, rows=facts.rows,
            last_trade_id=facts.last_id, last_event_us=facts.last_us, last_price=facts.last_price, gaps=facts.gaps,
            missing_ids=facts.missing_ids, duplicates=facts.duplicates, late=facts.late, pattern=pattern,
            healed=facts.healed, waits_for=facts.waits_for, first_seen_us=facts.first_seen_us,
        )  # fmt: skip
