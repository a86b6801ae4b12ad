"""Rows of trades out of Parquet files and journal folders."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from raven.batches import ipc
from raven.batches.schema import ORIGIN_ARCHIVE, TRADE_DTYPES, TRADE_SCHEMA, to_frame
from raven.errors import InputError
from raven.journal import JournalReader
from raven.sources.recordings.chunks import Chunk
from raven.sources.recordings.kinds import Recording
from raven.sources.recordings.tabular import of_venue

_BATCH_ROWS: Final = 1 << 18
_REQUIRED: Final = ("trade_id", "ts_event", "price", "quantity", "side")


def read_journal(recording: Recording) -> Iterator[Chunk]:
    """The rows of a journal of trades, batch by batch as they were appended; raises InputError, JournalError."""
    for entry in JournalReader(recording.path).entries():
        if entry.rows:
            frame = to_frame(ipc.decode(entry.payload)[0])
            yield Chunk(_fit(frame, recording, None), [])


def read_parquet(recording: Recording, symbol: str | None, venue: str | None) -> Iterator[Chunk]:
    """The rows of a Parquet file with the columns of TRADE_SCHEMA, in file order.

    `side` may be spelt buy and sell. Where there is no column symbol, `symbol` or the file's name gives it; without
    ts_recv it is ts_event, without origin the rows are of an archive. Of a file with a column venue only one venue
    is read, which `venue` names. Raises InputError.
    """
    try:
        with pq.ParquetFile(recording.path) as file:
            for batch in file.iter_batches(batch_size=_BATCH_ROWS):
                yield Chunk(_fit(of_venue(to_frame(batch), recording.path.name, venue), recording, symbol), [])
    except (pa.ArrowInvalid, OSError) as error:
        raise InputError(f"{recording.path.name} is damaged: {error}") from error


def _fit(frame: pl.DataFrame, recording: Recording, symbol: str | None) -> pl.DataFrame:
    """The columns of TRADE_SCHEMA out of `frame`."""
    missing = [name for name in _REQUIRED if name not in frame.columns]
    if missing:
        raise InputError(
            f"{recording.path.name} holds no trades: columns missing: {', '.join(missing)}",
            hint=f"needed: {', '.join(TRADE_SCHEMA.names)}",
        )
    columns: dict[str, pl.Expr] = {name: pl.col(name) for name in frame.columns if name in TRADE_DTYPES}
    if "symbol" not in columns:
        columns["symbol"] = pl.lit(recording.symbol_or(symbol))
    columns.setdefault("ts_recv", pl.col("ts_event"))
    columns.setdefault("origin", pl.lit(ORIGIN_ARCHIVE))
    if frame.schema["side"] in (pl.String, pl.Categorical, pl.Enum):
        spelt = pl.col("side").cast(pl.String)
        columns["side"] = pl.when(spelt == "buy").then(1).when(spelt == "sell").then(-1)
    for name in ("ts_event", "ts_recv"):
        dtype = frame.schema.get(name)
        if isinstance(dtype, pl.Datetime):
            columns[name] = pl.col(name).dt.replace_time_zone("UTC") if dtype.time_zone is None else pl.col(name)
        elif dtype is not None:
            raise InputError(f"{recording.path.name}: column {name} is {dtype}, not a time")
    try:
        fitted = frame.select(columns[name].cast(dtype).alias(name) for name, dtype in TRADE_DTYPES.items())
    except pl.exceptions.InvalidOperationError as error:
        raise InputError(f"{recording.path.name}: columns do not fit trades: {error}") from error
    nulls = [name for name in fitted.columns if fitted.get_column(name).null_count()]
    if nulls:
        raise InputError(f"{recording.path.name}: values missing in {', '.join(nulls)}")
    return fitted
