"""When refused rows are a fault of their store."""

from __future__ import annotations

import pytest

from raven.sinks.refusals import MOST_IN_A_ROW, RefusalWatch
from raven.sinks.store import Refusal, StoreRefusedError


def refused(count: int) -> list[Refusal]:
    return [Refusal(row, "another type") for row in range(count)]


def test_bad_rows_among_good_ones_are_bad_rows() -> None:
    watch = RefusalWatch("mend it")
    for _ in range(100):
        watch.check(refused(90), accepted=1)
        watch.check([], accepted=0)


def test_a_store_that_refuses_every_row_of_a_flush_needs_mending() -> None:
    with pytest.raises(StoreRefusedError, match=r"every row is refused: another type \(mend it\)"):
        RefusalWatch("mend it").check(refused(MOST_IN_A_ROW + 1), accepted=0)


def test_a_store_that_refuses_row_after_row_needs_mending_until_it_takes_one() -> None:
    watch = RefusalWatch("mend it")
    for _ in range(MOST_IN_A_ROW):
        watch.check(refused(1), accepted=0)
    for _ in range(3):
        with pytest.raises(StoreRefusedError):
            watch.check(refused(1), accepted=0)
    watch.check([], accepted=1)
    watch.check(refused(1), accepted=0)
