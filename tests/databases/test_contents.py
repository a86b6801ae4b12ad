"""What is told of a database's contents: the same as the embedded store tells, in the same order of rows."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest
from adbc_driver_postgresql import dbapi
from polars.testing import assert_frame_equal

import raven
from raven.sinks.contents import CONTENTS
from raven.sinks.delta import DeltaBarStore, DeltaTradeStore
from raven.sinks.store import BAR_SCHEMAS, BarFlush, TradeFlush
from tests.databases.bars import store_on
from tests.databases.influx_stores import make_store, settings_of
from tests.servers.influx import Bucket
from tests.unit.store_compliance import FUTURES, ODD_SYMBOLS, SPOT, some_bars, some_trades

Use = Callable[..., None]
DAY_US = 86_400_000_000


@pytest.fixture
def use(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Use:
    """Sets settings, as the environment gives them."""
    monkeypatch.setenv("RAVEN__DATA", str(tmp_path))
    monkeypatch.chdir(tmp_path)

    def use(**values: str) -> None:
        for name, value in values.items():
            monkeypatch.setenv(f"RAVEN__{name.upper()}", value)

    return use


def use_bucket(use: Use, bucket: Bucket) -> None:
    use(influx__url=bucket.url, influx__token=bucket.token, influx__org=bucket.org, influx__bucket=bucket.name)


def test_trades_of_a_bucket_come_in_order_and_are_listed(bucket: Bucket, tmp_path: Path, use: Use) -> None:
    flush = TradeFlush(
        [
            (SPOT, some_trades("ETHUSDT", 0, 500)),
            (FUTURES, some_trades("BTCUSDT", 0, 300)),
            (SPOT, some_trades("BTCUSDT", 0, 500)),
            (SPOT, some_trades("BTCUSDT", 500, 20, start_us=1_723_161_600_000_000 + 40 * DAY_US)),
            (SPOT, some_trades("O'B\"R, I=E\\N", 100, 100)),
        ]
    )
    for store in (make_store(settings_of(bucket), tmp_path), DeltaTradeStore(tmp_path / "delta")):
        store.open()
        store.write(flush)
        store.close()
    scans = [
        raven.scan_trades,
        lambda: raven.scan_trades("spot", "BTCUSDT", end="2024-08-10"),
        lambda: raven.scan_trades(symbol="BTCUSDT").filter(pl.col("price") > 60_005),
        raven.stored,
    ]
    from_delta = [scan().lazy().collect() for scan in scans]
    use_bucket(use, bucket)
    assert [frame.height for frame in from_delta][::3] == [1_420, 4]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for scan, wanted in zip(scans, from_delta, strict=True):
            assert_frame_equal(scan().lazy().collect(), wanted, check_exact=True)
    with pytest.warns(
        raven.NotStoredWarning, match=r"symbol BTCUSD of BINANCE_FUTURES are stored: did you mean BTCUSDT"
    ):
        assert raven.scan_trades("futures", "BTCUSD").collect().is_empty()
    with pytest.warns(raven.NotStoredWarning, match=r"symbol ETHUSDT of BINANCE_FUTURES.*some of BINANCE_SPOT"):
        raven.scan_trades("futures", "ETHUSDT")


def test_an_empty_bucket_holds_nothing(bucket: Bucket, use: Use) -> None:
    use_bucket(use, bucket)
    assert raven.stored().equals(pl.DataFrame(schema=CONTENTS))


def test_bars_of_a_database_come_in_order_and_are_listed(url: str, tmp_path: Path, use: Use) -> None:
    for kind in BAR_SCHEMAS:
        rows = [
            some_bars(kind, range(30), symbol="币安人生USDT", spec="5m"),
            some_bars(kind, range(20)),
            some_bars(kind, range(20), spec="tick-5"),
            some_bars(kind, range(20), venue=FUTURES),
            *(some_bars(kind, range(2), symbol=symbol, spec=symbol) for symbol in ODD_SYMBOLS),
        ]
        for store in (store_on(url, tmp_path, kind), DeltaBarStore(tmp_path / "delta", kind)):
            store.open()
            store.write(BarFlush(rows))
            store.close()
    scans = [
        raven.scan_bars,
        lambda: raven.scan_bars(kind="tick_imbalance_bars"),
        lambda: raven.scan_bars("spot", "BTCUSDT").filter(pl.col("total_ticks") > 2),
        lambda: raven.scan_bars(symbol="币安人生USDT", spec="5m").select("open_time", "close"),
        raven.stored,
    ]
    from_delta = [scan().lazy().collect() for scan in scans]
    assert not any(frame.is_empty() for frame in from_delta)
    use(timescale__url=url)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for scan, wanted in zip(scans, from_delta, strict=True):
            assert_frame_equal(scan().lazy().collect(), wanted, check_exact=True)
    for asked, message in (
        ({"symbol": "BTCUSDTT"}, "did you mean BTCUSDT"),
        ({"symbol": "A\0B"}, "symbol A\0B are stored"),
        ({"venue": "futures", "spec": "tick-5"}, "some of BINANCE_SPOT"),
        ({"spec": "tick-6"}, "tick_imbalance_bars with spec tick-6 are stored: did you mean tick-5"),
    ):
        with pytest.warns(raven.NotStoredWarning, match=message):
            assert raven.scan_bars(**asked).collect().is_empty()  # type: ignore[arg-type]


def test_a_database_without_tables_holds_nothing(empty: str, use: Use) -> None:
    use(timescale__url=empty)
    assert raven.stored().equals(pl.DataFrame(schema=CONTENTS))


def test_a_database_that_does_not_tell_soon_is_left_at_that(url: str, use: Use) -> None:
    use(timescale__url=url)
    with dbapi.connect(url) as other, other.cursor() as cursor, warnings.catch_warnings():
        warnings.simplefilter("error")
        cursor.execute("LOCK TABLE time_bars IN ACCESS EXCLUSIVE MODE")
        rows = raven.scan_bars(symbol="NONE")
        other.rollback()
        assert rows.collect().is_empty()
