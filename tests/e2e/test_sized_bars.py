"""Tick, volume and dollar bars beside tick imbalance bars, from flags to the store, and what wrong flags get."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest
from polars.testing import assert_frame_equal

import raven
from tests.e2e.cluster import MODULES, Cluster, cluster, is_free, wait_until
from tests.e2e.conftest import ARCHIVE, TIBS

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]

FLAGS = ("--tick-bars", "1000", "--volume-bars", "50", "--dollar-bars", "250000", "--tick-bars", "1000")


def expected_bars(shared_data: Path) -> pl.DataFrame:
    trades = raven.read_trades(shared_data / ARCHIVE)
    venue = "BINANCE_SPOT"
    bars = [
        raven.tick_imbalance_bars(trades, venue=venue),
        raven.tick_bars(trades, ticks=1000, venue=venue),
        raven.volume_bars(trades, volume=50, venue=venue),
        raven.dollar_bars(trades, dollars=250_000, venue=venue),
    ]
    assert bars[0].height == TIBS
    return pl.concat(bars).sort("spec", "first_trade_id")


def start(run: Cluster) -> None:
    run.run("raven_tibs", MODULES["raven_tibs"], *FLAGS)
    run.run("bar_persistence", MODULES["bar_persistence"], "--bars", "tibs")
    for name in ("raven_tibs", "bar_persistence"):
        wait_until(lambda name=name: run.answers(name), 60, f"{name} answers")


def test_stored_bars_are_those_of_the_api_also_over_a_crash(tmp_path: Path, shared_data: Path) -> None:
    expected = expected_bars(shared_data)
    with cluster(tmp_path) as run:
        run.simulate("--play", str(shared_data / ARCHIVE), "--speed", "max")
        run.start("binance_spot")
        start(run)
        run.ctl("start", "--service", "bar_persistence", "--symbol", "BTCUSDT", "--wait", "0")
        wait_until(lambda: run.counter("raven_tibs", "rows") > 20_000, 60, "bars are being built")
        run.kill("raven_tibs")
        run.run("raven_tibs", MODULES["raven_tibs"], *FLAGS)
        wait_until(
            lambda: run.rows("tick_imbalance_bars") >= expected.height, 120, f"{expected.height} bars are stored"
        )
        run.ctl("stop-all", code=None)
        stored = run.table("tick_imbalance_bars").sort("spec", "first_trade_id")
    assert_frame_equal(stored.select(expected.columns), expected, rel_tol=1e-12)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--tick-bars", "0"), "--tick-bars must be a whole number above 0"),
        (("--tick-bars", "2.5"), "--tick-bars must be a whole number above 0"),
        (("--volume-bars", "-1"), "--volume-bars must be above 0"),
        (("--dollar-bars", "nan"), "--dollar-bars must be a finite number"),
        (("--no-tibs",), "no bars are left to build"),
    ],
)
def test_wrong_flags_say_why_and_exit_1(tmp_path: Path, flags: tuple[str, ...], message: str) -> None:
    run = Cluster(tmp_path)
    done = subprocess.run(
        [sys.executable, "-m", MODULES["raven_tibs"], *flags],
        env=run.environment, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert (done.returncode, message in done.stderr) == (1, True), done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert is_free(run.ports["raven_tibs"])
