"""The undisturbed run of the 12-hour archive through all services, which other runs are compared with."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import polars as pl
import pytest

from tests.e2e.cluster import Cluster, cluster, wait_until

ARCHIVE = "BTCUSDT-trades-2019-04-01_00h-12h.zip"
TRADES = 102_899
TIBS = 370


@dataclass(frozen=True)
class Tables:
    trades: pl.DataFrame
    time_bars: pl.DataFrame
    tibs: pl.DataFrame


def tables(run: Cluster) -> Tables:
    """What the stores hold, in an order and without the columns that depend on when it ran."""
    return Tables(
        run.table("trades").drop("ts_recv").sort("symbol", "trade_id"),
        run.table("time_bars").sort("symbol", "spec", "open_time"),
        run.table("tick_imbalance_bars").sort("symbol", "spec", "first_trade_id"),
    )


def collect(run: Cluster, code: int = 0) -> None:
    """Start both sinks; `code` is what the first ends with, the second may not know of its store yet."""
    run.ctl("start", "--service", "tick_persistence", "--symbol", "BTCUSDT", "--wait", "20", code=code)
    run.ctl("start", "--service", "bar_persistence", "--symbol", "BTCUSDT", "--wait", "0", code=None if code else 0)


def until_stored(run: Cluster, timeout_s: float = 120) -> None:
    """Wait until all trades, all time bars but none later, and all TIBs are in the tables."""
    wait_until(lambda: run.rows("trades") >= TRADES, timeout_s, f"trades stored: {run.rows('trades')}")
    wait_until(
        lambda: run.rows("tick_imbalance_bars") >= TIBS, timeout_s, f"TIBs stored: {run.rows('tick_imbalance_bars')}"
    )
    wait_until(
        lambda: run.table("time_bars").get_column("total_ticks").sum() >= TRADES,
        timeout_s,
        "the last time bar is stored",
    )


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, shared_data: Path) -> Tables:
    with cluster(tmp_path_factory.mktemp("undisturbed")) as run:
        run.simulate("--play", str(shared_data / ARCHIVE), "--speed", "max")
        run.start()
        collect(run)
        until_stored(run)
        run.ctl("stop-all")
        return tables(run)
