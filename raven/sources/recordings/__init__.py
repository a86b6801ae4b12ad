"""Reading recorded trades: exchange archives, raw captures, CSV of a collector, REST replies, Parquet, journals."""

from __future__ import annotations

from raven.sources.recordings.captures import read_capture
from raven.sources.recordings.kinds import RecordingKind, infer_venue, sniff
from raven.sources.recordings.reading import RecordingWarning, iter_files, iter_trades, read_trades

__all__ = [
    "RecordingKind",
    "RecordingWarning",
    "infer_venue",
    "iter_files",
    "iter_trades",
    "read_capture",
    "read_trades",
    "sniff",
]
