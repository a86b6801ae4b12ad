"""Which repetitions of a problem are logged: the first, and then one a minute with their number. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

EVERY_S: Final = 60.0
MOST: Final = 1_000


@dataclass(slots=True)
class _Seen:
    logged_s: float
    unlogged: int = 0


class Repeats:
    """Remembers when each problem, an event with a message, was logged last. Times are in seconds."""

    def __init__(self, every_s: float = EVERY_S) -> None:
        self._every_s = every_s
        self._seen: dict[tuple[str, str], _Seen] = {}

    def admit(self, event: str, message: str, now_s: float) -> int | None:
        """None: do not log it now. Otherwise how often it came without being logged since it last was."""
        key = (event, message)
        seen = self._seen.get(key)
        if seen is not None and now_s - seen.logged_s < self._every_s:
            seen.unlogged += 1
            return None
        self._seen.pop(key, None)  # so that the order is that of logging
        if len(self._seen) >= MOST:
            del self._seen[next(iter(self._seen))]
        self._seen[key] = _Seen(now_s)
        return 0 if seen is None else seen.unlogged

    def end(self, event: str) -> int:
        """The problem is over: should it come again, it is news. How often it came without being logged."""
        over = [key for key in self._seen if key[0] == event]
        return sum(self._seen.pop(key).unlogged for key in over)
