"""Files that must survive a crash: replaced atomically, folders held by one process."""

from __future__ import annotations

import errno
import fcntl
import os
import stat
from pathlib import Path
from typing import BinaryIO


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


def keep_private(*, group_reads: bool = False) -> None:
    """From now on what this process makes is its user's alone: folders 0700, files 0600.

    `group_reads`: the group may read it, too: 0750 and 0640.
    """
    os.umask(0o027 if group_reads else 0o077)


def open_file(path: Path) -> BinaryIO:
    """Open a file to read it; raises OSError, also for a folder, and for a pipe or device, which may hang."""
    require_file(path)
    return path.open("rb")


def require_file(path: Path) -> None:
    """Raises OSError for what is no file, as `open_file`."""
    mode = path.stat().st_mode
    if not stat.S_ISREG(mode):
        raise OSError(errno.EINVAL, f"it is a {_kind(mode)}, not a file", str(path))


def _kind(mode: int) -> str:
    kinds = {stat.S_ISDIR: "folder", stat.S_ISFIFO: "pipe", stat.S_ISSOCK: "socket"}
    return next((kind for is_kind, kind in kinds.items() if is_kind(mode)), "device")


def read_file(path: Path) -> bytes:
    """The content of a file; raises OSError as `open_file`."""
    with open_file(path) as file:
        return file.read()


class FolderLock:
    """An exclusive hold on `path` (a lock file), freed by `release` or by the end of the process."""

    def __init__(self, path: Path) -> None:
        """Raises BlockingIOError when another process holds it."""
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NONBLOCK, 0o666)  # a pipe would hang
        self._file = os.fdopen(descriptor, "ab", buffering=0)
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
