"""When the disk will be full. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

WINDOW_S: Final = 600.0
"""How far back the filling of a disk is looked at."""
LEAST_S: Final = 30.0
"""What is known for less time says nothing yet."""


def seconds_until_full(samples: Sequence[tuple[float, int]]) -> float:
    """Of (time in seconds, free bytes), oldest first: the time left at the slope of the line nearest to them.

    Infinite when the disk does not fill, or has been looked at for less than `LEAST_S`. A line through all samples,
    not only the first and last, so that a file that comes and goes does not raise an alarm.
    """
    if len(samples) < 2 or samples[-1][0] - samples[0][0] < LEAST_S:
        return math.inf
    mean_time = sum(time for time, _ in samples) / len(samples)
    mean_free = sum(free for _, free in samples) / len(samples)
    spread = sum((time - mean_time) ** 2 for time, _ in samples)
    slope = sum((time - mean_time) * (free - mean_free) for time, free in samples) / spread
    return math.inf if slope >= 0 else samples[-1][1] / -slope
