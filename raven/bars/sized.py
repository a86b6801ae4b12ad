"""Tick, volume and dollar bars: a bar closes when it holds so many trades, base units or quote units."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal, get_args

import numpy as np
import polars as pl

from raven.bars.carry import COMMON_DEFAULTS, Array, Columns, Defaults, empty_state
from raven.bars.closing import Cuts, open_bars, step, stops_of
from raven.bars.fold import bars_frame
from raven.bars.parameters import number, out_of_range, plain
from raven.batches.schema import TIB_DTYPES, TIB_SCHEMA

if TYPE_CHECKING:
    import pyarrow as pa

    from raven.bars.rows import Rows
    from raven.batches.batch import TradeBatch

Measure = Literal["tick", "volume", "dollar"]
"""What a bar's size is counted in: trades, base units, or quote units (of whatever currency)."""

MEASURES: Final[tuple[Measure, ...]] = get_args(Measure)

_PARAMETERS: Final[dict[Measure, str]] = {"tick": "ticks", "volume": "volume", "dollar": "dollars"}
_DEFAULTS: Final[Defaults] = {**COMMON_DEFAULTS, "reached": 0.0}
_NO_BARS: Final = pl.DataFrame(schema=TIB_DTYPES)
_LEARNED: Final = ("expected_size", "expected_imbalance")
_ROUNDING: Final = 1e-12
_MIN_WINDOW_ROWS: Final = 32


@dataclass(frozen=True, slots=True)
class SizedBarKernel:
    """Bars of `size` trades, base units or quote units; watermarks do nothing to them.

    A bar closes with the trade with which its trades, its volume or its quote volume reach `size`; a trade is never
    split, so a bar may be larger, and a large trade is a bar alone. What is reached is summed in float64, trade by
    trade from the bar's first on, so that it depends on the bar alone and not on the batches it came in. A sum short
    of `size` by a 10⁻¹² part of it is short by its rounding, and has reached it: a hundred trades of 0.1 make 10.

    Gaps, times and proofs are those of tick imbalance bars: a jump in trade ids closes the open bar incomplete, times
    are folded at the running maximum, and a bar is complete when its ids are contiguous and follow a trade seen.

    Raises InputError, naming the parameter, when `size` is not above 0 or, of ticks, no whole number.
    """

    measure: Measure
    size: float

    def __post_init__(self) -> None:
        name = _PARAMETERS[self.measure]
        size = number(name, self.size)
        if self.measure == "tick" and (size < 1 or not size.is_integer()):
            raise out_of_range(name, self.size, "a whole number above 0")
        if size <= 0:
            raise out_of_range(name, self.size, "above 0")
        object.__setattr__(self, "size", size)

    @property
    def kind(self) -> str:
        """`tick_imbalance_bars`: the table of all bars that trades close."""
        return "tick_imbalance_bars"

    @property
    def spec(self) -> str:
        """`tick-500`, `volume-10`, `dollar-1000000`."""
        return f"{self.measure}-{plain(self.size)}"

    @property
    def schema(self) -> pa.Schema:
        """TIB_SCHEMA; expected_size and expected_imbalance are null."""
        return TIB_SCHEMA

    @property
    def fingerprint(self) -> str:
        """Kind and spec."""
        return f"{self.kind}:{self.spec}"

    def initial(self) -> pl.DataFrame:
        """The state before the first trade; beside the common columns, `reached`, how large the open bar is."""
        return empty_state(_DEFAULTS)

    def step(self, state: pl.DataFrame, batch: TradeBatch) -> tuple[pl.DataFrame, pl.DataFrame]:
        """The next state, and the bars that the trades closed."""
        if batch.trades.is_empty():
            return state, _NO_BARS.clone()
        state, symbols, bars = step(state, batch, _DEFAULTS, self._cut)
        return state, self._bars(bars, symbols, batch.venue)

    def open_bars(self, state: pl.DataFrame, venue: str) -> pl.DataFrame:
        """The bars still open, as they stand, never complete (null without ids)."""
        symbols, bars = open_bars(state)
        return self._bars(bars, symbols, venue)

    def _cut(self, rows: Rows, carried: Columns, breaks: Array, goes_on: Array) -> tuple[Columns, Columns]:
        """The rule; see `closing.Cut`."""
        bound = self.size if self.measure == "tick" else self.size * (1 - _ROUNDING)
        amounts = self._amounts(rows)
        ends = rows.ends()
        before = np.where(goes_on, carried["reached"][rows.codes], 0.0)
        reached = before.copy()
        # one after the other, as cumsum adds and reduceat does not
        np.add.at(reached, np.repeat(np.arange(len(rows.codes)), ends - rows.firsts), amounts)
        over = (reached >= bound) | np.logical_or.reduceat(breaks, rows.firsts)
        cuts = Cuts()
        for k in np.flatnonzero(over).tolist():
            first = int(rows.firsts[k])
            stops = stops_of(breaks, first, int(ends[k]))
            reached[k] = _cut_symbol(cuts, amounts, first, stops, bound, float(before[k]), bool(goes_on[k]))
        return cuts.in_row_order(rows, goes_on, ~over, {}), {"reached": reached}

    def _amounts(self, rows: Rows) -> Array:
        """What each trade adds to its bar's size."""
        if self.measure == "tick":
            return np.ones(rows.height)
        return rows.quantity if self.measure == "volume" else rows.price * rows.quantity

    def _bars(self, bars: Columns, symbols: pl.Series, venue: str) -> pl.DataFrame:
        bars = {
            **bars,
            "theta": 2.0 * bars["buy_ticks"] - bars["total_ticks"],
            "threshold": np.full(len(bars["code"]), self.size),
        }
        return bars_frame(bars, symbols, _NO_BARS, venue=venue, spec=self.spec, nulls=_LEARNED)


def _cut_symbol(
    cuts: Cuts, amounts: Array, row: int, stops: list[int], bound: float, reached: float, joins: bool
) -> float:
    """Cut one symbol's rows, from `row` to the last of `stops`; returns how large the bar open after them is.

    Every stop ends an open bar: rows after gaps, and the symbol's end. `reached` is the size of the bar that is
    open before `row`, where `joins` says that there is one.
    """
    window_rows = _MIN_WINDOW_ROWS
    for stop in stops:
        while row < stop:
            last, reached = first_reaching(amounts, row, stop, base=reached, bound=bound, window_rows=window_rows)
            closed = last < stop
            cuts.add(row, joins, closed)
            window_rows = max(_MIN_WINDOW_ROWS, (last - row) * 5 // 4)
            row, joins = min(last + 1, stop), False
            if closed or stop != stops[-1]:
                reached = 0.0
    return reached


def first_reaching(
    amounts: Array, lo: int, hi: int, *, base: float, bound: float, window_rows: int
) -> tuple[int, float]:
    """The first i of lo <= i < hi with base + amounts[lo] + … + amounts[i] >= bound, added in this order, and the sum.

    `hi` and the sum of all where there is none. `amounts` must not be negative.
    """
    while lo < hi:
        window = amounts[lo : min(lo + window_rows, hi)].copy()
        window[0] += base
        sums = np.cumsum(window, out=window)
        at = int(sums.searchsorted(bound))
        if at < len(sums):
            return lo + at, float(sums[at])
        base = float(sums[-1])
        lo += window_rows
        window_rows *= 2
    return hi, base
