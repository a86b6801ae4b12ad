"""What is kept: what consumers have not acknowledged up to a size, everything else for a time."""

from __future__ import annotations

import shutil
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from raven.batches.batch import Gap
from raven.journal import ids
from raven.journal.segment import Segment


@dataclass(frozen=True, slots=True)
class ConsumerStatus:
    """A durable consumer: `sequence` is the last it acknowledged, `behind_bytes` what lies after that."""

    name: str
    sequence: int
    behind_bytes: int


@dataclass(frozen=True, slots=True)
class Backlog:
    """What lies after a consumer's position: how many `rows`, and when the first of them was appended (UTC,
    microseconds; 0 when there are none).
    """

    rows: int = 0
    since_us: int = 0


@dataclass(frozen=True, slots=True)
class DiskUse:
    """`journal_bytes`: this journal. The rest is of the whole disk; `fraction` is its used part, 0 to 1.

    `warn` says that the fraction is at or above `warn_disk_fraction`.
    """

    journal_bytes: int
    used_bytes: int
    free_bytes: int
    fraction: float
    warn: bool


@dataclass(frozen=True, slots=True)
class RetentionResult:
    """What was dropped: whole segments, oldest first.

    `through_sequence` is the last sequence dropped, 0 when nothing was. Where a consumer had not acknowledged
    some of it (only beyond `max_bytes`): `lost_by` names these consumers; `lost_rows` and `gaps` (contiguous
    id ranges per symbol, final; none for bars) are what the slowest of them lost.
    """

    segments: int = 0
    bytes: int = 0
    through_sequence: int = 0
    lost_by: tuple[str, ...] = ()
    lost_rows: int = 0
    gaps: tuple[Gap, ...] = ()


def count_droppable(
    segments: Sequence[Segment], positions: Mapping[str, int], *, max_bytes: int, keep_from_us: int
) -> int:
    """How many segments go, from the oldest on; never the newest.

    A segment goes when all are larger than `max_bytes` together, or when its last batch was appended before
    `keep_from_us` (UTC, microseconds) and every consumer has acknowledged it.
    """
    total = sum(segment.size_bytes for segment in segments)
    count = 0
    for segment, following in pairwise(segments):
        last = following.notes
        acknowledged = all(position >= last.previous_sequence for position in positions.values())
        is_old = last.previous_appended_us < keep_from_us
        if total <= max_bytes and not (is_old and acknowledged):
            break
        total -= segment.size_bytes
        count += 1
    return count


def behind_bytes(segments: Sequence[Segment], position: int) -> int:
    """How many bytes of batches lie after `position`."""
    total = 0
    for segment in reversed(segments):
        if segment.first_sequence > position:
            total += segment.size_bytes
            continue
        start = segment.start_after(position)
        return total if start is None else total + segment.size_bytes - start
    return total


def backlog(segments: Sequence[Segment], position: int) -> Backlog:
    """What lies after `position`."""
    if not segments:
        return Backlog()
    newest = segments[-1]
    holding = bisect_right(segments, position, key=lambda segment: segment.first_sequence)
    for segment in segments[max(0, holding - 1) :]:
        found = segment.first_after(position)
        if found is not None:
            rows_before, appended_us = found
            return Backlog(newest.rows_through - rows_before, appended_us)
    return Backlog()


def disk_use(folder: Path, journal_bytes: int, warn_fraction: float) -> DiskUse:
    """How full the disk of `folder` is."""
    usage = shutil.disk_usage(folder)
    fraction = usage.used / (usage.used + usage.free)  # blocks kept for root count as neither
    return DiskUse(journal_bytes, usage.used, usage.free, fraction, fraction >= warn_fraction)


def account(segments: tuple[Segment, ...], count: int, positions: Mapping[str, int]) -> RetentionResult:
    """What dropping the oldest `count` of `segments` takes from whom."""
    if count == 0:
        return RetentionResult()
    dropped, through = segments[:count], segments[count].notes.previous_sequence
    size_bytes = sum(segment.size_bytes for segment in dropped)
    lost_by = tuple(sorted(name for name, position in positions.items() if position < through))
    if not lost_by:
        return RetentionResult(count, size_bytes, through)
    slowest = min(positions[name] for name in lost_by)
    lost_rows, gaps = ids.count_and_ranges(dropped, slowest)
    return RetentionResult(count, size_bytes, through, lost_by, lost_rows, gaps)
