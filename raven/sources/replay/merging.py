"""Several series of trades as one, in the order of their times."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import polars as pl


class _Head:
    """What has been read of a series and not handed on; each of its rows is due at the running maximum of the times."""

    def __init__(self, series: Iterator[pl.DataFrame]) -> None:
        self._series = series
        self._newest_us = 0
        self.rows = pl.DataFrame()
        self.read()

    def read(self) -> None:
        """Read on; no rows are left at the end."""
        rows = next((frame for frame in self._series if frame.height), None)
        if rows is None:
            self.rows = pl.DataFrame()
            return
        times_us = rows.get_column("ts_event").dt.epoch("us").to_numpy()
        due_us = np.maximum(np.maximum.accumulate(times_us), self._newest_us)
        self._newest_us = int(due_us[-1])
        self.rows = rows.with_columns(pl.Series("_due", due_us))

    @property
    def end_us(self) -> int:
        """When the last row read is due."""
        return self._newest_us

    def take(self, until_us: int) -> pl.DataFrame:
        """The rows due up to then, in their order."""
        count = int(self.rows.get_column("_due").search_sorted(until_us, side="right"))
        taken, self.rows = self.rows[:count], self.rows[count:]
        if self.rows.is_empty():
            self.read()
        return taken


def merge_by_time(series: Sequence[Iterator[pl.DataFrame]], rows: int) -> Iterator[pl.DataFrame]:
    """The trades of all `series` by ts_event, each series in its own order, in frames of at most `rows` rows.

    Of each series a frame is in memory at a time.
    """
    heads = [_Head(one) for one in series]
    while heads := [head for head in heads if head.rows.height]:
        until_us = min(head.end_us for head in heads)  # up to then nothing more can come of any
        merged = pl.concat([head.take(until_us) for head in heads]).sort("_due", maintain_order=True)
        yield from merged.drop("_due").iter_slices(rows)
