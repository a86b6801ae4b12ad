"""The services with real databases: what they are told, and what the databases hold, read by their own queries."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import polars as pl

import raven
from raven.sinks.timescale.schema import init_db
from tests.e2e.cluster import Cluster, cluster, wait_until
from tests.servers.influx import Bucket

EVERYWHERE = "influx,timescale,delta"


@dataclass(frozen=True)
class Databases:
    """A bucket for trades and a database for bars."""

    bucket: Bucket
    url: str

    def environment(self, stores: str = "") -> dict[str, str]:
        """The settings that name them."""
        return {
            "RAVEN__INFLUX__URL": self.bucket.url,
            "RAVEN__INFLUX__TOKEN": self.bucket.token,
            "RAVEN__INFLUX__ORG": self.bucket.org,
            "RAVEN__INFLUX__BUCKET": self.bucket.name,
            "RAVEN__TIMESCALE__URL": self.url,
            "RAVEN__STORES": stores,
            "RAVEN__STORE_PROBE_S": "1",
        }

    def trades(self) -> pl.DataFrame:
        """All points: time (ns), the tags and the fields."""
        return self.bucket.query('SELECT * FROM "trades"')

    def points(self) -> int:
        """How many points there are, counted by the server."""
        counted = self.bucket.query('SELECT COUNT("trade_id") AS "count" FROM "trades"')
        return 0 if counted.is_empty() else counted.get_column("count").item()

    def bars(self, table: str) -> pl.DataFrame:
        """All rows of a table of bars."""
        return pl.read_database_uri(f"SELECT * FROM {table}", self.url, engine="adbc")

    def bar_count(self, table: str, aggregate: str = "count(*)") -> int:
        """How many bars there are, counted by the server."""
        counted = pl.read_database_uri(f"SELECT {aggregate} AS n FROM {table}", self.url, engine="adbc")
        return int(counted.get_column("n").item() or 0)


@contextmanager
def with_databases(
    folder: Path, bucket: Bucket, url: str, *, stores: str = "", data: str = "data", **environment: str
) -> Iterator[tuple[Cluster, Databases]]:
    """A cluster that writes to a bucket and to a database whose tables are made."""
    init_db(url, timeout_s=30)
    databases = Databases(bucket, url)
    with cluster(folder, data=data, **databases.environment(stores), **environment) as run:
        yield run, databases


def until_all_stored(run: Cluster, databases: Databases, *, trades: int, tibs: int, timeout_s: float = 180) -> None:
    """Wait until both databases hold all that is to come."""
    wait_until(
        lambda: databases.points() >= trades, timeout_s, f"{trades} points: {run.log('tick_persistence')[-2000:]}"
    )
    wait_until(lambda: databases.bar_count("tick_imbalance_bars") >= tibs, timeout_s, f"{tibs} TIBs")
    wait_until(
        lambda: databases.bar_count("time_bars", "sum(total_ticks)::bigint") >= trades, timeout_s, "the last time bar"
    )


@contextmanager
def settings_of(run: Cluster) -> Iterator[None]:
    """This process has the settings of the cluster."""
    before = dict(os.environ)
    os.environ.update({name: value for name, value in run.environment.items() if name.startswith("RAVEN__")})
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def scanned(run: Cluster, kind: str) -> pl.DataFrame:
    """What a notebook with the cluster's settings reads back, in order."""
    with settings_of(run):
        if kind == "trades":
            return raven.scan_trades().collect().sort("venue", "symbol", "trade_id")
        frame = raven.scan_bars(kind=kind).collect()  # type: ignore[arg-type]
        return frame.sort("venue", "symbol", "spec", "first_trade_id")
