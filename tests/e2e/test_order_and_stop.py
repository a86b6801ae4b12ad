"""Services started in any order, and stopped at speed."""

from __future__ import annotations

import random
import subprocess
import sys
import time
from pathlib import Path

import polars as pl
import pytest

import raven
from tests.e2e.cluster import MODULES, cluster, wait_until

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]

SPOT, FUTURES = "BINANCE_SPOT", "BINANCE_FUTURES"
STOP_ALL_S = 2.0


@pytest.mark.parametrize("seed", range(6))
def test_services_come_up_in_any_order(tmp_path: Path, seed: int) -> None:
    """Symbols are asked for as soon as a sink answers, whatever else runs by then."""
    order = ["simulate", *MODULES]
    random.Random(seed).shuffle(order)
    with cluster(tmp_path, RAVEN__TIMEBAR__SECONDS="[1]", RAVEN__TIBS__SIZE_MIN="5") as run:
        for name in order:
            if name == "simulate":
                run.simulate("--venue", "both", "--symbol", "BTCUSDT", "--rate", "100")
                continue
            run.start(name)
            if name.endswith("persistence"):
                for venue in ("spot", "futures"):
                    run.ctl("start", "--service", name, "--symbol", "BTCUSDT", "--venue", venue, "--wait", "0")
        for table in ("trades", "time_bars", "tick_imbalance_bars"):
            for venue in (SPOT, FUTURES):
                wait_until(
                    lambda table=table, venue=venue: (
                        not run.table(table).is_empty() and run.table(table).filter(pl.col("venue") == venue).height > 0
                    ),
                    60,
                    f"{table} of {venue} when started as {order}",
                )
        wait_until(lambda: all(run.status(name).healthy for name in MODULES), 30, "all are healthy")


def test_stop_all_is_quick_and_what_was_journaled_is_stored(tmp_path: Path) -> None:
    with cluster(tmp_path, RAVEN__TIMEBAR__SECONDS="[1]") as run:
        run.simulate("--symbol", "BTCUSDT", "--symbol", "ETHUSDT", "--rate", "3500")
        run.start()
        for service in ("bar_persistence", "tick_persistence"):
            run.ctl("start", "--service", service, "--symbol", "BTCUSDT", "--symbol", "ETHUSDT", "--wait", "15")
        rows = run.counter("binance_spot", "rows")
        time.sleep(10)
        assert run.counter("binance_spot", "rows") - rows > 10 * 5_000

        began = time.monotonic()
        done = subprocess.run(
            [sys.executable, "-m", "raven.cli.ravenctl", "stop-all"],
            capture_output=True, text=True, env=run.environment, cwd=run.folder, timeout=60, check=False,
        )  # fmt: skip
        seconds = time.monotonic() - began
        assert done.returncode == 0, done.stdout + done.stderr
        assert seconds < STOP_ALL_S, f"stop-all took {seconds:.2f} s"
        run.stop()

        journaled = raven.read_trades(run.data / f"binance_spot-{run.ports['binance_spot']}")
        stored = run.table("trades").sort("symbol", "trade_id")
        columns = ["symbol", "trade_id", "ts_recv", "price", "quantity"]
        assert stored.select(columns).equals(journaled.sort("symbol", "trade_id").select(columns))
        bars = run.table("time_bars")
        by_symbol = journaled.group_by("symbol").agg(ticks=pl.len(), volume=pl.col("quantity").sum()).sort("symbol")
        counted = bars.group_by("symbol").agg(ticks=pl.col("total_ticks").sum()).sort("symbol")
        # bars stop first: what the source journals after that is in no bar
        assert (counted["ticks"] <= by_symbol["ticks"]).all()
        for symbol in by_symbol["symbol"]:
            own = bars.filter(pl.col("symbol") == symbol).sort("open_time")
            held = journaled.filter(pl.col("symbol") == symbol, pl.col("trade_id") <= own["last_trade_id"].max())
            assert own["total_ticks"].sum() == held.height
