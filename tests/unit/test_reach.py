"""Ids far ahead: what cannot be is refused and moves nothing; what was missed is believed, with REST and without."""

from __future__ import annotations

import pytest

from raven.batches.hold import Hold
from raven.batches.reach import BURST_IDS, FAR_IDS, GOES_ON_US, IDS_PER_S, LAG_US, MOST_AHEAD_IDS
from raven.batches.released import Released
from raven.batches.schema import ORIGIN_REST
from tests.unit.test_hold import BTC, ETH, SECOND_US, btc, frame, hold, ids

MAX_S = 30
LARGEST = 2**63 - 1


def refused(released: Released) -> list[int]:
    return released.refused.get_column("trade_id").to_list()


def pass_time(tested: Hold, to_s: float) -> Released:
    return tested.take(btc().clear(), int(to_s * SECOND_US))


@pytest.mark.parametrize("last", [None, 10], ids=["never seen", "seen"])
def test_an_id_beyond_anything_is_refused_at_once_and_moves_nothing(last: int | None):
    tested = hold({} if last is None else {BTC: last})
    released = tested.take(frame([(BTC, LARGEST), (ETH, LARGEST), (BTC, 11), (BTC, MOST_AHEAD_IDS + 12), (ETH, 1)]), 0)
    assert released.rows.select("symbol", "trade_id").rows() == [(BTC, 11), (ETH, 1)]
    assert sorted(refused(released)) == [MOST_AHEAD_IDS + 12, LARGEST, LARGEST]
    assert (released.duplicates, released.gaps, tested.held) == (0, (), ())
    assert tested.last_ids == {BTC: 11, ETH: 1}


@pytest.mark.parametrize("ahead", [500, FAR_IDS + 5, 1_000_000, 10**11])
def test_without_rest_a_stream_that_goes_on_before_an_id_refutes_it(ahead: int):
    tested = hold({BTC: 10})
    tested.take(btc(11), 0)
    tested.take(btc(11 + ahead), SECOND_US)
    for second in range(2, 12):
        released = tested.take(btc(10 + second), second * SECOND_US)
        assert ids(released) == [10 + second], "the true ones go on meanwhile"
    tested.take(btc(22), SECOND_US + GOES_ON_US + 1)
    released = pass_time(tested, MAX_S + 1)
    assert refused(released) == [11 + ahead]
    assert (released.gaps, released.rows.height, tested.held_rows, tested.last_ids[BTC]) == ((), 0, 0, 22)
    assert ids(tested.take(btc(23), 32 * SECOND_US)) == [23]


def test_without_rest_a_far_id_that_nothing_follows_is_refused():
    tested = hold({BTC: 10})
    tested.take(btc(11), 0)
    tested.take(btc(2_000), 600 * SECOND_US)
    released = pass_time(tested, 630)
    assert (refused(released), released.gaps, tested.last_ids[BTC]) == ([2_000], (), 11)
    assert ids(tested.take(btc(12), 631 * SECOND_US)) == [12]


def test_without_rest_what_was_missed_in_an_outage_is_a_gap_once_others_follow():
    tested = hold({BTC: 10})
    tested.take(btc(11), 0)
    jumped = 12 + 500_000
    for second in range(3):
        assert ids(tested.take(btc(jumped + second), (60 + second) * SECOND_US)) == []
    released = pass_time(tested, 90)
    assert ids(released) == [jumped, jumped + 1, jumped + 2]
    assert [(gap.after_id, gap.before_id) for gap in released.gaps] == [(11, jumped)]
    assert refused(released) == []


def test_without_rest_a_slow_symbol_goes_on_after_two_rows_were_not_believed():
    tested = hold({BTC: 10})
    gone = []
    for number in range(6):
        came_s = number * 600
        tested.take(btc(5_000 + number), came_s * SECOND_US)
        released = pass_time(tested, came_s + MAX_S)
        gone += refused(released)
        if released.gaps:
            assert (ids(released), tested.last_ids[BTC]) == ([5_002], 5_002)
    assert gone == [5_000, 5_001]
    assert tested.last_ids[BTC] == 5_005


def test_two_bogus_rows_far_apart_in_time_do_not_confirm_each_other_across_true_ones():
    tested = hold({BTC: 10})
    for number in range(6):
        tested.take(btc(5_000 + number), number * 600 * SECOND_US)
        assert refused(pass_time(tested, number * 600 + MAX_S)) == [5_000 + number]
        assert ids(tested.take(btc(11 + number), (number * 600 + 40) * SECOND_US)) == [11 + number]


def test_more_than_the_exchange_can_do_is_not_believed_whatever_follows():
    tested = hold({BTC: 10})
    tested.take(btc(11), 0)
    possible = BURST_IDS + IDS_PER_S
    tested.take(btc(*range(11 + possible + 1, 11 + possible + 20)), SECOND_US)
    released = pass_time(tested, MAX_S + 1)
    assert (len(refused(released)), released.gaps, tested.last_ids[BTC]) == (19, (), 11)


def test_what_the_exchange_confirms_is_believed_whatever_it_is():
    tested = hold({BTC: 10})
    tested.take(btc(11), 0)
    tested.take(btc(10**9), SECOND_US)
    tested.told(BTC, 10**9 + 5, 2 * SECOND_US)
    assert tested.take(btc().clear(), 3 * SECOND_US).refused.is_empty()
    released = pass_time(tested, MAX_S + 1)
    assert (ids(released), refused(released)) == ([10**9], [])


def test_what_the_exchange_has_not_come_to_is_refused_before_its_time():
    tested = hold({BTC: 10})
    tested.take(btc(11), 0)
    tested.take(btc(1_000_000), SECOND_US)
    tested.told(BTC, 12, SECOND_US + LAG_US - 1)
    assert refused(pass_time(tested, 7)) == [], "its REST may lie behind its stream"
    tested.told(BTC, 12, SECOND_US + LAG_US)
    released = pass_time(tested, 7)
    assert (refused(released), tested.held, tested.last_ids[BTC]) == ([1_000_000], (), 11)


def test_a_near_jump_waits_its_time_whatever_the_exchange_says_and_is_refused_then():
    tested = hold({BTC: 10})
    tested.take(btc(20), 0)
    tested.told(BTC, 10, LAG_US)
    assert refused(pass_time(tested, 29)) == []
    assert refused(pass_time(tested, 30)) == [20]
    tested.take(btc(30), 40 * SECOND_US)
    released = pass_time(tested, 70)
    assert ids(released) == [30], "what was told of the one before is old"


def test_rows_that_wait_before_a_bogus_one_are_not_given_up_with_it():
    tested = hold({BTC: 10})
    tested.take(btc(10**9), 0)
    tested.take(btc(13, 14), 25 * SECOND_US)
    released = pass_time(tested, 30)
    assert (refused(released), released.gaps, tested.held_rows) == ([10**9], (), 2)
    released = tested.take(frame([(BTC, 11), (BTC, 12)], ORIGIN_REST), 31 * SECOND_US)
    assert ids(released) == [11, 12, 13, 14]


def test_neither_a_stop_nor_a_lack_of_room_makes_a_bogus_row_true():
    tested = hold({BTC: 10, ETH: 1})
    tested.take(frame([(BTC, 10**9), (ETH, 3)]), 0)
    released = tested.end([BTC], SECOND_US)
    assert (ids(released), refused(released), tested.last_ids[BTC]) == ([], [10**9], 10)
    tested = hold({BTC: 10}, max_rows=0)
    released = tested.take(btc(10**9, 11), 0)
    assert (ids(released), refused(released), tested.last_ids[BTC]) == ([11], [10**9], 11)


def test_every_row_is_released_refused_a_repeat_or_waiting():
    tested = hold({BTC: 0}, max_s=2)
    rows = [btc(1, 2, 10**7, 2), btc(4, 10**7 + 1, LARGEST), btc(5, 3), btc(9, 10**7), btc(12, 13)]
    taken = gone = 0
    for second, batch in enumerate([*rows, *(btc().clear() for _ in range(5))]):
        released = tested.take(batch, second * SECOND_US)
        taken += batch.height
        gone += released.rows.height + released.refused.height + released.duplicates
        assert taken == gone + tested.held_rows
    assert tested.held_rows == 0
    assert tested.last_ids[BTC] == 13
