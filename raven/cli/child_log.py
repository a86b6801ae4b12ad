"""The log file of a child process.

The child appends to the file itself, so that it never waits for whoever watches it. The supervisor keeps the file
small, and reads the end of it.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import IO, Final

from raven.telemetry.logs import message_of

MAX_BYTES: Final = 16 * 2**20
READ_BYTES: Final = 2**18


class ChildLog:
    """The log at `path`; beyond `max_bytes` its content moves to `<path>.1`, which is replaced."""

    def __init__(self, path: Path, max_bytes: int = MAX_BYTES) -> None:
        self.path = path
        self._max_bytes = max_bytes
        self._run_began = 0
        self._read = self._size()

    def open(self) -> IO[bytes]:
        """The file to append to, for a new run of the child."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._run_began = self._size()
        return self.path.open("ab")

    def rotate(self) -> None:
        """Move the content away if there is too much of it; the child goes on appending to the same file."""
        if self._size() <= self._max_bytes:
            return
        with self.path.open("rb+") as log, self.path.with_name(f"{self.path.name}.1").open("wb") as old:
            shutil.copyfileobj(log, old)
            log.truncate(0)
        self._run_began = self._read = 0

    def new_lines(self) -> list[str]:
        """Whole lines that came since the last call; of very many the newest."""
        size = self._size()
        begin = min(self._read, size)
        if begin == size:
            return []
        data = self._from(max(begin, size - READ_BYTES))
        whole = data.rfind(b"\n") + 1
        self._read = size - (len(data) - whole) if size > begin else size
        return [message_of(line) for line in data[:whole].decode(errors="replace").splitlines()]

    def last_line(self) -> str:
        """The last line of the child's present or last run, for a message about its end."""
        size = self._size()
        begin = self._run_began if self._run_began <= size else 0
        lines = self._from(max(begin, size - READ_BYTES)).decode(errors="replace").strip().splitlines()
        return message_of(lines[-1]) if lines else "it logged nothing"

    def _from(self, offset: int) -> bytes:
        with self.path.open("rb") as log:
            log.seek(offset)
            return log.read()

    def _size(self) -> int:
        return self.path.stat().st_size if self.path.exists() else 0
