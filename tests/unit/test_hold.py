"""Putting trades in order: streams that were shuffled, repeated and robbed come out whole, in order, once."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raven.batches.batch import Gap
from raven.batches.hold import FAR_BACK_IDS, Hold
from raven.batches.released import Fallen, GivenUp, Missing, Released
from raven.batches.schema import ORIGIN_LIVE, ORIGIN_REST, TRADE_DTYPES
from tests.unit.strategies import SYMBOLS

SECOND_US = 1_000_000
BTC, ETH, BNL = SYMBOLS
Row = tuple[str, int]


def frame(rows: Iterable[Row], origin: int = ORIGIN_LIVE) -> pl.DataFrame:
    """Trades whose time and price follow from their id, so that a row that was mixed up shows."""
    rows = list(rows)
    ids = pl.Series([number for _, number in rows], dtype=pl.Int64)
    times = (ids * 1000 + 1_700_000_000_000_000).cast(TRADE_DTYPES["ts_event"])
    return pl.DataFrame(
        {
            "symbol": pl.Series([symbol for symbol, _ in rows], dtype=pl.String),
            "trade_id": ids,
            "ts_event": times,
            "ts_recv": times,
            "price": ids.cast(pl.Float64) + 0.5,
            "quantity": pl.Series([1.0] * len(rows), dtype=pl.Float64),
            "side": pl.Series([1] * len(rows), dtype=pl.Int8),
            "origin": pl.Series([origin] * len(rows), dtype=pl.Int8),
        },
        schema=TRADE_DTYPES,
    )


def hold(last_ids: dict[str, int] | None = None, *, max_s: float = 30.0, max_rows: int = 1_000) -> Hold:
    return Hold(dict(last_ids or {}), max_us=int(max_s * SECOND_US), max_rows=max_rows)


def ids(released: Released | pl.DataFrame, symbol: str = BTC) -> list[int]:
    rows = released.rows if isinstance(released, Released) else released
    return rows.filter(pl.col("symbol") == symbol).get_column("trade_id").to_list()


def btc(*numbers: int) -> pl.DataFrame:
    return frame((BTC, number) for number in numbers)


@st.composite
def disturbed(draw: st.DrawFn) -> tuple[dict[str, int], list[list[Row]]]:
    """Per symbol the ids 1..n, some lost, some repeated, all moved about; cut into batches."""
    arrivals: list[tuple[int, Row]] = []
    ends = {}
    for symbol in SYMBOLS[: draw(st.integers(1, 3))]:
        ends[symbol] = draw(st.integers(1, 25))
        for number in range(1, ends[symbol] + 1):
            # the first and the last are never lost: they say what is missing
            least = 1 if number in (1, ends[symbol]) else 0
            for _ in range(draw(st.sampled_from([1, 1, 1, 1, 0, 0, 2])) or least):
                moved = draw(st.sampled_from([0, 0, 0, 0, 1, 2, 7, 30]))
                arrivals.append((number + moved, (symbol, number)))
    rows = [row for _, row in sorted(arrivals, key=lambda item: item[0])]
    batches: list[list[Row]] = [[]]
    for row in rows:
        batches[-1].append(row)
        if draw(st.sampled_from([True, False, False])):
            batches.append([])
    return ends, batches


@settings(max_examples=120, deadline=None)
@given(stream=disturbed(), fetch_after=st.integers(0, 5), page=st.integers(1, 40))
def test_a_disturbed_stream_comes_out_whole_in_order_once(stream, fetch_after, page):
    ends, batches = stream
    tested = hold(dict.fromkeys(ends, 0))
    out, taken, duplicates = [], 0, 0

    def take(rows: pl.DataFrame, now_us: int) -> None:
        nonlocal taken, duplicates
        released = tested.take(rows, now_us)
        assert released.gaps == ()
        assert released.rows.get_column("symbol").is_in(list(ends)).all()
        out.append(released.rows)
        taken += rows.height
        duplicates += released.duplicates
        assert taken == sum(part.height for part in out) + tested.held_rows + duplicates
        assert set(tested.held) == {item.symbol for item in tested.missing}

    for now, batch in enumerate(batches):
        take(frame(batch), now)
        if now >= fetch_after:
            for item in tested.missing[:1]:  # some of the missing ids come over REST, a page at a time
                found = range(item.after_id + 1, min(item.before_id, item.after_id + 1 + page))
                take(frame(((item.symbol, number) for number in found), ORIGIN_REST), now)
    while tested.missing:
        item = tested.missing[-1]
        take(frame([(item.symbol, item.after_id + 1)], ORIGIN_REST), len(batches))
    assert tested.held_rows == 0
    released = pl.concat(out)
    for symbol, end in ends.items():
        assert ids(released, symbol) == list(range(1, end + 1))
    assert (released.get_column("price") == released.get_column("trade_id") + 0.5).all()
    assert tested.last_ids == ends


@settings(max_examples=100, deadline=None)
@given(stream=disturbed(), max_rows=st.integers(0, 8), max_s=st.integers(0, 6))
def test_limits_are_kept_and_every_id_is_a_row_or_in_a_gap(stream, max_rows, max_s):
    ends, batches = stream
    tested = hold(dict.fromkeys(ends, 0), max_s=max_s, max_rows=max_rows)
    out, gaps, arrived_at, gone = [], [], {}, set()
    for now, batch in enumerate([*batches, []]):
        for row in batch:
            arrived_at.setdefault(row, now)
        now_us = now * SECOND_US if now < len(batches) else 10_000 * SECOND_US
        released = tested.take(frame(batch), now_us)
        out.append(released.rows)
        gaps += released.gaps
        assert tested.held_rows <= max_rows
        gone |= set(released.rows.select("symbol", "trade_id").iter_rows())
        for row, since in arrived_at.items():
            waits = row not in gone and row[1] > tested.last_ids[row[0]]
            assert not waits or now - since < max_s
    assert tested.held == ()
    for symbol, end in ends.items():
        seen = ids(pl.concat(out), symbol)
        assert seen == sorted(set(seen))
        lost = [number for gap in gaps if gap.symbol == symbol for number in range(gap.after_id + 1, gap.before_id)]
        assert sorted(seen + lost) == list(range(1, end + 1))


def test_a_jump_holds_its_symbol_and_no_other():
    tested = hold({BTC: 10, ETH: 5, BNL: 7})
    released = tested.take(frame([(BTC, 11), (ETH, 6), (BTC, 15), (BNL, 8), (ETH, 7), (BTC, 16)]), 3)
    assert released.rows.select("symbol", "trade_id").rows() == [(ETH, 6), (BNL, 8), (ETH, 7), (BTC, 11)]
    assert tested.held == (BTC,)
    assert tested.missing == (Missing(BTC, 11, 15, 3),)
    assert tested.last_ids == {BTC: 11, ETH: 7, BNL: 8}
    assert tested.last_id(BTC) == 16
    released = tested.take(frame([(BTC, number) for number in (12, 13, 14)], ORIGIN_REST), 4)
    assert ids(released) == [12, 13, 14, 15, 16]
    assert released.rows.get_column("origin").to_list() == [1, 1, 1, 0, 0]
    assert (tested.held, tested.missing, tested.held_rows) == ((), (), 0)


def test_a_fetched_row_that_came_by_itself_goes_out_once():
    tested = hold({BTC: 1})
    tested.take(btc(4), 0)
    assert ids(tested.take(btc(3, 2), 1)) == [2, 3, 4]
    released = tested.take(frame([(BTC, 2), (BTC, 3)], ORIGIN_REST), 2)
    assert (released.rows.height, released.duplicates) == (0, 2)


def test_several_gaps_of_one_symbol_are_all_asked_for():
    tested = hold({BTC: 0})
    tested.take(btc(1, 4, 5, 9), 0)
    tested.take(btc(12), 5)
    assert tested.missing == (Missing(BTC, 1, 4, 0), Missing(BTC, 5, 9, 0), Missing(BTC, 9, 12, 5))
    assert ids(tested.take(btc(6, 7, 8), 6)) == []
    assert ids(tested.take(btc(2, 3), 6)) == list(range(2, 10))
    assert tested.missing == (Missing(BTC, 9, 12, 5),)


def test_what_waited_too_long_goes_and_what_did_not_stays():
    tested = hold({BTC: 0, ETH: 0}, max_s=1)
    tested.take(btc(5, 6), 0)
    tested.take(frame([(BTC, 9), (ETH, 3)]), 500_000)
    assert tested.take(btc().clear(), 999_999).rows.is_empty()
    released = tested.take(btc().clear(), 1_000_000)
    assert ids(released) == [5, 6]
    assert released.gaps == (Gap(BTC, 0, 5, final=True, reason=GivenUp.NOT_RECEIVED),)
    assert tested.held == (BTC, ETH)
    released = tested.take(btc(7, 8), 1_100_000)
    assert ids(released) == [7, 8, 9]
    assert tested.held == (ETH,)


def test_too_many_rows_give_up_the_symbol_with_the_most():
    tested = hold({BTC: 0, ETH: 0}, max_rows=4)
    tested.take(frame([(ETH, 2), (BTC, 3), (BTC, 4)]), 0)
    released = tested.take(btc(6, 8), 1)
    assert ids(released) == [3, 4]
    assert released.gaps == (Gap(BTC, 0, 3, final=True, reason=GivenUp.NO_ROOM),)
    assert set(tested.held) == {BTC, ETH}
    assert tested.held_rows == 3


def test_no_room_at_all_records_every_gap_at_once():
    tested = hold({BTC: 0}, max_rows=0)
    released = tested.take(btc(1, 3, 7), 0)
    assert ids(released) == [1, 3, 7]
    assert [(gap.after_id, gap.before_id) for gap in released.gaps] == [(1, 3), (3, 7)]


def test_ids_the_venue_does_not_have_are_passed_over():
    tested = hold({BTC: 0})
    tested.take(btc(5, 9), 0)
    tested.absent(BTC, 6, 9)
    assert tested.take(btc().clear(), 1).rows.is_empty(), "1 to 4 are still missing before"
    tested.absent(BTC, 3, 5)
    released = tested.take(frame([(BTC, 1), (BTC, 2)], ORIGIN_REST), 2)
    assert ids(released) == [1, 2, 5, 9]
    assert [(gap.after_id, gap.before_id, gap.reason) for gap in released.gaps] == [
        (2, 5, GivenUp.ABSENT),
        (5, 9, GivenUp.ABSENT),
    ]
    tested.take(btc(12), 3)
    assert tested.held == (BTC,), "what is known to be absent is no excuse for other ids"
    tested.absent(BTC, 10, 12)
    assert ids(tested.take(btc(), 3)) == [12], "without any trade to wake it"


def test_no_gap_begins_at_a_session():
    tested = hold({BTC: 10})
    tested.begin({BTC: 10, ETH: None})
    released = tested.take(frame([(BTC, 50), (ETH, 7), (BTC, 51), (ETH, 8)]), 0)
    assert (ids(released), ids(released, ETH), released.gaps) == ([50, 51], [7, 8], ())
    tested.take(btc(60), 1)
    assert tested.missing == (Missing(BTC, 51, 60, 1),)


def test_a_session_of_a_symbol_never_seen_begins_with_the_first_that_came():
    tested = hold()
    released = tested.take(frame([(ETH, 5), (ETH, 4), (ETH, 8), (BTC, 1)]), 0)
    assert (ids(released, ETH), ids(released), released.duplicates) == ([5], [1], 1)
    assert tested.missing == (Missing(ETH, 5, 8, 0),)


def test_an_ended_session_lets_go_what_waits_and_the_next_one_begins_after_it():
    tested = hold({BTC: 1, ETH: 1})
    tested.take(frame([(BTC, 4), (ETH, 3)]), 0)
    released = tested.end([BTC, BNL], 1)
    assert ids(released) == [4]
    assert released.gaps == (Gap(BTC, 1, 4, final=True, reason=GivenUp.STOPPED),)
    assert tested.held == (ETH,)
    tested.begin({BTC: tested.last_id(BTC)})
    released = tested.take(btc(100), 2)
    assert (ids(released), released.gaps) == ([100], ())
    assert tested.end([BTC], 3).rows.is_empty()


@pytest.mark.parametrize("numbers", [[3, 4], [FAR_BACK_IDS + 2]])
def test_old_ids_are_told_when_they_lie_far_back(numbers: Sequence[int]):
    last = 2 * FAR_BACK_IDS
    tested = hold({BTC: last})
    released = tested.take(btc(*numbers), 0)
    assert (released.rows.height, released.duplicates) == (0, len(numbers))
    far = numbers[0] < last - FAR_BACK_IDS
    assert [(entry.symbol, entry.trade_id) for entry in released.fallen] == ([(BTC, 3)] if far else [])


def test_fetched_rows_never_look_like_ids_that_began_anew():
    tested = hold({BTC: 10 * FAR_BACK_IDS})
    assert tested.take(frame([(BTC, 3)], ORIGIN_REST), 0).fallen == ()
    assert tested.take(btc(3), 0).fallen == (Fallen(BTC, 3, 1_700_000_000_003_000),)


def test_an_epoch_begins_where_it_is_told_and_not_while_rows_wait():
    tested = hold({BTC: 1_000})
    tested.take(btc(1_005), 0)
    assert not tested.begin_epoch(BTC, 1)
    tested.take(btc(1_001, 1_002, 1_003, 1_004), 1)
    assert tested.begin_epoch(BTC, 3)
    assert ids(tested.take(btc(3, 4), 2)) == [3, 4]
    assert ids(tested.take(btc(1_006), 3)) == []
    assert tested.missing == (Missing(BTC, 4, 1_006, 3),)
