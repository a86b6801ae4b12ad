"""The one place where the wall clock is read; the pure core never imports it."""

from __future__ import annotations

import random
import time as clock
from datetime import UTC, datetime
from typing import Final

from raven.errors import InputError

DAY_US: Final = 86_400_000_000


def now_us() -> int:
    """UTC now, in microseconds since the epoch."""
    return clock.time_ns() // 1_000


def tomorrow_us() -> int:
    """A day from now, in microseconds since the epoch: no trade that came in can be as late."""
    return now_us() + DAY_US


def monotonic_ns() -> int:
    """A clock that never goes back, in nanoseconds."""
    return clock.monotonic_ns()


def utc(time: datetime | str) -> datetime:
    """A datetime or ISO string as UTC; naive ones are taken as UTC. Raises InputError when it is neither."""
    try:
        read = datetime.fromisoformat(time) if isinstance(time, str) else time
        return read.replace(tzinfo=UTC) if read.tzinfo is None else read.astimezone(UTC)
    except (AttributeError, OverflowError, TypeError, ValueError) as error:
        raise InputError(
            f"{time!r} is not a time", hint="give a datetime or an ISO string such as 2026-01-31T12:00"
        ) from error


class Backoff:
    """Waiting times between tries: doubling from `first_s` to `most_s`, with full jitter above half."""

    def __init__(self, first_s: float = 0.2, most_s: float = 15.0) -> None:
        self._first_s = first_s
        self._most_s = most_s
        self._tries = 0

    def next_s(self) -> float:
        """How long to wait before the next try, in seconds."""
        ceiling = min(self._most_s, self._first_s * 2.0 ** min(self._tries, 20))
        self._tries += 1
        return ceiling * random.uniform(0.5, 1.0)  # noqa: S311 - jitter, not a secret

    def reset(self) -> None:
        """After a success the next failure waits short again."""
        self._tries = 0
