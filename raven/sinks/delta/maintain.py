"""Keeping a table quick to read and small: merge small files, sort settled days, drop what nobody reads.

The library's z-order interleaves its columns, so its rows are not in order, and it drops the transactions it
is given; its compaction keeps the order of files. So small files of a day that is still written are merged
by the library, and a day that has settled is sorted here: each file then holds a range of symbols of its own,
and readers skip the others.
"""

from __future__ import annotations

import json
import math
import uuid
from datetime import UTC, datetime
from typing import Any, Final

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
from deltalake.transaction import AddAction, RemoveAction

from raven.batches.schema import to_record_batch
from raven.clock import monotonic_ns, now_us
from raven.sinks.delta.encode import PARTITION_COLUMNS
from raven.sinks.delta.positions import transaction_name
from raven.sinks.delta.table import NO_HOOKS, WRITER, Table, Upkeep, explained

COMPACTED_BYTES: Final = 32 * 2**20
SORTED_ROWS: Final = 2_000_000
ROW_GROUP_ROWS: Final = 131_072


def maintain(table: Table, upkeep: Upkeep) -> dict[str, int]:
    """Do what is due, and say how much of each."""
    with explained(f"{table.path} could not be maintained"):
        done = {
            "merged_files": _merge_small_files(table, upkeep),
            "sorted_days": _sort_settled_days(table, upkeep),
            "deleted_files": _vacuum(table),
        }
        if any(done.values()) or not _is_summed_up(table):
            table.checkpoint()
            table.delta.cleanup_metadata()
    return {name: amount for name, amount in done.items() if amount}


def _files(table: Table) -> pl.DataFrame:
    """The table's files: path, size_bytes, modification_time (ms), `partition.venue`, `partition.date`, …"""
    return pl.DataFrame(table.delta.get_add_actions(flatten=True))


def _is_summed_up(table: Table) -> bool:
    hint = table.path / "_delta_log" / "_last_checkpoint"
    return hint.exists() and json.loads(hint.read_bytes())["version"] == table.delta.version()


def _merge_small_files(table: Table, upkeep: Upkeep) -> int:
    small = (
        _files(table)
        .filter(pl.col("size_bytes") < COMPACTED_BYTES // 2)
        .group_by("partition.venue", "partition.date")
        .len()
        .filter(pl.col("len") > upkeep.small_files)
    )
    merged = 0
    for venue, day, _ in small.iter_rows():
        with table.commit():
            metrics = table.delta.optimize.compact(
                partition_filters=[("venue", "=", venue), ("date", "=", day.isoformat())],
                target_size=COMPACTED_BYTES,
                writer_properties=WRITER,
                post_commithook_properties=NO_HOOKS,
            )
        merged += metrics["numFilesRemoved"]
    return merged


def _sort_settled_days(table: Table, upkeep: Upkeep) -> int:
    begun_ns = monotonic_ns()
    written_before_ms = now_us() // 1000 - round(upkeep.settled_s * 1000)
    days = _files(table).partition_by("partition.venue", "partition.date", as_dict=True)
    sorted_days = 0
    for (venue, day), files in sorted(days.items()):
        if monotonic_ns() - begun_ns > upkeep.sort_budget_s * 1e9:
            break
        newest_ms: Any = files.get_column("modification_time").max()
        mark = transaction_name("sorted", venue, day.isoformat())
        sorted_ms = table.lookup(mark)
        if newest_ms <= written_before_ms and (sorted_ms is None or newest_ms > sorted_ms):
            _sort_day(table, {"venue": venue, "date": day.isoformat()}, files, mark)
            sorted_days += 1
    return sorted_days


def _sort_day(table: Table, partition: dict[str, str | None], files: pl.DataFrame, mark: str) -> None:
    """Rewrite the files of one partition in order, in one commit that says so; the rows stay the same."""
    layout = table.layout
    columns = [field for field in layout.schema if field.name not in PARTITION_COLUMNS]
    keys = [name for name in layout.identity if name not in PARTITION_COLUMNS]
    paths = [str(table.path / path) for path in files.get_column("path")]
    rows = pl.scan_parquet(paths, hive_partitioning=False, glob=False)
    ranges = (
        rows.group_by("symbol")
        .len()
        .sort("symbol")
        .group_by((pl.col("len").cum_sum() - pl.col("len")) // SORTED_ROWS, maintain_order=True)
        .agg(first=pl.col("symbol").first(), last=pl.col("symbol").last())
        .select("first", "last")
        .collect(engine="streaming")
    )
    now_ms = now_us() // 1000
    added = [
        _write(
            table,
            partition,
            rows.filter(pl.col("symbol").is_between(pl.lit(first), pl.lit(last))).sort(keys).collect(),
            pa.schema(columns),
            now_ms,
        )
        for first, last in ranges.iter_rows()
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


def _write(
    table: Table, partition: dict[str, str | None], rows: pl.DataFrame, schema: pa.Schema, now_ms: int
) -> AddAction:
    folder = "/".join(f"{name}={partition[name]}" for name in PARTITION_COLUMNS)
    path = f"{folder}/sorted-{uuid.uuid4()}.zstd.parquet"
    rising = [field.name for field in schema if field.type == pa.int64() or pa.types.is_timestamp(field.type)]
    pq.write_table(
        pa.Table.from_batches([to_record_batch(rows, schema)]),
        table.path / path,
        compression="zstd",
        row_group_size=ROW_GROUP_ROWS,
        use_dictionary=[name for name in schema.names if name not in rising],
        column_encoding=dict.fromkeys(rising, "DELTA_BINARY_PACKED"),
    )
    return AddAction(
        path=path,
        size=(table.path / path).stat().st_size,
        partition_values=partition,
        modification_time=now_ms,
        data_change=False,
        stats=json.dumps(_statistics(rows)),
    )


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


def _vacuum(table: Table) -> int:
    """Delete files that left the table longer ago than the retention, and what killed writers left behind."""
    if not table.delta.vacuum(dry_run=True, full=True):
        return 0
    with table.commit():
        deleted = table.delta.vacuum(dry_run=False, full=True, post_commithook_properties=NO_HOOKS)
    return len(deleted)
