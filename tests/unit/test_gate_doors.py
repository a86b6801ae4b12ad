"""Whichever door a row comes in by, it is taken or refused alike, with the same reason."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Literal

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raven.batches.gate import AFTER_ALL_US, MOST_ID, BadReason, check
from raven.batches.raw import admit
from raven.clock import tomorrow_us
from tests.unit.doors import BAD, COLUMNS, DOORS, GOOD, REASONS, judged, random_rows
from tests.unit.samples import trades

names = [door.__name__ for door in DOORS]


@pytest.fixture(scope="module")
def many():
    rows = random_rows(100_000, seed=9)
    return rows, judged(rows)


@pytest.mark.parametrize("door", DOORS, ids=names)
@pytest.mark.slow
def test_a_hundred_thousand_rows_broken_in_every_way(many, door, tmp_path):
    rows, right = many
    came = door(rows, tmp_path)
    assert came.refused == right.refused
    assert came.accepted == right.accepted
    assert set(came.refused) == set(REASONS.values())
    assert len(came.accepted) > 50_000


values = {name: st.sampled_from([*GOOD.get(name, ["7", "7.0", "1e3"]), *BAD[name]]) for name in COLUMNS}
values["trade_id"] = st.one_of(st.integers(0, 2**63 - 1).map(str), st.sampled_from(BAD["trade_id"]))
values["price"] = st.one_of(
    st.floats(allow_nan=True, allow_infinity=True).map(repr), st.decimals(0, 10**9).map(str), values["price"]
)


@settings(max_examples=40)
@given(st.lists(st.fixed_dictionaries(values), min_size=1, max_size=20))
def test_any_rows_come_alike_by_every_door(rows):
    right = judged(rows)
    with tempfile.TemporaryDirectory() as folder:
        for door in DOORS:
            assert door(rows, Path(folder)) == right, door.__name__


def test_every_reason_of_a_value_is_reached():
    assert {REASONS[name] for name in COLUMNS} == {
        BadReason.BAD_SYMBOL, BadReason.BAD_ID, BadReason.BAD_TIME, BadReason.BAD_PRICE, BadReason.BAD_QUANTITY,
        BadReason.BAD_SIDE,
    }  # fmt: skip


@pytest.mark.parametrize("zone", [None, "UTC", "America/New_York"])
@pytest.mark.parametrize("unit", ["ms", "us", "ns"])
@pytest.mark.parametrize("number", [-(2**63), -(2**62), 2**62, 2**63 - 1, 2**64 // 1000 + 1_700_000_000_000])
def test_a_datetime_beyond_the_calendar_is_refused_as_what_it_is(
    zone: str | None, unit: Literal["ms", "us", "ns"], number: int
) -> None:
    start = {"ms": 1_700_000_000_000, "us": 1_700_000_000_000_000, "ns": 1_700_000_000_000_000_000}[unit]
    raw = pl.DataFrame(
        {
            "symbol": ["A", "A"], "trade_id": [1, 2], "price": [1.0, 1.0], "quantity": [1.0, 1.0], "side": [1, 1],
            "ts_event": pl.Series([start, number]).cast(pl.Datetime(unit, zone)),
        }
    )  # fmt: skip
    checked = admit(raw, latest_us=AFTER_ALL_US, origin=0)
    assert checked.trades["ts_event"].dt.epoch("us").to_list() == [1_700_000_000_000_000]
    [refusal] = checked.refused
    assert (refusal.row, refusal.reason) == (1, BadReason.BAD_TIME)
    if unit == "ms" or (unit == "us" and abs(number) >= 2**62):
        assert refusal.value == f"{number} {unit} since 1970"


def test_what_a_bar_cannot_sum_is_no_trade(tmp_path):
    row = dict.fromkeys(COLUMNS) | {
        "symbol": "BTCUSDT", "trade_id": "1", "ts_event": "1700000000", "price": "1.7e308", "quantity": "2",
        "is_buyer_maker": "true",
    }  # fmt: skip
    for door in DOORS:
        assert door([row], tmp_path).refused == {BadReason.BAD_QUANTITY: 1}, door.__name__


def test_an_id_that_no_exchange_has_come_to_is_refused_where_ids_are_compared_with_the_last():
    rows = trades(range(3)).with_columns(trade_id=pl.Series([1, 2**63 - 1, MOST_ID]))
    assert check(rows, latest_us=tomorrow_us()).refused == []
    refused = check(rows, latest_us=tomorrow_us(), most_id=MOST_ID).refused
    assert [(refusal.row, refusal.reason) for refusal in refused] == [(1, BadReason.ID_AHEAD), (2, BadReason.ID_AHEAD)]
