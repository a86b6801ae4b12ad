"""Columns of Binance figures become rows of trades: units, side, validity. For frames, REST and files alike."""

from __future__ import annotations

from typing import Final, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt
import polars as pl

from raven.batches.gate import Checked, check
from raven.batches.raw import epoch_us
from raven.batches.schema import BUY, SELL

Int64s: TypeAlias = npt.NDArray[np.int64]
Float64s: TypeAlias = npt.NDArray[np.float64]
Bools: TypeAlias = npt.NDArray[np.bool_]

_UTC: Final = pl.Datetime("us", "UTC")


class Figures(NamedTuple):
    """The figures of n trades as Binance gives them, a column each.

    `times` are Unix times of any unit, see `epoch_us`. `makers` is true where the buyer was the maker, so that the
    aggressor sold.
    """

    symbols: pl.Series
    ids: Int64s
    times: Int64s
    prices: Float64s
    quantities: Float64s
    makers: Bools


def build_rows(figures: Figures, *, recv_us: Int64s | None, origin: int, latest_us: int) -> Checked:
    """Rows of TRADE_SCHEMA from `figures`, as far as they pass the gate.

    `recv_us`: when each was received, Unix microseconds; None: not known, ts_recv is ts_event then. `latest_us`: every
    time lies before it.
    """
    event_us = epoch_us(figures.times)
    trades = pl.DataFrame(
        [
            figures.symbols.alias("symbol"),
            pl.Series("trade_id", figures.ids),
            pl.Series("ts_event", event_us).cast(_UTC),
            pl.Series("ts_recv", event_us if recv_us is None else recv_us).cast(_UTC),
            pl.Series("price", figures.prices),
            pl.Series("quantity", figures.quantities),
            pl.Series("side", np.where(figures.makers, np.int8(SELL), np.int8(BUY))),
            pl.Series("origin", np.full(len(figures.ids), origin, dtype=np.int8)),
        ]
    )
    return check(trades, latest_us=latest_us)
