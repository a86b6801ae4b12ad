"""Journals as recordings: their batches as they were cut, with the watermark, gaps and rows that they had."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Final

import msgspec
import polars as pl
import pyarrow as pa

from raven.batches.batch import BatchMeta, Cursor
from raven.batches.ipc import decode
from raven.batches.schema import to_frame, to_record_batch
from raven.journal import Entry, JournalReader
from raven.sources.ordering import LeftOut
from raven.sources.replay.recording import Choice, Recorded

_CLOCKS_APART_US: Final = 600_000_000
"""How much earlier than its trades a batch may have been appended, by clocks that do not agree."""


class JournalRecording:
    """Journals of trades of `venue`, one after the other; see Recording.

    Raises JournalError for one without batches.
    """

    def __init__(self, readers: Sequence[JournalReader], choice: Choice, *, venue: str, identity: str) -> None:
        self.venue = venue
        self.name = ", ".join(str(reader.path) for reader in readers)
        self.identity = identity
        self.left_out = LeftOut()  # what was recorded comes as it came
        self._readers = list(readers)
        self._choice = choice
        self.symbols: Sequence[str] = choice.among({symbol for reader in readers for symbol in reader.tail_ids()})
        spans = [reader.span_us() for reader in readers]
        self.first_us, self.last_us = spans[0][0], spans[-1][1]

    def batches(self, after: Cursor | None, last_ids: Mapping[str, int]) -> Iterator[Recorded]:  # noqa: ARG002
        """See Recording; ids are not looked at: what was recorded twice comes twice, as it did then."""
        due_us = 0
        for reader in self._from(after):
            position = after.sequence if after is not None and reader.id == after.journal_id else 0
            for entry in reader.entries(position, start_us=self._start_us()):
                recorded = self._recorded(entry)
                if recorded is not None:
                    due_us = max(due_us, entry.meta.appended_us)
                    yield recorded._replace(due_us=due_us)
                if self._is_over(entry.meta):
                    break

    def _from(self, after: Cursor | None) -> list[JournalReader]:
        if after is None:
            return self._readers
        ids = [reader.id for reader in self._readers]
        return self._readers[ids.index(after.journal_id) :]

    def _start_us(self) -> int | None:
        return None if self._choice.start_us is None else self._choice.start_us - _CLOCKS_APART_US

    def _is_over(self, meta: BatchMeta) -> bool:
        """Whether no trade before the chosen end can follow."""
        end_us, watermark_us = self._choice.end_us, meta.watermark_us
        return end_us is not None and watermark_us is not None and watermark_us >= end_us and not meta.held

    def _recorded(self, entry: Entry) -> Recorded | None:
        """The batch with the chosen rows; None when it lies wholly outside the chosen time."""
        batch, meta = decode(entry.payload)
        meta = msgspec.structs.replace(meta, input=(self.venue, meta.cursor))
        if self._choice == Choice():
            return Recorded(batch, meta, meta.appended_us, hole=entry.hole)
        chosen = self._chosen(batch, meta)
        if chosen is None:
            return None
        held = tuple(symbol for symbol in meta.held if self._choice.holds(symbol))
        meta = msgspec.structs.replace(meta, held=held, gaps=self._choice.gaps(meta.gaps))
        return Recorded(to_record_batch(chosen, batch.schema), meta, meta.appended_us, hole=entry.hole)

    def _chosen(self, batch: pa.RecordBatch, meta: BatchMeta) -> pl.DataFrame | None:
        """The chosen rows, of an empty batch none; time goes on where other symbols traded."""
        rows = self._choice.of_time(to_frame(batch))
        if batch.num_rows:
            return self._choice.of_symbols(rows) if rows.height else None
        return rows if self._choice.covers(meta.watermark_us or meta.appended_us) else None
