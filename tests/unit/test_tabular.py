"""Frames of a quant: other libraries, other spellings of times, figures and sides."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

import raven
from raven.errors import InputError
from raven.tabular import admitted
from tests.unit.samples import trades

OWN = ["ts_event", "price", "quantity", "side"]
START_NS = 1_700_000_000_123_456_000


def own(number: int = 100) -> pl.DataFrame:
    return trades(range(number)).select(*OWN)


class Capsule:
    """No frame of any library: only what the Arrow PyCapsule interface asks for."""

    def __init__(self, table: pa.Table) -> None:
        self.__arrow_c_stream__ = table.__arrow_c_stream__


@pytest.mark.parametrize(
    "given",
    [
        lambda frame: frame.lazy(),
        lambda frame: frame.to_arrow(),
        lambda frame: frame.to_arrow().to_reader(),
        lambda frame: Capsule(frame.to_arrow()),
        lambda frame: frame.to_pandas(),
        lambda frame: frame.to_pandas().set_index("ts_event"),
        lambda frame: frame.to_pandas().assign(
            side=lambda own: pd.Categorical(own["side"].map({1: "Buy", -1: "sell"}))
        ),
        lambda frame: [frame[:40].to_pandas(), frame[40:].to_arrow()],
        lambda frame: (frame[start : start + 7] for start in range(0, frame.height, 7)),
    ],
)
def test_tables_of_any_library_give_the_same_bars(given):
    assert raven.time_bars(given(own()), "1s", partial=True).equals(raven.time_bars(own(), "1s", partial=True))


@pytest.mark.parametrize(
    "times",
    [
        [START_NS // 10**9] * 2,
        [START_NS // 10**6] * 2,
        [START_NS // 10**3] * 2,
        [START_NS] * 2,
        [str(START_NS // 10**3)] * 2,
        [START_NS / 1e9] * 2,
        [START_NS // 10**3, None],
        ["2023-11-14T22:13:20.123456Z", "2023-11-14 22:13:20.123456"],
        ["2023-11-15T03:43:20.123456789+05:30", "2023-11-14T22:13:20.123456+00:00"],
        pl.Series([START_NS] * 2).cast(pl.Datetime("ns")),
        pl.Series([START_NS // 10**6] * 2).cast(pl.Datetime("ms", "UTC")).dt.convert_time_zone("Asia/Tokyo"),
        pl.Series([START_NS] * 2, dtype=pl.UInt64),
    ],
)
def test_times_of_any_spelling_are_utc_microseconds(times):
    frame = own(2).with_columns(ts_event=pl.Series(times))
    read = admitted(frame, venue="", symbol="", on_bad="skip").trades["ts_event"].dt.epoch("us").to_list()
    expected = {START_NS // 1_000 // unit * unit for unit in (1, 1_000, 1_000_000)}  # as fine as it was given
    assert len(read) == len([time for time in times if time is not None])
    assert set(read) <= expected
    assert len(set(read)) == 1


@pytest.mark.parametrize(
    "prices",
    [
        [Decimal("1.50"), Decimal("2.25")],
        ["1.50", "2.25"],
        pl.Series([1.5, 2.25], dtype=pl.Float32),
        pl.Series(["1.50", "2.25"], dtype=pl.Categorical),
    ],
)
def test_prices_of_any_spelling(prices):
    frame = own(2).with_columns(price=pl.Series(prices))
    assert admitted(frame, venue="", symbol="").trades["price"].to_list() == [1.5, 2.25]


@pytest.mark.parametrize(
    ("name", "sides"),
    [
        ("side", ["BUY", "Sell"]),
        ("side", [1.0, -1.0]),
        ("side", pl.Series(["buy", "sell"], dtype=pl.Categorical)),
        ("side", pl.Series(["Buy", "Sell"], dtype=pl.Enum(["Buy", "Sell"]))),
        ("is_buyer_maker", [False, True]),
        ("is_buyer_maker", ["False", "true"]),
        ("is_buyer_maker", [0, 1]),
    ],
)
def test_sides_of_any_spelling(name, sides):
    frame = own(2).drop("side").with_columns(pl.Series(name, sides))
    assert admitted(frame, venue="", symbol="").trades["side"].to_list() == [1, -1]


def test_ids_are_exact_or_refused():
    for ids in (
        [2.0, 2.0**53],
        ["2", "9007199254740992"],
        pl.Series([2, 2**53], dtype=pl.UInt64),
        [Decimal(2), Decimal(2**53)],
    ):
        frame = own(2).with_columns(trade_id=pl.Series(ids))
        assert admitted(frame, venue="", symbol="").trades["trade_id"].to_list() == [2, 2**53]
    for wrong in (0.5, 2.0**53 + 2, float("nan"), -1.0):
        with pytest.raises(InputError, match="bad_id"):
            admitted(own(2).with_columns(trade_id=pl.lit(wrong)), venue="", symbol="")
    halves = own(2).with_columns(trade_id=pl.Series([7, None]))
    with pytest.raises(InputError, match="row 1, counted from 0: bad_id: trade_id is missing"):
        admitted(halves, venue="", symbol="")


def test_venues_are_spelt_as_everywhere():
    for name in ("spot", "BINANCE_SPOT", "Spot"):
        assert raven.time_bars(own(), venue=name, partial=True)["venue"].unique().to_list() == ["BINANCE_SPOT"]
    assert raven.time_bars(own(), venue="MINE", partial=True)["venue"].unique().to_list() == ["MINE"]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("BTCUSDT-trades-2019-04-01.zip", r"is a path, not trades \(raven\.read_trades\('BTCUSDT-trades"),
        (np.zeros(3), "trades are float64"),
        (5, "trades are int"),
        ({"price": [1.0]}, "trades are dict"),
    ],
)
def test_what_is_no_table_is_answered_with_what_is(given, message):
    with pytest.raises(InputError, match=message):
        raven.time_bars(given)


def test_a_frame_in_no_order_is_put_in_order_by_ids_as_numbers():
    frame = own(12).with_columns(trade_id=pl.Series([str(place) for place in range(12)]))
    shuffled = frame.sample(fraction=1, shuffle=True, seed=3)
    assert raven.tick_bars(shuffled, 4).equals(raven.tick_bars(frame, 4))


def test_step_by_step_counts_what_is_left_out():
    bars = raven.TimeBars(on_bad="skip")
    bars.update(own(5).with_columns(price=pl.Series([1.0, 0.0, float("nan"), 2.0, -1.0])))
    assert bars.refused == {"bad_price": 3}
    assert bars.open_bars()["total_ticks"].to_list() == [2]
    with pytest.raises(InputError, match="on_bad is 'ignore'"):
        raven.TimeBars(on_bad="ignore").update(own(1))


def test_values_of_several_types_cost_their_rows_alone():
    mixed = own(3).to_pandas()
    mixed["price"] = pd.Series([1.5, "dear", 2.5], dtype=object)
    taken = admitted(mixed, venue="", symbol="", on_bad="skip")
    assert taken.trades["price"].to_list() == [1.5, 2.5]
    assert [(refusal.row, refusal.value) for refusal in taken.refused] == [(1, "dear")]


def test_a_time_after_tomorrow_is_refused():
    far = own(1).with_columns(ts_event=pl.lit(datetime(2099, 1, 1, tzinfo=UTC)))
    with pytest.raises(InputError, match="bad_time: ts_event is 2099-01-01"):
        raven.time_bars(far)
