"""When refused rows are a fault of their store."""

from __future__ import annotations

import pytest

from raven.sinks.refusals import MOST_IN_A_ROW, RefusalWatch
from raven.sinks.store import Refusal, StoreRefusedError


def refused(count: int) -> list[Refusal]:
    return [Refusal(row, "another type") for row in range(count)]


def write(watch: RefusalWatch, refusals: list[Refusal], *, accepted: int) -> None:
    """A flush that comes to its end, unless the watch objects."""
    watch.check(refusals, accepted=accepted)
    watch.settled()


def test_bad_rows_among_good_ones_are_bad_rows() -> None:
    watch = RefusalWatch("mend it")
    for _ in range(100):
        write(watch, refused(90), accepted=1)
        write(watch, [], accepted=0)


def test_a_store_that_refuses_every_row_of_a_flush_needs_mending() -> None:
    with pytest.raises(StoreRefusedError, match=r"every row is refused: another type \(mend it\)"):
        write(RefusalWatch("mend it"), refused(MOST_IN_A_ROW + 1), accepted=0)


def test_a_store_that_refuses_row_after_row_needs_mending_until_it_takes_one() -> None:
    watch = RefusalWatch("mend it")
    for _ in range(MOST_IN_A_ROW):
        write(watch, refused(1), accepted=0)
    for _ in range(3):
        with pytest.raises(StoreRefusedError):
            write(watch, refused(1), accepted=0)
    write(watch, [], accepted=1)
    write(watch, refused(1), accepted=0)


def test_tries_of_one_flush_that_fails_for_another_reason_are_one_refusal() -> None:
    watch = RefusalWatch("mend it")
    for _ in range(MOST_IN_A_ROW + 1):
        watch.check(refused(1), accepted=0)
    write(watch, refused(1), accepted=0)
    for _ in range(MOST_IN_A_ROW - 1):
        write(watch, refused(1), accepted=0)
    with pytest.raises(StoreRefusedError):
        watch.check(refused(1), accepted=0)


def test_what_was_accepted_of_a_flush_that_failed_counts_when_it_is_written() -> None:
    watch = RefusalWatch("mend it")
    for _ in range(MOST_IN_A_ROW):
        write(watch, refused(1), accepted=0)
    watch.check([], accepted=1)
    with pytest.raises(StoreRefusedError):
        watch.check(refused(1), accepted=0)
    write(watch, [], accepted=1)
    write(watch, refused(MOST_IN_A_ROW), accepted=0)
