"""Klines of the trades played so far, as the exchange's REST gives them."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

import polars as pl

from raven.sources.simulated.frames import decimal
from raven.sources.simulated.market import MARKET_DTYPES

INTERVALS: Final = {
    "1s": "1s", "1m": "1m", "3m": "3m", "5m": "5m", "15m": "15m", "30m": "30m", "1h": "1h", "2h": "2h", "4h": "4h",
    "6h": "6h", "8h": "8h", "12h": "12h", "1d": "1d", "3d": "3d", "1w": "1w", "1M": "1mo",
}  # fmt: skip
"""The exchange's intervals, and Polars' names of them."""

_TIME: Final = pl.Datetime("us")
_NO_TRADES: Final = pl.DataFrame(schema=MARKET_DTYPES)
_FOLD: Final = {
    "open": pl.Expr.first, "high": pl.Expr.max, "low": pl.Expr.min, "close": pl.Expr.last, "volume": pl.Expr.sum,
    "quote_volume": pl.Expr.sum, "count": pl.Expr.sum, "buy_volume": pl.Expr.sum, "buy_quote_volume": pl.Expr.sum,
}  # fmt: skip


def windows(interval: str, *, very_first_us: int, start_us: int | None, end_us: int, limit: int) -> pl.Series:
    """Open times (datetime[us]) of the windows a request asks for, from that of the very first trade on.

    With a start the first `limit` that open in start <= time <= end, without one the last `limit` that open by the end.
    """
    every = INTERVALS[interval]
    if max(very_first_us, start_us or 0) > end_us:
        return pl.Series(dtype=_TIME)
    earliest = pl.Series([very_first_us], dtype=pl.Int64).cast(_TIME).dt.truncate(every)
    end = pl.Series([end_us], dtype=pl.Int64).cast(_TIME)
    if start_us is None:
        start = max(earliest[0], end.dt.offset_by(_times(every, -limit))[0])
    else:
        lowest = pl.Series([start_us], dtype=pl.Int64).cast(_TIME)
        start = max(earliest[0], lowest[0])
        end = pl.Series([min(end[0], pl.Series([start], dtype=_TIME).dt.offset_by(_times(every, limit))[0])])
    opening = pl.Series([start], dtype=_TIME).dt.truncate(every)[0]
    opens = pl.datetime_range(opening, end[0], every, time_unit="us", eager=True)
    opens = opens.filter(opens >= start)
    return opens.tail(limit) if start_us is None else opens.head(limit)


def window_end_us(open_time: pl.Series, interval: str) -> int:
    """The end, exclusive, of the last window of a series of open times."""
    return int(open_time[-1:].dt.offset_by(INTERVALS[interval]).dt.timestamp("us")[0])


def bars(trades: Iterable[pl.DataFrame], interval: str) -> pl.DataFrame:
    """One row a window that has trades, exact to eight decimals; the trades may come in parts, in order of ids."""
    window = pl.from_epoch("time_us", "us").dt.truncate(INTERVALS[interval])
    price, quantity = decimal(pl.col("price")), decimal(pl.col("quantity"))
    bought = ~pl.col("is_sell")
    parts = [
        part.select(
            "price",
            open_time=window,
            volume=quantity,
            quote_volume=price * quantity,
            buy_volume=pl.when(bought).then(quantity).otherwise(decimal(pl.lit(0.0))),
            buy_quote_volume=pl.when(bought).then(price * quantity).otherwise(decimal(pl.lit(0.0))),
        )
        .group_by("open_time", maintain_order=True)
        .agg(
            pl.col("price").first().alias("open"),
            pl.col("price").max().alias("high"),
            pl.col("price").min().alias("low"),
            pl.col("price").last().alias("close"),
            pl.col("volume", "quote_volume", "buy_volume", "buy_quote_volume").sum(),
            pl.len().cast(pl.Int64).alias("count"),
        )
        for part in trades
    ] or [bars([_NO_TRADES], interval)]
    return (
        pl.concat(parts)
        .group_by("open_time", maintain_order=True)
        .agg(fold(pl.col(name)) for name, fold in _FOLD.items())
        .sort("open_time")
    )


def rows(
    opens: pl.Series, found: pl.DataFrame, interval: str, *, price_before: float | None, micros: bool
) -> pl.Series:
    """The JSON text of each kline of the windows `opens` (see `windows`), out of the bars found in them.

    A window without trades repeats the close before it (`price_before` for the first ones); before the very first
    trade there are no klines.
    """
    times = (
        pl.col("open_time").dt.timestamp("us"),
        pl.col("open_time").dt.offset_by(INTERVALS[interval]).dt.timestamp("us"),
    )
    opened, ended = times if micros else tuple(time // 1_000 for time in times)
    close = pl.col("close").forward_fill().fill_null(pl.lit(price_before, dtype=pl.Float64))
    filled = (
        opens.alias("open_time")
        .to_frame()
        .join(found, on="open_time", how="left", maintain_order="left")
        .with_columns(close=close)
        .filter(pl.col("close").is_not_null())
        .with_columns(
            *(pl.col(name).fill_null(pl.col("close")) for name in ("open", "high", "low")),
            pl.col("count").fill_null(0),
            pl.col("volume", "quote_volume", "buy_volume", "buy_quote_volume").fill_null(decimal(pl.lit(0.0))),
        )
    )
    number = [decimal(pl.col(name)).cast(pl.String) for name in _FOLD]
    text = pl.format(
        '[{},"{}","{}","{}","{}","{}",{},"{}",{},"{}","{}","0"]',
        opened,
        *number[:5],
        ended - 1,
        number[5],
        pl.col("count"),
        *number[7:],
    )
    return filled.select(text.alias("text")).to_series()


def _times(every: str, count: int) -> str:
    """`count` times a duration in Polars' spelling."""
    found = re.fullmatch(r"(\d+)(\D+)", every)
    assert found is not None
    steps = int(found[1]) * count
    return f"{'-' if steps < 0 else ''}{abs(steps)}{found[2]}"
