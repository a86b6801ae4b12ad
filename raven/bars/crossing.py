"""Where tick imbalance bars end: the first crossing of a threshold by a walk of buys and sells.

One pass over all symbols of a batch tells which of them close a bar at all; only those are searched, bar by
bar, in windows that double.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from raven.bars.carry import NO_ID, Array, Columns

if TYPE_CHECKING:
    from raven.bars.rows import Rows

Learn: TypeAlias = Callable[[int, float, float, float], tuple[float, float]]
"""From a closed bar's n and theta, and T and B, the next T and B."""

_MIN_WINDOW_ROWS = 32


@dataclass(slots=True)
class Cuts:
    """The parts a batch is cut into, each column one value a part.

    `starts`: its first row. `joins`: it goes on the carried open bar. `closed`: its last trade closed the bar
    by the rule. `expected_size`, `expected_imbalance`: T and B in force.
    """

    starts: list[int] = field(default_factory=list)
    joins: list[bool] = field(default_factory=list)
    closed: list[bool] = field(default_factory=list)
    expected_size: list[float] = field(default_factory=list)
    expected_imbalance: list[float] = field(default_factory=list)

    def add(self, start: int, joins: bool, closed: bool, size: float, imbalance: float) -> None:
        """Append one part."""
        self.starts.append(start)
        self.joins.append(joins)
        self.closed.append(closed)
        self.expected_size.append(size)
        self.expected_imbalance.append(imbalance)


def cut(rows: Rows, carried: Columns, learn: Learn, max_ticks: int | None) -> tuple[Columns, tuple[Array, Array]]:
    """The parts of `rows` in row order (the columns of Cuts as arrays), and each symbol's T and B after."""
    walk = np.zeros(rows.height + 1)
    np.cumsum(rows.is_buy.view(np.int8) * np.int8(2) - np.int8(1), out=walk[1:], dtype=np.float64)
    breaks = _breaks(rows, carried)
    goes_on = (carried["total_ticks"][rows.codes] > 0) & ~breaks[rows.firsts]
    ticks = np.where(goes_on, carried["total_ticks"][rows.codes], 0)
    theta = np.where(goes_on, 2 * carried["buy_ticks"][rows.codes] - ticks, 0)
    sizes = carried["expected_size"][rows.codes]
    imbalances = carried["expected_imbalance"][rows.codes]
    learned = sizes.copy(), imbalances.copy()

    ends = rows.ends()
    over = _crosses(rows, walk, theta, np.abs(sizes * imbalances))
    over |= np.logical_or.reduceat(breaks, rows.firsts)
    if max_ticks is not None:
        over |= ticks + (ends - rows.firsts) >= max_ticks

    cuts = Cuts()
    for k in np.flatnonzero(over).tolist():
        first, end = int(rows.firsts[k]), int(ends[k])
        stops = [*(first + np.flatnonzero(breaks[first:end])).tolist(), end]
        learned[0][k], learned[1][k] = _cut_symbol(
            cuts,
            walk,
            first,
            stops,
            opened=(int(ticks[k]), float(theta[k])),
            expected=(float(sizes[k]), float(imbalances[k])),
            learn=learn,
            max_ticks=max_ticks,
        )
    quiet = ~over
    parts = {
        "starts": np.append(rows.firsts[quiet], np.array(cuts.starts, dtype=np.int64)),
        "joins": np.append(goes_on[quiet], np.array(cuts.joins, dtype=bool)),
        "closed": np.append(np.zeros(quiet.sum(), dtype=bool), np.array(cuts.closed, dtype=bool)),
        "expected_size": np.append(sizes[quiet], cuts.expected_size),
        "expected_imbalance": np.append(imbalances[quiet], cuts.expected_imbalance),
    }
    order = np.argsort(parts["starts"], kind="stable")
    return {name: column[order] for name, column in parts.items()}, learned


def first_crossing(walk: Array, lo: int, hi: int, *, base: float, bound: float, window_rows: int) -> int:
    """The first i of lo <= i < hi with |walk[i] - base| >= bound; `hi` when there is none."""
    while lo < hi:
        found = np.abs(walk[lo : min(lo + window_rows, hi)] - base) >= bound
        at = int(found.argmax())
        if found[at]:
            return lo + at
        lo += window_rows
        window_rows *= 2
    return hi


def _cut_symbol(
    cuts: Cuts,
    walk: Array,
    row: int,
    stops: list[int],
    *,
    opened: tuple[int, float],
    expected: tuple[float, float],
    learn: Learn,
    max_ticks: int | None,
) -> tuple[float, float]:
    """Cut one symbol's rows, from `row` to the last of `stops`; returns T and B after.

    Every stop ends an open bar: rows after gaps, and the symbol's end. `opened` is n and theta of the bar
    that is open before `row`, `expected` T and B. `walk[i + 1] - walk[j]` is the imbalance of rows j to i.
    """
    ticks, theta = opened
    size, imbalance = expected
    window_rows = _MIN_WINDOW_ROWS
    for stop in stops:
        while row < stop:
            base = float(walk[row]) - theta
            # the trade that opens a bar does not test it
            tested = row if ticks else row + 1
            bound = abs(size * imbalance)
            last = first_crossing(walk, tested + 1, stop + 1, base=base, bound=bound, window_rows=window_rows) - 1
            if max_ticks is not None:
                last = min(last, row + max_ticks - ticks - 1)
            closed = last < stop
            cuts.add(row, ticks > 0, closed, size, imbalance)
            end = last + 1 if closed else stop
            if closed:
                total = ticks + end - row
                size, imbalance = learn(total, float(walk[end]) - base, size, imbalance)
                window_rows = max(_MIN_WINDOW_ROWS, total)
            row, ticks, theta = end, 0, 0.0
    return size, imbalance


def _breaks(rows: Rows, carried: Columns) -> Array:
    """Which rows come just after a gap: their id does not follow the one before of their symbol."""
    ids = rows.trade_id
    breaks = np.zeros(rows.height, dtype=bool)
    if ids[0] == NO_ID:
        return breaks
    np.not_equal(ids[1:] - 1, ids[:-1], out=breaks[1:])
    before = carried["last_trade_id"][rows.codes]
    breaks[rows.firsts] = (ids[rows.firsts] - 1 != before) & (before != NO_ID)
    return breaks


def _crosses(rows: Rows, walk: Array, theta: Array, bound: Array) -> Array:
    """Whether each symbol's imbalance reaches `bound` anywhere, were its open bar to go on to the end.

    It may say yes where only the trade that opens a bar does, which is not tested; it never says no where a bar
    closes.
    """
    base = walk[rows.firsts] - theta
    highest = np.maximum.reduceat(walk[1:], rows.firsts) - base
    lowest = np.minimum.reduceat(walk[1:], rows.firsts) - base
    crosses: Array = np.maximum(highest, -lowest) >= bound
    return crosses
