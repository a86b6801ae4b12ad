"""Recorded markets through every service into real databases: what comes out is what the embedded store holds."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest
from polars.testing import assert_frame_equal

import raven
from tests.e2e.cluster import Cluster, wait_until
from tests.e2e.conftest import ARCHIVE, TIBS, TRADES, Tables, collect
from tests.e2e.databases import EVERYWHERE, Databases, scanned, until_all_stored, with_databases
from tests.servers.influx import Bucket

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]

BAR_KINDS = ("time_bars", "tick_imbalance_bars")
IDENTITY = ["venue", "symbol", "spec", "first_trade_id"]


def assert_bars_are_those_of_delta(run: Cluster, databases: Databases) -> None:
    """Row by row and bit for bit."""
    for kind in BAR_KINDS:
        expected = run.table(kind).drop("date").sort(IDENTITY)
        found = databases.bars(kind).select(expected.columns).sort(IDENTITY)
        assert_frame_equal(found.cast(expected.schema), expected, check_exact=True)


def assert_points_are_trades(databases: Databases, expected: pl.DataFrame) -> None:
    """`expected`: venue, symbol, trade_id, ts_event, price, quantity and side, each trade once."""
    points = databases.trades()
    assert points.height == expected.height
    identity = ["venue", "symbol", "trade_id"]
    assert points.select(identity).n_unique() == points.height
    joined = points.sort(identity)
    expected = expected.sort(identity)
    assert joined.select(identity).equals(expected.select(identity))
    for name in ("price", "quantity"):
        assert joined.get_column(name).cast(pl.Float64).to_list() == expected.get_column(name).to_list()
    assert joined.get_column("ts_event_us").to_list() == expected.get_column("ts_event").dt.epoch("us").to_list()
    assert joined.get_column("side").to_list() == ["buy" if side > 0 else "sell" for side in expected["side"]]


def test_the_archive_into_both_databases(
    tmp_path: Path, shared_data: Path, bucket: Bucket, database: str, undisturbed: Tables
) -> None:
    with with_databases(tmp_path, bucket, database, stores=EVERYWHERE) as (run, databases):
        run.simulate("--play", str(shared_data / ARCHIVE), "--speed", "max")
        run.start()
        collect(run)
        until_all_stored(run, databases, trades=TRADES, tibs=TIBS)
        wait_until(lambda: run.rows("trades") >= TRADES, 60, "Delta Lake has all trades, too")
        wait_until(lambda: run.table("time_bars").get_column("total_ticks").sum() >= TRADES, 60, "and the last bar")
        for name, tables in (
            ("tick_persistence", {"influx/trades", "delta/trades"}),
            ("bar_persistence", {f"{store}/{kind}" for store in ("timescale", "delta") for kind in BAR_KINDS}),
        ):
            wait_until(lambda name=name: all(s.backlog_rows == 0 for s in run.status(name).stores), 30, "no backlog")
            stores = run.status(name).stores
            assert {f"{store.name}/{store.table}" for store in stores} == tables
            assert all(store.healthy and not store.error and store.stored_rows for store in stores)
        archive = raven.read_trades(shared_data / ARCHIVE).with_columns(venue=pl.lit("BINANCE_SPOT"))
        counted = bucket.query('SELECT COUNT("quantity") AS "n", SUM("quantity") AS "sum" FROM "trades"')
        assert counted.get_column("n").item() == TRADES
        assert counted.get_column("sum").item() == pytest.approx(archive.get_column("quantity").sum(), rel=1e-12)
        assert_points_are_trades(databases, archive)
        ids = databases.trades().get_column("trade_id").sort()
        assert ids[-1] - ids[0] + 1 == TRADES

        assert_bars_are_those_of_delta(run, databases)
        assert databases.bar_count("time_bars") == 720
        assert databases.bar_count("tick_imbalance_bars") == TIBS
        for kind, expected in (("time_bars", undisturbed.time_bars), ("tick_imbalance_bars", undisturbed.tibs)):
            columns = [name for name in expected.columns if name != "date"]
            found = databases.bars(kind).select(columns).sort(IDENTITY)
            assert_frame_equal(found.cast(expected.select(columns).schema), expected.select(columns), rel_tol=1e-12)

        from_delta = {kind: scanned(run, kind) for kind in ("trades", *BAR_KINDS)}
        run.environment["RAVEN__STORES"] = ""
        for kind, frame in from_delta.items():
            assert_frame_equal(scanned(run, kind), frame, check_exact=True)


def test_futures_and_repeats_into_both_databases(
    tmp_path: Path, shared_data: Path, bucket: Bucket, database: str
) -> None:
    capture = shared_data / "cryptofeed_BINANCE_FUTURES.jsonl.zst"
    ltc = sorted(shared_data.glob("LTCUSDT_2025-06-21_*_trades__*.csv.gz"))
    futures = raven.read_trades(capture).with_columns(venue=pl.lit("BINANCE_FUTURES"))
    spot = raven.read_trades(*ltc).with_columns(venue=pl.lit("BINANCE_SPOT"))
    expected = pl.concat([futures, spot], how="diagonal").unique(["venue", "symbol", "trade_id"])
    symbols = ",".join(futures.get_column("symbol").unique())
    with with_databases(tmp_path, bucket, database, stores=EVERYWHERE, data="replay") as (run, databases):
        run.start("raven_timebar", "raven_tibs", "tick_persistence", "bar_persistence")
        run.replay(str(capture), "--speed", "max", name="binance_futures")
        run.replay(*map(str, ltc), "--venue", "spot", "--speed", "max")
        for service in ("tick_persistence", "bar_persistence"):
            run.ctl("start", "--service", service, "--symbol", symbols, "--venue", "futures", "--wait", "0")
            run.ctl("start", "--service", service, "--symbol", "LTCUSDT", "--venue", "spot", "--wait", "0")
        wait_until(lambda: databases.points() >= expected.height, 120, "all trades are points")
        wait_until(lambda: run.rows("trades") >= expected.height, 60, "all trades are in Delta Lake")
        for kind in BAR_KINDS:
            total = raven_bars(expected, kind).get_column("total_ticks").sum()
            wait_until(
                lambda kind=kind, total=total: databases.bar_count(kind, "sum(total_ticks)::bigint") >= total,
                60,
                f"all {kind}: {total} trades",
            )
            wait_until(
                lambda kind=kind, total=total: run.table(kind).get_column("total_ticks").sum() >= total, 60, kind
            )
        assert_points_are_trades(databases, expected)
        assert_bars_are_those_of_delta(run, databases)
        venues = databases.bars("time_bars").get_column("venue").unique().sort().to_list()
        assert venues == ["BINANCE_FUTURES", "BINANCE_SPOT"]


def raven_bars(trades: pl.DataFrame, kind: str) -> pl.DataFrame:
    """The bars of all trades, each venue and symbol for itself."""
    make = raven.time_bars if kind == "time_bars" else raven.tick_imbalance_bars
    parts = [
        make(rows.sort("trade_id").drop("venue"), venue=str(venue), partial=kind == "time_bars")
        for (venue, _), rows in trades.group_by("venue", "symbol")
    ]
    return pl.concat(parts)
