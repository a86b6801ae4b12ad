"""What a journal can be told, and what it tells of how it was found."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class JournalOptions:
    """Sizes and times of a journal.

    A segment ends once it has `segment_bytes`. What a consumer has not acknowledged is kept up to
    `max_bytes` of the whole journal, everything else for `retention_s`. `warn_disk_fraction` is when
    `disk()` warns.
    """

    segment_bytes: int = 64 * 2**20
    max_bytes: int = 20 * 2**30
    retention_s: float = 48 * 3600.0
    warn_disk_fraction: float = 0.60


@dataclass(frozen=True, slots=True)
class OpenReport:
    """How the journal was found: closed `clean`ly or not, and how many torn bytes were cut off its end."""

    clean: bool
    cut_bytes: int
