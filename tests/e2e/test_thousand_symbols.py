"""A thousand symbols for five minutes while the exchange misbehaves twenty times: the tables of an undisturbed run."""

from __future__ import annotations

import json
import time
from datetime import timedelta
from pathlib import Path
from urllib.request import urlopen

import polars as pl
import pytest
from polars.testing import assert_frame_equal

import raven
from raven.sources.simulated import GeneratedMarket
from raven.sources.simulated.names import symbol_names
from tests.e2e.cluster import Cluster, cluster, wait_until

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(1200)]

SYMBOLS = 1_000
RATE = 2.0  # trades a second and symbol
SECONDS = 300
SEED = 11
FAULTS = 20
KINDS = "drop,stall,shutdown,repeat,reorder,429,418,500,slow,skip,garble"
"""All kinds, those that lose frames included: REST still has what they lost."""


def happened(run: Cluster) -> list[dict[str, object]]:
    with urlopen(f"http://127.0.0.1:{run.exchange_port}/simulated/faults", timeout=20) as reply:
        [venue] = json.load(reply)
    return list(venue["happened"])


def test_every_trade_is_stored_once_and_the_bars_are_those_of_an_undisturbed_run(tmp_path: Path) -> None:
    names = symbol_names(SYMBOLS)
    with cluster(
        tmp_path,
        # more room than by default: a drop leaves some 150 symbols to be fetched, and the exchange answers 240 a minute
        RAVEN__BINANCE_SPOT__HOLD_MAX_S="180",
        RAVEN__BINANCE_SPOT__SYMBOLS_POLL_S="10",  # so that faults of REST meet requests
        RAVEN__TIMEBAR__SECONDS="[60]",
        RAVEN__TIBS__TICK_BARS="[50]",
        RAVEN__DELTA__FLUSH_S="5",
    ) as run:
        run.simulate(
            "--symbols", str(SYMBOLS), "--rate", str(RATE), "--seed", str(SEED), "--faults", str(FAULTS),
            "--fault-seed", "3", "--fault-span", str(SECONDS), "--fault-kinds", KINDS,
        )  # fmt: skip
        run.start("binance_spot", "raven_timebar", "raven_tibs", "tick_persistence", "bar_persistence")
        began = time.monotonic()
        for service in ("tick_persistence", "bar_persistence"):
            run.ctl("start", "--service", service, "--symbol", "*", "--wait", "30")
        time.sleep(max(0, SECONDS + 15 - (time.monotonic() - began)))
        wait_until(lambda: len(happened(run)) == FAULTS, 60, f"all faults happened: {happened(run)}")
        source = run.status("binance_spot")
        wait_until(lambda: run.counter("binance_spot", "held_rows") == 0, 180, "all that was missing came")
        source = run.status("binance_spot")
        run.ctl("stop-all")
        run.stop()
        trades = run.table("trades").sort("symbol", "trade_id")
        time_bars, tick_bars = run.table("time_bars"), run.table("tick_imbalance_bars")

    assert source.counters.get("gaps", 0) == 0
    assert source.counters["healed_rows"] > 0
    assert source.counters["reconnects"] > 0
    trading = sorted(name for name in names if name != "BCCUSDT")
    spans = trades.group_by("symbol").agg(
        pl.len(), first=pl.col("trade_id").min(), last=pl.col("trade_id").max(), distinct=pl.col("trade_id").n_unique()
    ).sort("symbol")  # fmt: skip
    assert spans.get_column("symbol").to_list() == trading
    assert spans.filter(
        (pl.col("len") != pl.col("distinct")) | (pl.col("len") != pl.col("last") - pl.col("first") + 1)
    ).is_empty()
    assert trades.height > SYMBOLS * RATE * SECONDS * 0.9

    market = GeneratedMarket(names, seed=SEED, trades_per_second=RATE)
    market.begin(0)
    played = pl.concat(
        [
            market.trades(symbol, first, last + 1)
            for symbol, first, last in spans.select("symbol", "first", "last").rows()
        ]
    )
    assert_frame_equal(
        trades.select("symbol", "trade_id", "price", "quantity", is_sell=pl.col("side") == "sell"),
        played.select("symbol", "trade_id", "price", "quantity", "is_sell"),
    )

    undisturbed = raven.time_bars(trades.drop("origin"), "1m")
    stored = time_bars.join(undisturbed, on=["symbol", "open_time"], how="semi").drop("date")
    assert undisturbed.height > SYMBOLS * 3
    order = ["symbol", "open_time", "first_trade_id"]
    # bars were stopped a little before trades: what follows a symbol's newest bar, and proves its end, may not be in them
    newest = time_bars.group_by("symbol").agg(newest=pl.col("open_time").max())
    assert newest.get_column("newest").min() >= time_bars.get_column("open_time").max() - timedelta(minutes=1)
    stored_before, undisturbed_before = (
        bars.join(newest, on="symbol").filter(pl.col("open_time") < pl.col("newest")).drop("newest").sort(order)
        for bars in (stored, undisturbed)
    )
    assert_frame_equal(stored_before, undisturbed_before, rel_tol=1e-12)
    by_ticks = raven.tick_bars(trades.drop("origin"), ticks=50)
    tick_stored = tick_bars.filter(pl.col("spec") == "tick-50").drop("date")
    assert tick_stored.height > SYMBOLS * 5
    known = by_ticks.join(tick_stored, on=["symbol", "first_trade_id"], how="semi")
    assert known.height == tick_stored.height
    assert by_ticks.height - known.height < SYMBOLS / 10, "only bars that closed after the aggregator was stopped"
    assert_frame_equal(tick_stored.sort(order), known.sort(order), rel_tol=1e-12)
    tibs = raven.tick_imbalance_bars(trades.drop("origin"))
    tibs_stored = tick_bars.filter(pl.col("spec").str.starts_with("tib")).drop("date")
    assert_frame_equal(
        tibs_stored.sort(order),
        tibs.join(tibs_stored, on=["symbol", "first_trade_id"], how="semi").sort(order),
        rel_tol=1e-12,
    )
