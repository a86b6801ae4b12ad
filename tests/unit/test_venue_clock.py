"""The latest time a trade can have: by the exchange's clock where it is known, whatever happens to ours."""

from __future__ import annotations

import pytest

from raven.sources.binance.venue_clock import MOST_AHEAD_US, MOST_UNKNOWN_US, VenueClock

NOW_US = 1_790_000_000_000_000
HOUR_US = 3_600_000_000
YEAR_US = 365 * 24 * HOUR_US


def told(offset_us: int) -> VenueClock:
    clock = VenueClock()
    clock.told(offset_us, NOW_US, 1_000)
    return clock


def ahead(clock: VenueClock, *, wall_us: int = NOW_US, elapsed_us: int = 0, watermark_us: int | None = None) -> int:
    """How much later than `NOW_US` a trade may be, beside what is allowed anyway."""
    return clock.latest_us(wall_us, 1_000 + elapsed_us, watermark_us) - NOW_US - MOST_AHEAD_US


@pytest.mark.parametrize("offset_us", [0, 2 * HOUR_US, -2 * HOUR_US])
def test_the_exchange_corrects_our_clock(offset_us: int):
    assert ahead(told(offset_us)) == offset_us
    assert ahead(told(offset_us), wall_us=NOW_US + HOUR_US, elapsed_us=HOUR_US) == offset_us + HOUR_US


def test_a_clock_set_back_or_a_machine_that_slept_makes_no_true_trade_late():
    assert ahead(told(0), wall_us=NOW_US - YEAR_US, elapsed_us=HOUR_US) == HOUR_US, (
        "set back: the monotonic clock tells"
    )
    assert ahead(told(0), wall_us=NOW_US + HOUR_US, elapsed_us=5) == HOUR_US, "slept: ours tells"


def test_as_long_as_the_exchange_has_not_told_its_newest_trade_does():
    clock = VenueClock()
    assert clock.latest_us(NOW_US, 1_000, None) == NOW_US + MOST_UNKNOWN_US, "the first trade of a clock that is wrong"
    assert ahead(clock, watermark_us=NOW_US + HOUR_US) == HOUR_US
    assert ahead(clock, watermark_us=NOW_US - HOUR_US) == 0


def test_a_recording_is_of_another_day_and_may_be_played_at_any_speed():
    assert ahead(told(-4 * YEAR_US), watermark_us=NOW_US - 3 * YEAR_US) == 0


def test_what_was_told_just_now_is_fresh():
    assert not VenueClock().is_fresh(1_000)
    assert told(0).is_fresh(1_000)
    assert not told(0).is_fresh(1_000 + HOUR_US)
