"""The journal as its one writer sees it: append, read back, positions of consumers, retention."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import msgspec
import pyarrow as pa

from raven import clock
from raven.batches import ipc
from raven.batches.batch import BatchMeta
from raven.errors import JournalError
from raven.files import FolderLock
from raven.journal import ids, retention
from raven.journal.folder import State, lock_folder, open_identity, read_state, write_state
from raven.journal.log import SegmentLog
from raven.journal.options import JournalOptions, OpenReport
from raven.journal.segment import Entry, SegmentNotes, sequence_before
from raven.journal.writer import disk_error

_DEFAULTS: Final = JournalOptions()
MAX_CONSUMERS: Final = 256
LEAP: Final = 2**20
"""How far numbering leaps after an unclean end, lest a number be given twice whatever the disk forgot."""


class Journal:
    """A journal folder, held alone. `append`, `read` and the rest may be called from different threads.

    - `id`: random, made once. `path`, `schema`: of the folder and the stream.
    - `opened`: how it was found.
    - `last_segment_metadata`: what `set_segment_metadata` had given the newest segment found at open.
    """

    @classmethod
    def open(
        cls,
        path: Path,
        schema: pa.Schema,
        *,
        options: JournalOptions = _DEFAULTS,
        now_us: Callable[[], int] = clock.now_us,
    ) -> Journal:
        """Open or make the journal in folder `path` for the stream of `schema` (see `stream_schema`).

        A torn tail is cut off. Raises JournalLockedError when another process holds it, JournalError when it
        is of another version or stream, damaged, or the disk refuses.
        """
        lock = lock_folder(path)
        try:
            return cls(path, schema, options, now_us, lock)
        except OSError as error:
            lock.release()
            raise disk_error(error, "opening journal", path) from error
        except BaseException:
            lock.release()
            raise

    def __init__(
        self,
        path: Path,
        schema: pa.Schema,
        options: JournalOptions,
        now_us: Callable[[], int],
        lock: FolderLock,
    ) -> None:
        """Use `Journal.open`."""
        self.path = path
        self.schema = schema
        self.options = options
        self._now_us = now_us
        self._folder_lock = lock
        self._changing = threading.Lock()
        self._retaining = threading.Lock()
        self._is_open = True
        self.id = open_identity(path, schema, now_us()).id
        state = read_state(path)
        self._log = SegmentLog(path, schema)
        segments = self._log.segments
        self.last_segment_metadata = dict(segments[-1].notes.metadata) if segments else {}
        self._next_metadata = self.last_segment_metadata
        if state is None:
            state = State(clean=not segments, next_sequence=1, consumers={})
        cut_bytes = self._log.cut_bytes
        self.opened = OpenReport(clean=state.clean and not cut_bytes, cut_bytes=cut_bytes)
        self._next_sequence = max(self._log.last_sequence + 1, state.next_sequence)
        if not self.opened.clean:
            self._next_sequence += LEAP - 1
        self._consumers = dict(state.consumers)
        self._save_state(clean=False)

    # writing

    def append(self, batch: pa.RecordBatch, meta: BatchMeta) -> Entry:
        """Append one batch and sync it; blocks until it is durable.

        `meta` gets journal_id, the next sequence and appended_us (which never goes back, whatever the clock
        does). Raises JournalError when the schema does not fit or the disk refuses; then nothing was appended,
        and the journal can be used on.
        """
        with self._changing:
            self._require_open()
            batch = self._fitting(batch)
            # taken even if the write fails: a number is never used for two batches
            sequence, self._next_sequence = self._next_sequence, self._next_sequence + 1
            meta = msgspec.structs.replace(
                meta,
                journal_id=self.id,
                sequence=sequence,
                appended_us=max(self._now_us(), self._log.last_appended_us),
            )
            payload = ipc.encode(batch, meta)
            message = ipc.split(payload, self.schema)
            try:
                self._log.append(message, meta, batch.num_rows, self.options.segment_bytes, self._notes)
            except OSError as error:
                raise disk_error(error, "appending to journal", self.path) from error
        return Entry(meta, payload, batch.num_rows)

    def _fitting(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        if not batch.schema.equals(self.schema):
            raise JournalError(
                f"a batch with columns {batch.schema.names} does not fit the journal {self.path}",
                hint=f"needed, in this order and with these types: {self.schema.remove_metadata()}",
            )
        if batch.schema.metadata != self.schema.metadata:
            return batch.replace_schema_metadata(self.schema.metadata)
        return batch

    def _notes(self) -> SegmentNotes:
        log = self._log
        return SegmentNotes(
            log.last_sequence,
            log.last_appended_us,
            self.tail_ids(),
            self._next_metadata,
            log.segments[-1].rows_through if log.segments else 0,
        )

    def set_segment_metadata(self, metadata: Mapping[str, str]) -> None:
        """What new segments shall carry of their user's (see `last_segment_metadata`), until set again.

        Set it before the batch that changes it is appended: a segment that begins with that batch carries it.
        """
        self._next_metadata = dict(metadata)

    def tail_ids(self) -> dict[str, int]:
        """The highest trade id ever appended per symbol, silent and dropped ones included; empty for bars."""
        segments = self._log.segments
        return ids.highest_ids(segments[-1]) if segments else {}

    def close(self) -> None:
        """Seal the journal and let go of the folder; the next open is a clean one.

        Raises JournalError when the disk refuses; the folder is let go of even then, the next open not clean.
        """
        with self._changing:
            if not self._is_open:
                return
            self._is_open = False
            try:
                self._log.seal()
                self._save_state(clean=True)
            except OSError as error:
                raise disk_error(error, "closing journal", self.path) from error
            finally:
                self._log.close()
                self._folder_lock.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    # reading

    @property
    def last_sequence(self) -> int:
        """Sequence of the newest batch, 0 when nothing was ever appended."""
        return self._log.last_sequence

    @property
    def first_sequence(self) -> int | None:
        """The oldest sequence still held, None while the journal is empty."""
        segments = self._log.segments
        return segments[0].first_sequence if segments else None

    def read(self, after: int = 0) -> Iterator[Entry]:
        """The batches with a sequence above `after`, from disk, in order, up to the newest there then is.

        Runs in any thread while appends and retention go on. Where retention has dropped what should come
        next, the reader goes on at the oldest held batch, and that entry's `hole` says so (not for an `after`
        of 0, which is "from the oldest held on"). Raises JournalError where a segment is damaged.
        """
        return self._log.read(after)

    def sequence_before(self, append_time_us: int) -> int:
        """The highest sequence appended before that time (UTC, microseconds), 0 if there is none.

        When that batch is no longer held, its number is still given, as far as the oldest segment knows it.
        """
        return self._log.look(partial(sequence_before, append_time_us=append_time_us))

    # consumers and retention

    def register(self, consumer: str, after: int) -> None:
        """Hold everything after sequence `after` for `consumer` from now on, durably.

        A position it already had is only ever lowered by this: `acknowledge` alone moves it on. Raises JournalError
        when the disk refuses, and for one consumer too many.
        """
        if not consumer:
            raise JournalError("a durable consumer needs a name")
        with self._changing:
            self._require_open()
            self._require_room(consumer)
            held = self._consumers.get(consumer, self.last_sequence)
            self._consumers[consumer] = min(held, after)
            self._save_consumers()

    def take_up(self, consumer: str) -> None:
        """Hold all that is held for `consumer`, durably, unless it is known already."""
        if consumer not in self._consumers:
            self.register(consumer, 0)

    def acknowledge(self, consumer: str, sequence: int) -> None:
        """`consumer` has everything up to `sequence` safe; never moves back, never blocks.

        Made durable by the next `enforce_retention` or `close`: losing the last one only sends batches again.
        A name not registered is taken up; raises JournalError for one too many.
        """
        self._require_room(consumer)
        self._consumers[consumer] = max(min(sequence, self.last_sequence), self._consumers.get(consumer, 0))

    def backlog(self, consumer: str) -> retention.Backlog:
        """What `consumer` has not acknowledged; all that is held when it is not known. May read a segment."""
        position = self._consumers.get(consumer, 0)
        return self._log.look(partial(retention.backlog, position=position))

    def forget(self, consumer: str) -> bool:
        """Free the hold of a consumer that will not come back; whether it was known."""
        with self._changing:
            self._require_open()
            known = self._consumers.pop(consumer, None) is not None
            self._save_consumers()
        return known

    def consumers(self) -> list[retention.ConsumerStatus]:
        """The durable consumers, by name."""
        positions = sorted(self._consumers.copy().items())
        return [
            retention.ConsumerStatus(name, position, self._log.look(partial(retention.behind_bytes, position=position)))
            for name, position in positions
        ]

    def enforce_retention(self) -> retention.RetentionResult:
        """Drop the sealed segments that need not or cannot be kept, and make acknowledgements durable.

        Call it every few seconds. Raises JournalError when the disk refuses.
        """
        with self._retaining:
            segments, positions = self._log.segments, self._consumers.copy()
            count = retention.count_droppable(
                segments,
                positions,
                max_bytes=self.options.max_bytes,
                keep_from_us=self._now_us() - round(self.options.retention_s * 1e6),
            )
            result = retention.account(segments, count, positions)
            with self._changing:
                self._require_open()
                try:
                    self._log.drop(count)
                except OSError as error:
                    raise disk_error(error, "dropping segments of journal", self.path) from error
                self._save_consumers()
        return result

    def disk(self) -> retention.DiskUse:
        """How much room the journal takes and how full its disk is."""
        journal_bytes = sum(segment.size_bytes for segment in self._log.segments)
        return retention.disk_use(self.path, journal_bytes, self.options.warn_disk_fraction)

    # within

    def _require_room(self, consumer: str) -> None:
        """Each holds batches back, and is kept for ever."""
        if consumer not in self._consumers and len(self._consumers) >= MAX_CONSUMERS:
            raise JournalError(
                f"the journal {self.path} has {MAX_CONSUMERS} consumers, and takes no more",
                hint="forget those that are gone: ravenctl forget",
            )

    def _require_open(self) -> None:
        if not self._is_open:
            raise JournalError(f"the journal {self.path} is closed")

    def _save_state(self, *, clean: bool) -> None:
        state = State(clean=clean, next_sequence=self._next_sequence, consumers=self._consumers.copy())
        write_state(self.path, state)
        self._saved_consumers = state.consumers

    def _save_consumers(self) -> None:
        if self._consumers != self._saved_consumers:
            try:
                self._save_state(clean=False)
            except OSError as error:
                raise disk_error(error, "saving the consumers of journal", self.path) from error
