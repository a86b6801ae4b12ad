"""Frames in any order, handed back sorted, in memory that does not grow with them."""

from __future__ import annotations

import os
import weakref
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any, Final, NamedTuple, TypeAlias

import polars as pl

from raven.errors import RavenError

RUN_ROWS: Final = 1 << 20
"""How many rows are held in memory, and sorted at once; more of them go to a file in sorted runs."""

_BLOCK_ROWS: Final = 1 << 14

Key: TypeAlias = tuple[Any, ...]
Settle: TypeAlias = Callable[[pl.DataFrame], pl.DataFrame]


class Sorter:
    """Takes frames of one schema and gives their rows back sorted by the columns `by`, which hold no nulls.

    `settle` gets sorted rows that hold all of a run with one key, later all runs' rows with one key, and returns them
    with each key once; without it keys must be unique. Beyond `run_rows` rows lie in a file without a name in
    `folder` (None: where temporary files are), which is gone with the process, however that ends. Raises RavenError
    when the disk does not take it.
    """

    def __init__(
        self, by: Sequence[str], folder: Path | None, *, settle: Settle | None = None, run_rows: int = RUN_ROWS
    ) -> None:
        self._by = list(by)
        self._settle: Settle = settle or (lambda frame: frame)
        self._run_rows = run_rows
        self._folder = folder
        self._pending: list[pl.DataFrame] = []
        self._pending_rows = 0
        self._spool: _Spool | None = None
        self._runs: list[list[_Block]] = []

    def add(self, frame: pl.DataFrame) -> None:
        """Take rows, in any order."""
        self._pending.append(frame)
        self._pending_rows += frame.height
        if self._pending_rows >= self._run_rows:
            self._spill()

    def frames(self, rows: int) -> Iterator[pl.DataFrame]:
        """All rows added, sorted, in frames of `rows` rows; may be asked for again, and gives the same then."""
        if self._runs:
            if self._pending:
                self._spill()
            yield from _even(self._merged(), rows)
        elif self._pending:
            self._pending = [self._sorted_run()]
            yield from self._pending[0].iter_slices(rows)

    def _sorted_run(self) -> pl.DataFrame:
        if len(self._pending) == 1 and not self._pending_rows:
            return self._pending[0]  # it was settled before
        run = self._settle(in_order(pl.concat(self._pending, rechunk=True), self._by))
        self._pending_rows = 0
        return run

    def _spill(self) -> None:
        """Write what is held as a sorted run."""
        run = self._sorted_run()
        self._pending, self._pending_rows = [], 0
        keys = run.select(self._by)
        if self._spool is None:
            self._spool = _Spool(self._folder)
        blocks: list[_Block] = []
        for start in range(0, run.height, _BLOCK_ROWS):
            stop = min(start + _BLOCK_ROWS, run.height)
            blocks.append(_Block(keys.row(start), keys.row(stop - 1), *self._spool.put(run[start:stop])))
        if blocks:
            self._runs.append(blocks)

    def _merged(self) -> Iterator[pl.DataFrame]:
        """The rows of all runs, sorted, as many at a time as are sure to be complete."""
        assert self._spool is not None
        heads = [_Head(blocks, self._by, self._spool) for blocks in self._runs]
        while heads:
            until = min(head.last for head in heads)  # up to there nothing more can come of any run
            parts = [part for head in heads if (part := head.take(until)).height]
            yield parts[0] if len(parts) == 1 else self._settle(in_order(pl.concat(parts), self._by))
            heads = [head for head in heads if not head.is_over]


def in_order(frame: pl.DataFrame, by: Sequence[str]) -> pl.DataFrame:
    """`frame` sorted by the columns `by`; rows of equal keys keep their order. Fast where it is sorted already."""
    if frame.is_empty():
        return frame
    varied = [name for name in by if not (frame.get_column(name) == frame.get_column(name)[0]).all()]
    if not varied or (len(varied) == 1 and frame.get_column(varied[0]).is_sorted()):
        return frame
    return frame.sort(varied, maintain_order=True)


def _even(frames: Iterable[pl.DataFrame], rows: int) -> Iterator[pl.DataFrame]:
    """The same rows in frames of `rows` rows, whatever size they come in; the last may be smaller."""
    held: list[pl.DataFrame] = []
    count = 0
    for frame in frames:
        held.append(frame)
        count += frame.height
        if count >= rows:
            whole = pl.concat(held)
            full = count - count % rows
            yield from whole[:full].iter_slices(rows)
            held, count = [whole[full:]], count - full
    if count:
        yield pl.concat(held)


class _Block(NamedTuple):
    """Some rows of a run, in the spool: their first and last key, and their place."""

    first: Key
    last: Key
    offset: int
    size: int


class _Spool:
    """Frames in a file without a name."""

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder
        try:
            self._file = TemporaryFile(dir=folder)  # noqa: SIM115 - it lives as long as the sorter
        except OSError as error:
            raise self._failed(error) from error
        weakref.finalize(self, self._file.close)
        self._end = 0

    def put(self, frame: pl.DataFrame) -> tuple[int, int]:
        """Where the frame lies now: offset and size in bytes."""
        buffer = BytesIO()
        frame.write_ipc(buffer)
        data = buffer.getbuffer()
        try:
            written = 0
            while written < len(data):
                written += os.pwrite(self._file.fileno(), data[written:], self._end + written)
        except OSError as error:
            raise self._failed(error) from error
        place = self._end, len(data)
        self._end += len(data)
        return place

    def get(self, offset: int, size: int) -> pl.DataFrame:
        """The frame at a place."""
        try:
            return pl.read_ipc(BytesIO(os.pread(self._file.fileno(), size, offset)))
        except OSError as error:
            raise self._failed(error) from error

    def _failed(self, error: OSError) -> RavenError:
        where = "the folder for temporary files" if self._folder is None else str(self._folder)
        return RavenError(
            f"putting rows in order needs room in {where}: {error.strerror or error}", hint="free space there"
        )


class _Head:
    """What of a run is not handed on yet; a block is read when its first row may be due."""

    def __init__(self, blocks: Sequence[_Block], by: Sequence[str], spool: _Spool) -> None:
        self._blocks = blocks
        self._by = by
        self._spool = spool
        self._at = 0
        self._rows: pl.DataFrame | None = None

    @property
    def is_over(self) -> bool:
        return self._at == len(self._blocks)

    @property
    def last(self) -> Key:
        """The last key of the block at hand."""
        return self._blocks[self._at].last

    def take(self, until: Key) -> pl.DataFrame:
        """The rows of the block at hand up to and including key `until`."""
        block = self._blocks[self._at]
        if block.first > until:
            return pl.DataFrame()
        rows = self._spool.get(block.offset, block.size) if self._rows is None else self._rows
        if block.last <= until:
            self._rows = None
            self._at += 1
            return rows
        keys = rows.select(self._by)
        count = bisect_right(range(rows.height), until, key=keys.row)
        self._rows = rows[count:]
        return rows[:count]
