"""Rewriting one day of a table in order, in files that hold a range of symbols each."""

from __future__ import annotations

import json
import math
import uuid
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
from deltalake.transaction import AddAction, RemoveAction

from raven.batches.schema import to_record_batch
from raven.clock import now_us
from raven.errors import StoreError
from raven.sinks.delta.days import PARTITION_COLUMNS
from raven.sinks.delta.table import NO_HOOKS, Table

FILE_ROWS: Final = 2_000_000
ROW_GROUP_ROWS: Final = 131_072


def sort_day(table: Table, partition: dict[str, str | None], files: pl.DataFrame, mark: str) -> None:
    """Replace `files` (path, size_bytes), all of `partition`, by sorted ones, in one commit that sets `mark`.

    The rows stay the same, and readers that follow changes see none. A file holds about FILE_ROWS rows, and whole
    symbols: sorting takes the memory of the rows of one file.
    """
    now_ms = now_us() // 1000
    folder = table.path.joinpath(*(f"{name}={partition[name]}" for name in PARTITION_COLUMNS))
    run = f"sorted-{uuid.uuid4()}"
    try:
        written = _write_sorted(table, files, folder, run)
    except BaseException:
        for path in folder.glob(f"{run}-*"):  # a full disk needs the space now, not at the next vacuum
            path.unlink()
        raise
    added = [
        AddAction(
            path=str(path.relative_to(table.path)),
            size=path.stat().st_size,
            partition_values=partition,
            modification_time=now_ms,
            data_change=False,
            stats=json.dumps(statistics),
        )
        for path, statistics in written.items()
    ]
    removed = [
        RemoveAction(path, data_change=False, deletion_timestamp=now_ms, size=size, partition_values=partition)
        for path, size in files.select("path", "size_bytes").iter_rows()
    ]
    with table.commit({mark: now_ms}) as properties:
        table.delta.create_write_transaction(
            [*added, *removed],
            mode="append",
            schema=table.delta.schema(),
            partition_by=list(PARTITION_COLUMNS),
            commit_properties=properties,
            post_commithook_properties=NO_HOOKS,
        )


def _write_sorted(table: Table, files: pl.DataFrame, folder: Path, run: str) -> Mapping[Path, dict[str, Any]]:
    """Write the sorted files; their statistics by path."""
    layout = table.layout
    schema = pa.schema([field for field in table.schema if field.name not in PARTITION_COLUMNS])
    rising = [field.name for field in schema if field.type == pa.int64() or pa.types.is_timestamp(field.type)]
    keys = [name for name in layout.identity if name not in PARTITION_COLUMNS]
    paths = [str(table.path / path) for path in files.get_column("path")]
    rows = pl.scan_parquet(paths, hive_partitioning=False, glob=False)
    counts = rows.group_by("symbol").len().sort("symbol").collect(engine="streaming")
    ranges = counts.group_by((pl.col("len").cum_sum() - pl.col("len")) // FILE_ROWS, maintain_order=True).agg(
        first=pl.col("symbol").first(), last=pl.col("symbol").last()
    )
    written: dict[Path, dict[str, Any]] = {}
    for first, last in ranges.select("first", "last").iter_rows():
        part = rows.filter(pl.col("symbol").is_between(pl.lit(first), pl.lit(last))).sort(keys).collect()
        path = folder / f"{run}-{len(written)}.zstd.parquet"
        pq.write_table(
            pa.Table.from_batches([to_record_batch(part, schema)]),
            path,
            compression="zstd",
            row_group_size=ROW_GROUP_ROWS,
            use_dictionary=[name for name in schema.names if name not in rising],
            column_encoding=dict.fromkeys(rising, "DELTA_BINARY_PACKED"),
        )
        written[path] = _statistics(part)
    there, kept = counts.get_column("len").sum(), sum(statistics["numRecords"] for statistics in written.values())
    if there != kept:
        raise StoreError(f"{folder} holds {there} rows, {kept} after sorting: it is left as it was")
    return written


def _statistics(rows: pl.DataFrame) -> dict[str, Any]:
    """Per column the least and greatest value and the number of nulls, as Delta writes them."""
    least: dict[str, Any] = {}
    greatest: dict[str, Any] = {}
    for column in rows.get_columns():
        if column.dtype == pl.Boolean or column.null_count() == rows.height:
            continue
        low: Any = column.min()
        high: Any = column.max()
        if isinstance(low, datetime):
            low, high = _as_text(low), _as_text(high)
        if isinstance(low, float) and not (math.isfinite(low) and math.isfinite(high)):
            continue
        least[column.name], greatest[column.name] = low, high
    nulls = {column.name: column.null_count() for column in rows.get_columns()}
    return {"numRecords": rows.height, "minValues": least, "maxValues": greatest, "nullCount": nulls}


def _as_text(instant: datetime) -> str:
    """Cut to the millisecond, which is how readers expect both bounds."""
    return instant.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
