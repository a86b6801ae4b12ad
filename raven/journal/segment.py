"""One segment file: a schema, whole batches, and end-of-stream once it is sealed.

Its schema metadata holds, under `raven.segment`, where the journal stood when it began (`SegmentNotes`).
"""

from __future__ import annotations

import contextlib
import os
from array import array
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import msgspec
import pyarrow as pa

from raven.batches.batch import BatchMeta
from raven.batches.ipc import END_OF_STREAM, join, schema_prefix
from raven.errors import InputError, JournalError
from raven.files import require_file

_NOTES_KEY: Final = b"raven.segment"


@dataclass(frozen=True, slots=True)
class Hole:
    """Sequences `after` < s <= `through` that a reader asked for and retention had dropped."""

    after: int
    through: int


@dataclass(frozen=True, slots=True)
class Entry:
    """One batch of a journal.

    `meta` has journal_id, sequence and appended_us set; `payload` is a self-contained IPC stream of the
    batch (`raven.batches.ipc.decode`); `rows` is how many it holds. `hole` is set when batches the reader
    should have got just before this one are gone.
    """

    meta: BatchMeta
    payload: bytes
    rows: int
    hole: Hole | None = None


class SegmentNotes(msgspec.Struct, frozen=True):
    """Where the journal stood just before the segment's first batch.

    `last_ids`: the highest trade id per symbol ever appended. `metadata`: what the journal's user put there.
    `previous_rows`: how many rows lay before, dropped ones included.
    """

    previous_sequence: int = 0
    previous_appended_us: int = 0
    last_ids: dict[str, int] = {}
    metadata: dict[str, str] = {}
    previous_rows: int = 0


class DamagedSegmentError(JournalError):
    """The bytes from `offset` on are not a whole batch."""

    def __init__(self, path: Path, offset: int, why: object) -> None:
        super().__init__(f"segment {path} is damaged at byte {offset}: {why}")
        self.offset = offset


@dataclass(frozen=True, slots=True)
class Slot:
    """A batch and where its message lies: bytes `start` <= b < `end` of the file."""

    start: int
    end: int
    meta: BatchMeta
    batch: pa.RecordBatch


@dataclass(frozen=True, slots=True)
class _Header:
    schema: pa.Schema
    notes: SegmentNotes
    end: int


@dataclass(slots=True)
class _Index:
    """Per batch, in order: its sequence, where it starts, when it was appended, the segment's rows before it."""

    sequences: array[int] = field(default_factory=lambda: array("q"))
    starts: array[int] = field(default_factory=lambda: array("q"))
    appended_us: array[int] = field(default_factory=lambda: array("q"))
    rows_before: array[int] = field(default_factory=lambda: array("q"))
    end: int = 0
    rows: int = 0

    def add(self, meta: BatchMeta, rows: int, start: int, end: int) -> None:
        self.starts.append(start)
        self.appended_us.append(meta.appended_us)
        self.rows_before.append(self.rows)
        self.rows += rows
        self.sequences.append(meta.sequence)  # after the others: readers in other threads go by it
        self.end = end


def segment_prefix(schema: pa.Schema, notes: SegmentNotes) -> bytes:
    """What a segment file begins with."""
    metadata = {**(schema.metadata or {}), _NOTES_KEY: msgspec.json.encode(notes)}
    return schema_prefix(schema.with_metadata(metadata))


class Segment:
    """Reads one segment file. Safe to use from several threads while its one writer appends.

    `end` bounds what is read: the end of the last whole batch as the writer publishes it, None to read all.
    """

    def __init__(self, path: Path, *, end: int | None = None) -> None:
        self.path = path
        self.first_sequence = int(path.stem)
        self.end = end
        self._built: _Index | None = None

    def slots(self, *, start: int | None = None, zero_copy: bool = False) -> Iterator[Slot]:
        """The batches from byte `start` on (None: all), up to what `end` is when each is reached.

        `zero_copy` maps the file instead of reading it: right only for a file that nobody cuts meanwhile.
        Raises DamagedSegmentError at bytes that are no whole batch, FileNotFoundError when the file is gone.
        """
        with self._open(zero_copy=zero_copy) as file:
            yield from self._walk(file, start)

    def entries(self, after: int, *, start: int | None = None) -> Iterator[Entry]:
        """The batches with a sequence above `after`, from byte `start` on; raises what `slots` raises.

        The first tells the hole when batches between `after` and this segment were dropped; an `after` of 0
        means "from the oldest held on" and misses nothing.
        """
        with self._open() as file:
            previous = self.notes.previous_sequence
            hole = Hole(after, previous) if 0 < after < previous else None
            for slot in self._walk(file, start):
                if slot.meta.sequence > after:
                    message = os.pread(file.fileno(), slot.end - slot.start, slot.start)
                    yield Entry(slot.meta, join(message, self.schema), slot.batch.num_rows, hole)
                    hole = None

    def _open(self, *, zero_copy: bool = False) -> Any:
        """The file; raises FileNotFoundError, and JournalError for what is none: a pipe would hang."""
        try:
            require_file(self.path)
        except FileNotFoundError:
            raise
        except OSError as error:
            raise JournalError(
                f"segment {self.path} cannot be read: {error.strerror or error}", hint="move it away"
            ) from error
        return pa.memory_map(str(self.path)) if zero_copy else pa.OSFile(str(self.path))

    def _walk(self, file: Any, start: int | None) -> Iterator[Slot]:
        offset = 0
        try:
            reader = pa.ipc.open_stream(file)
            offset = self._header.end if start is None else start
            file.seek(offset)
            while self.end is None or offset < self.end:
                read = reader.read_next_batch_with_custom_metadata()
                read.batch.validate(full=True)
                slot = Slot(offset, file.tell(), BatchMeta.from_ipc(read.custom_metadata), read.batch)
                offset = slot.end
                yield slot
        except StopIteration:
            if self.end is not None or self.size_bytes > offset + len(END_OF_STREAM):
                raise DamagedSegmentError(self.path, offset, "its stream ends before the file does") from None
        except (ValueError, pa.ArrowException, InputError, OSError) as error:
            raise self._unreadable(offset, error) from error

    def _unreadable(self, offset: int, error: Exception) -> JournalError:
        """Damage, unless the system itself refused to read (then `errno` is set)."""
        if isinstance(error, MemoryError):
            return JournalError(f"segment {self.path} cannot be read at byte {offset}: out of memory")
        if isinstance(error, OSError) and error.errno is not None:
            return JournalError(f"segment {self.path} cannot be read: {error}", hint="check the disk")
        return DamagedSegmentError(self.path, offset, error)

    @cached_property
    def _header(self) -> _Header:
        with self._open() as file:
            try:
                schema = pa.ipc.open_stream(file).schema
                metadata = dict(schema.metadata or {})
                notes = msgspec.json.decode(metadata.pop(_NOTES_KEY), type=SegmentNotes)
            except KeyError as error:
                raise DamagedSegmentError(self.path, 0, "its schema carries no Raven metadata") from error
            except (ValueError, pa.ArrowException, msgspec.MsgspecError, RecursionError, OSError) as error:
                raise self._unreadable(0, error) from error
            return _Header(schema.with_metadata(metadata), notes, file.tell())

    @property
    def schema(self) -> pa.Schema:
        """The stream's schema, without what the segment adds."""
        schema: pa.Schema = self._header.schema
        return schema

    @property
    def notes(self) -> SegmentNotes:
        """Where the journal stood when the segment began."""
        return self._header.notes

    @property
    def size_bytes(self) -> int:
        """How long the file is; 0 when it is gone."""
        try:
            return self.path.stat().st_size
        except FileNotFoundError:
            return 0

    # what only the journal's own process uses: it alone knows that the file is whole

    def publish(self, meta: BatchMeta, rows: int, size_bytes: int) -> None:
        """Let readers see a batch just written at `end`."""
        start = self._index.end
        self._index.add(meta, rows, start, start + size_bytes)
        self.end = start + size_bytes

    def begin(self, offset: int) -> None:
        """Of a segment just being made: it is empty up to `offset`, where its first batch will lie."""
        self._built = _Index(end=offset)
        self.end = offset

    def find_end(self) -> int:
        """Bound the segment to its whole batches: sets `end`, to 0 when the schema itself is not whole."""
        index, end = _Index(), 0
        with contextlib.suppress(DamagedSegmentError):
            end = self._header.end
            for slot in self.slots():
                index.add(slot.meta, slot.batch.num_rows, slot.start, slot.end)
                end = slot.end
        self._built, self.end = index, end
        return end

    @property
    def batches(self) -> int:
        """How many batches the segment holds."""
        return len(self._index.sequences)

    @property
    def rows_through(self) -> int:
        """How many rows the journal ever had up to the segment's end."""
        return self.notes.previous_rows + self._index.rows

    @property
    def _index(self) -> _Index:
        if self._built is None:
            index = _Index()
            for slot in self.slots():
                index.add(slot.meta, slot.batch.num_rows, slot.start, slot.end)
            self._built = index  # whole before it is seen: two threads may build it at once
        return self._built

    def start_after(self, sequence: int) -> int:
        """Where the first batch above `sequence` starts; the last one's end if the segment holds none."""
        if sequence < self.first_sequence:
            return self._header.end
        index = self._index
        end = index.end  # before looking: what is published meanwhile must not be jumped over
        position = bisect_right(index.sequences, sequence)
        return index.starts[position] if position < len(index.starts) else end

    def first_after(self, sequence: int) -> tuple[int, int] | None:
        """Of the first batch above `sequence`: the journal's rows before it, and when it was appended (us)."""
        index = self._index
        position = bisect_right(index.sequences, sequence)
        if position == len(index.sequences):
            return None
        return self.notes.previous_rows + index.rows_before[position], index.appended_us[position]

    def sequence_before(self, append_time_us: int) -> int:
        """The highest sequence appended before that time; the one before the segment if none of its own."""
        index = self._index
        position = bisect_right(index.appended_us, append_time_us - 1)
        return index.sequences[position - 1] if position else self.notes.previous_sequence

    def last(self) -> tuple[int, int]:
        """Sequence and append time (UTC, microseconds) of the last batch."""
        return self._index.sequences[-1], self._index.appended_us[-1]


def sequence_before(segments: Sequence[Segment], append_time_us: int) -> int:
    """The highest sequence appended before that time (UTC, microseconds), 0 if there is none.

    When that batch is no longer held, its number is still given, as far as the oldest segment knows it.
    """
    position = bisect_right(segments, append_time_us - 1, key=lambda segment: segment.notes.previous_appended_us)
    return segments[max(0, position - 1)].sequence_before(append_time_us) if segments else 0
