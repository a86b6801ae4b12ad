"""kill -9 in the middle of a run: the stores end up equal to those of an undisturbed run."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest
from polars.testing import assert_frame_equal

import raven
from raven.batches.schema import ORIGIN_REST
from raven.journal import JournalReader
from tests.e2e.cluster import Cluster, cluster, wait_until
from tests.e2e.conftest import ARCHIVE, TRADES, Tables, collect, tables, until_stored

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]


def restart(run: Cluster, name: str) -> None:
    run.kill(name)
    run.start(name)


def test_aggregators_and_sinks_killed_in_the_middle(tmp_path: Path, shared_data: Path, undisturbed: Tables) -> None:
    with cluster(tmp_path, RAVEN__CHECKPOINT_S="0.5") as run:
        run.simulate("--play", str(shared_data / ARCHIVE), "--rate", "2500")
        run.start()
        collect(run)
        for name, rows in (
            ("raven_timebar", 10_000), ("raven_tibs", 25_000), ("tick_persistence", 40_000),
            ("bar_persistence", 55_000), ("raven_timebar", 70_000), ("raven_tibs", 75_000),
        ):  # fmt: skip
            wait_until(lambda rows=rows: run.counter("binance_spot", "rows") >= rows, 60, f"{rows} rows received")
            assert run.counter("binance_spot", "rows") < TRADES, "the kill must come in the middle"
            restart(run, name)
        until_stored(run)
        disturbed = tables(run)
    assert_frame_equal(disturbed.trades, undisturbed.trades)
    assert_frame_equal(disturbed.time_bars, undisturbed.time_bars, rel_tol=1e-12)
    assert_frame_equal(disturbed.tibs, undisturbed.tibs, rel_tol=1e-12)


def test_source_killed_in_the_middle(tmp_path: Path, shared_data: Path, undisturbed: Tables) -> None:
    with cluster(tmp_path) as run:
        run.simulate("--play", str(shared_data / ARCHIVE), "--rate", "6000")
        run.start()
        collect(run)
        wait_until(lambda: run.counter("binance_spot", "rows") >= 30_000, 60, "30,000 rows received")
        run.kill("binance_spot")
        folder = run.data / f"binance_spot-{run.ports['binance_spot']}"
        journaled = [entry.meta.sequence for entry in JournalReader(folder).entries()]
        run.start("binance_spot")
        until_stored(run)
        disturbed = tables(run)
        status = run.status("binance_spot")
    entries = list(JournalReader(folder).entries())
    assert [entry.meta.sequence for entry in entries][: len(journaled)] == journaled, "what was journaled is intact"
    assert not any(entry.meta.gaps for entry in entries)
    recorded = pl.concat(raven.replay(folder))
    assert recorded.get_column("trade_id").to_list() == disturbed.trades.get_column("trade_id").to_list()

    healed = recorded.filter(pl.col("origin") == ORIGIN_REST).height
    assert 0 < healed == status.counters["healed_rows"], "what was traded while it was down is fetched"
    assert status.subscriptions[0].gaps == 0
    assert_frame_equal(disturbed.trades.drop("origin"), undisturbed.trades.drop("origin"))
    assert_frame_equal(disturbed.time_bars, undisturbed.time_bars, rel_tol=1e-12)
    assert_frame_equal(disturbed.tibs, undisturbed.tibs, rel_tol=1e-12)


def test_source_down_for_too_long_leaves_one_gap_and_bars_that_say_so(tmp_path: Path, shared_data: Path) -> None:
    with cluster(tmp_path, RAVEN__BINANCE_SPOT__HOLD_MAX_S="0") as run:
        run.simulate("--play", str(shared_data / ARCHIVE), "--rate", "6000")
        run.start()
        collect(run)
        wait_until(lambda: run.counter("binance_spot", "rows") >= 30_000, 60, "30,000 rows received")
        restart(run, "binance_spot")
        last_id = 109_344_068 + TRADES - 1
        wait_until(lambda: run.table("trades").get_column("trade_id").max() == last_id, 90, "the last trade is stored")
        wait_until(
            lambda: run.table("time_bars").get_column("last_trade_id").max() == last_id, 30, "the last bar is stored"
        )
        trades, bars = run.table("trades").sort("trade_id"), run.table("time_bars").sort("open_time")
        folder = run.data / f"binance_spot-{run.ports['binance_spot']}"
        gaps = [gap for entry in JournalReader(folder).entries() for gap in entry.meta.gaps]
        status = run.status("binance_spot")
    ids = trades.get_column("trade_id")
    jumps = trades.select(after=pl.col("trade_id").shift(1), before=pl.col("trade_id")).filter(
        pl.col("before") - pl.col("after") > 1
    )
    assert jumps.height == 1, "one gap: the time the source was down"
    assert [(gap.symbol, gap.after_id, gap.before_id, gap.final) for gap in gaps] == [("BTCUSDT", *jumps.row(0), True)]
    assert status.subscriptions[0].gaps == 1
    assert ids.n_unique() == ids.len()

    after, before = jumps.row(0)
    touched = bars.filter((pl.col("last_trade_id") >= after) & (pl.col("first_trade_id") <= before))
    assert 1 <= touched.height <= 2
    assert not touched.get_column("complete").any()
    inner = bars[1:-1].filter(~pl.col("open_time").is_in(touched.get_column("open_time").to_list()))
    assert inner.get_column("complete").all()


def test_orderly_restarts_at_speed_lose_nothing_that_was_journaled(tmp_path: Path, shared_data: Path) -> None:
    with cluster(tmp_path) as run:
        run.simulate("--play", str(shared_data / ARCHIVE), "--rate", "2500")
        run.start()
        collect(run)
        for name in ("binance_spot", "raven_timebar", "binance_spot", "tick_persistence", "raven_tibs", "binance_spot"):
            wait_until(lambda: run.counter("binance_spot", "rows") >= 1_000, 60, "trades flow")
            assert run.terminate(name) == 0, run.log(name)
            run.start(name)
        last_id = 109_344_068 + TRADES - 1
        wait_until(lambda: run.table("trades").get_column("trade_id").max() == last_id, 90, "the last trade is stored")
        wait_until(
            lambda: run.table("time_bars").get_column("last_trade_id").max() == last_id, 30, "the last bar is stored"
        )
        trades, bars = run.table("trades").sort("trade_id"), run.table("time_bars").sort("open_time")
        tibs = run.table("tick_imbalance_bars").sort("first_trade_id")
    recorded = pl.concat(raven.replay(run.data / f"binance_spot-{run.ports['binance_spot']}"))
    assert trades.get_column("trade_id").to_list() == recorded.get_column("trade_id").to_list()
    columns = [column for column in bars.columns if column != "date"]
    expected = raven.time_bars(recorded, "1m", partial=True, venue="BINANCE_SPOT")
    assert_frame_equal(bars.select(columns), expected.select(columns), rel_tol=1e-12)
    expected = raven.tick_imbalance_bars(recorded, venue="BINANCE_SPOT")
    assert_frame_equal(tibs.select(expected.columns), expected, rel_tol=1e-12)
