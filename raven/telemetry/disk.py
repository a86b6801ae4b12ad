"""When the disk will be full, and how much Raven's own data grow. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

WINDOW_S: Final = 3600.0
"""How far back the filling of a disk is looked at."""
LEAST_S: Final = 600.0
"""What is known for less time says nothing yet: a first flush, or a file that comes and goes, is no trend."""
DAY_S: Final = 86_400.0


def seconds_until_full(free: Sequence[tuple[float, int]]) -> float:
    """Of (time in seconds, free bytes), oldest first: the time left as the disk fills, by whatever writes to it.

    Infinite when the disk does not fill, or has been looked at for less than `LEAST_S`.
    """
    change = _change_a_second(free)
    return free[-1][1] / -change if change is not None and change < 0 else math.inf


def daily_growth_bytes(taken: Sequence[tuple[float, int]]) -> int | None:
    """Of (time in seconds, bytes that data take), oldest first: by how many they grow in a day; not below 0.

    None: they have been looked at for less than `LEAST_S`.
    """
    change = _change_a_second(taken)
    return None if change is None else max(0, round(change * DAY_S))


def _change_a_second(samples: Sequence[tuple[float, int]]) -> float | None:
    """The slope of the line nearest to all samples, not only the first and last: one that is off raises no alarm."""
    if len(samples) < 2 or samples[-1][0] - samples[0][0] < LEAST_S:
        return None
    mean_time = sum(time for time, _ in samples) / len(samples)
    mean_bytes = sum(number for _, number in samples) / len(samples)
    spread = sum((time - mean_time) ** 2 for time, _ in samples)
    return sum((time - mean_time) * (number - mean_bytes) for time, number in samples) / spread
