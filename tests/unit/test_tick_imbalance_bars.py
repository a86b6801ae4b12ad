"""Tick imbalance bars: the rule by hand, guards, gaps, parameters, and the figures of a real archive."""

from __future__ import annotations

import itertools
import random

import numpy as np
import polars as pl
import pytest

from raven.bars.tick_imbalance import TickImbalanceKernel
from raven.batches.batch import TradeBatch
from raven.batches.schema import TIB_DTYPES
from raven.batches.sequence import check_sequence
from raven.errors import InputError, in_a_command
from tests.unit.oracles import TickImbalanceOracle, Trade, assert_as_oracle, assert_same_bars
from tests.unit.strategies import (
    VENUE,
    archive_trades,
    batch_of,
    collector_trades,
    frame_of,
    in_batches,
    run,
    run_frames,
)


def trades_of_sides(sides: str, *, first_id: int = 1, step_us: int = 1_000, symbol: str = "BTCUSDT") -> list[Trade]:
    """A trade for each `+` (buy) and `-` (sell)."""
    return [
        Trade(symbol, first_id + at, (first_id + at) * step_us, 10.0, 1.0, 1 if side == "+" else -1)
        for at, side in enumerate(sides)
    ]


def kernel_of(**changes) -> TickImbalanceKernel:
    """T = 4 and B = 0.5 at the start: the first threshold is 2."""
    return TickImbalanceKernel(
        **{"initial_size": 4.0, "initial_p_buy": 0.75, "alpha_size": 0.5, "alpha_imbl": 0.5, "size_min": 1.0, **changes}
    )


def test_the_rule_by_hand():
    state, bars = run(kernel_of(), [batch_of(trades_of_sides("+-+-++---++"))])
    assert dict(bars.schema) == TIB_DTYPES
    assert bars.select(
        "first_trade_id",
        "last_trade_id",
        "theta",
        "threshold",
        "expected_size",
        "expected_imbalance",
        "complete",
        "revision",
    ).rows() == [
        # + - + - + + : theta 2; p = 2/3
        (1, 6, 2.0, 2.0, 4.0, 0.5, False, 12),
        # B = (1/3 + 1/2) / 2, T = (6 + 4) / 2, so the threshold is 2.08 and three sells close it; p = 0
        (7, 9, -3.0, 5 * (0.5 * (2 * (4 / 6) - 1) + 0.5 * 0.5), 5.0, 0.5 * (2 * (4 / 6) - 1) + 0.5 * 0.5, True, 7),
        # B = (-1 + 0.4167) / 2, T = 4: a threshold below zero bounds |theta| all the same
        (
            10,
            11,
            2.0,
            4 * (-0.5 + 0.5 * (0.5 * (2 * (4 / 6) - 1) + 0.25)),
            4.0,
            -0.5 + 0.5 * (0.5 * (2 * (4 / 6) - 1) + 0.25),
            True,
            5,
        ),
    ]
    assert kernel_of().open_bars(state, VENUE).is_empty()


def test_times_of_a_bar_are_its_first_and_last_trade_s():
    trades = trades_of_sides("++")
    _, bars = run(kernel_of(), [batch_of(trades)])
    assert bars.select(pl.col("open_time", "close_time").dt.epoch("us")).row(0) == (1_000, 2_000)


def test_a_trade_that_runs_back_in_time_is_folded_and_counted():
    trades = [*trades_of_sides("+"), Trade("BTCUSDT", 2, -5, 10.0, 1.0, 1)]
    for rows in (1, 2):
        state, bars = run_frames(kernel_of(), in_batches(frame_of(trades), rows))
        assert bars.select(pl.col("open_time", "close_time").dt.epoch("us")).row(0) == (1_000, 1_000)
        assert state.get_column("late_ticks").to_list() == [1]


def test_a_bar_has_at_least_two_trades_even_at_threshold_zero():
    kernel = kernel_of(initial_p_buy=0.5, alpha_imbl=0.0)
    _, bars = run(kernel, [batch_of(trades_of_sides("+-" * 3 + "++"))])
    assert bars.get_column("total_ticks").to_list() == [2, 2, 2, 2]


@pytest.mark.parametrize("batch_rows", [1, 3, 100])
def test_a_gap_closes_the_open_bar_and_teaches_nothing(batch_rows):
    trades = [*trades_of_sides("+-"), *trades_of_sides("-", first_id=7), *trades_of_sides("++++", first_id=9)]
    state, bars = run_frames(kernel_of(), in_batches(frame_of(trades), batch_rows))
    figures = bars.select("first_trade_id", "last_trade_id", "theta", "complete", "expected_size", "expected_imbalance")
    assert figures.rows()[:3] == [
        (1, 2, 0.0, False, 4.0, 0.5),
        (7, 7, -1.0, False, 4.0, 0.5),  # a bar forced by gaps on both sides has one trade
        (9, 10, 2.0, False, 4.0, 0.5),
    ]
    assert bars.get_column("total_ticks").sum() + kernel_of().open_bars(state, VENUE)["total_ticks"].sum() == len(
        trades
    )


def test_a_gap_after_a_closed_bar_leaves_it_complete():
    _, bars = run(kernel_of(), [batch_of([*trades_of_sides("+++++"), *trades_of_sides("+++", first_id=20)])])
    assert bars.select("last_trade_id", "complete").rows()[:2] == [(2, False), (5, True)]
    assert not bars.item(2, "complete")


def test_max_ticks_closes_by_force_and_teaches():
    kernel = kernel_of(max_ticks=6, alpha_imbl=0.0)
    for batch in (1, 3, 50):
        _, bars = run_frames(kernel, in_batches(frame_of(trades_of_sides("+-" * 10)), batch))
        assert bars.get_column("total_ticks").to_list() == [6, 6, 6]
        assert bars.get_column("expected_size").to_list() == [4.0, 5.0, 5.5]
        assert bars.item(1, "complete")


def test_min_imbalance_bounds_b_and_keeps_its_sign():
    kernel = kernel_of(min_imbalance=0.4, initial_p_buy=0.5, alpha_imbl=1.0, max_ticks=4)
    _, bars = run(kernel, [batch_of(trades_of_sides("+-+-" + "-+--" + "+-+-" + "++"))])
    # at first zero: plus; then p = 1/2, zero again: still plus; three sells of four; zero again: still minus
    imbalances = bars.get_column("expected_imbalance").to_list()
    assert imbalances == [0.4, 0.4, -0.5, -0.4]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("initial_size", 0),
        ("initial_size", float("nan")),
        ("initial_size", "100"),
        ("initial_p_buy", 1.01),
        ("alpha_size", -0.1),
        ("alpha_imbl", 2),
        ("size_min", 0),
        ("size_max", 49.9),
        ("size_max", float("inf")),
        ("min_imbalance", 1.5),
        ("min_imbalance", True),
        ("max_ticks", 1),
        ("max_ticks", -5),
        ("max_ticks", 2.5),
        ("max_ticks", True),
    ],
)
def test_a_parameter_out_of_range_is_refused_in_the_words_of_the_interface(name, value):
    with pytest.raises(InputError, match=rf"^{name} must be .*, got {value!r}"):
        TickImbalanceKernel(**{name: value})
    with in_a_command(), pytest.raises(InputError, match=rf"^--{name.replace('_', '-')} must be .*, got {value!r}"):
        TickImbalanceKernel(**{name: value})


def test_the_label_names_every_parameter():
    assert TickImbalanceKernel().spec == "tib-100-0.7-0.1-0.1-50-1000"
    assert TickImbalanceKernel(initial_size=100).spec == TickImbalanceKernel().spec
    assert TickImbalanceKernel(max_ticks=0) == TickImbalanceKernel()
    assert TickImbalanceKernel(min_imbalance=0.01, max_ticks=5000).spec == "tib-100-0.7-0.1-0.1-50-1000-b0.01-n5000"
    values = [
        {name: value}
        for name, choices in {
            "initial_size": (99.5, 1e-5, 1e22),
            "initial_p_buy": (0.1, 1e-5, 0.30000000000000004, 0.3),
            "alpha_size": (0.7, 1e-5),
            "alpha_imbl": (0.7, 1e-5),
            "size_min": (1e-5, 100),
            "size_max": (100, 1e22),
            "min_imbalance": (0.1, 1e-5),
            "max_ticks": (2, 50),
        }.items()
        for value in choices
    ]
    kernels = {
        TickImbalanceKernel(**one, **two) for one, two in itertools.product(values, values) if not one.keys() & two
    }
    assert len({kernel.spec for kernel in kernels}) == len(kernels) > 100
    assert all(kernel.fingerprint == f"tick_imbalance_bars:{kernel.spec}" for kernel in kernels)


def test_a_guard_too_low_to_help_is_warned_of():
    assert TickImbalanceKernel().warning is None
    assert TickImbalanceKernel(min_imbalance=0.1).warning is None
    assert "min_imbalance 0.09 with size_min 50" in TickImbalanceKernel(min_imbalance=0.09).warning


def test_trades_without_ids_make_bars_without_proof():
    trades = frame_of(trades_of_sides("++---")).with_columns(trade_id=pl.lit(None, dtype=pl.Int64))
    for rows in (1, 5):
        _, bars = run_frames(kernel_of(), in_batches(trades, rows))
        assert bars.get_column("total_ticks").to_list() == [2, 3]
        assert bars.get_column("complete").to_list() == [None] * bars.height
        assert bars.get_column("revision").to_list() == (2 * bars.get_column("total_ticks")).to_list()


@pytest.mark.parametrize("seed", range(4))
def test_long_walks_cross_where_the_oracle_says(seed):
    """Bars far longer and far shorter than the search's windows, over several batches."""
    chance = random.Random(seed)
    sides = "".join(
        itertools.chain.from_iterable(
            ("+-" * chance.randrange(1, 400)) if chance.random() < 0.3 else chance.choices("+-", [bias, 1], k=200)
            for bias in (0.2, 1, 5, 1, 1, 0.7)
        )
    )
    parameters = {"initial_size": 300.0, "alpha_size": 0.5, "alpha_imbl": 0.9, "size_max": 600.0, "size_min": 3.0}
    kernel = TickImbalanceKernel(**parameters)
    oracle = TickImbalanceOracle(**parameters)
    trades = trades_of_sides(sides)
    state, bars = run_frames(kernel, in_batches(frame_of(trades), 333))
    assert_as_oracle(bars, oracle.step(trades))
    assert_as_oracle(kernel.open_bars(state, VENUE), oracle.still_open())


def test_the_default_bars_of_the_archive(shared_data):
    trades = archive_trades(shared_data)
    kernel = TickImbalanceKernel()
    state, bars = run_frames(kernel, in_batches(trades, 10_000))
    assert bars.height == 370
    assert bars.get_column("total_ticks").sum() == 102_372
    assert bars.get_column("open_time").n_unique() == 349
    assert bars.get_column("first_trade_id").n_unique() == 370
    assert kernel.open_bars(state, VENUE).get_column("total_ticks").sum() == trades.height - 102_372
    assert bars.get_column("complete").to_list() == [False] + [True] * 369
    crossed = bars.get_column("theta").abs() >= bars.get_column("threshold").abs()
    assert crossed.all()


def test_a_thousand_symbols_are_as_each_alone(shared_data):
    archive = archive_trades(shared_data).head(30_000)
    symbols = [f"S{number}" for number in range(1_000)]
    owners = np.random.default_rng(7).zipf(1.3, archive.height) % len(symbols)
    trades = archive.with_columns(symbol=pl.Series(symbols).gather(owners)).with_columns(
        trade_id=pl.int_range(pl.len()).over("symbol")
    )
    kernel = kernel_of()
    state, together = run_frames(kernel, in_batches(trades, 5_000))
    assert state.height == trades.get_column("symbol").n_unique() > 900
    for symbol in ("S1", "S2", "S3", "S50", "S500"):
        _, alone = run_frames(kernel, [trades.filter(symbol=symbol)])
        assert_same_bars(together.filter(symbol=symbol), alone)


def test_bars_that_touch_a_real_gap_are_incomplete_and_no_others(shared_data):
    trades = pl.concat(collector_trades(shared_data))
    state, last_ids, out = TickImbalanceKernel().initial(), {}, []
    for start in range(0, trades.height, 1_000):
        checked = check_sequence(trades.slice(max(0, start - 300), 1_300), last_ids)
        last_ids = checked.last_ids
        state, bars = TickImbalanceKernel().step(state, TradeBatch(VENUE, checked.accepted))
        out.append(bars)
    bars = pl.concat(out)
    ids = trades.get_column("trade_id").to_list()
    seen = set(ids)
    gaps = [(one, two) for one, two in itertools.pairwise(ids) if two != one + 1]
    forced = 0
    for bar in bars.iter_rows(named=True):
        crossed = abs(bar["theta"]) >= abs(bar["threshold"])
        forced += not crossed
        assert crossed or (bar["last_trade_id"] + 1) not in seen
        assert bar["complete"] == (crossed and (bar["first_trade_id"] - 1) in seen)
        assert not any(bar["first_trade_id"] <= after < before <= bar["last_trade_id"] for after, before in gaps)
    assert len(gaps) == 16
    assert forced > 10
