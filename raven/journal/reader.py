"""Reading a journal from outside: without its lock, while its writer may be at work."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa

from raven.errors import JournalError
from raven.journal.folder import IDENTITY_FILE, read_identity, segment_paths
from raven.journal.ids import highest_ids
from raven.journal.segment import DamagedSegmentError, Entry, Segment, sequence_before


class JournalReader:
    """A journal folder, read only: for notebooks and replay. `id`, `kind` and `venue` are the stream's."""

    def __init__(self, path: Path) -> None:
        """Raises JournalError when `path` is no journal, or one of another version."""
        self.path = path
        identity = read_identity(path)
        self.id, self.kind, self.venue = identity.id, identity.kind, identity.venue

    @staticmethod
    def is_journal(path: Path) -> bool:
        """Whether the folder is a journal."""
        return (path / IDENTITY_FILE).is_file()

    @property
    def schema(self) -> pa.Schema:
        """The Arrow schema of the newest batches; raises JournalError while the journal holds none."""
        return self._newest().schema

    def tail_ids(self) -> dict[str, int]:
        """The highest trade id ever appended per symbol, silent and dropped ones included; empty for bars.

        Raises JournalError while the journal holds no batch.
        """
        return highest_ids(self._newest())

    def span_us(self) -> tuple[int, int]:
        """When the oldest and the newest batch held were appended (UTC, microseconds); raises as `tail_ids` does."""
        last_us = self._newest().last()[1]
        return next((entry.meta.appended_us for entry in self.entries()), last_us), last_us

    def _newest(self) -> Segment:
        """The newest segment with a whole batch, bounded to its whole batches."""
        for path in reversed(segment_paths(self.path)):
            segment = Segment(path)
            segment.find_end()
            if segment.batches:  # else it is being made right now, or torn: the one before it is whole
                return segment
        raise JournalError(f"the journal {self.path} holds no batch yet")

    def entries(self, after: int = 0, *, start_us: int | None = None, end_us: int | None = None) -> Iterator[Entry]:
        """The batches above sequence `after`, in order, appended at `start_us` <= t < `end_us`.

        Times are UTC in microseconds. Ends at the newest whole batch; a batch half written is not an error.
        Holes that retention makes are told by the entry after them (`Entry.hole`). Raises JournalError at a
        segment damaged in its middle.
        """
        position = after
        if start_us is not None:
            position = max(after, self._sequence_before(start_us))
        caught_up = False
        while not caught_up:
            caught_up = True
            segments = self._segments_from(position)
            for segment in segments:
                try:
                    for entry in segment.entries(position):
                        position = entry.meta.sequence
                        caught_up = False
                        if end_us is not None and entry.meta.appended_us >= end_us:
                            return
                        yield entry
                except FileNotFoundError:
                    caught_up = False  # dropped by retention just now: look again at what is held
                    break
                except DamagedSegmentError:
                    if segment is not segments[-1]:
                        raise

    def _segments_from(self, position: int) -> list[Segment]:
        """The segments that may hold a batch above `position`, oldest first."""
        segments = [Segment(path) for path in segment_paths(self.path)]
        first = bisect_right(segments, position, key=lambda segment: segment.first_sequence)
        return segments[max(0, first - 1) :]

    def _sequence_before(self, append_time_us: int) -> int:
        while True:
            segments = self._segments_from(0)
            if segments:
                segments[-1].find_end()
            try:
                return sequence_before(segments, append_time_us)
            except FileNotFoundError:
                continue  # dropped by retention just now
