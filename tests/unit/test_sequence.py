"""The sequence check against a plain loop, and on what a real collector stored."""

from __future__ import annotations

import itertools

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raven.batches.batch import Gap
from raven.batches.sequence import check_sequence
from tests.unit.strategies import SYMBOLS, collector_trades


def frame(rows: list[tuple[str, int]]) -> pl.DataFrame:
    return pl.DataFrame(rows, schema={"symbol": pl.String, "trade_id": pl.Int64}, orient="row").with_row_index("place")


def by_hand(rows: list[tuple[str, int]], last_ids: dict[str, int]):
    last_ids, places, gaps = dict(last_ids), [], []
    for place, (symbol, trade_id) in enumerate(rows):
        last = last_ids.get(symbol)
        if last is not None and trade_id <= last:
            continue
        if last is not None and trade_id > last + 1:
            gaps.append(Gap(symbol, last, trade_id))
        places.append(place)
        last_ids[symbol] = trade_id
    return places, len(rows) - len(places), gaps, last_ids


ids = st.integers(0, 25)


@settings(max_examples=300, deadline=None)
@given(
    rows=st.lists(st.tuples(st.sampled_from(SYMBOLS), ids), max_size=30),
    last_ids=st.dictionaries(st.sampled_from(SYMBOLS), ids),
    symbols=st.integers(1, len(SYMBOLS)),
)
def test_a_check_finds_what_a_loop_finds(rows, last_ids, symbols):
    rows = [row for row in rows if row[0] in SYMBOLS[:symbols]]
    before = dict(last_ids)
    result = check_sequence(frame(rows), last_ids)
    places, duplicates, gaps, last = by_hand(rows, last_ids)
    assert result.accepted.get_column("place").to_list() == places
    assert result.accepted.columns == frame(rows).columns
    assert result.duplicates == duplicates
    assert list(result.gaps) == gaps
    assert result.last_ids == last
    assert last_ids == before


def test_the_first_id_of_a_symbol_opens_no_gap():
    result = check_sequence(frame([("BTCUSDT", 500), ("ETHUSDT", 7)]), {"BTCUSDT": 10})
    assert result.gaps == (Gap("BTCUSDT", 10, 500),)
    assert result.gaps[0].missing_ids == 489


def test_an_empty_batch_keeps_what_is_known():
    result = check_sequence(frame([]), {"BTCUSDT": 3})
    assert (result.accepted.height, result.duplicates, result.gaps, result.last_ids) == (0, 0, (), {"BTCUSDT": 3})


@pytest.mark.parametrize("batch_rows", [100, 1_000, 60_000])
def test_real_gaps_are_found_and_repeats_dropped(batch_rows, shared_data):
    trades = pl.concat(collector_trades(shared_data))
    numbers = trades.get_column("trade_id").to_list()
    expected = [Gap("LTCUSDT", one, two) for one, two in itertools.pairwise(numbers) if two != one + 1]
    last_ids, accepted, gaps, duplicates, delivered = {}, [], [], 0, 0
    for start in range(0, trades.height, batch_rows):
        begin = max(0, start - 50)
        rows = trades.slice(begin, start - begin + batch_rows)
        result = check_sequence(rows, last_ids)
        last_ids = result.last_ids
        accepted.append(result.accepted)
        gaps += result.gaps
        duplicates += result.duplicates
        delivered += rows.height
    assert pl.concat(accepted).equals(trades)
    assert gaps == expected
    assert len(gaps) == 16
    assert duplicates == delivered - trades.height
