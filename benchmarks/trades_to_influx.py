"""Trades into InfluxDB: the store against influxdb-client's points and its batching mode, in one run.

python -m benchmarks.trades_to_influx ../shared/data/BTCUSDT-trades-2019-04-01_00h-12h.zip

All write the same points to buckets of their own on one server: the store with gzip, the client as it is by default.
The rate is that until the last point is acknowledged. With the server on the same machine it is bound by the server,
whose work is the same for all; so the CPU time of the sender is told, too. The server is that of RAVEN_TEST_INFLUX_URL
(_TOKEN, _ORG, _BUCKET), otherwise the tests' own.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import polars as pl
from influxdb_client import InfluxDBClient, Point, WriteOptions
from influxdb_client.client.write_api import SYNCHRONOUS

import raven
from raven.batches.schema import TRADE_SCHEMA
from raven.settings import InfluxSettings
from raven.sinks.dead_letters import DeadLetters
from raven.sinks.influx import InfluxTradeStore
from raven.sinks.store import TradeFlush
from tests.servers.external import ExternalInflux
from tests.servers.influx import AnyInflux, Bucket, Influx

VENUE = "BINANCE_SPOT"
BATCH_ROWS = 20_000
ROUNDS = 3
SIDES = {1: "buy", -1: "sell"}


def points(trades: pl.DataFrame) -> Iterator[Point]:
    """The points that the store writes, built one by one."""
    times = trades.with_columns(pl.col("ts_event", "ts_recv").to_physical())
    for symbol, trade_id, event_us, recv_us, price, quantity, side, origin in times.iter_rows():
        yield (
            Point("trades")
            .tag("venue", VENUE)
            .tag("symbol", symbol)
            .tag("side", SIDES[side])
            .field("price", price)
            .field("quantity", quantity)
            .field("trade_id", trade_id)
            .field("ts_event_us", event_us)
            .field("ts_recv_us", recv_us)
            .field("origin", origin)
            .time(event_us // 1000 * 1_000_000 + trade_id % 1_000_000)
        )


def through_the_store(bucket: Bucket, trades: pl.DataFrame) -> None:
    settings = InfluxSettings.model_validate(
        {"url": bucket.url, "token": bucket.token, "org": bucket.org, "bucket": bucket.name}
    )
    with tempfile.TemporaryDirectory() as folder:
        store = InfluxTradeStore(settings, Path(folder), dead_letters=DeadLetters(Path(folder)))
        store.open()
        for part in trades.iter_slices(settings.flush_rows):
            store.write(TradeFlush([(VENUE, part)]))
        store.close()


def through_points(bucket: Bucket, trades: pl.DataFrame) -> None:
    with InfluxDBClient(bucket.url, bucket.token, org=bucket.org) as client:
        writes = client.write_api(write_options=SYNCHRONOUS)
        for part in trades.iter_slices(BATCH_ROWS):
            writes.write(bucket.name, record=list(points(part)))


def through_batching(bucket: Bucket, trades: pl.DataFrame) -> None:
    options = WriteOptions(batch_size=BATCH_ROWS, flush_interval=1_000)
    with (
        InfluxDBClient(bucket.url, bucket.token, org=bucket.org) as client,
        client.write_api(write_options=options) as writes,
    ):
        writes.write(bucket.name, record=points(trades))


WAYS: dict[str, Callable[[Bucket, pl.DataFrame], None]] = {
    "the store": through_the_store,
    "points": through_points,
    "batching mode": through_batching,
}


class Cost(NamedTuple):
    """Seconds that a way took, and seconds of CPU of this process."""

    wall_s: float
    cpu_s: float


def measure(server: AnyInflux, write: Callable[[Bucket, pl.DataFrame], None], trades: pl.DataFrame) -> Cost:
    bucket = server.create_bucket()
    began_s, began_cpu_s = time.perf_counter(), time.process_time()
    write(bucket, trades)
    cost = Cost(time.perf_counter() - began_s, time.process_time() - began_cpu_s)
    stored = bucket.query("SELECT count(trade_id) FROM trades")["count"].item()
    assert stored == trades.height, f"{stored} of {trades.height} trades are stored"
    server.delete_bucket(bucket.name)
    return cost


def main() -> None:
    trades = raven.read_trades(sys.argv[1], venue=VENUE).select(TRADE_SCHEMA.names)
    given = [os.environ.get(f"RAVEN_TEST_INFLUX_{name}", "") for name in ("URL", "TOKEN", "ORG", "BUCKET")]
    server = ExternalInflux(*given) if given[0] else Influx()
    try:
        rounds = [{name: measure(server, write, trades) for name, write in WAYS.items()} for _ in range(ROUNDS)]
    finally:
        server.close()
    best = {name: Cost(*map(min, zip(*(costs[name] for costs in rounds), strict=True))) for name in WAYS}
    ours = best["the store"]
    for name, cost in best.items():
        print(
            f"{name:14} {trades.height / cost.wall_s:9,.0f} trades/s ({cost.wall_s / ours.wall_s:4.1f} x our time), "
            f"{cost.cpu_s / trades.height * 1e6:5.1f} us of CPU a trade ({cost.cpu_s / ours.cpu_s:4.1f} x ours)"
        )


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main()
