"""Slow, obvious per-trade oracles of both bar types, and how bars are compared with them.

They keep the trades of the open bar in a list and compute every figure from that list.
"""

from __future__ import annotations

import math
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


class TickImbalanceOracle:
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
        self.alpha_size = alpha_size
        self.alpha_imbl = alpha_imbl
        self.size_min = size_min
        self.size_max = size_max
        self.min_imbalance = min_imbalance
        self.max_ticks = max_ticks
        self.size_first = initial_size
        self.imbalance_first = self._bound(2 * initial_p_buy - 1, 1.0)
        self.size: dict[str, float] = {}
        self.imbalance: dict[str, float] = {}
        self.open: dict[str, OpenBar] = {}
        self.last: dict[str, tuple[Trade, int]] = {}

    def step(self, trades: Iterable[Trade]) -> list[dict]:
        closed = []
        for trade in trades:
            closed += self._add(trade)
        return closed

    def still_open(self) -> list[dict]:
        return [self._row(bar, complete=False) for bar in self.open.values()]

    def _add(self, trade: Trade) -> list[dict]:
        symbol = trade.symbol
        self.size.setdefault(symbol, self.size_first)
        self.imbalance.setdefault(symbol, self.imbalance_first)
        last, last_us = self.last.get(symbol, (None, trade.ts_us))
        folded_us = max(trade.ts_us, last_us)
        self.last[symbol] = (trade, folded_us)
        has_ids = trade.trade_id is not None
        follows = last is not None and has_ids and trade.trade_id == last.trade_id + 1
        gap = last is not None and has_ids and not follows
        closed = []
        if gap and symbol in self.open:
            closed.append(self._row(self.open.pop(symbol), complete=False))
        bar = self.open.get(symbol)
        if bar is None:
            self.open[symbol] = OpenBar(start_seen=follows, trades=[(trade, folded_us)])
            return closed
        bar.trades.append((trade, folded_us))
        ticks = len(bar.trades)
        theta = sum(each.side for each, _ in bar.trades)
        if abs(theta) >= abs(self.size[symbol] * self.imbalance[symbol]) or ticks == self.max_ticks:
            closed.append(self._row(self.open.pop(symbol), complete=bar.start_seen))
            p = ((ticks + theta) / 2) / ticks
            before = self.imbalance[symbol]
            b = self.alpha_imbl * (2 * p - 1) + (1 - self.alpha_imbl) * before
            t = self.alpha_size * ticks + (1 - self.alpha_size) * self.size[symbol]
            self.imbalance[symbol] = self._bound(b, before)
            self.size[symbol] = min(max(t, self.size_min), self.size_max)
        return closed

    def _bound(self, imbalance: float, before: float) -> float:
        if abs(imbalance) < self.min_imbalance:
            sign = before if imbalance == 0.0 else imbalance
            return self.min_imbalance if sign > 0 else -self.min_imbalance
        return imbalance

    def _row(self, bar: OpenBar, *, complete: bool) -> dict:
        symbol = bar.trades[0][0].symbol
        return {
            "open_time": bar.trades[0][1],
            "close_time": bar.trades[-1][1],
            **bar.figures(complete),
            "theta": float(sum(trade.side for trade, _ in bar.trades)),
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
