"""Rows of trades out of Parquet files and journal folders."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from raven.batches import ipc
from raven.batches.raw import admit
from raven.batches.schema import ORIGIN_ARCHIVE, to_frame
from raven.clock import tomorrow_us
from raven.errors import InputError
from raven.journal import JournalReader
from raven.sources.recordings.chunks import Chunk
from raven.sources.recordings.kinds import Recording

_BATCH_ROWS: Final = 1 << 18
_ROW: Final = "_row"


def read_journal(recording: Recording) -> Iterator[Chunk]:
    """The rows of a journal of trades, batch by batch as they were appended; raises InputError, JournalError."""
    batches = (
        to_frame(ipc.decode(entry.payload)[0]) for entry in JournalReader(recording.path).entries() if entry.rows
    )
    yield from read_tables(batches, recording, None, None)


def read_parquet(recording: Recording, symbol: str | None, venue: str | None) -> Iterator[Chunk]:
    """The rows of a Parquet file in file order; see `read_tables`. Raises InputError."""
    try:
        with pq.ParquetFile(recording.path) as file:
            batches = map(to_frame, file.iter_batches(batch_size=_BATCH_ROWS))
            yield from read_tables(batches, recording, symbol, venue)
    except (pa.ArrowException, OSError) as error:
        raise InputError(f"{recording.path.name} is damaged: {error}") from error


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
        numbered = frame.with_row_index(_ROW, first_row)
        first_row += frame.height
        yield _read(_of_venue(numbered, recording, venue), recording, symbol, latest_us)


def _of_venue(frame: pl.DataFrame, recording: Recording, venue: str | None) -> pl.DataFrame:
    if "venue" not in frame.columns:
        return frame
    venues = frame.get_column("venue").cast(pl.String).unique().sort().to_list()
    if venue is None and len(venues) > 1:
        raise InputError(f"{recording.path.name} holds trades of {' and '.join(venues)}", hint="pass venue=")
    return (frame if venue is None else frame.filter(pl.col("venue").cast(pl.String) == venue)).drop("venue")


def _read(frame: pl.DataFrame, recording: Recording, symbol: str | None, latest_us: int) -> Chunk:
    if "symbol" not in frame.columns:
        frame = frame.with_columns(symbol=pl.lit(recording.symbol_or(symbol)))
    try:
        checked = admit(frame, latest_us=latest_us, origin=ORIGIN_ARCHIVE)
    except InputError as error:
        raise InputError(f"{recording.path.name} holds no trades: {error.message}", hint=error.hint) from error
    rows = frame.get_column(_ROW)
    return Chunk(checked.trades, [refusal._replace(row=rows[refusal.row]) for refusal in checked.refused])
