"""What the columns of a table tell: Parquet, Arrow IPC files and streams, Raven's own CSV."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from raven.errors import InputError, argument
from raven.sources.binance.markets import VENUE_NAMES

TELLING: Final = ("venue", "symbol")
DAMAGED: Final = (pa.ArrowException, OSError, ValueError)
"""What pyarrow raises on bytes that are damaged or no table."""

_MAGIC: Final = (b"PAR1", b"ARROW1", b"\xff\xff\xff\xff")


@contextmanager
def damage_named(path: Path) -> Iterator[None]:
    """Within it what pyarrow says of a damaged file is an InputError that names the file."""
    try:
        yield
    except DAMAGED as error:
        raise InputError(f"{path.name} is damaged: {error}") from error


def survey(path: Path, is_parquet: bool) -> dict[str, list[str]]:
    """The different values, sorted, of the columns venue and symbol that a table has; venues by Raven's names.

    Raises InputError for a file that is packed, damaged, or a segment of a journal.
    """
    with path.open("rb") as file:
        if not file.read(8).startswith(_MAGIC):
            raise InputError(f"{path.name} is a packed table", hint="unpack it first")
    with damage_named(path):
        found = _survey_parquet(path) if is_parquet else _survey_arrow(path)
    return {name: _named(name, values) for name, values in found.items()}


def _named(name: str, values: set[str]) -> list[str]:
    told = {value.strip() for value in values} - {""}
    upper = {value.upper() for value in told}
    return sorted({VENUE_NAMES.get(value.upper(), value) for value in told} if name == "venue" else upper)


def _survey_parquet(path: Path) -> dict[str, set[str]]:
    with pq.ParquetFile(path) as file:
        found: dict[str, set[str]] = {name: set() for name in TELLING if name in file.schema_arrow.names}
        places = {file.metadata.schema.column(at).path: at for at in range(file.metadata.num_columns)}
        for name, values in found.items():
            for group in range(file.num_row_groups):
                statistics = file.metadata.row_group(group).column(places[name]).statistics
                if statistics is not None and statistics.has_min_max and statistics.min == statistics.max:
                    values.add(str(statistics.min))
                else:
                    values.update(_values(file.read_row_group(group, columns=[name]).column(name)))
    return found


def _survey_arrow(path: Path) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for batch in arrow_batches(path):
        for name in TELLING:
            if name in batch.schema.names:
                found.setdefault(name, set()).update(_values(batch.column(name)))
    return found


def _values(column: pa.Array | pa.ChunkedArray) -> Iterator[str]:
    return (str(value) for value in pc.unique(column).to_pylist() if value is not None)


def arrow_batches(path: Path) -> Iterator[pa.RecordBatch]:
    """The record batches of an Arrow IPC file or stream; raises what is in DAMAGED, InputError for a segment."""
    with pa.memory_map(str(path)) as source:
        if source.read(6) == b"ARROW1":
            with pa.ipc.open_file(source) as file:
                for at in range(file.num_record_batches):
                    yield _sound(file.get_batch(at))
            return
        source.seek(0)
        with pa.ipc.open_stream(source) as stream:
            if b"raven.segment" in (stream.schema.metadata or {}):
                raise InputError(
                    f"{path.name} is one segment of a journal", hint=f"give its folder, {path.absolute().parent}"
                )
            for batch in stream:
                yield _sound(batch)


def _sound(batch: pa.RecordBatch) -> pa.RecordBatch:
    batch.validate(full=True)  # offsets that lie outside their buffer crash those who follow them
    return batch


def of_venue(frame: pl.DataFrame, name: str, venue: str | None, *, is_one: bool) -> pl.DataFrame:
    """The rows of `venue` where `frame`, of the file `name`, has a column of that name; None: it has to be one venue.

    Rows in which the column says nothing are of the venue of the others, if that `is_one`. Raises InputError where it
    cannot be told, and where it is several.
    """
    if "venue" not in frame.columns:
        return frame
    venues = frame.get_column("venue").cast(pl.String).str.strip_chars()
    told = set(venues.unique().drop_nulls()) - {""}
    is_untold = venues.is_null() | (venues == "").fill_null(value=False)
    found = _named("venue", told)
    if (venue is None and len(found) > 1) or (is_untold.any() and not is_one):
        holds = "trades of " + " and ".join(found) if is_one else f"{_rows(int(is_untold.sum()))} no venue"
        raise InputError(f"{name} holds {holds}", hint=f"pass {argument('venue')}" if is_one else "name one in each")
    if venue is None:
        return frame
    spelt = [spelling for spelling, meant in VENUE_NAMES.items() if meant == venue]
    return frame.filter(is_untold | venues.str.to_uppercase().is_in([*spelt, venue]))


def values_in_text(text: bytes, column: str) -> Sequence[str]:
    """The different values of a column in whole lines at the beginning of a CSV file; of venues Raven's names."""
    lines = text.split(b"\n")
    header = [name.strip().strip('"').lower() for name in lines[0].decode(errors="replace").split(",")]
    at = header.index(column)
    rows = [line.decode(errors="replace").split(",") for line in lines[1 : max(2, len(lines) - 1)]]
    return _named(column, {row[at].strip().strip('"') for row in rows if len(row) == len(header)})


def _rows(count: int) -> str:
    return "1 row that names" if count == 1 else f"{count} rows that name"
