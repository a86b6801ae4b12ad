"""What lies in InfluxDB after trades were stored, asked for by query; and how far the store says it got."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import polars as pl
import pytest
from polars.testing import assert_frame_equal

import raven
from raven.batches.batch import Cursor
from raven.batches.schema import TRADE_SCHEMA
from raven.errors import StoreError
from raven.sinks.influx import InfluxTradeStore
from raven.sinks.store import TradeFlush, WriteResult
from tests.databases.front import Front, Request
from tests.databases.influx_stores import held, letters_in, make_store, settings_of
from tests.servers.influx import AnyInflux, Bucket
from tests.unit.store_compliance import FUTURES, ODD_SYMBOLS, SPOT, as_stored, some_trades

ARCHIVE = "BTCUSDT-trades-2019-04-01_00h-12h.zip"


@pytest.fixture
def store(bucket: Bucket, tmp_path: Path) -> Iterator[InfluxTradeStore]:
    made = make_store(settings_of(bucket), tmp_path)
    made.open()
    yield made
    made.close()


def test_the_archive_is_there_point_for_point(store: InfluxTradeStore, bucket: Bucket, shared_data: Path) -> None:
    trades = raven.read_trades(shared_data / ARCHIVE, venue=SPOT).select(TRADE_SCHEMA.names)
    for sequence, part in enumerate(trades.iter_slices(30_000)):
        store.write(TradeFlush([(SPOT, part)], {"up": Cursor("j", sequence)}))
    assert store.rows() == 102_899
    summary = bucket.query("SELECT count(quantity) AS points, sum(quantity) AS total FROM trades")
    assert summary["points"].item() == 102_899
    assert summary["total"].item() == pytest.approx(trades["quantity"].sum(), rel=1e-12)
    points = bucket.query("SELECT trade_id, ts_event_us, ts_recv_us, price, quantity, side FROM trades").sort(
        "trade_id"
    )
    assert points["trade_id"].equals(trades["trade_id"])
    assert (points["trade_id"].diff().drop_nulls() == 1).all()
    assert points["ts_event_us"].equals(trades["ts_event"].to_physical().rename("ts_event_us"))
    assert points["ts_recv_us"].equals(trades["ts_recv"].to_physical().rename("ts_recv_us"))
    assert (points["price"] == trades["price"]).all()
    assert (points["quantity"] == trades["quantity"]).all()
    assert points["side"].equals(
        trades.select(side=pl.when(pl.col("side") > 0).then(pl.lit("buy")).otherwise(pl.lit("sell")))["side"]
    )


def test_integers_and_floats_are_exact(store: InfluxTradeStore, bucket: Bucket) -> None:
    hard = [5e-324, 1.7976931348623157e308, 1e22, 1e23, 0.1, 2.0**53, 1e-7, 123456789.12345679, 1 / 3, 1e16]
    ids = [-(2**63), -1, 0, 1, 2**53 + 1, 2**62 + 3, 2**63 - 3, 2**63 - 2, 2**63 - 1, 10**6]
    trades = some_trades("BTCUSDT", 0, 10).with_columns(
        price=pl.Series(hard),
        quantity=pl.Series(hard[::-1]),
        trade_id=pl.Series(ids),
        ts_event=pl.col("ts_event") + pl.duration(microseconds=pl.Series([0, 1, 999, 1_000, 123_456, 7, 8, 9, 10, 11])),
    )
    assert store.write(TradeFlush([(SPOT, trades)])) == WriteResult(rows=10)
    assert_frame_equal(
        held(settings_of(bucket)).sort("trade_id"),
        as_stored(SPOT, trades).select(held(settings_of(bucket)).columns),
        check_exact=True,
    )
    times = bucket.query("SELECT trade_id, ts_event_us FROM trades")
    expected = times["ts_event_us"] // 1000 * 1_000_000 + times["trade_id"] % 1_000_000
    assert times["time"].to_list() == expected.to_list()


def test_the_same_trades_in_milli_and_microseconds_are_the_same_points(bucket: Bucket, tmp_path: Path) -> None:
    exact = some_trades("BTCUSDT", 0, 5_000)
    cut = exact.with_columns(pl.col("ts_event").dt.truncate("1ms"))
    for name, trades in (("exact", exact), ("cut", cut)):
        store = make_store(settings_of(bucket), tmp_path / name)
        store.open()
        assert store.write(TradeFlush([(SPOT, trades)])) == WriteResult(rows=5_000)
        store.close()
    assert bucket.query("SELECT count(price) FROM trades")["count"].item() == 5_000


def test_many_trades_of_one_millisecond_and_venues_apart(store: InfluxTradeStore, bucket: Bucket) -> None:
    now = some_trades("BTCUSDT", 0, 1)["ts_event"].item()
    trades = some_trades("BTCUSDT", 0, 2_000).with_columns(
        ts_event=pl.lit(now), side=pl.lit(1, pl.Int8), price=pl.lit(1.0), quantity=pl.lit(1.0)
    )
    store.write(TradeFlush([(SPOT, trades), (FUTURES, trades)]))
    counts = bucket.query("SELECT count(price) FROM trades GROUP BY venue").sort("venue")
    assert counts["count"].to_list() == [2_000, 2_000]


def test_odd_symbols_are_tags_as_they_are(store: InfluxTradeStore, bucket: Bucket, tmp_path: Path) -> None:
    odd = [
        *ODD_SYMBOLS,
        "#a",
        "a#",
        '"q"',
        "'",
        "a\\b\\c",
        "\\a",
        "a,b",
        "a=b",
        "a b",
        " a",
        "a ",
        ",,",
        "==",
        "ß\u2028x",
    ]
    store.write(TradeFlush([(SPOT, some_trades(symbol, index, 2)) for index, symbol in enumerate(odd)]))
    found = bucket.query("SELECT count(trade_id) FROM trades GROUP BY symbol")
    kept = [symbol for symbol in odd if symbol != "\n\t"]
    assert sorted(found["symbol"]) == sorted(kept)
    assert found["count"].to_list() == [2] * len(kept)
    assert letters_in(tmp_path)["symbol"].unique().to_list() == ["\n\t"]


# how far it got


CHILD = """
import json, sys
from pathlib import Path
from raven.batches.batch import Cursor
from raven.batches.schema import TRADE_SCHEMA
from raven.settings import InfluxSettings
from raven.sinks.store import TradeFlush
from tests.databases.influx_stores import make_store
from tests.unit.store_compliance import SPOT, some_trades
store = make_store(InfluxSettings(**json.loads(sys.argv[1])), Path(sys.argv[2]))
store.open()
for sequence in range(2):
    trades = [(SPOT, some_trades("BTCUSDT", sequence * 100, 100))]
    store.write(TradeFlush(trades, {"up": Cursor("j", sequence)}))
"""


def test_killed_between_write_and_position_leaves_the_same_points(bucket: Bucket, tmp_path: Path) -> None:
    front = Front(bucket.url)
    given = settings_of(bucket, url=front.url)
    plain = {**given.model_dump(), "token": bucket.token}
    child = subprocess.Popen([sys.executable, "-c", CHILD, json.dumps(plain), str(tmp_path)])

    def kill(request: Request) -> None:
        if b"trade_id=150i" in request.body:
            child.send_signal(signal.SIGKILL)
            child.wait()

    front.passed = kill
    try:
        assert child.wait(60) == -signal.SIGKILL
        front.passed = lambda _: None
        assert bucket.query("SELECT count(price) FROM trades")["count"].item() == 200
        again = make_store(given, tmp_path)
        again.open()
        assert again.position("up") == Cursor("j", 0)
        assert again.rows() == 100
        flush = TradeFlush([(SPOT, some_trades("BTCUSDT", 50, 200))], {"up": Cursor("j", 1)})
        assert again.write(flush) == WriteResult(150, 50)
        assert again.rows() == 250
        again.close()
    finally:
        front.close()
    assert_frame_equal(
        held(settings_of(bucket)).sort("trade_id"),
        as_stored(SPOT, some_trades("BTCUSDT", 0, 250)).select(held(settings_of(bucket)).columns),
        check_exact=True,
    )


def test_progress_belongs_to_a_bucket(influx: AnyInflux, bucket: Bucket, tmp_path: Path) -> None:
    trades = TradeFlush([(SPOT, some_trades("BTCUSDT", 0, 10))], {"up": Cursor("j", 1)})
    other = influx.create_bucket()
    try:
        for place in (bucket, other, bucket):
            store = make_store(settings_of(place), tmp_path)
            store.open()
            assert store.position("up") is None
            assert store.write(trades) == WriteResult(rows=10)
            store.close()
            assert place.query("SELECT count(price) FROM trades")["count"].item() == 10
    finally:
        influx.delete_bucket(other.name)


@pytest.mark.parametrize(
    "content", [b"", b"{", b"\xff\xfe", b'{"format":1}', b'{"target":{"url":"","org":"","bucket":""},"rows":"x"}']
)
def test_a_damaged_file_says_what_to_do(bucket: Bucket, tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "influx-trades.json"
    path.write_bytes(content)
    store = make_store(settings_of(bucket), tmp_path)
    with pytest.raises(StoreError, match=r"influx-trades\.json cannot be read.*move it away"):
        store.open()
    path.unlink()
    store.open()
    store.close()


def test_a_file_of_another_format_is_not_read(store: InfluxTradeStore, bucket: Bucket, tmp_path: Path) -> None:
    store.write(TradeFlush([(SPOT, some_trades("BTCUSDT", 0, 10))], {"up": Cursor("j", 1)}))
    store.close()
    path = tmp_path / "influx-trades.json"
    saved = json.loads(path.read_text())
    assert saved["format"] == 1
    assert saved["last_ids"] == {SPOT: {"BTCUSDT": 9}}
    assert bucket.token not in path.read_text()
    path.write_text(json.dumps(saved | {"format": 2}))
    with pytest.raises(StoreError, match="has format 2"):
        store.open()


def test_one_process_writes_from_a_folder(store: InfluxTradeStore, bucket: Bucket, tmp_path: Path) -> None:
    assert store.rows() == 0
    with pytest.raises(StoreError, match=f"being written by process {os.getpid()}"):
        make_store(settings_of(bucket), tmp_path).open()
