"""The embedded stores: trades, and bars of each kind, in Delta tables on this machine."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Final

import polars as pl

from raven.batches.batch import Cursor
from raven.sinks.delta.days import with_date
from raven.sinks.delta.maintain import maintain
from raven.sinks.delta.positions import decode_position, encode_positions, transaction_name
from raven.sinks.delta.table import Table, Upkeep
from raven.sinks.encode import BARS, TRADES, Layout, encode_bars, encode_trades, row_count
from raven.sinks.store import BarFlush, BarKind, Refusal, Report, TradeFlush, WriteResult, unheard

AHEAD: Final = "newer than the last trade of its symbol that is stored: send it again later"


class _DeltaStore:
    """What the stores share: a table in `root` (`<data>/delta`) and the last key of each group of rows."""

    name = "delta"

    def __init__(self, root: Path, layout: Layout, upkeep: Upkeep) -> None:
        self.table = layout.name
        self.report: Report = unheard
        self.unreadable = ""
        self._layout = layout
        self._upkeep = upkeep
        self._table = Table(root, layout, retention_h=upkeep.retention_h)

    @property
    def cut(self) -> tuple[str, ...]:
        """Log entries that `open` found torn and set aside; their rows were never reported as stored."""
        return self._table.cut

    def open(self) -> None:
        """Take hold of the table, making it where there is none. Raises StoreError."""
        self._table.open()

    def position(self, upstream: str) -> Cursor | None:
        """The cursor stored with the last flush of `upstream`; None: never any."""
        return decode_position(upstream, self._table.lookup)

    def rows(self) -> int:
        """How many rows the table holds."""
        return self._table.rows

    def maintain(self) -> Mapping[str, int]:
        """Merge small files, sort settled days, delete what left the table long ago, sum up the log."""
        return maintain(self._table, self._upkeep)

    def close(self) -> None:
        """Let go of the table. Closing twice does no harm."""
        self._table.close()

    def _moved(self, positions: Mapping[str, Cursor]) -> dict[str, int]:
        """The transactions of the positions that differ from those stored."""
        return encode_positions(
            {upstream: cursor for upstream, cursor in positions.items() if self.position(upstream) != cursor}
        )

    def _last_key(self, group: tuple[str, ...]) -> int | None:
        return self._table.lookup(self._last_name(group))

    def _last_name(self, group: tuple[str, ...]) -> str:
        return transaction_name("last", self._layout.name, *group)

    def _keys(self, rows: pl.DataFrame) -> pl.DataFrame:
        """Of each group in `rows`: its columns, the `lowest` and `highest` key, and the `last` one stored."""
        key = pl.col(self._layout.key).cast(pl.Int64)
        keys = rows.group_by(self._layout.group, maintain_order=True).agg(lowest=key.min(), highest=key.max())
        last = [self._last_key(group) for group in keys.select(self._layout.group).iter_rows()]
        return keys.with_columns(pl.Series("last", last, dtype=pl.Int64))

    def _last_transactions(self, keys: pl.DataFrame) -> dict[str, int]:
        """The transactions that raise the last keys to what `keys` (as of `_keys`) brings."""
        raised = keys.filter(pl.col("last").is_null() | (pl.col("highest") > pl.col("last")))
        groups = raised.select(self._layout.group).iter_rows()
        return dict(zip(map(self._last_name, groups), raised.get_column("highest"), strict=True))


class DeltaTradeStore(_DeltaStore):
    """Trades in `<root>/trades`, exactly once: a symbol's rows at or below its last id stored are dropped."""

    def __init__(self, root: Path, upkeep: Upkeep | None = None) -> None:
        super().__init__(root, TRADES, upkeep or Upkeep())

    def last_ids(self, venue: str, symbols: Iterable[str]) -> dict[str, int]:
        """The highest trade id stored of each of `symbols`; those never stored are left out."""
        found = {symbol: self._last_key((venue, symbol)) for symbol in symbols}
        return {symbol: last for symbol, last in found.items() if last is not None}

    def write(self, flush: TradeFlush) -> WriteResult:
        """One commit of the new rows, the last ids and the positions; none when nothing of them is new.

        Positions that move without rows are committed, too: what the upstream need not keep depends on them.
        """
        trades = with_date(encode_trades(flush), TRADES)
        keys = self._keys(trades)
        if keys.filter(pl.col("lowest") <= pl.col("last")).height:
            trades = (
                trades.join(keys.select(*self._layout.group, "last"), on=self._layout.group, maintain_order="left")
                .filter(pl.col("last").is_null() | (pl.col("trade_id") > pl.col("last")))
                .drop("last")
            )
        transactions = self._last_transactions(keys) | self._moved(flush.positions)
        if transactions:
            self._table.append(trades, transactions)
        return WriteResult(rows=trades.height, duplicates=row_count(flush) - trades.height)

    def resend(self, rows: pl.DataFrame) -> Sequence[Refusal]:
        """Write trades that were dead letters and are not there; those still refused are returned.

        It takes the table's lock: raises StoreError while a service holds it. A trade above the last id of its symbol
        is left for later, since the service may yet bring it.
        """
        self.open()
        dated = with_date(rows, TRADES).with_row_index("sent")
        known = self._keys(dated).select(*TRADES.group, "last")
        ahead = pl.col("last").is_null() | (pl.col("trade_id") > pl.col("last"))
        placed = dated.join(known, on=TRADES.group, how="left", maintain_order="left")
        new = placed.filter(~ahead).unique(TRADES.identity, keep="first").sort(TRADES.identity)
        there = (
            pl.scan_delta(str(self._table.path))
            .filter(*(pl.col(name).is_in(new.get_column(name).unique().implode()) for name in ("date", "symbol")))
            .select(TRADES.identity)
            .collect()
        )
        new = new.join(there, on=TRADES.identity, how="anti", maintain_order="left").drop("sent", "last")
        if new.height:
            self._table.append(new, {})
        return [Refusal(row, AHEAD) for row in placed.filter(ahead).get_column("sent")]


class DeltaBarStore(_DeltaStore):
    """Bars of one kind in `<root>/<kind>`: one row per identity, of the highest revision."""

    def __init__(self, root: Path, kind: BarKind, upkeep: Upkeep | None = None) -> None:
        super().__init__(root, BARS[kind], upkeep or Upkeep())
        self.kind: BarKind = kind

    def write(self, flush: BarFlush) -> WriteResult:
        """One commit: an append when all keys lie above those stored, else a merge."""
        bars = with_date(encode_bars(flush, self.kind), BARS[self.kind])
        inserted, replaced = self._store(bars, self._moved(flush.positions))
        stored = inserted + replaced
        return WriteResult(rows=stored, duplicates=row_count(flush) - stored, replaced=replaced)

    def resend(self, rows: pl.DataFrame) -> Sequence[Refusal]:
        """Write bars that were dead letters; it takes the table's lock: raises StoreError while a service holds it."""
        self.open()
        self._store(with_date(encode_bars(BarFlush([rows]), self.kind), BARS[self.kind]), {})
        return []

    def _store(self, bars: pl.DataFrame, moved: Mapping[str, int]) -> tuple[int, int]:
        """Commit `bars`, the last keys and the positions that `moved`; how many were inserted, how many replaced."""
        keys = self._keys(bars)
        transactions = {**self._last_transactions(keys), **moved}
        if keys.filter(pl.col("lowest") <= pl.col("last")).height:
            return self._table.merge(bars, transactions, where=_where(bars))
        if transactions:
            self._table.append(bars, transactions)
        return bars.height, 0


def _where(bars: pl.DataFrame) -> str:
    """The partitions and times of `bars`, in SQL, so that a merge opens no other file.

    Whole seconds: a file's statistics are cut to the millisecond.
    """
    venues = ", ".join(f"'{venue}'" for venue in bars.get_column("venue").unique().sort())
    dates = ", ".join(f"'{date}'" for date in bars.get_column("date").unique().sort())
    span = bars.select(
        first=pl.col("open_time").min().dt.truncate("1s").dt.to_string("iso:strict"),
        last=pl.col("open_time").max().dt.offset_by("1s").dt.truncate("1s").dt.to_string("iso:strict"),
    )
    first, last = span.row(0)
    return (
        f"target.venue in ({venues}) and target.date in ({dates})"
        f" and target.open_time >= timestamp '{first}' and target.open_time <= timestamp '{last}'"
    )
