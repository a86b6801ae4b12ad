"""The publish/subscribe hub: appends to the journal, then wakes the subscribers, who read at their own pace.

A subscriber is only a sequence number. What it has not seen is taken from a bounded tail in memory while it keeps
up, from disk when it does not; so there is one order, no hole and no overlap at the seam, and no subscriber can
slow another or the publisher down.
"""

from __future__ import annotations

import asyncio
from bisect import bisect_right
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from itertools import islice
from typing import Final

import pyarrow as pa

from raven.batches.batch import BatchMeta, Cursor
from raven.journal import Entry, Journal
from raven.tasks import finish
from raven.telemetry import Telemetry

DISK_CHUNK: Final = 64


class Hub:
    """One journal and everyone who follows it. `tail_bytes` bounds the memory of the live tail.

    `is_replay`: what is published is the past, and whoever asks for a symbol means all of it.
    """

    def __init__(
        self,
        journal: Journal,
        *,
        is_replay: bool = False,
        tail_bytes: int = 16 * 2**20,
        telemetry: Telemetry | None = None,
    ) -> None:
        self.journal = journal
        self._is_replay = is_replay
        self._telemetry = telemetry
        self._tail: list[Entry] = []
        self._tail_after = journal.last_sequence  # every entry after this one is in the tail
        self._tail_size = 0
        self._tail_limit = tail_bytes
        self._advanced = asyncio.Event()
        self._appending = asyncio.Lock()

    @property
    def last_sequence(self) -> int:
        """Sequence of the newest published batch."""
        return self._tail[-1].meta.sequence if self._tail else self._tail_after

    @property
    def place(self) -> Cursor:
        """Just after the newest published batch."""
        return Cursor(self.journal.id, self.last_sequence)

    @property
    def session_start(self) -> Cursor:
        """Just before the first batch of a symbol that is asked for now."""
        return Cursor(self.journal.id, 0) if self._is_replay else self.place

    async def publish(self, batch: pa.RecordBatch, meta: BatchMeta) -> Entry:
        """Append durably, then show it to the subscribers; raises JournalError when it cannot be stored.

        Once begun it is done: what is on disk and not in the tail would be a hole for those who read live.
        """
        return await finish(self._publish(batch, meta))

    async def _publish(self, batch: pa.RecordBatch, meta: BatchMeta) -> Entry:
        async with self._appending:
            entry = await asyncio.to_thread(self.journal.append, batch, meta)
            self._tail.append(entry)
            self._tail_size += len(entry.payload)
            self._trim()
            self._count(entry)
            event, self._advanced = self._advanced, asyncio.Event()
            event.set()
        return entry

    def _count(self, entry: Entry) -> None:
        if self._telemetry is not None:
            self._telemetry.add("published_batches")
            self._telemetry.add("published_rows", entry.rows)
            self._telemetry.add("published_bytes", len(entry.payload))
            self._telemetry.set("journal_sequence", entry.meta.sequence)

    def _trim(self) -> None:
        dropped = 0
        while self._tail_size > self._tail_limit and dropped < len(self._tail) - 1:
            self._tail_size -= len(self._tail[dropped].payload)
            self._tail_after = self._tail[dropped].meta.sequence
            dropped += 1
        del self._tail[:dropped]

    async def follow(self, after: int) -> AsyncGenerator[Entry]:
        """Every batch with a sequence above `after`, in order: from disk, then live, without end."""
        while True:
            advanced = self._advanced
            seam = self._tail_after
            if after < seam:
                async for entry in self._from_disk(after):
                    yield entry
                    after = entry.meta.sequence
                after = max(after, seam)  # whatever lay up to the seam was on disk when the read began
                continue
            position = bisect_right(self._tail, after, key=lambda entry: entry.meta.sequence)
            pending = self._tail[position:]
            for entry in pending:
                yield entry
                after = entry.meta.sequence
            if not pending:
                await advanced.wait()

    async def _from_disk(self, after: int) -> AsyncIterator[Entry]:
        entries = self.journal.read(after)
        while chunk := await asyncio.to_thread(_take, entries, DISK_CHUNK):
            for entry in chunk:
                yield entry


def _take(entries: Iterator[Entry], count: int) -> list[Entry]:
    return list(islice(entries, count))
