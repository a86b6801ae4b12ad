"""The watermark of a source: the venue's time as far as it is known."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Watermark:
    """The largest venue time seen, carried on by a monotonic clock."""

    def __init__(self) -> None:
        self._newest_us: int | None = None
        self._seen_at_us = 0

    def advance(self, newest: object, monotonic_us: int) -> None:
        """Note the largest ts_event of a batch (None: an empty one), seen at `monotonic_us`."""
        if not isinstance(newest, datetime):
            return
        newest_us = (newest - _EPOCH) // timedelta(microseconds=1)
        current = self.at(monotonic_us)
        if current is None or newest_us > current:
            self._newest_us, self._seen_at_us = newest_us, monotonic_us

    def go_on(self, monotonic_us: int) -> None:
        """Carry on from `monotonic_us` again: what lay before it was not proven alive."""
        self._seen_at_us = monotonic_us

    def at(self, monotonic_us: int) -> int | None:
        """The venue's time at `monotonic_us`, in microseconds UTC; None before the first trade."""
        return None if self._newest_us is None else self._newest_us + monotonic_us - self._seen_at_us
