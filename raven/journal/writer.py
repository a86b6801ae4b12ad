"""Writing a segment: bytes are synced before they count, what fails is cut off again; mending a torn one."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from raven.batches.ipc import END_OF_STREAM
from raven.errors import JournalError
from raven.journal.segment import Segment

_FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT})
_BATCH_MARK: Final = b"raven.batch"


class SegmentWriter:
    """The one writer of a segment file; `end` is where its last whole batch ends."""

    def __init__(self, path: Path, end: int = 0) -> None:
        """Open the file, made if new; raises OSError."""
        self.path = path
        self.end = end
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        self._clean = True

    def write(self, data: bytes) -> None:
        """Append `data` and sync it; raises OSError when that fails, with the file as it was before."""
        if not self._clean:
            self._cut()
        self._clean = False
        try:
            offset, rest = self.end, memoryview(data)
            while rest:
                written = os.pwrite(self._fd, rest, offset)
                offset, rest = offset + written, rest[written:]
            os.fdatasync(self._fd)
        except OSError:
            with contextlib.suppress(OSError):  # tried again before the next write
                self._cut()
            raise
        self.end = offset
        self._clean = True

    def _cut(self) -> None:
        os.ftruncate(self._fd, self.end)
        os.fdatasync(self._fd)  # or a crash could bring back a batch its writer was told had failed
        self._clean = True

    def close(self) -> None:
        """Close the file, without what a failed write may have left."""
        if not self._clean:
            with contextlib.suppress(OSError):  # the next open cuts it
                self._cut()
        os.close(self._fd)


def disk_error(error: OSError, action: str, path: Path) -> JournalError:
    """`error` as Raven's own."""
    if error.errno in _FULL:
        hint = "the disk is full: free space or lower journal.max_bytes; nothing written before is harmed"
    elif error.errno == errno.EFBIG:
        hint = "the file size limit of this process is too low (ulimit -f); nothing written before is harmed"
    else:
        hint = "check the disk; nothing written before is harmed"
    return JournalError(f"{action} {path} failed: {error.strerror or error}", hint=hint)


def is_shortage(error: Exception) -> bool:
    """Whether the system has no file to open just now, for this process or at all."""
    causes = (error, error.__cause__)
    return any(isinstance(cause, OSError) and cause.errno in (errno.EMFILE, errno.ENFILE) for cause in causes)


def sync_folder(folder: Path) -> None:
    """Make files made in or removed from `folder` durable."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@dataclass(frozen=True, slots=True)
class Mended:
    """A segment fit to go on with: None when not one whole batch was in it (then its file is gone)."""

    segment: Segment | None
    sealed: bool
    cut_bytes: int


def mend(path: Path) -> Mended:
    """Find the end of the last whole batch and cut off the torn rest.

    A torn write leaves part of one batch. Raises JournalError, and cuts nothing, when there is more than
    that after the damage: the file was hurt in its middle, and cutting would lose batches that were synced.
    """
    segment = Segment(path)
    end = segment.find_end()
    with path.open("rb") as file:
        file.seek(end)
        rest = file.read()
    if rest.count(_BATCH_MARK) > (1 if end else 0):
        raise JournalError(
            f"segment {path} is damaged at byte {end}, and batches follow the damage",
            hint="check the disk; to go on without what this file holds, move it away",
        )
    if not segment.batches:
        path.unlink()
        sync_folder(path.parent)
        return Mended(None, sealed=False, cut_bytes=end + len(rest))
    if rest == END_OF_STREAM:
        return Mended(segment, sealed=True, cut_bytes=0)
    if rest:
        os.truncate(path, end)
    return Mended(segment, sealed=False, cut_bytes=len(rest))


def mend_folder(paths: Sequence[Path]) -> tuple[tuple[Segment, ...], bool, int]:
    """The segments of these files, oldest first, fit to go on with; raises what `mend` raises.

    Also whether the newest is sealed (or there is none), and how many torn bytes were cut off.
    """
    cut_bytes = 0
    for count in range(len(paths), 0, -1):
        mended = mend(paths[count - 1])
        cut_bytes += mended.cut_bytes
        if mended.segment is not None:
            older = (Segment(path) for path in paths[: count - 1])
            return (*older, mended.segment), mended.sealed, cut_bytes
    return (), True, cut_bytes
