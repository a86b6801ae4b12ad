"""What a table holds: which groups of rows, told by its log alone, and how much of each, counted."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Final
from urllib.parse import unquote

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
from deltalake import DeltaTable

from raven.sinks.contents import CONTENTS, count
from raven.sinks.delta.durable import LOG_FOLDER
from raven.sinks.delta.positions import transaction_name
from raven.sinks.delta.table import explained
from raven.sinks.encode import Layout

_ATTEMPTS: Final = 3
_CHECKPOINT: Final = ".checkpoint.parquet"


def groups(root: Path, layout: Layout) -> pl.DataFrame | None:
    """The groups (columns `layout.group`) of which rows were ever stored in `root`; None when the log tells of none.

    A commit names the last key of each group it brings, and a checkpoint sums these names up: no data file is read.
    """
    prefix = transaction_name("last", layout.name, "")
    for _ in range(_ATTEMPTS):
        try:
            names = set(_transactions(root.absolute() / layout.name / LOG_FOLDER))
        except (OSError, ValueError, pa.ArrowException):  # the writer has cleaned the log meanwhile
            continue
        found = [tuple(map(unquote, name.removeprefix(prefix).split("/"))) for name in names if name.startswith(prefix)]
        return pl.DataFrame(found, schema=dict.fromkeys(layout.group, pl.String()), orient="row")
    return None


def contents(root: Path, layout: Layout) -> pl.DataFrame:
    """How many rows of each group are stored in `root`, the first and the last time; see CONTENTS.

    A file's statistics are of all symbols in it, so the columns of the groups and the times are read, and no others.
    """
    path = root.absolute() / layout.name
    with explained(f"{path} cannot be read"):
        if not DeltaTable.is_deltatable(path):
            return pl.DataFrame(schema=CONTENTS)
        return count(pl.scan_delta(path), layout)


def _transactions(log: Path) -> Iterator[str]:
    """The names of all application transactions."""
    files = {path.name for path in log.iterdir()}
    checkpoint = max((name for name in files if name.endswith(_CHECKPOINT)), default="")
    if checkpoint:
        column = pq.read_table(log / checkpoint, columns=["txn"]).column("txn")
        yield from (row["appId"] for row in column.drop_null().to_pylist())
    for name in sorted(files):
        if name.endswith(".json") and name[:20] > checkpoint[:20]:
            for line in (log / name).read_bytes().splitlines():
                if line.startswith(b'{"txn"'):
                    yield json.loads(line)["txn"]["appId"]
