"""The trades of a batch as arrays, grouped by symbol, with times that never run backwards."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

import numpy as np
import polars as pl
import pyarrow.compute as pc

from raven.bars.carry import NEVER, NO_ID, Array, Columns
from raven.batches.schema import TRADE_DTYPES
from raven.batches.sequence import group_codes
from raven.errors import InputError

NEEDED: Final = ("symbol", "trade_id", "ts_event", "price", "quantity", "side")


@dataclass(frozen=True, slots=True)
class Rows:
    """Trades grouped by symbol; within a symbol in the order they came.

    `codes[k]` is the state row of the k-th symbol here, ascending; its trades begin at row `firsts[k]`.
    `is_buy` is the aggressor's side. `trade_id` is NO_ID everywhere when the trades carry none.
    """

    codes: Array
    firsts: Array
    time_us: Array
    trade_id: Array
    price: Array
    quantity: Array
    is_buy: Array

    @property
    def height(self) -> int:
        """How many trades."""
        return len(self.price)

    def ends(self) -> Array:
        """The row after each symbol's last."""
        return np.append(self.firsts[1:], self.height)


def group_by_symbol(symbols: pl.Series, trades: pl.DataFrame) -> tuple[pl.Series, Rows]:
    """`symbols` with those new in `trades` appended in order of appearance, and the trades grouped.

    `trades` must not be empty. Raises InputError when a column is missing, of another type than TRADE_SCHEMA
    has, or holds nulls (trade_id may be null throughout).
    """
    _check(trades)
    column = trades.get_column("symbol")
    height = trades.height
    if (column == column[0]).all():
        symbols, codes = _encode(symbols, column.head(1))
        order, firsts = None, np.zeros(1, dtype=np.int64)
    else:
        symbols, row_codes = _encode(symbols, column)
        order, firsts = group_codes(row_codes, len(symbols))
        codes = row_codes[order[firsts]]

    def array(name: str) -> Array:
        values = trades.get_column(name).to_numpy()
        return values if order is None else values[order]

    trade_id = np.full(height, NO_ID) if trades.get_column("trade_id").null_count() else array("trade_id")
    rows = Rows(
        codes=codes,
        firsts=firsts,
        time_us=array("ts_event").view(np.int64),
        trade_id=trade_id,
        price=array("price"),
        quantity=array("quantity"),
        is_buy=array("side") > 0,
    )
    return symbols, rows


def hold_times(rows: Rows, last_time_us: Array) -> tuple[Rows, Array]:
    """Rows whose times are folded at their symbol's running maximum, and how many were late, per symbol here.

    `last_time_us` is the running maximum of each state row so far.
    """
    time_us = rows.time_us
    back = np.empty(rows.height, dtype=bool)
    np.less(time_us[1:], time_us[:-1], out=back[1:])
    back[rows.firsts] = time_us[rows.firsts] < last_time_us[rows.codes]
    if not back.any():
        return rows, np.zeros(len(rows.codes), dtype=np.int64)
    folded = time_us.copy()
    ends = rows.ends()
    # only symbols that run backwards anywhere, which is rare
    for k in np.flatnonzero(np.logical_or.reduceat(back, rows.firsts)).tolist():
        own = folded[rows.firsts[k] : ends[k]]
        own[0] = max(own[0], last_time_us[rows.codes[k]])
        np.maximum.accumulate(own, out=own)
    late_ticks = np.add.reduceat((folded != time_us).astype(np.int64), rows.firsts)
    return replace(rows, time_us=folded), late_ticks


def check_ids(rows: Rows, symbols: pl.Series, carried: Columns) -> None:
    """Raises InputError when a symbol's trades come with ids here and came without before, or the reverse."""
    known = carried["last_time_us"][rows.codes] != NEVER
    had_ids = carried["last_trade_id"][rows.codes] != NO_ID
    has_ids = rows.trade_id[rows.firsts] != NO_ID
    mixed = np.flatnonzero(known & (had_ids != has_ids))
    if mixed.size:
        symbol = symbols[int(rows.codes[mixed[0]])]
        raise InputError(
            f"trades of {symbol} come partly with and partly without trade_id",
            hint="give every trade of a symbol its id, or none",
        )


def _encode(symbols: pl.Series, column: pl.Series) -> tuple[pl.Series, Array]:
    """`symbols` with the new ones of `column` appended, and each row's place among them."""
    values = column.to_arrow()
    places = pc.index_in(values, symbols.to_arrow())
    if places.null_count:
        unknown = column.filter(pl.Series(pc.is_null(places)))
        symbols = pl.concat([symbols, unknown.unique(maintain_order=True)])
        places = pc.index_in(values, symbols.to_arrow())
    return symbols, places.to_numpy().astype(np.int64)


def _check(trades: pl.DataFrame) -> None:
    schema = trades.schema
    for name in NEEDED:
        if name not in schema:
            raise InputError(f"the trades have no column {name}", hint=f"needed: {', '.join(NEEDED)}")
        if name == "trade_id" and schema[name] == pl.Null:
            continue
        if schema[name] != TRADE_DTYPES[name]:
            raise InputError(
                f"column {name} of the trades is {schema[name]}, not {TRADE_DTYPES[name]}",
                hint="cast it first",
            )
        nulls = trades.get_column(name).null_count()
        if nulls and not (name == "trade_id" and nulls == trades.height):
            raise InputError(f"column {name} of the trades holds {nulls} nulls")
