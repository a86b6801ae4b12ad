"""Limits against an obvious oracle: no period ever holds more than is allowed, and nothing waits longer than it must."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from raven.sources.binance.limits import SlidingWindow, WeightBudget


@given(
    st.integers(1, 12),
    st.lists(st.tuples(st.integers(0, 30), st.integers(1, 12)), min_size=1, max_size=60),
)
def test_no_period_holds_more_than_allowed_and_no_wait_is_too_long(most: int, calls: list[tuple[int, int]]) -> None:
    window, period_s, now_s = SlidingWindow(most, 10.0), 10.0, 0.0
    taken: list[tuple[float, int]] = []

    def fits(at_s: float, amount: int) -> bool:
        inside = sum(units for when, units in taken if at_s - period_s < when <= at_s)
        return inside + min(amount, most) <= most

    for pause_s, amount in calls:
        now_s += pause_s
        wait_s = window.wait_s(now_s, amount)
        assert fits(now_s + wait_s, amount)
        earlier = [when + period_s for when, _ in taken if now_s <= when + period_s < now_s + wait_s]
        assert not any(fits(at_s, amount) for at_s in [*earlier, *([now_s] if wait_s else [])])
        now_s += wait_s
        window.take(now_s, min(amount, most))
        taken.append((now_s, min(amount, most)))
        assert window.used(now_s) == sum(units for when, units in taken if now_s - period_s < when)


def test_a_budget_leaves_headroom_and_waits_for_its_oldest_use() -> None:
    budget = WeightBudget(100)
    for second in range(9):
        assert budget.wait_s(second, 10) == 0
        budget.take(second, 10)
    assert budget.wait_s(9, 10) == 51, "90 of 100 are used; the first ten come back a minute after they were used"
    assert budget.wait_s(9, 20) == 52
    assert budget.wait_s(60, 10) == 0


def test_what_others_of_the_address_used_counts_too() -> None:
    budget = WeightBudget(100)
    budget.take(0, 10)
    budget.observe(1, 10)
    assert budget.used(1) == 10, "the exchange counted what was sent, nothing more"
    budget.observe(2, 85)
    assert budget.used(2) == 85
    budget.observe(3, 5)  # its minute is over; what was sent is still held for one of ours
    assert budget.used(3) == 85
    assert budget.wait_s(3, 10) == 57
    assert budget.used(62) == 0


def test_a_pause_holds_everything_and_a_shorter_one_does_not_end_it() -> None:
    budget = WeightBudget(100)
    budget.pause(0, 30)
    budget.pause(1, 5)
    assert budget.wait_s(10, 1) == budget.paused_s(10) == 20
    assert budget.wait_s(31, 1) == budget.paused_s(31) == 0
