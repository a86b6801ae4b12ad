"""Commits that survive a power cut: the library renames files into place and syncs none of them.

So a commit is synced before anyone is told of it (`sync_commits`), and at the next open the newest commit
is looked at: if the machine died in between, it may be torn, and is cut off (`cut_torn_commits`). Nobody had
been told of it, its position went with it, and its rows come again from the upstream's journal.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final
from urllib.parse import unquote

import pyarrow as pa
import pyarrow.parquet as pq

LOG_FOLDER: Final = "_delta_log"

_COMMIT = re.compile(r"\d{20}\.json")
_CHECKPOINT = re.compile(r"\d{20}\.checkpoint\.parquet")
_STAGED = re.compile(r".*#\d+")


def sync_commits(table: Path, versions: Iterable[int]) -> None:
    """Sync the data files, folders and log files of `versions`; files vacuumed since are passed over."""
    folders = {table / LOG_FOLDER}
    for version in versions:
        commit = table / LOG_FOLDER / f"{version:020}.json"
        for path in _added_files(table, commit):
            if path.exists():
                _sync(path)
                folders.update((path.parent, path.parent.parent, table))
        _sync(commit)
    for folder in folders:
        _sync(folder)


def sync_checkpoint(table: Path, version: int) -> None:
    """Sync the checkpoint of `version`; the log before it may be deleted after."""
    log = table / LOG_FOLDER
    for path in (log / f"{version:020}.checkpoint.parquet", log / "_last_checkpoint", log):
        _sync(path)


def cut_torn_commits(table: Path) -> list[str]:
    """Set aside the newest commits and checkpoints as long as they are torn; the names of what was set aside.

    Only the holder of the table's lock may do this.
    """
    log = table / LOG_FOLDER
    if not log.is_dir():
        return []
    cut = []
    names = sorted(path.name for path in log.iterdir())
    for name in reversed([name for name in names if _CHECKPOINT.fullmatch(name)]):
        if _is_whole_checkpoint(log / name):
            break
        cut.append(_set_aside(log / name))
    for name in reversed([name for name in names if _COMMIT.fullmatch(name)]):
        if _is_whole(table, log / name):
            break
        cut.append(_set_aside(log / name))
        checkpoint = log / name.replace(".json", ".checkpoint.parquet")
        if checkpoint.exists():
            cut.append(_set_aside(checkpoint))
    if any(_CHECKPOINT.match(name) for name in cut):
        (log / "_last_checkpoint").unlink(missing_ok=True)  # a hint only: without it readers list the log
    return cut


def remove_staged(table: Path) -> int:
    """Delete files that a killed writer had begun and not yet named; how many."""
    staged = [path for path in table.rglob("*#*") if _STAGED.fullmatch(path.name)]
    for path in staged:
        path.unlink()
    return len(staged)


def _is_whole(table: Path, commit: Path) -> bool:
    try:
        actions = [json.loads(line) for line in commit.read_bytes().splitlines()]
        added = [action["add"] for action in actions if "add" in action]
        sizes = [(table / unquote(add["path"])).stat().st_size for add in added]
        return bool(actions) and sizes == [add["size"] for add in added]
    except (ValueError, FileNotFoundError):
        return False


def _is_whole_checkpoint(path: Path) -> bool:
    try:
        pq.read_metadata(path)
    except pa.ArrowInvalid:
        return False
    return True


def _set_aside(path: Path) -> str:
    path.rename(path.with_name(path.name + ".torn"))
    return path.name


def _added_files(table: Path, commit: Path) -> Iterator[Path]:
    with commit.open("rb") as lines:
        for line in lines:
            if line.startswith(b'{"add"'):
                yield table / unquote(json.loads(line)["add"]["path"])


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
