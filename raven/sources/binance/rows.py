"""Columns of Binance figures become rows of trades: units, side, validity. For frames, REST and files alike."""

from __future__ import annotations

from typing import Final, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt
import polars as pl

from raven.batches.gate import BadReason

Int64s: TypeAlias = npt.NDArray[np.int64]
Float64s: TypeAlias = npt.NDArray[np.float64]
Bools: TypeAlias = npt.NDArray[np.bool_]

_MICROSECONDS_FROM: Final = 10**15
_EARLIEST_US: Final = 1_230_768_000_000_000  # 2009-01-01, when there was nothing to trade yet
_LATEST_US: Final = 4_102_444_800_000_000  # 2100-01-01
_UTC: Final = pl.Datetime("us", "UTC")


class Figures(NamedTuple):
    """The figures of n trades as Binance gives them, a column each.

    `times` are Unix milliseconds or microseconds, told apart by magnitude row by row (10**15 and more is
    microseconds). `makers` is true where the buyer was the maker, so that the aggressor sold.
    """

    symbols: pl.Series
    ids: Int64s
    times: Int64s
    prices: Float64s
    quantities: Float64s
    makers: Bools


class Rows(NamedTuple):
    """`trades`: the valid rows (TRADE_SCHEMA), in order; `bad`: (position among all, reason) of every other."""

    trades: pl.DataFrame
    bad: list[tuple[int, BadReason]]


def build_rows(figures: Figures, *, recv_us: Int64s | None, origin: int) -> Rows:
    """Rows of TRADE_SCHEMA from `figures`; invalid ones are left out, each with its reason.

    `recv_us`: when each was received, Unix microseconds; None: not known, ts_recv is ts_event then.
    """
    event_us = np.where(figures.times >= _MICROSECONDS_FROM, figures.times, figures.times * 1000)
    # negative times are refused as given: multiplied they could wrap around into the valid range
    good_time = (figures.times >= 0) & (event_us >= _EARLIEST_US) & (event_us < _LATEST_US)
    good_price = (figures.prices > 0) & (figures.prices < np.inf)
    good_quantity = (figures.quantities > 0) & (figures.quantities < np.inf)
    good_id = figures.ids >= 0
    named = figures.symbols != ""
    valid = good_time & good_price & good_quantity & good_id
    if not named.all(ignore_nulls=False):
        valid &= named.fill_null(value=False).to_numpy()
    trades = pl.DataFrame(
        [
            figures.symbols.alias("symbol"),
            pl.Series("trade_id", figures.ids),
            pl.Series("ts_event", event_us).cast(_UTC),
            pl.Series("ts_recv", event_us if recv_us is None else recv_us).cast(_UTC),
            pl.Series("price", figures.prices),
            pl.Series("quantity", figures.quantities),
            pl.Series("side", np.where(figures.makers, np.int8(-1), np.int8(1))),
            pl.Series("origin", np.full(len(figures.ids), origin, dtype=np.int8)),
        ]
    )
    if valid.all():
        return Rows(trades, [])
    reasons = np.select(
        [~named.fill_null(value=False).to_numpy(), ~good_id, ~good_time, ~good_price],
        [BadReason.BAD_SYMBOL, BadReason.BAD_ID, BadReason.BAD_TIME, BadReason.BAD_PRICE],
        default=BadReason.BAD_QUANTITY,
    )
    at = np.flatnonzero(~valid)
    bad = list(zip(at.tolist(), map(BadReason, reasons[at].tolist()), strict=True))
    return Rows(trades.filter(valid), bad)
