"""Telling bad rows from a fault of their store: a store that takes nothing any more does not suffer from its rows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from raven.sinks.store import Refusal, StoreRefusedError

MOST_IN_A_ROW: Final = 10


class RefusalWatch:
    """Counts rows refused over flushes with none accepted between; `hint` says what to do when they are too many.

    A flush counts once it is `settled`: one that is tried again for another reason is not refused again.
    """

    def __init__(self, hint: str) -> None:
        self._hint = hint
        self._in_a_row = self._checked = 0

    def check(self, refusals: Sequence[Refusal], *, accepted: int) -> None:
        """Look at what became of a flush. Raises StoreRefusedError when nothing has been accepted for too many rows.

        Then nothing of the flush is a dead letter: it waits until the store is mended.
        """
        in_a_row = 0 if accepted else self._in_a_row + len(refusals)
        if in_a_row > MOST_IN_A_ROW:
            raise StoreRefusedError(f"every row is refused: {refusals[-1].reason}", hint=self._hint)
        self._checked = in_a_row

    def settled(self) -> None:
        """The flush that was checked last is stored, its dead letters are safe: it will not come again."""
        self._in_a_row = self._checked
