"""Rows that no store may have, or that a store refuses for what they hold: kept with the reason until sent again.

A folder of Arrow IPC files, one a flush that had such rows, readable with Polars: the columns of their table,
`refused_at` and `reason`. Batches that are of another kind than their stream lie beside them whole, with their place
in the journal. Who adds and who sends again may be two processes: a file is written once and removed whole.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import polars as pl

from raven.clock import now_us
from raven.errors import StoreError
from raven.files import write_atomically
from raven.sinks.encode import LAYOUTS
from raven.sinks.store import Refusal, StoreUnavailableError

FOLDER: Final = "dead_letters"
ADDED: Final = ("refused_at", "reason")
BATCHES: Final = "batches"
"""The table of what was set aside whole: `batch` is an Arrow IPC stream."""
BATCH_SCHEMA: Final = pl.Schema(
    {"upstream": pl.String, "journal_id": pl.String, "sequence": pl.Int64, "rows": pl.Int64, "batch": pl.Binary}
)

_SAME: Final[Mapping[str, Sequence[str]]] = {
    **{layout.name: layout.schema.names for layout in LAYOUTS.values()},
    BATCHES: ["upstream", "journal_id", "sequence"],
}
"""By table: what tells whether a row is there twice. Of a bad row all does: its id may be what is bad."""
_NAME: Final = re.compile(r"(?P<store>[a-z]+)-(?P<table>[a-z_]+)-(?P<at_us>\d+)\.arrow")


@dataclass(frozen=True, slots=True)
class Letters:
    """The dead letters of one file: `rows` have the columns of `table`, `refused_at` and `reason`."""

    path: Path
    store: str
    table: str
    rows: pl.DataFrame


class DeadLetters:
    """The dead letters in `folder` (`<data>/<service>-<port>/dead_letters`)."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def add(self, store: str, table: str, rows: pl.DataFrame, refusals: Sequence[Refusal]) -> None:
        """Keep those of `rows` that were refused; they are on the disk when it returns.

        Raises StoreUnavailableError when the disk refuses.
        """
        if refusals:
            reasons = pl.Series("reason", [refusal.reason for refusal in refusals], dtype=pl.String)
            self.keep(store, table, rows[[refusal.row for refusal in refusals]].with_columns(reasons))

    def keep(self, store: str, table: str, refused: pl.DataFrame) -> None:
        """Keep all of `refused`, which have a `reason`; as `add` otherwise."""
        at_us = now_us()
        now = pl.from_epoch(pl.lit(at_us), time_unit="us").dt.replace_time_zone("UTC").alias("refused_at")
        refused = refused.select(pl.exclude("reason"), now, "reason")
        number = at_us
        while (path := self.folder / f"{store}-{table}-{number}.arrow").exists():
            number += 1  # the clock was set back
        self._write(path, refused)

    def read(self) -> list[Letters]:
        """All of them, of each table oldest first; what was refused again after a crash stands in its last file alone.

        Raises StoreError for a file that cannot be read.
        """
        by_table: dict[tuple[str, str], dict[Path, pl.DataFrame]] = {}
        for path, store, table in self._files():
            try:
                rows = pl.read_ipc(path)
            except (OSError, pl.exceptions.PolarsError) as error:
                raise StoreError(f"{path} cannot be read: {error}", hint="move it away to go on") from error
            by_table.setdefault((store, table), {})[path] = rows
        found = []
        for (store, table), files in by_table.items():
            numbered = pl.concat(rows.with_columns(file=pl.lit(number)) for number, rows in enumerate(files.values()))
            last = numbered.unique(_SAME[table], keep="last", maintain_order=True)
            parts = last.partition_by("file", as_dict=True, include_key=False)
            found += [
                Letters(path, store, table, parts.get((number,), rows.clear()))
                for number, (path, rows) in enumerate(files.items())
            ]
        return found

    def settle(self, letters: Letters, refusals: Sequence[Refusal]) -> None:
        """They were sent again: only those that were refused once more stay, with the new reason."""
        if refusals:
            kept = letters.rows[[refusal.row for refusal in refusals]]
            reasons = pl.Series("reason", [refusal.reason for refusal in refusals], dtype=pl.String)
            self._write(letters.path, kept.with_columns(reasons))
        else:
            letters.path.unlink(missing_ok=True)

    def _files(self) -> Iterator[tuple[Path, str, str]]:
        named = [(found, path) for path in self.folder.glob("*.arrow") if (found := _NAME.fullmatch(path.name))]
        for found, path in sorted(named, key=lambda pair: int(pair[0]["at_us"])):
            if found["table"] in _SAME:
                yield path, found["store"], found["table"]

    def _write(self, path: Path, rows: pl.DataFrame) -> None:
        buffer = rows.write_ipc(None).getvalue()
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(path, buffer)
        except OSError as error:
            raise StoreUnavailableError(
                f"rows that were refused cannot be kept in {path}: {error.strerror}",
                hint="free some space; nothing goes on before they are safe",
            ) from error
