"""Rate limits as the exchange keeps them: request weight a minute, connection attempts per five minutes. Pure."""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass
from typing import Final

_MINUTE_S: Final = 60
_ATTEMPTS_S: Final = 300.0
_PATIENCE: Final = 5
_FIRST_BAN_S: Final = 120.0

FOREVER_S: Final = 99_999_999_999
"""A Retry-After that nobody can wait for."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """A request that is not served; `status` is 429 or 418."""

    status: int
    retry_after_s: int
    until_s: float


class WeightLimit:
    """Request weight of one address: counted by the minute of the clock, 429 beyond the limit until the minute ends.

    Who goes on asking is banned: 418, two minutes at first and each time twice as long. Times are seconds of UTC.
    """

    def __init__(self, weight_per_minute: int) -> None:
        self.weight_per_minute = weight_per_minute
        self.used = 0
        self._minute = 0
        self._status = 429
        self._until_s = 0.0
        self._ignored = 0
        self._next_ban_s = _FIRST_BAN_S
        self._says_forever = False

    def admit(self, weight: int, now_s: float) -> Refusal | None:
        """Count a request; None when it may be served."""
        minute = int(now_s) // _MINUTE_S
        if minute != self._minute:
            self._minute, self.used = minute, 0
        self.used += weight
        if now_s < self._until_s:
            self._ignored += 1
            if self._status == 429 and self._ignored > _PATIENCE:
                self.refuse(418, self._next_ban_s, now_s)
                self._next_ban_s *= 2
        elif self.used > self.weight_per_minute:
            self.refuse(429, (minute + 1) * _MINUTE_S - now_s, now_s)
        else:
            return None
        left_s = FOREVER_S if self._says_forever else max(1, math.ceil(round(self._until_s - now_s, 3)))
        return Refusal(self._status, left_s, self._until_s)

    def refuse(self, status: int, seconds: float, now_s: float, *, says_forever: bool = False) -> None:
        """Refuse every request from now on for so long; `says_forever`: what it says is much longer."""
        self._status, self._until_s, self._ignored = status, now_s + seconds, 0
        self._says_forever = says_forever


class AttemptLimit:
    """Connection attempts of one address within any five minutes. Times are seconds of any clock."""

    def __init__(self, attempts: int) -> None:
        self._times: deque[float] = deque(maxlen=attempts)

    def admit(self, now_s: float) -> bool:
        """Count an attempt; whether it may connect. A refused one does not count."""
        is_full = len(self._times) == self._times.maxlen
        if is_full and now_s - self._times[0] < _ATTEMPTS_S:
            return False
        self._times.append(now_s)
        return True
