"""The one OHLCV fold: trades to partial bars, a partial bar joined to the carried one, bars to a frame.

A bar type only adds the rule that says where a bar ends.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from raven.bars.carry import NO_ID, Array, Columns

if TYPE_CHECKING:
    from raven.bars.rows import Rows


def fold(rows: Rows, starts: Array) -> Columns:
    """Partial bars of `rows`: bar i is made of rows `starts[i]` up to `starts[i + 1]`, the last to the end.

    `starts` is ascending and begins with 0; no bar may span two symbols. Times in microseconds.
    """
    ends = np.append(starts[1:], rows.height) - 1
    quote = rows.price * rows.quantity
    return {
        "open_time_us": rows.time_us[starts],
        "last_time_us": rows.time_us[ends],
        "open": rows.price[starts],
        "high": np.maximum.reduceat(rows.price, starts),
        "low": np.minimum.reduceat(rows.price, starts),
        "close": rows.price[ends],
        "volume": np.add.reduceat(rows.quantity, starts),
        "quote_volume": np.add.reduceat(quote, starts),
        "buy_volume": np.add.reduceat(rows.quantity * rows.is_buy, starts),
        "buy_quote_volume": np.add.reduceat(quote * rows.is_buy, starts),
        "buy_ticks": np.add.reduceat(rows.is_buy.astype(np.int64), starts),
        "total_ticks": ends - starts + 1,
        "first_trade_id": rows.trade_id[starts],
        "last_trade_id": rows.trade_id[ends],
    }


def join(earlier: Columns, later: Columns) -> Columns:
    """Bars whose trades are those of `earlier` and then those of `later`, row by row."""
    return {
        **{name: earlier[name] for name in ("open_time_us", "open", "first_trade_id")},
        **{name: later[name] for name in ("last_time_us", "close", "last_trade_id")},
        "high": np.maximum(earlier["high"], later["high"]),
        "low": np.minimum(earlier["low"], later["low"]),
        **{
            name: earlier[name] + later[name]
            for name in (
                "volume",
                "quote_volume",
                "buy_volume",
                "buy_quote_volume",
                "buy_ticks",
                "total_ticks",
            )
        },
    }


@dataclass(frozen=True, slots=True)
class Chain:
    """The bars a batch touched, by symbol and then in time; the carried bars it touched are among them.

    `code`: the symbol's state row. `is_last`: the newest bar of its symbol. `end_seen`: the trade whose id
    follows the bar's last one was seen, and opened the next bar.
    """

    bars: Columns
    code: Array
    is_last: Array
    end_seen: Array


def chain(carried: Columns, parts: Columns, code: Array, joins: Array) -> Chain:
    """Link partial bars to the carried open ones.

    `parts[i]` belongs to state row `code[i]` (ascending). `joins[i]`: it goes on the carried open bar. A
    carried open bar that no part goes on stands as it is before its symbol's first part. `parts` may hold
    further columns of the state; they must be settled for joined parts already.
    """
    leads = np.append(True, code[1:] != code[:-1])
    before = np.append(NO_ID, parts["last_trade_id"][:-1])
    before[leads] = carried["last_trade_id"][code[leads]]
    follows = (parts["first_trade_id"] == before + 1) & (before != NO_ID)
    bars = {**parts, "start_seen": np.where(joins, carried["start_seen"][code], follows)}

    joined = np.flatnonzero(joins)
    if joined.size:
        for name, column in join(select(carried, code[joined]), select(parts, joined)).items():
            bars[name][joined] = column

    left = np.flatnonzero(leads & ~joins & (carried["total_ticks"][code] > 0))
    if left.size:
        owners = code[left]
        code = np.concatenate([owners, code])
        order = np.argsort(code, kind="stable")
        code = code[order]
        bars = {name: np.concatenate([carried[name][owners], column])[order] for name, column in bars.items()}
        follows = np.concatenate([np.zeros(len(owners), dtype=bool), follows])[order]

    is_last = np.append(code[1:] != code[:-1], True)
    end_seen = np.append(follows[1:], False) & ~is_last
    return Chain(bars, code, is_last, end_seen)


def select(columns: Columns, where: Array) -> Columns:
    """The rows of `columns` that `where` (a mask or indices) picks."""
    return {name: column[where] for name, column in columns.items()}


def bars_frame(
    bars: Columns, symbols: pl.Series, empty: pl.DataFrame, *, venue: str, spec: str, nulls: Sequence[str] = ()
) -> pl.DataFrame:
    """Bars as users see them: the columns and types of `empty`, by close_time, then symbol as first seen.

    `bars` holds the fold's columns, `code` (each bar's place in `symbols`), `complete` (what ids prove) and
    any further column of `empty` but `nulls`, which these bars do not have; `close_time_us`, where present, stands
    for the last trade's time. Bars of one symbol and close_time keep their order.
    """
    height = len(bars["code"])
    if height == 0:
        return empty.clone()
    order = np.lexsort((bars["code"], bars.get("close_time_us", bars["last_time_us"])))
    bars = select(bars, order)
    no_ids = bars["first_trade_id"] == NO_ID
    volume = bars["volume"]
    columns = {
        **bars,
        "venue": pl.Series([venue]).new_from_index(0, height),
        "symbol": symbols.gather(bars["code"]),
        "spec": pl.Series([spec]).new_from_index(0, height),
        "open_time": pl.Series(bars["open_time_us"]).cast(empty.schema["open_time"]),
        "close_time": pl.Series(bars.get("close_time_us", bars["last_time_us"])).cast(empty.schema["close_time"]),
        # a bar of zero quantity has no weights; its close stands in
        "vwap": np.divide(bars["quote_volume"], volume, out=bars["close"].copy(), where=volume > 0),
        "sell_ticks": bars["total_ticks"] - bars["buy_ticks"],
        "revision": 2 * bars["total_ticks"] + bars["complete"],
        **{name: pl.Series([None], dtype=empty.schema[name]).new_from_index(0, height) for name in nulls},
    }
    frame = pl.DataFrame({name: columns[name] for name in empty.columns})
    if no_ids.any():
        unknown = pl.lit(pl.Series(no_ids))
        frame = frame.with_columns(pl.when(~unknown).then(pl.col("first_trade_id", "last_trade_id", "complete")))
    return frame
