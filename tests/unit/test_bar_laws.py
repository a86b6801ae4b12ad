"""The laws every bar type keeps, over drawn streams and real ones."""

from __future__ import annotations

import itertools

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raven.bars.kernel import Kernel
from raven.bars.sized import SizedBarKernel
from raven.bars.state import restore, snapshot
from raven.bars.tick_imbalance import TickImbalanceKernel
from raven.bars.time_bars import TimeBarKernel
from raven.batches.batch import TradeBatch
from raven.batches.schema import polars_schema
from raven.errors import InputError, StateError
from tests.unit.oracles import (
    ClosedByTradesOracle,
    SizedOracle,
    TickImbalanceOracle,
    TimeBarOracle,
    assert_as_oracle,
    assert_same_bars,
)
from tests.unit.strategies import (
    START_US,
    SYMBOLS,
    VENUE,
    archive_trades,
    batch_of,
    collector_trades,
    cut_at,
    cuts,
    frame_of,
    in_batches,
    run,
    run_frames,
    trade_streams,
    trades_of,
)

SMALL_TIB = {"initial_size": 5.0, "alpha_size": 0.3, "alpha_imbl": 0.3, "size_min": 2.0, "size_max": 9.0}
KERNELS = [
    TimeBarKernel(1_000_000),
    TickImbalanceKernel(**SMALL_TIB),
    TickImbalanceKernel(**SMALL_TIB, min_imbalance=0.3, max_ticks=7),
    SizedBarKernel("tick", 1),
    SizedBarKernel("tick", 4),
    SizedBarKernel("volume", 1.5),
    SizedBarKernel("dollar", 90),
]
REAL_KERNELS = [
    TimeBarKernel(60_000_000),
    TickImbalanceKernel(),
    SizedBarKernel("tick", 250),
    SizedBarKernel("volume", 20),
    SizedBarKernel("dollar", 100_000),
]


def label(value: object) -> str | None:
    return value.spec if isinstance(value, TimeBarKernel | TickImbalanceKernel | SizedBarKernel) else None


each_kernel = pytest.mark.parametrize("kernel", KERNELS, ids=label)
each_real_kernel = pytest.mark.parametrize("kernel", REAL_KERNELS, ids=label)
few = settings(max_examples=30, deadline=None)


def oracle_of(kernel: Kernel) -> TimeBarOracle | ClosedByTradesOracle:
    if isinstance(kernel, TimeBarKernel):
        return TimeBarOracle(kernel.every_us, kernel.allowed_lateness_us)
    if isinstance(kernel, SizedBarKernel):
        return SizedOracle(kernel.measure, kernel.size)
    names = [*SMALL_TIB, "initial_p_buy", "min_imbalance", "max_ticks"]
    return TickImbalanceOracle(**{name: getattr(kernel, name) for name in names})


def by_symbol(bars: pl.DataFrame) -> pl.DataFrame:
    return bars.sort("symbol", maintain_order=True)


@each_kernel
@few
@given(data=st.data(), ids=st.booleans())
def test_bars_are_those_of_the_oracle(kernel, data, ids):
    trades = data.draw(trade_streams(ids=ids))
    oracle = oracle_of(kernel)
    state, bars = run(kernel, [batch_of(part) for part in cut_at(trades, data.draw(cuts(len(trades))))])
    assert_as_oracle(bars, oracle.step(trades))
    assert_as_oracle(kernel.open_bars(state, VENUE), oracle.still_open())
    assert dict(bars.schema) == polars_schema(kernel.schema)


@each_kernel
@few
@given(data=st.data())
def test_cutting_a_stream_changes_no_bar(kernel, data):
    trades = data.draw(trade_streams())
    whole_state, whole = run(kernel, [batch_of(trades)])
    cut_state, cut = run(kernel, [batch_of(part) for part in cut_at(trades, data.draw(cuts(len(trades))))])
    assert_same_bars(by_symbol(cut), by_symbol(whole))
    assert_same_bars(kernel.open_bars(cut_state, VENUE), kernel.open_bars(whole_state, VENUE))


@each_kernel
@few
@given(data=st.data())
def test_a_restored_snapshot_goes_on_as_if_uninterrupted(kernel, data):
    trades = data.draw(trade_streams())
    batches = [batch_of(part, START_US) for part in cut_at(trades, data.draw(cuts(len(trades))))]
    state, bars = run(kernel, batches)
    stop = data.draw(st.integers(0, len(batches)))
    resumed, before = run(kernel, batches[:stop])
    resumed = restore(kernel, snapshot(kernel, resumed))
    after = [before]
    for batch in batches[stop:]:
        resumed, more = kernel.step(resumed, batch)
        after.append(more)
    assert pl.concat(after).equals(bars)
    assert resumed.equals(state)


@each_kernel
@few
@given(data=st.data())
def test_every_trade_is_in_one_bar(kernel, data):
    trades = data.draw(trade_streams())
    state, closed = run(kernel, [batch_of(part) for part in cut_at(trades, data.draw(cuts(len(trades))))])
    bars = pl.concat([closed, kernel.open_bars(state, VENUE)])
    assert bars.get_column("total_ticks").sum() == len(trades)
    assert bars.get_column("volume").sum() == pytest.approx(sum(trade.quantity for trade in trades), rel=1e-12)
    ids = bars.select("symbol", "first_trade_id", "last_trade_id").sort("symbol", "first_trade_id").rows()
    for (symbol, _, last_id), (next_symbol, first_id, _) in itertools.pairwise(ids):
        assert symbol != next_symbol or last_id < first_id


@each_kernel
@few
@given(data=st.data())
def test_symbols_together_are_as_each_alone(kernel, data):
    trades = data.draw(trade_streams())
    state, together = run(kernel, [batch_of(part) for part in cut_at(trades, data.draw(cuts(len(trades))))])
    for symbol in {trade.symbol for trade in trades}:
        alone_state, alone = run(kernel, [batch_of([trade for trade in trades if trade.symbol == symbol])])
        assert_same_bars(together.filter(symbol=symbol), alone)
        assert_same_bars(kernel.open_bars(state, VENUE).filter(symbol=symbol), kernel.open_bars(alone_state, VENUE))


def closed_by_rule(kernel: Kernel, bar: dict) -> bool:
    if isinstance(kernel, SizedBarKernel):
        figure = {"tick": "total_ticks", "volume": "volume", "dollar": "quote_volume"}[kernel.measure]
        return bar[figure] >= bar["threshold"] * (1 - 1e-11)
    return bar["total_ticks"] >= 2 and abs(bar["theta"]) >= abs(bar["threshold"])


def draw_watermarked(data: st.DataObject) -> tuple[list, list[TradeBatch], list[dict]]:
    """A cut stream with watermarks and held symbols put in anywhere; the arguments of each step too."""
    trades = data.draw(trade_streams())
    parts = cut_at(trades, data.draw(cuts(len(trades))))
    offsets = st.none() | st.integers(-3_000_000, 120_000_000)
    steps = []
    for part in parts:
        offset = data.draw(offsets)
        held = data.draw(st.sets(st.sampled_from(SYMBOLS), max_size=2))
        steps.append({"trades": part, "watermark_us": None if offset is None else START_US + offset, "held": held})
    return trades, [batch_of(**step) for step in steps], steps


@few
@given(data=st.data())
def test_watermarked_time_bars_are_those_of_the_oracle(data):
    kernel = KERNELS[0]
    oracle = oracle_of(kernel)
    _, batches, steps = draw_watermarked(data)
    state = kernel.initial()
    for batch, step in zip(batches, steps, strict=True):
        state, bars = kernel.step(state, batch)
        assert_as_oracle(bars, oracle.step(**step))


@few
@given(data=st.data())
def test_watermarks_only_add_lower_revisions_of_time_bars(data):
    kernel = KERNELS[0]
    trades, batches, _ = draw_watermarked(data)
    state, bars = run(kernel, batches)
    for _, revisions in bars.group_by("symbol", "open_time", maintain_order=True):
        numbers = revisions.get_column("revision").to_list()
        assert numbers == sorted(set(numbers))
    plain_state, plain = run(kernel, [batch_of(trades)])
    last = bars.unique(["symbol", "open_time"], keep="last", maintain_order=True)
    closed = last.join(plain, on=["symbol", "open_time"], how="semi").sort("symbol", "open_time")
    assert_same_bars(closed, plain.sort("symbol", "open_time"))
    early = last.join(plain, on=["symbol", "open_time"], how="anti")
    assert early.join(kernel.open_bars(plain_state, VENUE), on=["symbol", "open_time"], how="anti").is_empty()
    assert_same_bars(kernel.open_bars(state, VENUE), kernel.open_bars(plain_state, VENUE))


@pytest.mark.parametrize("kernel", KERNELS[1:], ids=label)
@few
@given(data=st.data())
def test_watermarks_do_nothing_to_bars_that_trades_close(kernel, data):
    trades, batches, _ = draw_watermarked(data)
    _, bars = run(kernel, batches)
    _, plain = run(kernel, [batch_of(trades)])
    assert_same_bars(by_symbol(bars), by_symbol(plain))


@few
@given(data=st.data())
def test_exactly_the_time_bars_that_touch_a_gap_are_incomplete(data):
    kernel = KERNELS[0]
    trades = data.draw(trade_streams())
    _, bars = run(kernel, [batch_of(part) for part in cut_at(trades, data.draw(cuts(len(trades))))])
    seen = {(trade.symbol, trade.trade_id) for trade in trades}
    for bar in bars.iter_rows(named=True):
        reach = range(bar["first_trade_id"] - 1, bar["last_trade_id"] + 2)
        assert bar["complete"] == all((bar["symbol"], trade_id) in seen for trade_id in reach)


@pytest.mark.parametrize("kernel", [KERNELS[1], *KERNELS[3:]], ids=label)
@few
@given(data=st.data())
def test_exactly_the_bars_that_trades_close_and_a_gap_touches_are_incomplete(kernel, data):
    trades = data.draw(trade_streams())
    _, bars = run(kernel, [batch_of(part) for part in cut_at(trades, data.draw(cuts(len(trades))))])
    seen = {(trade.symbol, trade.trade_id) for trade in trades}
    for bar in bars.iter_rows(named=True):
        crossed = closed_by_rule(kernel, bar)
        assert bar["complete"] == (crossed and (bar["symbol"], bar["first_trade_id"] - 1) in seen)
        assert crossed or (bar["symbol"], bar["last_trade_id"] + 1) not in seen
        assert bar["last_trade_id"] - bar["first_trade_id"] + 1 == bar["total_ticks"]


@each_kernel
@given(trades=trade_streams(max_trades=20))
@settings(max_examples=25, deadline=None)
def test_a_step_leaves_its_arguments_alone(kernel, trades):
    state, _ = run(kernel, [batch_of(trades[:10])])
    batch = batch_of(trades[10:], START_US + 10**9)
    state_before, trades_before = state.clone(), batch.trades.clone()
    first = kernel.step(state, batch)
    second = kernel.step(state, batch)
    assert state.equals(state_before)
    assert batch.trades.equals(trades_before)
    assert first[0].equals(second[0])
    assert first[1].equals(second[1])


@each_real_kernel
@pytest.mark.parametrize(("batch_rows", "rows"), [(1, 1_500), (7, 7_000), (1_000, None), (100_000, None)])
@pytest.mark.slow
def test_an_archive_cut_into_batches_gives_the_same_bars(kernel, batch_rows, rows, shared_data):
    trades = archive_trades(shared_data).head(rows or 10**9)
    whole_state, whole = run_frames(kernel, [trades])
    state, bars = run_frames(kernel, in_batches(trades, batch_rows))
    assert bars.height > 1
    assert_same_bars(bars, whole)
    assert_same_bars(kernel.open_bars(state, VENUE), kernel.open_bars(whole_state, VENUE))


@each_real_kernel
def test_recordings_give_the_bars_of_the_oracle(kernel, shared_data):
    trades = pl.concat(
        [archive_trades(shared_data).head(20_000), *[frame.head(4_000) for frame in collector_trades(shared_data)]]
    ).sort("ts_event", maintain_order=True)
    oracle = oracle_of(kernel)
    state, bars = run_frames(kernel, in_batches(trades, 3_000))
    assert_as_oracle(bars, oracle.step(trades_of(trades)))
    assert_as_oracle(kernel.open_bars(state, VENUE), oracle.still_open())


@each_kernel
def test_a_saved_state_refuses_other_parameters_versions_and_damage(kernel, monkeypatch):
    state, _ = run(kernel, [batch_of(trades_of(frame_of([])))])
    data = snapshot(kernel, state)
    assert restore(kernel, data).equals(state)
    other = TimeBarKernel(2_000_000)
    with pytest.raises(StateError, match=r"belongs to .*, not to time_bars:2s"):
        restore(other, data)
    for damaged in (b"", data[:3], data[:-1], data[: len(data) // 2], data[:40] + b"\x7f" + data[41:], b"x" + data):
        with pytest.raises(StateError, match="damaged"):
            restore(kernel, damaged)
    monkeypatch.setattr("raven.bars.state.STATE_VERSION", "0")
    older = snapshot(kernel, state)
    monkeypatch.undo()
    with pytest.raises(StateError, match="format version 0, this Raven reads 1") as caught:
        restore(kernel, older)
    assert caught.value.hint


def test_a_saved_state_with_other_columns_is_refused():
    kernel = KERNELS[0]
    with pytest.raises(StateError, match="other columns"):
        restore(kernel, snapshot(kernel, kernel.initial().drop("emitted_ticks")))


def test_lateness_does_not_bind_a_saved_state():
    state, _ = run(KERNELS[0], [batch_of([])])
    data = snapshot(KERNELS[0], state)
    assert restore(TimeBarKernel(1_000_000, allowed_lateness_us=0), data).equals(state)


@each_kernel
def test_unfit_frames_are_refused_by_name(kernel, shared_data):
    trades = archive_trades(shared_data).head(10)
    state = kernel.initial()
    for frame, says in (
        (trades.drop("side"), "no column side"),
        (trades.with_columns(pl.col("ts_event").cast(pl.Datetime("ms", "UTC"))), "column ts_event"),
        (trades.with_columns(pl.col("price").cast(pl.String)), "column price"),
        (trades.with_columns(price=pl.when(pl.col("trade_id") % 2 == 0).then("price")), "column price .* nulls"),
        (trades.with_columns(trade_id=pl.when(pl.col("trade_id") % 2 == 0).then("trade_id")), "trade_id .* nulls"),
    ):
        with pytest.raises(InputError, match=says):
            kernel.step(state, TradeBatch(VENUE, frame))
    state, _ = kernel.step(state, TradeBatch(VENUE, trades))
    without = trades.with_columns(trade_id=pl.lit(None, dtype=pl.Int64))
    with pytest.raises(InputError, match="partly with and partly without"):
        kernel.step(state, TradeBatch(VENUE, without))
