"""Files that must survive a crash: replaced atomically, folders held by one process."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path


def write_atomically(path: Path, data: bytes, *, private: bool = False) -> None:
    """Replace the file at `path` by `data`, synced; a crash leaves the old or the new one whole.

    `private`: only its owner may read and write it, from the first byte on.
    """
    scratch = path.with_name(path.name + ".new")
    if private:
        scratch.touch(mode=0o600)
        scratch.chmod(0o600)
    with scratch.open("wb") as file:
        file.write(data)
        file.flush()
        os.fdatasync(file.fileno())
    scratch.replace(path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


class FolderLock:
    """An exclusive hold on `path` (a lock file), freed by `release` or by the end of the process."""

    def __init__(self, path: Path) -> None:
        """Raises BlockingIOError when another process holds it."""
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = path.open("ab", buffering=0)
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._file.truncate(0)
            self._file.write(str(os.getpid()).encode())
        except OSError:  # also of a full disk: who tries again is not to find it held by itself
            self._file.close()
            raise

    def release(self) -> None:
        """Let others take it."""
        self._file.close()
