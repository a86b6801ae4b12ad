"""Trades of any number of files as one stream, in the order in which a source would have collected them.

Each symbol comes by id, symbols side by side by time: a row is due at the running maximum of the times of its symbol.
So the stream depends on the rows alone, not on the order of files or rows.

An id comes once. Rows that repeat it are compared with the one that is kept, see `raven.batches.repeats`: the same
content is a repeat, another one a conflict.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import polars as pl

from raven.batches.gate import BadReason
from raven.batches.repeats import KEY, Conflict, Settled, conflict, settle, told_twice
from raven.batches.schema import TRADE_DTYPES
from raven.errors import InputError, argument
from raven.sources.recordings.reading import SHOWN_CONFLICTS, OnBad
from raven.sources.sorting import RUN_ROWS, Sorter, in_order

_STREAM: Final = ("_due", *KEY)


@dataclass(slots=True)
class LeftOut:
    """Rows that are not in the stream: repeats, conflicts (the first ones named), and bad ones by reason."""

    repeats: int = 0
    conflicts: int = 0
    named: list[Conflict] = field(default_factory=list)
    skipped: Counter[BadReason] = field(default_factory=Counter)

    def skip(self, path: Path, reasons: Counter[BadReason]) -> None:  # noqa: ARG002 - the reader says of which file
        """Count what the reader of a file left out."""
        self.skipped.update(reasons)

    def sentences(self) -> list[str]:
        """What to tell of it, a line each."""
        told = []
        if self.repeats:
            told.append(f"{_rows(self.repeats)} left out: repeats of trades that are there, id and content")
        if self.conflicts:
            told.append(f"{_rows(self.conflicts)} left out: conflicts, another trade has the id; the earlier is kept")
            told += [str(conflict) for conflict in self.named]
        told += [f"{_rows(count)} left out: {reason}" for reason, count in self.skipped.most_common()]
        return told


def _rows(count: int) -> str:
    return "1 row" if count == 1 else f"{count:,} rows"


class OrderedTrades:
    """Add rows, `close`, then read the stream as often as you like; sorted in memory or `folder` (see Sorter).

    - `on_bad`: at a conflict `raise` InputError, or `skip` it: one row is kept, the other counted in `left_out`.
    - `symbols`, `first_ids`, `first_us`: of the rows added, before anything is left out.
    - after `close`: `rows` in the stream, `fresh` of them out of others than the `base` (see `add`), and their times
      from `first_us` to `last_us` (UTC, microseconds).
    """

    def __init__(self, folder: Path | None, *, on_bad: OnBad, run_rows: int = RUN_ROWS) -> None:
        self.left_out = LeftOut()
        self.first_ids: dict[str, int] = {}
        self.first_us: int | None = None
        self.last_us: int | None = None
        self.rows = 0
        self.fresh = 0
        self._on_bad = on_bad
        self._frame_rows = max(1, run_rows // 4)
        self._files: list[Path] = [Path()]
        self._by_id = Sorter(KEY, folder, settle=self._settle, run_rows=run_rows)
        self._stream = Sorter(_STREAM, folder, run_rows=run_rows)

    @property
    def symbols(self) -> list[str]:
        """Whose rows were added, sorted."""
        return sorted(self.first_ids)

    def add(self, trades: pl.DataFrame, file: Path, *, is_base: bool = False) -> None:
        """Take rows (TRADE_SCHEMA) of a file; `is_base`: of what the others are added to."""
        if trades.is_empty():
            return
        if is_base:
            self._files[0] = file
        elif self._files[-1] != file or len(self._files) == 1:
            self._files.append(file)
        number = 0 if is_base else len(self._files) - 1
        self._by_id.add(trades.with_columns(pl.lit(number, pl.UInt32).alias("_file")))
        for symbol, first in trades.group_by("symbol").agg(pl.col("trade_id").min()).iter_rows():
            self.first_ids[symbol] = min(first, self.first_ids.get(symbol, first))
        first_us, last_us = _span(trades)
        self.first_us = first_us if self.first_us is None else min(first_us, self.first_us)
        self.last_us = last_us if self.last_us is None else max(last_us, self.last_us)

    def close(self) -> None:
        """Put all in order and compare what has one id; raises InputError at a conflict, unless they are skipped."""
        last: tuple[str, int] | None = None
        for trades in self._by_id.frames(self._frame_rows):
            due = pl.col("ts_event").dt.epoch("us").cum_max().over("symbol")
            if last is not None:  # the symbol may go on from the frame before
                symbol, due_us = last
                due = pl.when(pl.col("symbol") == symbol).then(pl.max_horizontal(due, due_us)).otherwise(due)
            trades = trades.with_columns(due.alias("_due"))  # noqa: PLW2901
            last = trades.item(-1, "symbol"), trades.item(-1, "_due")
            self.rows += trades.height
            self.fresh += int((trades.get_column("_file") > 0).sum())
            self._stream.add(trades.drop("_file"))
        del self._by_id

    def frames(self, rows: int) -> Iterator[pl.DataFrame]:
        """The stream in frames of `rows` rows (TRADE_SCHEMA)."""
        for frame in self._stream.frames(rows):
            yield frame.select(TRADE_DTYPES.keys())

    def _settle(self, trades: pl.DataFrame) -> pl.DataFrame:
        """`trades`, by symbol and id, with each id once."""
        is_told_twice = told_twice(trades)
        if not is_told_twice.any():
            return trades
        settled = settle(trades.filter(is_told_twice))
        self._count(settled)
        return in_order(pl.concat([trades.filter(~is_told_twice), settled.kept]), KEY)

    def _count(self, settled: Settled) -> None:
        self.left_out.repeats += settled.repeats
        self.left_out.conflicts += settled.conflicts.height
        room = SHOWN_CONFLICTS - len(self.left_out.named)
        self.left_out.named += [self._conflict(row) for row in settled.conflicts[:room].iter_rows(named=True)]
        if self.left_out.named and self._on_bad == "raise":
            raise InputError(
                f"a conflict: {self.left_out.named[0]}",
                hint=f"leave out the file that is wrong; {argument('on_bad', 'skip')} keeps the earlier of the two",
            )

    def _conflict(self, row: dict[str, Any]) -> Conflict:
        kept, other = self._files[row["_file_kept"]], self._files[row["_file"]]
        return conflict(row, *names_of(kept, other))


def names_of(kept: Path, other: Path) -> tuple[str, str]:
    """The names of two files, their paths where the names are the same."""
    return (kept.name, other.name) if kept == other or kept.name != other.name else (str(kept), str(other))


def _span(trades: pl.DataFrame) -> tuple[int, int]:
    time_us = pl.col("ts_event").dt.epoch("us")
    first, last = trades.select(first=time_us.min(), last=time_us.max()).row(0)
    return int(first), int(last)
