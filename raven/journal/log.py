"""The segments of a journal in order: the newest is written, all can be read, the oldest can be dropped."""

from __future__ import annotations

import os
from bisect import bisect_right
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple, TypeVar

import pyarrow as pa

from raven.batches.batch import BatchMeta
from raven.batches.ipc import END_OF_STREAM
from raven.errors import JournalError
from raven.journal.folder import segment_path, segment_paths
from raven.journal.segment import Entry, Segment, SegmentNotes, segment_prefix
from raven.journal.writer import SegmentWriter, is_shortage, mend_folder, sync_folder

T = TypeVar("T")


class _Next(NamedTuple):
    """A segment about to begin: its open file, what that begins with, and the open folder it lies in."""

    writer: SegmentWriter
    prefix: bytes
    folder: int


class SegmentLog:
    """Segments, oldest first, and where appends go on.

    One thread at a time may change it, any number may read: `segments` is replaced, never changed.
    `last_sequence` and `last_appended_us` are of the newest batch, 0 while there is none.
    """

    def __init__(self, folder: Path, schema: pa.Schema) -> None:
        """Open the segments in `folder`; the newest is mended, `cut_bytes` torn ones cut off its end."""
        self._folder = folder
        self._schema = schema
        self.segments, self._is_sealed, self.cut_bytes = mend_folder(segment_paths(folder))
        self.last_sequence, self.last_appended_us = self.segments[-1].last() if self.segments else (0, 0)
        self._writer: SegmentWriter | None = None

    def append(
        self, message: bytes, meta: BatchMeta, rows: int, segment_bytes: int, notes: Callable[[], SegmentNotes]
    ) -> None:
        """Append a batch message of `rows` durably, then let readers see it.

        A segment that is sealed, has another schema or at least `segment_bytes` is followed by a new one,
        which begins with `notes`. Raises OSError when the disk refuses; then nothing was appended.
        """
        writer = self._open_writer()
        begun = None
        if writer is None or writer.end >= segment_bytes:
            begun = self._open_next(meta.sequence, notes, must=writer is None)
        if writer is None or begun is not None:
            assert begun is not None
            self._begin_segment(begun, message)
        else:
            writer.write(message)
        self.segments[-1].publish(meta, rows, len(message))
        self.last_appended_us = meta.appended_us
        self.last_sequence = meta.sequence

    def _open_next(self, sequence: int, notes: Callable[[], SegmentNotes], *, must: bool) -> _Next | None:
        """All that a new segment needs of the system; None where that has no file to open, unless it `must`."""
        try:
            prefix = segment_prefix(self._schema, notes())
            folder = os.open(self._folder, os.O_RDONLY)
            try:
                return _Next(SegmentWriter(segment_path(self._folder, sequence)), prefix, folder)
            except BaseException:
                os.close(folder)
                raise
        except (OSError, JournalError) as error:
            if must or not is_shortage(error):
                raise
            return None  # the segment there is goes on

    def _open_writer(self) -> SegmentWriter | None:
        """The writer of the newest segment, None when a new segment must begin."""
        if self._writer is None and not self._is_sealed:
            newest = self.segments[-1]
            self._writer = SegmentWriter(newest.path, newest.end or 0)
            if not newest.schema.equals(self._schema, check_metadata=True):
                self.seal()
        return self._writer

    def _begin_segment(self, begun: _Next, message: bytes) -> None:
        writer = begun.writer
        try:
            self.seal()
            writer.write(begun.prefix + message)  # at once: there is never a segment without a batch
            os.fsync(begun.folder)
        except OSError:
            writer.close()
            writer.path.unlink()
            raise
        finally:
            os.close(begun.folder)
        segment = Segment(writer.path)
        segment.begin(len(begun.prefix))
        self._writer, self._is_sealed = writer, False
        self.segments = (*self.segments, segment)

    def seal(self) -> None:
        """End the newest segment, if it is not ended; raises OSError when the disk refuses."""
        if self._is_sealed:
            return
        if self._writer is None:
            self._writer = SegmentWriter(self.segments[-1].path, self.segments[-1].end or 0)
        self._writer.write(END_OF_STREAM)
        self._is_sealed = True
        self.close()

    def close(self) -> None:
        """Close the newest segment's file as it is."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def drop(self, count: int) -> None:
        """Remove the oldest `count` segments; raises OSError when the disk refuses."""
        if count == 0:
            return
        dropped, self.segments = self.segments[:count], self.segments[count:]
        for segment in dropped:
            segment.path.unlink()
        sync_folder(self._folder)

    def read(self, after: int) -> Iterator[Entry]:
        """The batches with a sequence above `after`, in order, up to the newest there then is."""
        while after < self.last_sequence:
            segments = self.segments
            position = bisect_right(segments, after, key=lambda segment: segment.first_sequence)
            for segment in segments[max(0, position - 1) :]:
                try:
                    for entry in segment.entries(after, start=segment.start_after(after)):
                        yield entry
                        after = entry.meta.sequence
                except FileNotFoundError as error:
                    self._require_dropped(segments, error)  # then the next one held tells the hole

    def look(self, at: Callable[[tuple[Segment, ...]], T]) -> T:
        """What `at` finds in the segments; it looks again when one is dropped meanwhile."""
        while True:
            segments = self.segments
            try:
                return at(segments)
            except FileNotFoundError as error:
                self._require_dropped(segments, error)

    def _require_dropped(self, segments: tuple[Segment, ...], error: FileNotFoundError) -> None:
        """A file may only be gone if `drop` removed it, which takes it from the list first."""
        if segments is self.segments:
            raise JournalError(
                f"a segment of journal {self._folder} is gone: {error}",
                hint="never remove segments of a running service; restart it",
            ) from error
