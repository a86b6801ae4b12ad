"""Spot and futures side by side, patterns, and `stop` in every form, through real processes."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest
from polars.testing import assert_frame_equal

import raven
from tests.e2e.cluster import Cluster, cluster, wait_until

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]

SPOT, FUTURES = "BINANCE_SPOT", "BINANCE_FUTURES"
SINKS = ("tick_persistence", "bar_persistence")


def collected(run: Cluster, *arguments: str) -> dict[str, list[tuple[str, str]]]:
    """(venue, symbol) by service, as `list` shows them."""
    answer = run.ctl("list", *arguments)
    return {
        name: [(entry["venue"], entry["symbol"]) for entry in entries]
        for name, entries in answer.items()
        if isinstance(entries, list)  # else why the service does not answer
    }


def stored_trades(run: Cluster, venue: str) -> pl.DataFrame:
    return run.table("trades").filter(pl.col("venue") == venue).sort("symbol", "trade_id")


def bars_of(run: Cluster, venue: str) -> pl.DataFrame:
    return run.table("time_bars").filter(pl.col("venue") == venue)


def test_both_venues_side_by_side(tmp_path: Path) -> None:
    with cluster(tmp_path, RAVEN__TIMEBAR__SECONDS="[1]", RAVEN__TIBS__SIZE_MIN="5") as run:
        run.simulate("--venue", "both", "--symbol", "BTCUSDT", "--rate", "100")
        run.start()
        for service in SINKS:
            run.ctl("start", "--service", service, "--symbol", "BTCUSDT", "--wait", "0")
            run.ctl("start", "--service", service, "--symbol", "BTCUSDT", "--venue", "futures", "--wait", "10")
        assert collected(run)["bar_persistence"] == [(SPOT, "BTCUSDT"), (FUTURES, "BTCUSDT")]
        assert collected(run, "--venue", "futures")["raven_tibs"] == [(FUTURES, "BTCUSDT")]
        assert collected(run)["binance_futures"] == [(FUTURES, "BTCUSDT")]
        for venue in (SPOT, FUTURES):
            wait_until(lambda venue=venue: bars_of(run, venue).height >= 4, 60, f"time bars of {venue}")
            wait_until(
                lambda venue=venue: run.table("tick_imbalance_bars").filter(pl.col("venue") == venue).height >= 2,
                60,
                f"TIBs of {venue}",
            )

        run.ctl("stop", "--symbol", "BTCUSDT", "--venue", "futures")
        assert all(venue == SPOT for entries in collected(run).values() for venue, _ in entries)
        wait_until(
            lambda: stored_trades(run, SPOT).height > stored_trades(run, FUTURES).height + 200, 30, "spot goes on"
        )
        run.ctl("stop-all")
        assert not any(collected(run).values())
        run.stop()

        for venue in (SPOT, FUTURES):
            trades = stored_trades(run, venue)
            assert trades.get_column("trade_id").diff().drop_nulls().eq(1).all()
            expected = raven.time_bars(trades.drop("origin"), "1s", partial=True)
            both = ["symbol", "open_time", "open", "high", "low", "close", "volume", "total_ticks", "first_trade_id"]
            stored = bars_of(run, venue).select(both).sort("open_time")
            # bars stop before trades do, so the last one may hold fewer
            assert_frame_equal(stored[:-1], expected.select(both)[: stored.height - 1], rel_tol=1e-12)


def test_stop_takes_one_venue_one_service_or_a_pattern(tmp_path: Path) -> None:
    with cluster(tmp_path) as run:
        run.simulate("--venue", "both", "--symbol", "BTCUSDT", "--symbol", "ETHUSDT", "--symbol", "ETHBTC")
        run.start("binance_spot", "binance_futures", "raven_timebar")
        run.ctl("start", "--service", "binance_spot", "--symbol", "BTCUSDT")
        run.ctl("start", "--service", "timebar", "--symbol", "*USDT", "--venue", "spot")
        run.ctl("start", "--service", "timebar", "--symbol", "BTCUSDT", "--venue", "futures")

        listed = collected(run)
        assert listed["raven_timebar"][0] == (SPOT, "*USDT")
        assert set(listed["raven_timebar"]) == {
            (SPOT, "*USDT"), (SPOT, "BTCUSDT"), (SPOT, "ETHUSDT"), (FUTURES, "BTCUSDT"),
        }  # fmt: skip
        kept = run.ctl("stop", "--service", "timebar", "--symbol", "ETHUSDT", "--venue", "spot")
        assert kept["raven_timebar"][0]["message"] == "collected by the pattern *USDT: stop that"

        run.ctl("stop", "--service", "timebar", "--symbol", "*USDT", "--venue", "spot")
        assert collected(run)["raven_timebar"] == [(FUTURES, "BTCUSDT")]
        assert collected(run)["binance_spot"] == [(SPOT, "BTCUSDT")]  # a user started it
        run.ctl("stop", "--symbol", "BTCUSDT")
        assert not any(collected(run).values())
        answer = run.ctl("start", "--service", "binance_spot", "--symbol", "DOGE*", code=1)
        assert "no symbol that trades at BINANCE_SPOT matches DOGE*" in answer["binance_spot"][0]["message"]


def test_a_pattern_follows_new_listings(tmp_path: Path) -> None:
    with cluster(tmp_path, RAVEN__BINANCE_SPOT__SYMBOLS_POLL_S="1") as run:
        run.simulate("--symbol", "BTCUSDT", "--rate", "50", "--fault", "list@15:NEWUSDT")
        run.start("binance_spot", "tick_persistence")
        run.ctl("start", "--service", "tick_persistence", "--symbol", "*USDT", "--wait", "10")
        assert (SPOT, "NEWUSDT") not in collected(run)["binance_spot"]
        wait_until(
            lambda: run.table("trades").filter(pl.col("symbol") == "NEWUSDT").height > 0, 40, "the new symbol is stored"
        )
        listed = collected(run)
        assert (SPOT, "NEWUSDT") in listed["tick_persistence"]
        assert (SPOT, "NEWUSDT") in listed["binance_spot"]
