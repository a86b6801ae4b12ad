"""Rows that tell of one id: the same trade once more, or another one under an id that is taken. Pure.

The same is what has the same price, quantity and side, and the same time in what precision both have (archives of
milliseconds, captures of microseconds). Kept is the earliest row, of one trade told twice the finer time.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, NamedTuple

import polars as pl

from raven.batches.schema import BUY

KEY: Final = ("symbol", "trade_id")
_ms: Final = pl.col("ts_event").dt.truncate("1ms")
_KEPT_FIRST: Final = (
    *map(pl.col, KEY), _ms, pl.col("price"), pl.col("quantity"), pl.col("side"), -pl.col("ts_event").dt.epoch("us"),
    pl.col("origin"), pl.col("ts_recv"), pl.col("_file"),
)  # fmt: skip
"""A total order of rows of one id: whichever are compared first, the same one is kept in the end."""


@dataclass(frozen=True, slots=True)
class Told:
    """What one file says of a trade: time (UTC), price (quote per base), quantity (base units), side (+1, -1)."""

    ts_event: datetime
    price: float
    quantity: float
    side: int
    file: str

    def __str__(self) -> str:
        side = "buy" if self.side == BUY else "sell"
        source = f" ({self.file})" if self.file else ""
        return f"{side} {self.quantity:.10g} at {self.price:.10g}, {self.ts_event:%Y-%m-%d %H:%M:%S.%f}{source}"


@dataclass(frozen=True, slots=True)
class Conflict:
    """One id that two rows give to different trades."""

    symbol: str
    trade_id: int
    kept: Told
    other: Told

    def __str__(self) -> str:
        return f"{self.symbol} {self.trade_id} is two trades: {self.kept} and {self.other}"


class Settled(NamedTuple):
    """`kept`: of each id one row; `repeats`: how many others said the same; `conflicts`: pairs that do not."""

    kept: pl.DataFrame
    repeats: int
    conflicts: pl.DataFrame


def told_twice(trades: pl.DataFrame) -> pl.Series:
    """Which rows share symbol and id with another."""
    again = pl.all_horizontal(pl.col(name) == pl.col(name).shift() for name in KEY).fill_null(value=False)
    in_order = (pl.col("trade_id") >= pl.col("trade_id").shift()) | (pl.col("symbol") != pl.col("symbol").shift())
    looked_at = trades.select(again=again, in_order=in_order.fill_null(value=True))
    one_run_each = trades.get_column("symbol").rle_id().max() == trades.get_column("symbol").n_unique() - 1
    if one_run_each and looked_at.get_column("in_order").all():
        is_again = looked_at.get_column("again")
        return is_again | is_again.shift(-1, fill_value=False)
    return trades.select(pl.struct(KEY).is_duplicated().alias("again")).get_column("again")


def settle(rows: pl.DataFrame) -> Settled:
    """One row of each id of `rows` (TRADE_SCHEMA and `_file`, the number of the file each is of), sorted by id."""
    ordered = rows.sort(_KEPT_FIRST)
    kept = ordered.unique(KEY, keep="first", maintain_order=True)
    pairs = ordered.join(kept, on=KEY, suffix="_kept", how="left", maintain_order="left")
    whole = pl.any_horizontal((pl.col(name).dt.microsecond() % 1000 == 0) for name in ("ts_event", "ts_event_kept"))
    same_ms = _ms == pl.col("ts_event_kept").dt.truncate("1ms")
    same_time = (pl.col("ts_event") == pl.col("ts_event_kept")) | (same_ms & whole)
    same = pl.all_horizontal(pl.col(name) == pl.col(f"{name}_kept") for name in ("price", "quantity", "side"))
    conflicts = pairs.filter(~(same & same_time))
    return Settled(kept, ordered.height - kept.height - conflicts.height, conflicts)


def conflict(pair: dict[str, Any], kept_in: str, other_in: str) -> Conflict:
    """A row of `Settled.conflicts` in words, with where the two were told."""
    return Conflict(pair["symbol"], pair["trade_id"], _told(pair, "_kept", kept_in), _told(pair, "", other_in))


def _told(row: dict[str, Any], suffix: str, file: str) -> Told:
    time, price, quantity, side = (row[f"{name}{suffix}"] for name in ("ts_event", "price", "quantity", "side"))
    return Told(time, price, quantity, side, file)
