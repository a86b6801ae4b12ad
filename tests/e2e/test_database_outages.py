"""Databases and sinks that die, hang or need mending in the middle: the same tables as of an undisturbed run."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from polars.testing import assert_frame_equal

import raven
from raven.rpc.pb import control_pb2
from tests.e2e.cluster import Cluster, wait_until
from tests.e2e.conftest import ARCHIVE, TIBS, TRADES, Tables, collect
from tests.e2e.databases import Databases, until_all_stored, with_databases
from tests.e2e.test_databases import IDENTITY, assert_points_are_trades
from tests.servers.influx import AnyInflux, Bucket
from tests.servers.postgres import AnyPostgres

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]

OwnPostgres = Callable[..., AnyPostgres]
OwnInflux = Callable[..., AnyInflux]


def assert_undisturbed(databases: Databases, undisturbed: Tables, shared_data: Path) -> None:
    """What the databases hold is what an undisturbed run stored."""
    archive = raven.read_trades(shared_data / ARCHIVE).with_columns(venue=pl.lit("BINANCE_SPOT"))
    assert_points_are_trades(databases, archive)
    for kind, expected in (("time_bars", undisturbed.time_bars), ("tick_imbalance_bars", undisturbed.tibs)):
        wanted = expected.drop("date")
        found = databases.bars(kind).select(wanted.columns).sort(IDENTITY)
        assert_frame_equal(found.cast(wanted.schema), wanted, rel_tol=1e-12)


def store(run: Cluster, service: str, name: str) -> control_pb2.Store:
    """What `status` says of one store of a service (of its first table)."""
    return next(one for one in run.status(service).stores if one.name == name)


def until_rows(run: Cluster, rows: int) -> None:
    wait_until(lambda: run.counter("binance_spot", "rows") >= rows, 90, f"{rows} rows received")
    assert run.counter("binance_spot", "rows") < TRADES, "the fault must come in the middle"


def errors(run: Cluster, name: str, event: str) -> list[str]:
    return [line for line in run.log(name).splitlines() if f'"event": "{event}"' in line]


def test_databases_killed_and_stopped_in_the_middle(
    tmp_path: Path, shared_data: Path, own_postgres: OwnPostgres, own_influx: OwnInflux, undisturbed: Tables
) -> None:
    postgres, influx = own_postgres(), own_influx()
    with with_databases(tmp_path, influx.create_bucket(), postgres.create_database()) as (run, databases):
        run.simulate("--play", str(shared_data / ARCHIVE), "--rate", "1700")
        run.start()
        collect(run)
        until_rows(run, 5_000)
        influx.stop()
        stopped = time.monotonic()
        for rows in (10_000, 20_000, 30_000):
            until_rows(run, rows)
            postgres.kill()
            wait_until(lambda: not store(run, "bar_persistence", "timescale").healthy, 60, "the sink sees it")
            postgres.start()
            wait_until(lambda: store(run, "bar_persistence", "timescale").healthy, 60, "bars are stored again")
        down = store(run, "tick_persistence", "influx")
        assert not down.healthy
        assert "connect" in down.error.lower()
        assert down.backlog_rows > 10_000
        assert down.backlog_s > 5
        answer = run.ctl("status", code=1)
        assert any("influx/trades" in problem for problem in answer["tick_persistence"]["problems"])
        time.sleep(max(0.0, 30 - (time.monotonic() - stopped)))
        influx.start()
        wait_until(lambda: store(run, "tick_persistence", "influx").healthy, 60, "trades are stored again")
        until_all_stored(run, databases, trades=TRADES, tibs=TIBS)
        wait_until(lambda: store(run, "tick_persistence", "influx").backlog_rows == 0, 30, "no backlog")
        run.ctl("status")
        assert len(errors(run, "tick_persistence", "store_unavailable")) <= 3, "one line a fault, not one a try"
        assert_undisturbed(databases, undisturbed, shared_data)


def test_sinks_killed_in_the_middle(
    tmp_path: Path, shared_data: Path, bucket: Bucket, database: str, undisturbed: Tables
) -> None:
    with with_databases(tmp_path, bucket, database) as (run, databases):
        run.simulate("--play", str(shared_data / ARCHIVE), "--rate", "3000")
        run.start()
        collect(run)
        for number, rows in enumerate(range(10_000, 90_000, 10_000)):
            until_rows(run, rows)
            name = ("tick_persistence", "bar_persistence")[number % 2]
            run.kill(name)
            if number == 4:  # its place is lost, not only its process: all is written again
                (run.data / f"{name}-{run.ports[name]}" / "influx-trades.json").unlink()
            run.start(name)
        until_all_stored(run, databases, trades=TRADES, tibs=TIBS)
        assert_undisturbed(databases, undisturbed, shared_data)


def test_databases_that_need_mending_before_anything_is_stored(
    tmp_path: Path, shared_data: Path, own_postgres: OwnPostgres, own_influx: OwnInflux, undisturbed: Tables
) -> None:
    postgres, influx = own_postgres(), own_influx()
    bucket, url = influx.create_bucket(), postgres.create_database()
    right = influx.token
    with with_databases(tmp_path, bucket, url) as (run, databases):
        postgres.psql("DROP TABLE time_bars", url)
        influx.set_token("another")
        run.simulate("--play", str(shared_data / ARCHIVE), "--speed", "max")
        run.start()
        collect(run, code=3)  # all is collected, and cannot be stored now
        wrong = wait_until(lambda: store(run, "tick_persistence", "influx").error, 30, "the wrong token is told")
        assert "influx.token" in wrong
        missing = wait_until(lambda: store(run, "bar_persistence", "timescale").error, 30, "the missing table is told")
        assert "time_bars" in missing
        assert "raven init-db" in missing
        assert any("influx.token" in problem for problem in run.ctl("status", code=1)["tick_persistence"]["problems"])
        wait_until(lambda: store(run, "tick_persistence", "influx").backlog_rows == TRADES, 60, "all is journaled")
        assert len(errors(run, "tick_persistence", "store_refused")) == 1

        influx.set_token(right)
        done = run_raven(run, "init-db")
        assert done == 0
        until_all_stored(run, databases, trades=TRADES, tibs=TIBS)
        assert_undisturbed(databases, undisturbed, shared_data)


def run_raven(run: Cluster, *arguments: str) -> int:
    run.run("raven", "raven.cli.raven", *arguments)
    return run.processes.pop("raven").wait(60)


def test_one_store_down_does_not_stop_the_other(
    tmp_path: Path, shared_data: Path, own_influx: OwnInflux, database: str, undisturbed: Tables
) -> None:
    influx = own_influx()
    bucket = influx.create_bucket()
    hanging: dict[str, Any] = {"RAVEN__INFLUX__TIMEOUT_S": "2"}
    with with_databases(tmp_path, bucket, database, stores="influx,delta", **hanging) as (run, databases):
        run.simulate("--play", str(shared_data / ARCHIVE), "--rate", "8000")
        run.start()
        collect(run)
        until_rows(run, 8_000)
        influx.pause()
        wait_until(lambda: run.rows("trades") >= TRADES, 90, "Delta Lake has all trades")
        hung = store(run, "tick_persistence", "influx")
        assert not hung.healthy
        assert hung.backlog_rows > 50_000
        assert store(run, "tick_persistence", "delta").healthy
        assert run.rows("time_bars"), "bars go to the store that takes them"
        assert databases.bar_count("time_bars") == 0

        run.ctl("stop", "--symbol", "BTCUSDT")  # what was journaled before is stored once it can be
        assert run.terminate("tick_persistence") == 0
        run.start("tick_persistence")
        influx.resume()
        wait_until(lambda: databases.points() >= TRADES, 90, "InfluxDB has all trades")
        archive = raven.read_trades(shared_data / ARCHIVE).with_columns(venue=pl.lit("BINANCE_SPOT"))
        assert_points_are_trades(databases, archive)
        assert_frame_equal(run.table("trades").drop("ts_recv").sort("trade_id"), undisturbed.trades)
