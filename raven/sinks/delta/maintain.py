"""Keeping a table quick to read and small: merge small files, sort settled days, drop what nobody reads.

The library's z-order interleaves its columns, so its rows are not in order, and it drops the transactions it
is given; its compaction keeps the order of files. So small files of a day that is still written are merged
by the library, and a day that has settled is sorted here: each file then holds a range of symbols of its own,
and readers skip the others.
"""

from __future__ import annotations

import json
from typing import Any, Final

import polars as pl

from raven.clock import monotonic_ns, now_us
from raven.sinks.delta.positions import transaction_name
from raven.sinks.delta.sort import sort_day
from raven.sinks.delta.table import NO_HOOKS, WRITER, Table, Upkeep, explained

COMPACTED_BYTES: Final = 32 * 2**20


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
            sort_day(table, {"venue": venue, "date": day.isoformat()}, files, mark)
            sorted_days += 1
    return sorted_days


def _vacuum(table: Table) -> int:
    """Delete files that left the table longer ago than the retention, and what killed writers left behind."""
    if not table.delta.vacuum(dry_run=True, full=True):
        return 0
    with table.commit():
        deleted = table.delta.vacuum(dry_run=False, full=True, post_commithook_properties=NO_HOOKS)
    return len(deleted)
