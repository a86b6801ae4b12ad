"""Time bars: their windows, what proves them, what a watermark reveals, and the exchange's own figures."""

from __future__ import annotations

import itertools
from datetime import UTC, datetime, timedelta

import polars as pl
import pytest

from raven.bars.time_bars import TimeBarKernel, parse_every
from raven.batches.batch import TradeBatch
from raven.batches.schema import TIME_BAR_DTYPES
from raven.batches.sequence import check_sequence
from raven.errors import InputError
from tests.unit.oracles import Trade, assert_same_bars
from tests.unit.strategies import (
    VENUE,
    archive_trades,
    batch_of,
    collector_trades,
    frame_of,
    in_batches,
    official_hours,
    run,
    run_frames,
)

MINUTE_US = 60_000_000
MINUTE = TimeBarKernel(MINUTE_US)


def trade(trade_id: int | None, seconds: float, price: float = 10.0, side: int = 1, symbol: str = "BTCUSDT") -> Trade:
    return Trade(symbol, trade_id, round(seconds * 1_000_000), price, 2.0, side)


@pytest.mark.parametrize(
    ("every", "every_us", "spec"),
    [
        ("1m", 60_000_000, "1m"),
        ("60s", 60_000_000, "1m"),
        (60, 60_000_000, "1m"),
        ("90s", 90_000_000, "90s"),
        ("1s", 1_000_000, "1s"),
        ("500ms", 500_000, "500ms"),
        ("5m", 300_000_000, "5m"),
        (3600, 3_600_000_000, "1h"),
        (timedelta(days=1), 86_400_000_000, "1d"),
        (timedelta(milliseconds=1500), 1_500_000, "1500ms"),
        ("36h", 129_600_000_000, "36h"),
        ("366d", 366 * 86_400_000_000, "366d"),
    ],
)
def test_a_length_is_read_and_named(every, every_us, spec):
    assert parse_every(every) == every_us
    kernel = TimeBarKernel(every_us)
    assert kernel.spec == spec
    assert kernel.fingerprint == f"time_bars:{spec}"
    assert parse_every(kernel.spec) == every_us


@pytest.mark.parametrize(
    "every",
    ["", "1w", "1 m", "m", "-1m", "1.5m", "٣m", "0s", 0, -60, True, 1.5, None, timedelta(microseconds=1500), "367d"],
)
def test_a_length_no_bar_can_have_is_refused(every):
    with pytest.raises(InputError) as caught:
        parse_every(every)
    assert caught.value.hint


def test_kernel_parameters_are_checked():
    for every_us in (0, 999, 1_500, 367 * 86_400_000_000):
        with pytest.raises(InputError):
            TimeBarKernel(every_us)
    with pytest.raises(InputError):
        TimeBarKernel(MINUTE_US, allowed_lateness_us=-1)


def test_figures_of_one_bar():
    trades = [
        trade(6, 59.9),
        trade(7, 60, 10.0, 1),
        trade(8, 61, 12.0, -1),
        trade(9, 119.999999, 11.0, 1),
        trade(10, 120),
    ]
    _, bars = run(MINUTE, [batch_of(trades)])
    assert dict(bars.schema) == TIME_BAR_DTYPES
    assert bars.get_column("complete").to_list() == [False, True]
    assert bars.row(1, named=True) == {
        "venue": VENUE,
        "symbol": "BTCUSDT",
        "spec": "1m",
        "open_time": datetime(1970, 1, 1, 0, 1, tzinfo=UTC),
        "close_time": datetime(1970, 1, 1, 0, 2, tzinfo=UTC),
        "open": 10.0,
        "high": 12.0,
        "low": 10.0,
        "close": 11.0,
        "volume": 6.0,
        "quote_volume": 66.0,
        "vwap": 11.0,
        "buy_volume": 4.0,
        "buy_quote_volume": 42.0,
        "buy_ticks": 2,
        "sell_ticks": 1,
        "total_ticks": 3,
        "first_trade_id": 7,
        "last_trade_id": 9,
        "complete": True,
        "revision": 7,
    }


def test_windows_before_the_epoch_are_aligned_too():
    _, bars = run(MINUTE, [batch_of([trade(1, -60.5), trade(2, -59.5), trade(3, 0)])])
    opens = bars.get_column("open_time").dt.epoch("s").to_list()
    assert opens == [-120, -60]


def test_a_bar_of_zero_quantity_takes_its_close_for_vwap():
    trades = [Trade("BTCUSDT", 1, 0, 5.0, 0.0, 1), trade(2, 60)]
    _, bars = run(MINUTE, [batch_of(trades)])
    assert bars.item(0, "vwap") == 5.0


@pytest.mark.parametrize(
    ("ids", "complete"),
    [
        ([1, 2, 3, 4], [False, True]),
        ([1, 3, 4, 5], [False, False]),  # the trade before the second bar is missing
        ([1, 2, 4, 5], [False, False]),  # one inside it
        ([1, 2, 3, 5], [False, False]),  # the one after it
        ([None] * 4, [None, None]),
    ],
)
@pytest.mark.parametrize("batch_rows", [1, 2, 4])
def test_complete_only_when_ids_prove_it(ids, complete, batch_rows):
    trades = [trade(*row) for row in zip(ids, (0, 60, 70, 120), strict=True)]
    _, bars = run_frames(MINUTE, in_batches(frame_of(trades), batch_rows))
    assert bars.get_column("complete").to_list() == complete
    assert bars.get_column("revision").to_list() == [2 + bool(complete[0]), 4 + bool(complete[1])]
    assert bars.get_column("first_trade_id").to_list() == ids[:2]


def test_a_column_of_null_type_stands_for_no_ids():
    trades = frame_of([trade(None, 0), trade(None, 60)]).with_columns(trade_id=pl.lit(None))
    _, bars = run_frames(MINUTE, [trades])
    assert bars.get_column("last_trade_id").to_list() == [None]


@pytest.mark.parametrize("batch_rows", [1, 4])
def test_late_trades_fold_at_the_running_maximum_and_are_counted(batch_rows):
    trades = [trade(1, 50), trade(2, 61), trade(3, 59), trade(4, 60.5), trade(5, 120)]
    state, bars = run_frames(MINUTE, in_batches(frame_of(trades), batch_rows))
    assert bars.get_column("total_ticks").to_list() == [1, 3]
    assert bars.get_column("complete").to_list() == [False, True]
    assert state.get_column("late_ticks").to_list() == [2]


def test_a_quiet_bar_is_sent_incomplete_then_proven():
    state, bars = run(MINUTE, [batch_of([trade(1, 0), trade(2, 60)])])
    assert bars.height == 1
    end_us = 120 * 1_000_000
    state, bars = MINUTE.step(state, batch_of([], end_us + 1_999_999))
    assert bars.is_empty()
    state, bars = MINUTE.step(state, batch_of([], end_us + 2_000_000))
    assert bars.select("revision", "complete").rows() == [(2, False)]
    state, bars = MINUTE.step(state, batch_of([], end_us + 9_000_000))
    assert bars.is_empty()
    state, bars = MINUTE.step(state, batch_of([trade(3, 119)], end_us + 9_000_000))
    assert bars.select("revision", "complete").rows() == [(4, False)]
    state, bars = MINUTE.step(state, batch_of([trade(4, 300)]))
    assert bars.select("revision", "complete").rows() == [(5, True)]


def test_a_sent_bar_that_cannot_be_proven_is_not_sent_again():
    state, _ = run(MINUTE, [batch_of([trade(1, 0)], 10**9)])
    state, bars = MINUTE.step(state, batch_of([trade(2, 300)]))
    assert bars.is_empty()


def test_a_held_symbol_waits_for_its_own_watermark():
    trades = [trade(1, 0), trade(1, 0, symbol="ETHUSDT")]
    state, bars = run(MINUTE, [batch_of(trades, 10**9, held=["BTCUSDT"])])
    assert bars.get_column("symbol").to_list() == ["ETHUSDT"]
    _, bars = MINUTE.step(state, batch_of([], 10**9))
    assert bars.get_column("symbol").to_list() == ["BTCUSDT"]


def test_an_empty_batch_without_a_watermark_changes_nothing():
    state, _ = run(MINUTE, [batch_of([trade(1, 0)])])
    after, bars = MINUTE.step(state, batch_of([]))
    assert after.equals(state)
    assert dict(bars.schema) == TIME_BAR_DTYPES
    _, bars = MINUTE.step(MINUTE.initial(), batch_of([], 10**18))
    assert bars.is_empty()


def test_bars_come_by_close_time_then_symbol_as_first_seen():
    trades = [trade(1, 0, symbol="B"), trade(1, 70, symbol="A"), trade(2, 70, symbol="B")]
    trades += [trade(2, 130, symbol="A"), trade(3, 130, symbol="B")]
    _, bars = run(MINUTE, [batch_of(trades)])
    assert bars.select(pl.col("close_time").dt.epoch("s"), "symbol").rows() == [(60, "B"), (120, "B"), (120, "A")]


def test_rolled_up_minutes_equal_the_official_hours(shared_data):
    trades = archive_trades(shared_data)
    state, closed = run_frames(MINUTE, in_batches(trades, 1_000))
    minutes = pl.concat([closed, MINUTE.open_bars(state, VENUE)])
    assert minutes.get_column("total_ticks").sum() == trades.height
    hours = minutes.group_by_dynamic("open_time", every="1h").agg(
        pl.col("open").first(),
        pl.col("high").max(),
        pl.col("low").min(),
        pl.col("close").last(),
        pl.col("volume", "quote_volume", "total_ticks", "buy_volume", "buy_quote_volume").sum(),
    )
    official = official_hours(shared_data)
    assert hours.height == len(official) == 12
    for hour, kline in zip(hours.iter_rows(named=True), official, strict=True):
        assert hour["open_time"].timestamp() * 1000 == kline[0]
        names = ("open", "high", "low", "close", "volume")
        assert [f"{hour[name]:.8f}" for name in names] == kline[1:6]
        assert f"{hour['quote_volume']:.8f}" == kline[7]
        assert hour["total_ticks"] == kline[8]
        assert f"{hour['buy_volume']:.8f}" == kline[9]
        assert f"{hour['buy_quote_volume']:.8f}" == kline[10]


def test_every_bar_of_a_contiguous_archive_but_the_first_is_complete(shared_data):
    _, bars = run_frames(MINUTE, in_batches(archive_trades(shared_data), 1_000))
    assert bars.get_column("complete").to_list() == [False] + [True] * (bars.height - 1)


@pytest.mark.parametrize("every", ["1s", "1m", "1h"])
def test_the_fold_gives_what_group_by_dynamic_gives(every, shared_data):
    trades = pl.concat([archive_trades(shared_data), *collector_trades(shared_data)]).with_columns(
        pl.col("ts_event").cum_max().over("symbol")
    )
    buys = pl.col("side") == 1
    quote = pl.col("price") * pl.col("quantity")
    expected = (
        trades.sort("symbol", maintain_order=True)
        .group_by_dynamic("ts_event", every=every, group_by="symbol")
        .agg(
            open=pl.col("price").first(),
            high=pl.col("price").max(),
            low=pl.col("price").min(),
            close=pl.col("price").last(),
            volume=pl.col("quantity").sum(),
            quote_volume=quote.sum(),
            vwap=quote.sum() / pl.col("quantity").sum(),
            buy_volume=pl.col("quantity").filter(buys).sum(),
            buy_quote_volume=quote.filter(buys).sum(),
            buy_ticks=buys.sum().cast(pl.Int64),
            total_ticks=pl.len().cast(pl.Int64),
            first_trade_id=pl.col("trade_id").first(),
            last_trade_id=pl.col("trade_id").last(),
        )
        .rename({"ts_event": "open_time"})
    )
    kernel = TimeBarKernel(parse_every(every))
    state, closed = run_frames(kernel, in_batches(trades, 10_000))
    bars = pl.concat([closed, kernel.open_bars(state, VENUE)]).sort("symbol", "open_time")
    assert_same_bars(bars.select(expected.columns), expected)


def test_bars_that_touch_a_real_gap_are_incomplete_and_no_others(shared_data):
    trades = pl.concat(collector_trades(shared_data))
    # every batch brings the end of the one before again
    batches = [trades.slice(max(0, start - 300), 1_300) for start in range(0, trades.height, 1_000)]
    state, last_ids, duplicates, gaps, out = MINUTE.initial(), {}, 0, [], []
    for rows in batches:
        checked = check_sequence(rows, last_ids)
        last_ids = checked.last_ids
        duplicates += checked.duplicates
        gaps += checked.gaps
        state, bars = MINUTE.step(state, TradeBatch(VENUE, checked.accepted))
        out.append(bars)
    bars = pl.concat(out)

    seen = trades.select("trade_id", pl.col("ts_event").dt.epoch("us") // MINUTE_US).rows()
    jumps = [(one, two) for one, two in itertools.pairwise(seen) if two[0] != one[0] + 1]
    assert [(gap.after_id, gap.before_id) for gap in gaps] == [(one[0], two[0]) for one, two in jumps]
    assert len(gaps) == 16
    assert duplicates == sum(rows.height for rows in batches) - trades.height > 10_000
    touched = {seen[0][1]} | {minute for jump in jumps for _, minute in jump}
    for bar in bars.iter_rows(named=True):
        minute = int(bar["open_time"].timestamp()) // 60
        assert bar["complete"] == (minute not in touched)
    assert bars.get_column("total_ticks").sum() + MINUTE.open_bars(state, VENUE).item(0, "total_ticks") == trades.height
