"""Tick imbalance bars (TIBs): a bar closes when buys outweigh sells, or the reverse, by what is expected."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Final

import polars as pl

from raven.bars.carry import COMMON_DEFAULTS, Array, Columns, Defaults, empty_state
from raven.bars.closing import open_bars, step
from raven.bars.crossing import cut
from raven.bars.fold import bars_frame
from raven.bars.parameters import number, out_of_range, plain, spelt
from raven.batches.schema import TIB_DTYPES, TIB_SCHEMA

if TYPE_CHECKING:
    import pyarrow as pa

    from raven.bars.rows import Rows
    from raven.batches.batch import TradeBatch

_FEW_TRADES: Final = 5
_NO_BARS: Final = pl.DataFrame(schema=TIB_DTYPES)


@dataclass(frozen=True, slots=True)
class TickImbalanceKernel:
    """Tick imbalance bars, closed by trades alone; watermarks do nothing to them.

    With b = side, at the start T = initial_size, B = 2·initial_p_buy - 1, threshold = T·B. The first trade
    opens a bar without a closing test; each next one adds b to theta, and the bar closes with it when
    |theta| >= |threshold|. On close, with n trades: p = ((n + theta) / 2) / n,
    B = alpha_imbl·(2p - 1) + (1 - alpha_imbl)·B, T = alpha_size·n + (1 - alpha_size)·T within size_min and
    size_max.

    Two guards against thresholds that collapse, off by default. `min_imbalance` (0: off) bounds |B| from
    below, the initial one included; B keeps its sign, and a B of exactly zero takes the sign of the one before
    (plus at the start). `max_ticks` (None or 0: off) closes a bar with that many trades; that is a close like
    any other, after which B and T learn from the bar.

    A jump in trade ids is a gap that will not be filled: the open bar closes incomplete before it, T and B
    stay, and the next trade opens a bar. open_time and close_time are the first and last trade's ts_event,
    each folded at its symbol's running maximum, so that no bar ends before it begins; trades folded are
    counted in the state's `late_ticks`.

    Raises InputError when a parameter is out of range.
    """

    initial_size: float = 100.0
    initial_p_buy: float = 0.7
    alpha_size: float = 0.1
    alpha_imbl: float = 0.1
    size_min: float = 50.0
    size_max: float = 1000.0
    min_imbalance: float = 0.0
    max_ticks: int | None = None

    def __post_init__(self) -> None:
        for field in fields(self):
            if field.name != "max_ticks":
                object.__setattr__(self, field.name, number(field.name, getattr(self, field.name)))
        for name in ("initial_p_buy", "alpha_size", "alpha_imbl", "min_imbalance"):
            if not 0 <= getattr(self, name) <= 1:
                raise out_of_range(name, getattr(self, name), "between 0 and 1")
        for name in ("initial_size", "size_min"):
            if getattr(self, name) <= 0:
                raise out_of_range(name, getattr(self, name), "above 0")
        if self.size_max < self.size_min:
            raise out_of_range("size_max", self.size_max, f"at least {spelt('size_min')}, {plain(self.size_min)}")
        max_ticks = self.max_ticks or None
        if max_ticks is not None and (not isinstance(max_ticks, int) or max_ticks < 2):
            raise out_of_range("max_ticks", max_ticks, "a whole number of at least 2, or 0 for no limit")
        object.__setattr__(self, "max_ticks", max_ticks)

    @property
    def kind(self) -> str:
        """`tick_imbalance_bars`."""
        return "tick_imbalance_bars"

    @property
    def spec(self) -> str:
        """All parameters, `tib-100-0.7-0.1-0.1-50-1000`; guards only when set: `-b0.01`, `-n5000`."""
        numbers = [
            self.initial_size,
            self.initial_p_buy,
            self.alpha_size,
            self.alpha_imbl,
            self.size_min,
            self.size_max,
        ]
        label = "-".join(["tib", *map(plain, numbers)])
        if self.min_imbalance > 0:
            label += f"-b{plain(self.min_imbalance)}"
        if self.max_ticks is not None:
            label += f"-n{self.max_ticks}"
        return label

    @property
    def schema(self) -> pa.Schema:
        """TIB_SCHEMA."""
        return TIB_SCHEMA

    @property
    def fingerprint(self) -> str:
        """Kind and spec."""
        return f"{self.kind}:{self.spec}"

    @property
    def warning(self) -> str | None:
        """What is legal here but likely a mistake, for the caller to show; None when nothing is."""
        least = self.size_min * self.min_imbalance
        if self.min_imbalance > 0 and least < _FEW_TRADES:
            return (
                f"{spelt('min_imbalance')} {plain(self.min_imbalance)} with {spelt('size_min')} {plain(self.size_min)} "
                f"lets the threshold fall to {least:g} trades: below {_FEW_TRADES} the bars are mostly noise"
            )
        return None

    def initial(self) -> pl.DataFrame:
        """The state before the first trade; beside the common columns, T and B.

        They are the columns `expected_size` and `expected_imbalance`.
        """
        return empty_state(self._defaults())

    def step(self, state: pl.DataFrame, batch: TradeBatch) -> tuple[pl.DataFrame, pl.DataFrame]:
        """The next state, and the bars that the trades closed."""
        if batch.trades.is_empty():
            return state, _NO_BARS.clone()
        state, symbols, bars = step(state, batch, self._defaults(), self._cut)
        return state, self._bars(bars, symbols, batch.venue)

    def open_bars(self, state: pl.DataFrame, venue: str) -> pl.DataFrame:
        """The bars still open, as they stand, never complete (null without ids)."""
        symbols, bars = open_bars(state)
        return self._bars(bars, symbols, venue)

    def _defaults(self) -> Defaults:
        imbalance = self._bounded(2 * self.initial_p_buy - 1, 1.0)
        return {**COMMON_DEFAULTS, "expected_size": self.initial_size, "expected_imbalance": imbalance}

    def _cut(self, rows: Rows, carried: Columns, breaks: Array, goes_on: Array) -> tuple[Columns, Columns]:
        return cut(rows, carried, breaks, goes_on, learn=self._learn, max_ticks=self.max_ticks)

    def _learn(self, ticks: int, theta: float, size: float, imbalance: float) -> tuple[float, float]:
        """T and B after a bar of `ticks` trades closed with `theta`, from T and B before it."""
        p_buy = ((ticks + theta) / 2) / ticks
        learned = self.alpha_imbl * (2 * p_buy - 1) + (1 - self.alpha_imbl) * imbalance
        size = min(max(self.alpha_size * ticks + (1 - self.alpha_size) * size, self.size_min), self.size_max)
        return size, self._bounded(learned, imbalance)

    def _bounded(self, imbalance: float, before: float) -> float:
        if abs(imbalance) >= self.min_imbalance:
            return imbalance
        return math.copysign(self.min_imbalance, before if imbalance == 0 else imbalance)

    def _bars(self, bars: Columns, symbols: pl.Series, venue: str) -> pl.DataFrame:
        bars = {
            **bars,
            "theta": 2.0 * bars["buy_ticks"] - bars["total_ticks"],
            "threshold": bars["expected_size"] * bars["expected_imbalance"],
        }
        return bars_frame(bars, symbols, _NO_BARS, venue=venue, spec=self.spec)
