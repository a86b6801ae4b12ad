"""The micro-batch accumulator: collects items until there are enough rows or the oldest is old enough.

It reads no clock: time comes in as `now_ns` of any monotonic clock.
"""

from __future__ import annotations

from typing import Generic, TypeVar

from raven.errors import InputError

T = TypeVar("T")


class Accumulator(Generic[T]):
    """Items in arrival order, with a row count and the arrival of the oldest.

    A batch is due at `max_rows`, or when its oldest item is `max_age_ns` old; what came until it is taken is in it.
    """

    __slots__ = ("_items", "max_age_ns", "max_rows", "oldest_ns", "rows")

    def __init__(self, *, max_rows: int, max_age_ns: int) -> None:
        if max_rows < 1 or max_age_ns < 0:
            raise InputError(f"a batch needs max_rows >= 1 and max_age_ns >= 0, got {max_rows} and {max_age_ns}")
        self.max_rows = max_rows
        self.max_age_ns = max_age_ns
        self.rows = 0
        self.oldest_ns: int | None = None
        self._items: list[T] = []

    def add(self, item: T, now_ns: int, rows: int = 1) -> None:
        """Append one item that holds `rows` rows."""
        if self.oldest_ns is None:
            self.oldest_ns = now_ns
        self._items.append(item)
        self.rows += rows

    def wait_ns(self, now_ns: int) -> int | None:
        """How long until the batch is due: 0 when it is, None while it is empty."""
        if self.oldest_ns is None:
            return None
        if self.rows >= self.max_rows:
            return 0
        return max(0, self.oldest_ns + self.max_age_ns - now_ns)

    def take(self) -> list[T]:
        """All items, oldest first; the accumulator is empty after."""
        items, self._items = self._items, []
        self.rows = 0
        self.oldest_ns = None
        return items
