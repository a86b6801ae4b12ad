"""The durable log of batches: a folder of Arrow IPC stream segments, cursors, retention, reading back."""

from __future__ import annotations

from raven.journal.journal import Journal
from raven.journal.options import JournalOptions, OpenReport
from raven.journal.reader import JournalReader
from raven.journal.retention import ConsumerStatus, DiskUse, RetentionResult
from raven.journal.segment import Entry, Hole

__all__ = [
    "ConsumerStatus",
    "DiskUse",
    "Entry",
    "Hole",
    "Journal",
    "JournalOptions",
    "JournalReader",
    "OpenReport",
    "RetentionResult",
]
