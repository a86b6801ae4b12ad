"""Rows of trades out of Parquet, Arrow IPC files and streams, and journal folders."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Final

import polars as pl
import pyarrow.parquet as pq

from raven.batches import ipc
from raven.batches.raw import REQUIRED, admit, require_columns
from raven.batches.schema import ORIGIN_ARCHIVE, to_frame
from raven.clock import tomorrow_us
from raven.errors import InputError
from raven.journal import JournalReader
from raven.sources.recordings.chunks import Chunk
from raven.sources.recordings.kinds import Recording
from raven.sources.recordings.table_files import arrow_batches, damage_named, of_venue

_BATCH_ROWS: Final = 1 << 18
LINE: Final = "_line"
"""The column of a table that numbers its rows as they are counted in the file."""


def read_journal(recording: Recording) -> Iterator[Chunk]:
    """The rows of a journal of trades, batch by batch as they were appended; raises InputError, JournalError."""
    batches = (
        to_frame(ipc.decode(entry.payload)[0]) for entry in JournalReader(recording.path).entries() if entry.rows
    )
    yield from read_tables(batches, recording, None, None)


def read_parquet(recording: Recording, symbol: str | None, venue: str | None) -> Iterator[Chunk]:
    """The rows of a Parquet file in file order; see `read_tables`. Raises InputError."""
    with damage_named(recording.path), pq.ParquetFile(recording.path) as file:
        batches = map(to_frame, file.iter_batches(batch_size=_BATCH_ROWS))
        yield from read_tables(batches, recording, symbol, venue)


def read_ipc(recording: Recording, symbol: str | None, venue: str | None) -> Iterator[Chunk]:
    """The rows of an Arrow IPC file or stream in file order; see `read_tables`. Raises InputError."""
    with damage_named(recording.path):
        yield from read_tables(map(to_frame, arrow_batches(recording.path)), recording, symbol, venue)


def read_tables(
    frames: Iterable[pl.DataFrame], recording: Recording, symbol: str | None, venue: str | None
) -> Iterator[Chunk]:
    """The rows of frames that hold columns of trades, however they are spelt (see `raven.batches.raw.admit`).

    Where there is no column symbol, `symbol` or the file's name gives it; without ts_recv it is ts_event, without
    origin the rows are of an archive. Where there is a column venue only one venue is read, which `venue` names. Raises
    InputError.
    """
    latest_us = tomorrow_us()
    first_row = 1
    for frame in frames:
        numbered = frame.with_row_index(LINE, first_row)
        first_row += frame.height
        yield admit_table(numbered, recording, symbol, venue, latest_us)


def admit_table(
    table: pl.DataFrame, recording: Recording, symbol: str | None, venue: str | None, latest_us: int
) -> Chunk:
    """The trades of a stretch of `recording`, whose rows are numbered in the column LINE; as in `read_tables`."""
    is_one = len(recording.column_venues) < 2
    table = of_venue(table, recording.path.name, venue, is_one=is_one).drop("venue", strict=False)
    with _told_of(recording):
        require_columns(table, ("trade_id", *REQUIRED))
    if "symbol" not in table.columns:
        table = table.with_columns(symbol=pl.lit(recording.symbol_or(symbol)))
    elif isinstance(table.schema["symbol"], pl.String | pl.Categorical | pl.Enum):
        table = table.with_columns(pl.col("symbol").cast(pl.String).str.to_uppercase())
    with _told_of(recording):
        checked = admit(table, latest_us=latest_us, origin=ORIGIN_ARCHIVE)
    lines = table.get_column(LINE)
    return Chunk(checked.trades, [refusal._replace(row=lines[refusal.row]) for refusal in checked.refused])


@contextmanager
def _told_of(recording: Recording) -> Iterator[None]:
    """Within it what is wrong with columns is said of the file they are in."""
    try:
        yield
    except InputError as error:
        raise InputError(f"{recording.path.name} holds no trades: {error.message}", hint=error.hint) from error
