"""One process writes a store from a folder."""

from __future__ import annotations

from pathlib import Path

from raven.errors import StoreError
from raven.files import FolderLock


def hold(what: Path) -> FolderLock:
    """Hold `what` (a table, a file) by a lock beside it. Raises StoreError when another process does, or nobody can."""
    lock = what.with_suffix(".lock")
    try:
        return FolderLock(lock)
    except BlockingIOError as error:
        raise StoreError(
            f"{what} is being written by process {lock.read_text() or 'unknown'}",
            hint="it has one writer: stop that service, or give this one another data folder",
        ) from error
    except OSError as error:
        raise StoreError(
            f"{what} cannot be opened: {error}", hint="check the data folder and its permissions"
        ) from error
