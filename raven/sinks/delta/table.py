"""One Delta table, written by one process: the lock, the check of its shape, commits with transactions."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import polars as pl
import pyarrow as pa
from deltalake import (
    CommitProperties,
    DeltaTable,
    PostCommitHookProperties,
    Transaction,
    WriterProperties,
    write_deltalake,
)
from deltalake.exceptions import DeltaError

from raven.batches.schema import to_record_batch
from raven.errors import StoreError
from raven.files import FolderLock
from raven.sinks.delta.days import PARTITION_COLUMNS, dated_schema
from raven.sinks.delta.durable import (
    LOG_FOLDER,
    cut_torn_commits,
    remove_staged,
    sync_checkpoint,
    sync_commits,
)
from raven.sinks.encode import Layout
from raven.sinks.lock import hold
from raven.sinks.store import StoreUnavailableError

CHECKPOINT_COMMITS: Final = 50
WRITER: Final = WriterProperties(compression="ZSTD", compression_level=1)
NO_HOOKS: Final = PostCommitHookProperties(create_checkpoint=False, cleanup_expired_logs=False)
"""Checkpoints and log cleanup are ours, and come after the sync: what they sum up is on the disk by then."""

READABLE_PATH: Final = re.compile(r"[\w.~!$&'()*+,;=:@/-]+", re.ASCII)
"""Where a table can lie that every reader opens."""


@dataclass(frozen=True, slots=True)
class Upkeep:
    """When a table is tidied.

    - `retention_h`: for how long files that left the table, and old log entries, stay for readers that began
      before. Fixed when the table is made.
    - `small_files`: when a day has more small files than that, they are merged.
    - `settled_s`: a day to which nothing was written for so long has settled, and is sorted.
    - `sort_budget_s`: after this time the days that are left to be sorted wait for the next maintenance.
    """

    retention_h: float = 1.0
    small_files: int = 50
    settled_s: float = 3600.0
    sort_budget_s: float = 30.0


class Table:
    """The Delta table of `layout` in `root`, with its lock beside it; `retention_h` as in Upkeep."""

    def __init__(self, root: Path, layout: Layout, *, retention_h: float = 1.0) -> None:
        self.layout = layout
        self.schema = dated_schema(layout)
        self.path = root.absolute() / layout.name
        self.rows = 0
        self.cut: tuple[str, ...] = ()
        self._retention = f"interval {round(retention_h * 3600)} seconds"
        self._lock: FolderLock | None = None
        self._delta: DeltaTable | None = None
        self._versions: dict[str, int | None] = {}

    def open(self) -> None:
        """Take the lock; cut what a crash left torn (`cut` names it); create or check the table.

        Open already, it is read anew. Raises StoreError when another process holds it or the folder is something else.
        """
        if not READABLE_PATH.fullmatch(str(self.path)):
            raise StoreError(
                f"{self.path} cannot hold a Delta table that every reader opens",
                hint="put the data folder where the path has no spaces and only ASCII letters",
            )
        if self._lock is None:
            self._lock = hold(self.path)
        self._forget()
        try:
            with explained(f"{self.path} cannot be opened"):
                self.cut = tuple(cut_torn_commits(self.path))
                remove_staged(self.path)
                self._create_or_check()
        except StoreError:
            self.close()
            raise

    def close(self) -> None:
        """Let go of the table."""
        self._forget()
        if self._lock is not None:
            self._lock.release()
            self._lock = None

    @property
    def delta(self) -> DeltaTable:
        """The library's table as of our last commit; read anew after a failure."""
        if self._lock is None:
            raise StoreError(f"{self.path} is not open")
        if self._delta is None:
            found = DeltaTable(self.path)
            self._sync_newest(found.version())  # until that has worked nothing in it counts as stored
            self.rows = found.count()
            self._delta = found
        return self._delta

    def lookup(self, name: str) -> int | None:
        """The last version written of the application transaction `name`."""
        if name not in self._versions:
            with explained(f"{self.path} cannot be read"):
                self._versions[name] = self.delta.transaction_version(name)
        return self._versions[name]

    def append(self, rows: pl.DataFrame, transactions: Mapping[str, int]) -> None:
        """Commit `rows`, in the order they have, and `transactions`; without rows, these alone."""
        batch = to_record_batch(rows, self.schema)
        with self.commit(transactions) as properties:
            write_deltalake(
                self.delta,
                pa.Table.from_batches([batch]),
                mode="append",
                writer_properties=WRITER,
                commit_properties=properties,
                post_commithook_properties=NO_HOOKS,
            )
        self.rows += rows.height

    def merge(self, rows: pl.DataFrame, transactions: Mapping[str, int], *, where: str) -> tuple[int, int]:
        """Commit `transactions` and those of `rows` that are new or of a higher revision; how many were each.

        `where` narrows, in SQL on `target`, the table's rows that can have the identity of any of `rows`.
        """
        batch = to_record_batch(rows, self.schema)
        same = " and ".join(f"target.{name} = source.{name}" for name in [*self.layout.identity, "date"])
        with self.commit(transactions) as properties:
            metrics = (
                self.delta.merge(
                    pa.Table.from_batches([batch]),
                    f"{same} and {where}",
                    source_alias="source",
                    target_alias="target",
                    writer_properties=WRITER,
                    commit_properties=properties,
                    post_commithook_properties=NO_HOOKS,
                )
                .when_matched_update_all("source.revision > target.revision")
                .when_not_matched_insert_all()
                .execute()
            )
        inserted, updated = metrics["num_target_rows_inserted"], metrics["num_target_rows_updated"]
        self.rows += inserted
        return inserted, updated

    @contextmanager
    def commit(self, transactions: Mapping[str, int] | None = None) -> Iterator[CommitProperties]:
        """Around whatever commits to the table. After it the commits are synced and `transactions` are known.

        After a failure it is not known what was committed, so everything is read again.
        """
        named = dict(transactions or {})
        try:
            with explained(f"{self.path} could not be written"):
                before = self.delta.version()
                yield CommitProperties(app_transactions=[Transaction(name, version) for name, version in named.items()])
                self.delta.update_incremental()
                after = self.delta.version()
                sync_commits(self.path, range(before + 1, after + 1))
                if after // CHECKPOINT_COMMITS > before // CHECKPOINT_COMMITS:
                    self.checkpoint()
        except BaseException:
            self._forget()
            raise
        self._versions.update(named)

    def checkpoint(self) -> None:
        """Sum up the log, so that readers need only what comes after."""
        self.delta.create_checkpoint()
        sync_checkpoint(self.path, self.delta.version())

    def _forget(self) -> None:
        self._delta = None
        self._versions.clear()

    def _sync_newest(self, version: int) -> None:
        """Who wrote the newest commits may have been killed, or have failed, before their sync."""
        log = self.path / LOG_FOLDER
        newest = range(max(0, version - 2), version + 1)
        sync_commits(self.path, [number for number in newest if (log / f"{number:020}.json").exists()])

    def _create_or_check(self) -> None:
        is_file = self.path.exists() and not self.path.is_dir()
        if is_file or not DeltaTable.is_deltatable(self.path):
            if is_file or (self.path.exists() and any(path.name != LOG_FOLDER for path in self.path.iterdir())):
                raise StoreError(
                    f"{self.path} exists and is not a Delta table",
                    hint="move it away, or use another data folder",
                )
            DeltaTable.create(
                self.path,
                self.schema,
                partition_by=list(PARTITION_COLUMNS),
                configuration={
                    "delta.deletedFileRetentionDuration": self._retention,
                    "delta.logRetentionDuration": self._retention,
                },
                post_commithook_properties=NO_HOOKS,
            )
        with explained(f"{self.path} cannot be opened"):
            found = pa.schema(self.delta.schema().to_arrow())
            partitions = tuple(self.delta.metadata().partition_columns)
        if not found.equals(self.schema) or partitions != PARTITION_COLUMNS:
            raise StoreError(
                f"{self.path} is another table: {_difference(found, self.schema, partitions)}",
                hint="move it away, or use another data folder",
            )


@contextmanager
def explained(what: str) -> Iterator[None]:
    """Turn errors of the library and of the system into StoreUnavailableError: `what`, because of what."""
    try:
        yield
    except (DeltaError, OSError, json.JSONDecodeError, pl.exceptions.ComputeError, pa.ArrowException) as error:
        text = str(error).splitlines()[0]
        raise StoreUnavailableError(f"{what}: {text}", hint=_hint(str(error))) from error


def _hint(text: str) -> str:
    if "No space left" in text or "File too large" in text or "quota" in text:
        return "free some space; what was not stored waits in the journals"
    if "ermission denied" in text or "Read-only" in text:
        return "give the service's user the right to write there"
    return ""


def _difference(found: pa.Schema, wanted: pa.Schema, partitions: tuple[str, ...]) -> str:
    differences: list[Any] = [
        f"{field.name} is {found.field(field.name) if field.name in found.names else 'missing'}, not {field}"
        for field in wanted
        if field.name not in found.names or found.field(field.name) != field
    ]
    differences += [f"{name} is unknown" for name in found.names if name not in wanted.names]
    if partitions != PARTITION_COLUMNS:
        differences.append(f"it is partitioned by {', '.join(partitions) or 'nothing'}")
    return "; ".join(differences)
