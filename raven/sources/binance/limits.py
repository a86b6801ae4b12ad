"""What the exchange allows in a time: connection attempts, control messages, request weight. Pure.

Time comes in as `now_s`, seconds of any clock that never goes back.
"""

from __future__ import annotations

from collections import deque
from typing import Final

MINUTE_S: Final = 60.0
HEADROOM: Final = 0.9
"""The part of a limit of the address that one process uses: it may not be alone, and clocks differ."""


class SlidingWindow:
    """At most `most` units in any `period_s` seconds."""

    def __init__(self, most: int, period_s: float) -> None:
        self.most = most
        self.period_s = period_s
        self._taken: deque[tuple[float, int]] = deque()
        self._used = 0

    def used(self, now_s: float) -> int:
        """Units taken in the period that ends now."""
        while self._taken and self._taken[0][0] + self.period_s <= now_s:
            self._used -= self._taken.popleft()[1]
        return self._used

    def wait_s(self, now_s: float, amount: int = 1) -> float:
        """How long until `amount` may be taken, 0 when now; more than `most` waits until nothing is taken."""
        excess = self.used(now_s) + min(amount, self.most) - self.most
        for taken_s, taken in self._taken:
            if excess <= 0:
                break
            excess -= taken
            if excess <= 0:
                return taken_s + self.period_s - now_s
        return 0.0

    def take(self, now_s: float, amount: int = 1) -> None:
        """Note that `amount` was taken now."""
        self._taken.append((now_s, amount))
        self._used += amount


class WeightBudget:
    """The request weight of one minute, shared by all requests of a process, and pauses the exchange asks for."""

    def __init__(self, per_minute: int) -> None:
        self._window = SlidingWindow(int(per_minute * HEADROOM), MINUTE_S)
        self._paused_until_s = 0.0

    def wait_s(self, now_s: float, weight: int) -> float:
        """How long until a request of `weight` may be sent, 0 when now."""
        return max(self.paused_s(now_s), self._window.wait_s(now_s, weight))

    def take(self, now_s: float, weight: int) -> None:
        """Note that a request of `weight` is sent now."""
        self._window.take(now_s, weight)

    def used(self, now_s: float) -> int:
        """Weight used in the last minute, as far as it is known."""
        return self._window.used(now_s)

    def observe(self, now_s: float, used: int) -> None:
        """Note the weight the exchange has counted; what others of this address used is held for a minute."""
        others = used - self._window.used(now_s)
        if others > 0:
            self._window.take(now_s, others)

    def pause(self, now_s: float, seconds: float) -> None:
        """Send nothing for so long: the exchange asked for it."""
        self._paused_until_s = max(self._paused_until_s, now_s + seconds)

    def paused_s(self, now_s: float) -> float:
        """What is left of the longest pause, 0 when none."""
        return max(0.0, self._paused_until_s - now_s)


class Room:
    """How many requests may be under way at once: `most`, one after a refusal, and one more with each good answer."""

    def __init__(self, most: int) -> None:
        self.most = most
        self._allowed = most
        self._under_way = 0
        self._refusals = 0

    @property
    def is_full(self) -> bool:
        """Whether the next request waits for the answer to another."""
        return self._under_way >= self._allowed

    def enter(self) -> int:
        """A request is sent; what to give `answered`."""
        self._under_way += 1
        return self._refusals

    def leave(self) -> None:
        """A request is over, whatever became of it."""
        self._under_way -= 1

    def answered(self, entered: int) -> None:
        """The exchange answered well; what was sent before its last refusal proves nothing."""
        if entered == self._refusals:
            self._allowed = min(self.most, self._allowed + 1)

    def refused(self) -> None:
        """The exchange says that there were too many; those that are refused beside it add nothing."""
        self._refusals += 1
        self._allowed = 1
