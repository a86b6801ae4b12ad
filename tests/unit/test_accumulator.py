"""The micro-batch accumulator."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raven.batches.accumulator import Accumulator
from raven.errors import InputError


def test_it_is_due_by_rows():
    accumulator: Accumulator[str] = Accumulator(max_rows=5, max_age_ns=10**9)
    accumulator.add("a", 100, rows=2)
    accumulator.add("b", 200, rows=2)
    assert accumulator.wait_ns(200) == 10**9 - 100
    accumulator.add("c", 300, rows=1)
    assert accumulator.wait_ns(300) == 0
    assert accumulator.take() == ["a", "b", "c"]


def test_it_is_due_by_the_age_of_its_oldest():
    accumulator: Accumulator[str] = Accumulator(max_rows=100, max_age_ns=50)
    accumulator.add("a", 1000)
    accumulator.add("b", 1040)
    assert [accumulator.wait_ns(now) for now in (1000, 1040, 1049, 1050, 2000)] == [50, 10, 1, 0, 0]


def test_a_time_of_zero_is_a_time():
    accumulator: Accumulator[str] = Accumulator(max_rows=100, max_age_ns=50)
    accumulator.add("a", 0)
    accumulator.add("b", 40)
    assert accumulator.oldest_ns == 0
    assert accumulator.wait_ns(50) == 0


def test_taking_empties_it():
    accumulator: Accumulator[str] = Accumulator(max_rows=1, max_age_ns=50)
    assert accumulator.wait_ns(0) is None
    assert accumulator.take() == []
    accumulator.add("a", 7)
    assert accumulator.take() == ["a"]
    assert (accumulator.rows, accumulator.oldest_ns, accumulator.wait_ns(10**9)) == (0, None, None)
    accumulator.add("b", 500)
    assert (accumulator.oldest_ns, accumulator.take()) == (500, ["b"])


def test_without_age_every_item_is_due_at_once():
    accumulator: Accumulator[str] = Accumulator(max_rows=100, max_age_ns=0)
    accumulator.add("a", 7)
    assert accumulator.wait_ns(7) == 0


@pytest.mark.parametrize(("max_rows", "max_age_ns"), [(0, 1), (-1, 1), (1, -1)])
def test_bounds_that_make_no_sense_are_refused(max_rows, max_age_ns):
    with pytest.raises(InputError, match="a batch needs"):
        Accumulator(max_rows=max_rows, max_age_ns=max_age_ns)


@given(
    arrivals=st.lists(st.tuples(st.integers(0, 30), st.integers(1, 5)), max_size=60),
    max_rows=st.integers(1, 12),
    max_age_ns=st.integers(0, 60),
)
def test_batches_hold_everything_in_order_and_none_waits_too_long(arrivals, max_rows, max_age_ns):
    accumulator: Accumulator[int] = Accumulator(max_rows=max_rows, max_age_ns=max_age_ns)
    now, batches, since = 0, [], {}

    def flush_if_due(at: int) -> None:
        wait = accumulator.wait_ns(at)
        if wait == 0:
            items = accumulator.take()
            batches.append(items)
            assert all(at - since[item] <= max_age_ns for item in items)

    for number, (pause, rows) in enumerate(arrivals):
        wait = accumulator.wait_ns(now)
        if wait is not None and wait <= pause:  # a caller sleeps for wait_ns and looks again
            flush_if_due(now + wait)
        now += pause
        since[number] = now
        accumulator.add(number, now, rows)
        flush_if_due(now)
    batches.append(accumulator.take())
    assert [item for batch in batches for item in batch] == list(range(len(arrivals)))
    rows = [row_count for _, row_count in arrivals]
    assert all(sum(rows[i] for i in batch[:-1]) < max_rows for batch in batches)
