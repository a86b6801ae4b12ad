"""Tick, volume and dollar bars: the rules by hand, sums that rounding must not move, gaps, parameters, an archive."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raven.bars.sized import SizedBarKernel, first_reaching
from raven.bars.state import restore, snapshot
from raven.batches.schema import TIB_DTYPES
from raven.errors import InputError, in_a_command
from tests.unit.oracles import Trade, assert_same_bars
from tests.unit.strategies import VENUE, archive_trades, batch_of, cut_at, cuts, frame_of, in_batches, run, run_frames


def trades_of(quantities: list[float], *, price: float = 10.0, first_id: int = 1) -> list[Trade]:
    """A trade each, a millisecond apart, bought and sold in turn."""
    return [
        Trade("BTCUSDT", first_id + at, (first_id + at) * 1_000, price, quantity, 1 if at % 2 == 0 else -1)
        for at, quantity in enumerate(quantities)
    ]


def ticks_of(kernel: SizedBarKernel, trades: list[Trade], batch_rows: int = 10**6) -> list[int]:
    _, bars = run_frames(kernel, in_batches(frame_of(trades), batch_rows))
    return bars.get_column("total_ticks").to_list()


@pytest.mark.parametrize("batch_rows", [1, 2, 5, 100])
def test_the_rules_by_hand(batch_rows):
    trades = trades_of([1.0, 2.0, 0.5, 0.5, 9.0, 1.0, 1.0, 1.0])
    assert ticks_of(SizedBarKernel("tick", 3), trades, batch_rows) == [3, 3]
    # 1 + 2 + 0.5 + 0.5 = 4 closes with the trade that reaches it; 9 is never split and a bar alone
    assert ticks_of(SizedBarKernel("volume", 4), trades, batch_rows) == [4, 1]
    assert ticks_of(SizedBarKernel("dollar", 30), trades, batch_rows) == [2, 3, 3]


def test_the_columns_are_those_of_tick_imbalance_bars():
    state, bars = run(SizedBarKernel("volume", 4), [batch_of(trades_of([1.0, 2.0, 0.5, 0.5, 9.0, 1.0]))])
    assert dict(bars.schema) == TIB_DTYPES
    columns = ["spec", "theta", "threshold", "expected_size", "expected_imbalance", "volume", "complete", "revision"]
    assert bars.select(columns).rows() == [
        ("volume-4", 0.0, 4.0, None, None, 4.0, False, 8),
        ("volume-4", 1.0, 4.0, None, None, 9.0, True, 3),
    ]
    assert bars.select(pl.col("open_time", "close_time").dt.epoch("us")).rows() == [(1_000, 4_000), (5_000, 5_000)]
    still_open = SizedBarKernel("volume", 4).open_bars(state, VENUE)
    assert still_open.select("first_trade_id", "volume", "complete").rows() == [(6, 1.0, False)]


@pytest.mark.parametrize("batch_rows", [1, 3, 100])
def test_a_gap_closes_the_open_bar_incomplete_and_the_next_begins_from_nothing(batch_rows):
    trades = [*trades_of([1.0, 1.0]), *trades_of([1.0], first_id=7), *trades_of([1.0] * 5, first_id=9)]
    _, bars = run_frames(SizedBarKernel("volume", 3), in_batches(frame_of(trades), batch_rows))
    assert bars.select("first_trade_id", "last_trade_id", "complete").rows() == [
        (1, 2, False),
        (7, 7, False),
        (9, 11, False),
    ]


def test_a_gap_after_a_closed_bar_leaves_it_complete():
    trades = [*trades_of([1.0] * 4), *trades_of([1.0] * 2, first_id=20)]
    _, bars = run(SizedBarKernel("tick", 2), [batch_of(trades)])
    assert bars.select("last_trade_id", "complete").rows() == [(2, False), (4, True), (21, False)]


def test_rounding_closes_no_bar_late():
    """Ten times 0.1 is less than 1 in floating point, and so is a hundred times less than 10."""
    assert sum([0.1] * 10) < 1
    assert ticks_of(SizedBarKernel("volume", 1), trades_of([0.1] * 35)) == [10, 10, 10]
    assert ticks_of(SizedBarKernel("volume", 10), trades_of([0.1] * 350)) == [100, 100, 100]
    assert ticks_of(SizedBarKernel("dollar", 7), trades_of([0.7] * 30, price=0.1)) == []
    assert ticks_of(SizedBarKernel("dollar", 7), trades_of([0.7] * 300, price=0.1)) == [100, 100, 100]


def tenths() -> st.SearchStrategy[list[int]]:
    """Quantities in tenths: no multiple of a tenth but halves is exact in floating point."""
    return st.lists(st.sampled_from([1, 1, 1, 2, 3, 7, 9, 11, 30]), min_size=1, max_size=150)


@settings(max_examples=150, deadline=None)
@given(data=st.data(), numbers=tenths(), size=st.sampled_from([3, 7, 10, 21, 33]))
def test_bars_of_tenths_are_those_of_exact_numbers_however_cut(data, numbers, size):
    trades = trades_of([number / 10 for number in numbers])
    expected, ticks, reached = [], 0, Fraction(0)
    for number in numbers:
        ticks, reached = ticks + 1, reached + Fraction(number, 10)
        if reached >= Fraction(size, 10):
            expected.append(ticks)
            ticks, reached = 0, Fraction(0)
    kernel = SizedBarKernel("volume", size / 10)
    _, bars = run(kernel, [batch_of(part) for part in cut_at(trades, data.draw(cuts(len(trades))))])
    assert bars.get_column("total_ticks").to_list() == expected


@settings(max_examples=150, deadline=None)
@given(
    data=st.data(),
    quantities=st.lists(st.floats(1e-8, 1e8) | st.sampled_from([0.1, 1e8, 1e-8]), min_size=1, max_size=120),
    size=st.floats(1e-8, 1e8),
)
@pytest.mark.slow
def test_sums_of_any_floats_close_the_same_bars_however_cut_and_resumed(data, quantities, size):
    trades = trades_of(quantities)
    kernel = SizedBarKernel(data.draw(st.sampled_from(["volume", "dollar"])), size)
    whole_state, whole = run(kernel, [batch_of(trades)])
    state, out = kernel.initial(), []
    for part in cut_at(trades, data.draw(cuts(len(trades)))):
        state, bars = kernel.step(restore(kernel, snapshot(kernel, state)), batch_of(part))
        out.append(bars)
    assert_same_bars(pl.concat(out), whole)
    assert state.get_column("reached").to_list() == whole_state.get_column("reached").to_list()


def test_the_sum_is_made_trade_by_trade_over_any_windows():
    amounts = np.random.default_rng(3).random(5_000)
    for size in (0.3, 17.0, 400.0, 1e9):
        reached, row = 0.25, 0
        while row < len(amounts) and reached < size:
            reached += float(amounts[row])
            row += 1
        expected = (row - 1 if reached >= size else len(amounts), reached)
        for window_rows in (1, 32, 10_000):
            found = first_reaching(amounts, 0, len(amounts), base=0.25, bound=size, window_rows=window_rows)
            assert found == expected


@pytest.mark.parametrize(
    ("measure", "size", "allowed"),
    [
        ("tick", 0, "a whole number above 0"),
        ("tick", -5, "a whole number above 0"),
        ("tick", 2.5, "a whole number above 0"),
        ("tick", True, "a finite number"),
        ("tick", float("nan"), "a finite number"),
        ("volume", 0, "above 0"),
        ("volume", -1.5, "above 0"),
        ("volume", float("nan"), "a finite number"),
        ("volume", "10", "a finite number"),
        ("dollar", float("inf"), "a finite number"),
        ("dollar", 0.0, "above 0"),
    ],
)
def test_a_size_out_of_range_is_refused_in_the_words_of_the_interface(measure, size, allowed):
    name = {"tick": "ticks", "volume": "volume", "dollar": "dollars"}[measure]
    with pytest.raises(InputError, match=rf"^{name} must be {allowed}, got {size!r}"):
        SizedBarKernel(measure, size)
    with in_a_command(), pytest.raises(InputError, match=rf"^--{measure}-bars must be {allowed}, got {size!r}"):
        SizedBarKernel(measure, size)


def test_labels_are_short_and_differ():
    assert SizedBarKernel("tick", 500).spec == "tick-500"
    assert SizedBarKernel("volume", 10.0).spec == "volume-10"
    assert SizedBarKernel("volume", 0.25).spec == "volume-0.25"
    assert SizedBarKernel("dollar", 1_000_000).spec == "dollar-1000000"
    assert SizedBarKernel("volume", 10).fingerprint != SizedBarKernel("dollar", 10).fingerprint
    assert SizedBarKernel("tick", 500) == SizedBarKernel("tick", 500.0)


def test_trades_without_ids_make_bars_without_proof():
    trades = frame_of(trades_of([1.0] * 5)).with_columns(trade_id=pl.lit(None, dtype=pl.Int64))
    _, bars = run_frames(SizedBarKernel("tick", 2), in_batches(trades, 3))
    assert bars.select("total_ticks", "complete", "first_trade_id", "revision").rows() == [(2, None, None, 4)] * 2


@pytest.mark.parametrize(
    ("kernel", "count"),
    [
        (SizedBarKernel("tick", 1_000), 102),
        (SizedBarKernel("volume", 50), None),
        (SizedBarKernel("dollar", 250_000), None),
    ],
    ids=lambda value: getattr(value, "spec", ""),
)
def test_the_bars_of_the_archive(kernel, count, shared_data):
    """Every bar reaches its size with its last trade and not before."""
    trades = archive_trades(shared_data)
    state, bars = run_frames(kernel, in_batches(trades, 10_000))
    assert bars.get_column("complete").to_list() == [False] + [True] * (bars.height - 1)
    assert count is None or bars.height == count
    figure = {"tick": "total_ticks", "volume": "volume", "dollar": "quote_volume"}[kernel.measure]
    amount = {"tick": pl.lit(1.0), "volume": pl.col("quantity"), "dollar": pl.col("price") * pl.col("quantity")}
    last = trades.select(last_trade_id="trade_id", last_amount=amount[kernel.measure])
    checked = bars.join(last, on="last_trade_id", how="left", maintain_order="left")
    assert (checked[figure] >= kernel.size * (1 - 1e-11)).all()
    assert (checked[figure] - checked["last_amount"] < kernel.size).all()
    assert bars.get_column("first_trade_id")[1:].to_list() == (bars.get_column("last_trade_id")[:-1] + 1).to_list()
    rest = kernel.open_bars(state, VENUE)
    assert rest.get_column(figure).item() < kernel.size
    assert bars.get_column("total_ticks").sum() + rest.get_column("total_ticks").sum() == trades.height
    assert bars.get_column("volume").sum() + rest.get_column("volume").sum() == pytest.approx(trades["quantity"].sum())


def test_a_thousand_symbols_are_as_each_alone(shared_data):
    archive = archive_trades(shared_data).head(30_000)
    symbols = [f"S{number}" for number in range(1_000)]
    owners = np.random.default_rng(7).zipf(1.3, archive.height) % len(symbols)
    trades = archive.with_columns(symbol=pl.Series(symbols).gather(owners)).with_columns(
        trade_id=pl.int_range(pl.len()).over("symbol")
    )
    kernel = SizedBarKernel("volume", 2)
    state, together = run_frames(kernel, in_batches(trades, 5_000))
    assert state.height == trades.get_column("symbol").n_unique() > 900
    for symbol in ("S1", "S2", "S3", "S50", "S500"):
        alone_state, alone = run_frames(kernel, [trades.filter(symbol=symbol)])
        assert_same_bars(together.filter(symbol=symbol), alone)
        assert state.filter(symbol=symbol)["reached"].equals(alone_state["reached"])
