"""Where tick imbalance bars end: the first crossing of a threshold by a walk of buys and sells.

One pass over all symbols of a batch tells which of them close a bar at all; only those are searched, bar by
bar, in windows that double.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from raven.bars.carry import Array, Columns
from raven.bars.closing import Cuts, stops_of

if TYPE_CHECKING:
    from raven.bars.rows import Rows

Learn: TypeAlias = Callable[[int, float, float, float], tuple[float, float]]
"""From a closed bar's n and theta, and T and B, the next T and B."""

_MIN_WINDOW_ROWS = 32


@dataclass(slots=True)
class _Found(Cuts):
    """The parts found, and T and B in force in each."""

    expected_size: list[float] = field(default_factory=list)
    expected_imbalance: list[float] = field(default_factory=list)


def cut(
    rows: Rows,
    carried: Columns,
    breaks: Array,
    goes_on: Array,
    *,
    learn: Learn,
    max_ticks: int | None,
) -> tuple[Columns, Columns]:
    """A rule (see `closing.Cut`) whose parts hold T and B in force as expected_size and expected_imbalance."""
    walk = np.zeros(rows.height + 1)
    np.cumsum(rows.is_buy.view(np.int8) * np.int8(2) - np.int8(1), out=walk[1:], dtype=np.float64)
    ticks = np.where(goes_on, carried["total_ticks"][rows.codes], 0)
    theta = np.where(goes_on, 2 * carried["buy_ticks"][rows.codes] - ticks, 0)
    sizes = carried["expected_size"][rows.codes]
    imbalances = carried["expected_imbalance"][rows.codes]
    learned = {"expected_size": sizes.copy(), "expected_imbalance": imbalances.copy()}

    ends = rows.ends()
    over = _crosses(rows, walk, theta, np.abs(sizes * imbalances))
    over |= np.logical_or.reduceat(breaks, rows.firsts)
    if max_ticks is not None:
        over |= ticks + (ends - rows.firsts) >= max_ticks

    found = _Found()
    for k in np.flatnonzero(over).tolist():
        first = int(rows.firsts[k])
        learned["expected_size"][k], learned["expected_imbalance"][k] = _cut_symbol(
            found,
            walk,
            first,
            stops_of(breaks, first, int(ends[k])),
            opened=(int(ticks[k]), float(theta[k])),
            expected=(float(sizes[k]), float(imbalances[k])),
            learn=learn,
            max_ticks=max_ticks,
        )
    own = {
        "expected_size": (sizes, found.expected_size),
        "expected_imbalance": (imbalances, found.expected_imbalance),
    }
    return found.in_row_order(rows, goes_on, ~over, own), learned


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
    found: _Found,
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
            found.add(row, ticks > 0, closed)
            found.expected_size.append(size)
            found.expected_imbalance.append(imbalance)
            end = last + 1 if closed else stop
            if closed:
                total = ticks + end - row
                size, imbalance = learn(total, float(walk[end]) - base, size, imbalance)
                window_rows = max(_MIN_WINDOW_ROWS, total)
            row, ticks, theta = end, 0, 0.0
    return size, imbalance


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
