"""Slow, obvious per-trade oracles of all bar types, and how bars are compared with them.

They keep the trades of the open bar in a list and compute every figure from that list.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field

import polars as pl
import pytest
from polars.testing import assert_frame_equal

SUMS = ("volume", "quote_volume", "vwap", "buy_volume", "buy_quote_volume")
"""The columns that are floating sums: equal to 1e-12 relative; all others exactly."""


@dataclass(frozen=True)
class Trade:
    symbol: str
    trade_id: int | None
    ts_us: int
    price: float
    quantity: float
    side: int


@dataclass
class OpenBar:
    start_seen: bool
    trades: list[tuple[Trade, int]] = field(default_factory=list)
    """Each trade and the time it is folded at."""
    emitted_ticks: int = 0

    def figures(self, complete: bool) -> dict:
        trades = [trade for trade, _ in self.trades]
        buys = [trade for trade in trades if trade.side == 1]
        volume = math.fsum(trade.quantity for trade in trades)
        quote_volume = math.fsum(trade.price * trade.quantity for trade in trades)
        has_ids = trades[0].trade_id is not None
        return {
            "symbol": trades[0].symbol,
            "open": trades[0].price,
            "high": max(trade.price for trade in trades),
            "low": min(trade.price for trade in trades),
            "close": trades[-1].price,
            "volume": volume,
            "quote_volume": quote_volume,
            "vwap": quote_volume / volume if volume > 0 else trades[-1].price,
            "buy_volume": math.fsum(trade.quantity for trade in buys),
            "buy_quote_volume": math.fsum(trade.price * trade.quantity for trade in buys),
            "buy_ticks": len(buys),
            "sell_ticks": len(trades) - len(buys),
            "total_ticks": len(trades),
            "first_trade_id": trades[0].trade_id,
            "last_trade_id": trades[-1].trade_id,
            "complete": complete if has_ids else None,
            "revision": 2 * len(trades) + (complete and has_ids),
        }


class TimeBarOracle:
    def __init__(self, every_us: int, allowed_lateness_us: int = 2_000_000) -> None:
        self.every_us = every_us
        self.allowed_lateness_us = allowed_lateness_us
        self.open: dict[str, OpenBar] = {}
        self.late_ticks: dict[str, int] = {}

    def step(self, trades: Iterable[Trade], watermark_us: int | None = None, held: Iterable[str] = ()) -> list[dict]:
        emitted = []
        for trade in trades:
            emitted += self._add(trade)
        if watermark_us is None:
            return emitted
        for symbol, bar in self.open.items():
            over = self._open_us(bar) + self.every_us + self.allowed_lateness_us <= watermark_us
            if over and symbol not in held and len(bar.trades) > bar.emitted_ticks:
                bar.emitted_ticks = len(bar.trades)
                emitted.append(self._row(bar, complete=False))
        return emitted

    def still_open(self) -> list[dict]:
        return [self._row(bar, complete=False) for bar in self.open.values()]

    def _add(self, trade: Trade) -> list[dict]:
        bar = self.open.get(trade.symbol)
        if bar is None:
            self.open[trade.symbol] = OpenBar(start_seen=False, trades=[(trade, trade.ts_us)])
            return []
        last, last_us = bar.trades[-1]
        folded_us = max(trade.ts_us, last_us)
        self.late_ticks[trade.symbol] = self.late_ticks.get(trade.symbol, 0) + (folded_us > trade.ts_us)
        if folded_us < self._open_us(bar) + self.every_us:
            bar.trades.append((trade, folded_us))
            return []
        follows = trade.trade_id is not None and trade.trade_id == last.trade_id + 1
        ids = [each.trade_id for each, _ in bar.trades]
        whole = ids[0] is not None and ids == list(range(ids[0], ids[0] + len(ids)))
        complete = bar.start_seen and whole and follows
        self.open[trade.symbol] = OpenBar(start_seen=follows, trades=[(trade, folded_us)])
        if len(bar.trades) == bar.emitted_ticks and not complete:
            return []
        return [self._row(bar, complete=complete)]

    def _open_us(self, bar: OpenBar) -> int:
        return bar.trades[0][1] // self.every_us * self.every_us

    def _row(self, bar: OpenBar, *, complete: bool) -> dict:
        open_us = self._open_us(bar)
        return {"open_time": open_us, "close_time": open_us + self.every_us, **bar.figures(complete)}


class ClosedByTradesOracle(ABC):
    """Bars that trades close; a type says when, and what is shown beside the figures."""

    def __init__(self) -> None:
        self.open: dict[str, OpenBar] = {}
        self.last: dict[str, tuple[Trade, int]] = {}

    @abstractmethod
    def is_over(self, trades: list[Trade]) -> bool:
        """Whether the last of `trades` closes the bar they make."""

    def learn(self, trades: list[Trade]) -> None:  # noqa: B027 - most types learn nothing
        """A bar of `trades` closed by the rule."""

    @abstractmethod
    def own_figures(self, _symbol: str) -> dict:
        """What is shown of a bar beside the figures of all bars."""

    def step(self, trades: Iterable[Trade]) -> list[dict]:
        closed = []
        for trade in trades:
            closed += self._add(trade)
        return closed

    def still_open(self) -> list[dict]:
        return [self._row(bar, complete=False) for bar in self.open.values()]

    def _add(self, trade: Trade) -> list[dict]:
        symbol = trade.symbol
        last, last_us = self.last.get(symbol, (None, trade.ts_us))
        folded_us = max(trade.ts_us, last_us)
        self.last[symbol] = (trade, folded_us)
        has_ids = trade.trade_id is not None
        follows = last is not None and has_ids and trade.trade_id == last.trade_id + 1
        gap = last is not None and has_ids and not follows
        closed = []
        if gap and symbol in self.open:
            closed.append(self._row(self.open.pop(symbol), complete=False))
        bar = self.open.setdefault(symbol, OpenBar(start_seen=follows))
        bar.trades.append((trade, folded_us))
        trades = [each for each, _ in bar.trades]
        if self.is_over(trades):
            closed.append(self._row(self.open.pop(symbol), complete=bar.start_seen))
            self.learn(trades)
        return closed

    def _row(self, bar: OpenBar, *, complete: bool) -> dict:
        return {
            "open_time": bar.trades[0][1],
            "close_time": bar.trades[-1][1],
            **bar.figures(complete),
            "theta": float(sum(trade.side for trade, _ in bar.trades)),
            **self.own_figures(bar.trades[0][0].symbol),
        }


class SizedOracle(ClosedByTradesOracle):
    """Tick, volume and dollar bars; what is reached is added up trade by trade."""

    def __init__(self, measure: str, size: float) -> None:
        super().__init__()
        self.measure = measure
        self.size = float(size)

    def is_over(self, trades: list[Trade]) -> bool:
        if self.measure == "tick":
            return len(trades) == self.size
        reached = 0.0
        for trade in trades:
            reached += trade.quantity if self.measure == "volume" else trade.price * trade.quantity
        return reached >= self.size * (1 - 1e-12)

    def own_figures(self, _symbol: str) -> dict:
        return {"threshold": self.size, "expected_size": None, "expected_imbalance": None}


class TickImbalanceOracle(ClosedByTradesOracle):
    """The parameters are those of the kernel."""

    def __init__(
        self,
        initial_size=100.0,
        initial_p_buy=0.7,
        alpha_size=0.1,
        alpha_imbl=0.1,
        size_min=50.0,
        size_max=1000.0,
        min_imbalance=0.0,
        max_ticks=None,
    ) -> None:
        super().__init__()
        self.alpha_size = alpha_size
        self.alpha_imbl = alpha_imbl
        self.size_min = size_min
        self.size_max = size_max
        self.min_imbalance = min_imbalance
        self.max_ticks = max_ticks
        self.size: dict[str, float] = defaultdict(lambda: initial_size)
        imbalance_first = self._bound(2 * initial_p_buy - 1, 1.0)
        self.imbalance: dict[str, float] = defaultdict(lambda: imbalance_first)

    def is_over(self, trades: list[Trade]) -> bool:
        symbol, ticks = trades[0].symbol, len(trades)
        theta = sum(trade.side for trade in trades)
        crossed = abs(theta) >= abs(self.size[symbol] * self.imbalance[symbol])
        return ticks > 1 and (crossed or ticks == self.max_ticks)

    def learn(self, trades: list[Trade]) -> None:
        symbol, ticks = trades[0].symbol, len(trades)
        theta = sum(trade.side for trade in trades)
        p = ((ticks + theta) / 2) / ticks
        before = self.imbalance[symbol]
        b = self.alpha_imbl * (2 * p - 1) + (1 - self.alpha_imbl) * before
        t = self.alpha_size * ticks + (1 - self.alpha_size) * self.size[symbol]
        self.imbalance[symbol] = self._bound(b, before)
        self.size[symbol] = min(max(t, self.size_min), self.size_max)

    def _bound(self, imbalance: float, before: float) -> float:
        if abs(imbalance) < self.min_imbalance:
            sign = before if imbalance == 0.0 else imbalance
            return self.min_imbalance if sign > 0 else -self.min_imbalance
        return imbalance

    def own_figures(self, symbol: str) -> dict:
        return {
            "threshold": self.size[symbol] * self.imbalance[symbol],
            "expected_size": self.size[symbol],
            "expected_imbalance": self.imbalance[symbol],
        }


def assert_as_oracle(bars: pl.DataFrame, rows: list[dict]) -> None:
    """`bars` of a kernel hold exactly the oracle's rows, per symbol in the same order."""
    got = bars.with_columns(pl.col("open_time", "close_time").to_physical()).drop("venue", "spec")
    by_symbol: dict[str, list[dict]] = {}
    for row in got.iter_rows(named=True):
        by_symbol.setdefault(row["symbol"], []).append(row)
    expected: dict[str, list[dict]] = {}
    for row in rows:
        expected.setdefault(row["symbol"], []).append(row)
    assert by_symbol.keys() == expected.keys()
    for symbol, wanted in expected.items():
        assert len(by_symbol[symbol]) == len(wanted)
        for have, want in zip(by_symbol[symbol], wanted, strict=True):
            assert have.keys() == want.keys()
            for name, value in want.items():
                close = pytest.approx(value, rel=1e-12, abs=0.0) if name in SUMS else value
                assert have[name] == close, (symbol, name)


def assert_same_bars(left: pl.DataFrame, right: pl.DataFrame) -> None:
    """Equal frames: floating sums to 1e-12 relative, everything else exactly."""
    assert left.schema == right.schema
    assert_frame_equal(left.drop(SUMS), right.drop(SUMS))
    assert_frame_equal(left.select(SUMS), right.select(SUMS), rel_tol=1e-12, abs_tol=0.0)
