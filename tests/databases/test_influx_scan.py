"""Trades read back from InfluxDB are those that Delta Lake gives."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from raven.errors import InputError, StoreError
from raven.sinks.delta import DeltaTradeStore
from raven.sinks.delta import scan_trades as scan_delta
from raven.sinks.influx import scan, scan_trades
from raven.sinks.store import StoreUnavailableError, TradeFlush
from tests.databases.front import Front, Reply
from tests.databases.influx_stores import make_store, settings_of
from tests.servers.influx import Bucket
from tests.unit.store_compliance import FUTURES, SPOT, some_trades

ODD = "O'B\"R, I=E\\N"
FIRST = datetime(2024, 8, 9, tzinfo=UTC)
EARLIEST, LATEST = datetime(1, 1, 1, tzinfo=UTC), datetime(9999, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC)


@pytest.fixture
def stored(bucket: Bucket, tmp_path: Path) -> Path:
    """Both stores hold the same trades, several symbols with the same ids at the same times."""
    flush = TradeFlush(
        [
            (SPOT, some_trades("BTCUSDT", 0, 500)),
            (SPOT, some_trades("ETHUSDT", 0, 500)),
            (FUTURES, some_trades("BTCUSDT", 0, 300)),
            (SPOT, some_trades(ODD, 100, 100)),
            (SPOT, some_trades("币安人生USDT", 100, 10)),
        ]
    )
    for store in (make_store(settings_of(bucket), tmp_path), DeltaTradeStore(tmp_path)):
        store.open()
        store.write(flush)
        store.close()
    return tmp_path


def assert_same(found: pl.LazyFrame, wanted: pl.LazyFrame) -> None:
    keys = ["venue", "symbol", "trade_id"]
    assert found.collect_schema() == wanted.collect_schema()
    assert_frame_equal(found.collect().sort(keys), wanted.collect().sort(keys), check_exact=True)


NARROWED: list[dict[str, Any]] = [
    {},
    {"venue": FUTURES},
    {"symbol": "ETHUSDT"},
    {"venue": SPOT, "symbol": ODD},
    {"symbol": "币安人生USDT"},
    {"symbol": "NONE"},
    {"venue": "' OR venue =~ /.*/ OR '"},
    {"start": FIRST + timedelta(microseconds=150_000)},
    {"start": FIRST + timedelta(microseconds=150_001)},
    {"end": FIRST + timedelta(microseconds=1_500)},
    {"start": FIRST + timedelta(microseconds=1_501), "end": FIRST + timedelta(microseconds=151_501)},
    {"end": FIRST + timedelta(microseconds=150_000)},
    {"end": FIRST + timedelta(microseconds=150_001)},
    {"start": "2024-08-09T00:00:00.1515", "end": "2024-08-09T02:00:00.303+02:00", "venue": SPOT},
    {"start": FIRST, "end": FIRST},
    {"start": EARLIEST, "end": LATEST},
    {"start": LATEST},
    {"start": datetime(1900, 1, 1), "end": datetime(2500, 1, 1)},  # noqa: DTZ001
]


@pytest.mark.parametrize("narrowed", NARROWED, ids=str)
def test_a_scan_gives_what_delta_gives(stored: Path, bucket: Bucket, narrowed: dict[str, Any]) -> None:
    assert_same(scan_trades(settings_of(bucket), **narrowed), scan_delta(stored, **narrowed))


@pytest.mark.usefixtures("stored")
def test_no_trade_is_before_the_first_time_there_is(bucket: Bucket) -> None:
    assert scan_trades(settings_of(bucket), end=EARLIEST).collect().is_empty()


@pytest.mark.parametrize("page_rows", [1, 7, 500, 1_409, 1_410, 1_411])
def test_pages_join_without_hole_or_overlap(
    stored: Path, bucket: Bucket, page_rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scan, "PAGE_ROWS", page_rows)
    narrowed = {"end": FIRST + timedelta(milliseconds=20)} if page_rows < 100 else {}
    assert_same(scan_trades(settings_of(bucket), **narrowed), scan_delta(stored, **narrowed))


def test_filters_columns_and_limits_are_taken(stored: Path, bucket: Bucket) -> None:
    found, wanted = scan_trades(settings_of(bucket)), scan_delta(stored)
    for change in (
        lambda rows: rows.filter(pl.col("price") > 60_010, pl.col("side") == "buy"),
        lambda rows: rows.filter(pl.col("trade_id") < 3).select("trade_id", "symbol", "venue", "ts_recv"),
        lambda rows: rows.filter(pl.col("ts_event") < FIRST + timedelta(seconds=0.1)).with_columns(pl.col("price") * 2),
    ):
        assert_same(change(found), change(wanted))
    assert found.head(5).collect().height == 5
    assert found.filter(pl.col("trade_id") > 250).head(3).collect().height == 3
    assert found.select(pl.len()).collect().item() == 1_410
    assert found.select(pl.col("quantity").sum()).collect().item() == pytest.approx(
        wanted.select(pl.col("quantity").sum()).collect().item(), rel=1e-12
    )


def test_what_is_not_there_is_told(bucket: Bucket) -> None:
    with pytest.raises(StoreError, match="no trades are stored in the bucket"):
        scan_trades(settings_of(bucket))
    with pytest.raises(StoreError, match="not found"):
        scan_trades(settings_of(bucket, bucket="never_made"))
    with pytest.raises(StoreError, match=r"401.*influx\.token"):
        scan_trades(settings_of(bucket, token="wrong"))
    with pytest.raises(StoreUnavailableError, match="does not answer"):
        scan_trades(settings_of(bucket, url="http://127.0.0.1:9"))
    for time in ("yesterday", "9999-12-31T23:59-05:00", "0001-01-01T00:00+05:00"):
        with pytest.raises(InputError, match="is not a time"):
            scan_trades(settings_of(bucket), start=time)


def test_an_answer_broken_off_is_gone_on_with(stored: Path, bucket: Bucket) -> None:
    """CSV does not tell that a query ended early: the store asks whether anything is left."""
    front, pages = Front(bucket.url), list[Reply]()
    front.judge = lambda request: pages.pop() if pages and "price" in request.path else None
    try:
        rows = scan_trades(settings_of(bucket, url=front.url), venue=FUTURES)
        whole = bucket.query("SELECT * FROM trades WHERE venue = 'BINANCE_FUTURES'").head(40)
        names = ["venue", "symbol", "side", "price", "quantity", "trade_id", "origin", "ts_event_us", "ts_recv_us"]
        text = whole.select(name=pl.lit("trades"), tags=pl.lit(None, pl.String), time="time", **{n: n for n in names})
        pages.append(Reply(200, text.write_csv(), {"Content-Type": "text/csv"}))
        assert_same(rows, scan_delta(stored, venue=FUTURES))
        pages.append(Reply(200, "", {"Content-Type": "text/csv"}))
        with pytest.raises(StoreError, match="breaks off"):
            rows.collect()
        pages.append(Reply(503, '{"error":"timeout"}'))
        with pytest.raises(StoreError, match="timeout"):
            rows.collect()
        assert not pages
    finally:
        front.close()


def test_every_page_is_bounded_by_time_and_years_without_trades_cost_little(
    bucket: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scan, "PAGE_ROWS", 200)
    year_us = 365 * 86_400_000_000
    parts = [
        some_trades("BTCUSDT", first, 500, start_us=1_500_000_000_000_000 + year * year_us)
        for year, first in ((0, 0), (3, 1_000), (7, 2_000))
    ]
    store = make_store(settings_of(bucket), tmp_path)
    store.open()
    store.write(TradeFlush([(SPOT, part) for part in parts]))
    store.close()
    front = Front(bucket.url)
    try:
        found = scan_trades(settings_of(bucket, url=front.url)).collect()
    finally:
        front.close()
    assert found["trade_id"].sort().to_list() == pl.concat(parts)["trade_id"].to_list()
    asked = [dict(parse_qsl(urlsplit(one.path).query))["q"] for one in front.requests]
    pages = [text for text in asked if not text.endswith("LIMIT 1")]
    assert all("time >= " in text and "time < " in text for text in pages)
    assert len(asked) < 100
