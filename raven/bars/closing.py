"""Bars that trades close, not the clock: what all of them have in common.

A bar type brings columns of its own for the state, and a rule that cuts the trades of a batch into parts: where
bars begin, and which are over.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import polars as pl

from raven.bars.carry import COMMON_DEFAULTS, NO_ID, Array, Columns, Defaults, extend, pack, unpack
from raven.bars.fold import Chain, chain, fold, select
from raven.bars.rows import Rows, check_ids, group_by_symbol, hold_times

if TYPE_CHECKING:
    from raven.batches.batch import TradeBatch

Cut: TypeAlias = Callable[[Rows, Columns, Array, Array], tuple[Columns, Columns]]
"""A rule: `(rows, carried, breaks, goes_on)` to the parts, and the type's own columns of each symbol after them.

`breaks`, per row: it comes just after a gap, so the bar before it is over. `goes_on`, per symbol of the batch: its
first row goes on the carried open bar. The parts are in row order, each column one value a part: those of Cuts, and
any further column that the bars show.
"""


@dataclass(slots=True)
class Cuts:
    """The parts of symbols that close bars, as they are found.

    `starts`: a part's first row. `joins`: it goes on the carried open bar. `closed`: its last trade closed the bar by
    the rule.
    """

    starts: list[int] = field(default_factory=list)
    joins: list[bool] = field(default_factory=list)
    closed: list[bool] = field(default_factory=list)

    def add(self, start: int, joins: bool, closed: bool) -> None:
        """Append one part."""
        self.starts.append(start)
        self.joins.append(joins)
        self.closed.append(closed)

    def in_row_order(
        self,
        rows: Rows,
        goes_on: Array,
        quiet: Array,
        own: Mapping[str, tuple[Array, Sequence[float]]],
    ) -> Columns:
        """These parts and one for each `quiet` symbol (a mask), whose trades close nothing.

        `own`: further columns, first the value of each symbol of the batch, then those of the parts found.
        """
        parts = {
            "starts": np.append(rows.firsts[quiet], np.array(self.starts, dtype=np.int64)),
            "joins": np.append(goes_on[quiet], np.array(self.joins, dtype=bool)),
            "closed": np.append(np.zeros(quiet.sum(), dtype=bool), np.array(self.closed, dtype=bool)),
            **{name: np.append(of_symbol[quiet], of_part) for name, (of_symbol, of_part) in own.items()},
        }
        order = np.argsort(parts["starts"], kind="stable")
        return select(parts, order)


def step(
    state: pl.DataFrame, batch: TradeBatch, defaults: Defaults, cut: Cut
) -> tuple[pl.DataFrame, pl.Series, Columns]:
    """The next state, its symbols, and the bars that are over, as `bars_frame` takes them; trades must not be empty."""
    symbols, carried = unpack(state)
    symbols, rows = group_by_symbol(symbols, batch.trades)
    carried = extend(carried, len(symbols), defaults)
    check_ids(rows, symbols, carried)
    rows, late_ticks = hold_times(rows, carried["last_time_us"])
    carried["late_ticks"][rows.codes] += late_ticks

    breaks = _breaks(rows, carried)
    goes_on = (carried["total_ticks"][rows.codes] > 0) & ~breaks[rows.firsts]
    parts, after = cut(rows, carried, breaks, goes_on)
    starts, joins = parts.pop("starts"), parts.pop("joins")
    code = rows.codes[np.searchsorted(rows.firsts, starts, side="right") - 1]
    still_open = np.zeros(len(symbols), dtype=bool)
    links = chain({**carried, "closed": still_open}, {**fold(rows, starts), **parts}, code, joins)
    _keep_newest(carried, links)
    for name, column in after.items():
        carried[name][rows.codes] = column
    # the rule closed it, or, without it, a gap did
    over = np.flatnonzero(links.bars["closed"] | ~links.is_last)
    proven = links.bars["start_seen"] & links.bars["closed"]
    return pack(symbols, carried), symbols, select({**links.bars, "code": links.code, "complete": proven}, over)


def open_bars(state: pl.DataFrame) -> tuple[pl.Series, Columns]:
    """The symbols of `state` and the bars still open in it, as `bars_frame` takes them."""
    symbols, carried = unpack(state)
    is_open = np.flatnonzero(carried["total_ticks"] > 0)
    never = np.zeros(len(is_open), dtype=bool)
    return symbols, {**select(carried, is_open), "code": is_open, "complete": never}


def stops_of(breaks: Array, first: int, end: int) -> list[int]:
    """Where bars of the rows `first` up to `end` must end, whatever the rule: before gaps, and at the end."""
    return [*(first + np.flatnonzero(breaks[first:end])).tolist(), end]


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


def _keep_newest(carried: Columns, links: Chain) -> None:
    """Write each symbol's newest bar into `carried`; one that closed leaves no open bar."""
    newest = np.flatnonzero(links.is_last)
    code = links.code[newest]
    for name in COMMON_DEFAULTS:
        if name in links.bars:
            carried[name][code] = links.bars[name][newest]
    carried["total_ticks"][code[links.bars["closed"][newest]]] = 0
