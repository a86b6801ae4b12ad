"""Bars read back from PostgreSQL: the same rows as a filter in Polars gives, and no more asked of the server than needed."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from raven.errors import InputError
from raven.settings import TimescaleSettings
from raven.sinks.delta import DeltaBarStore
from raven.sinks.delta import scan_bars as scan_delta_bars
from raven.sinks.encode import BARS
from raven.sinks.store import BAR_SCHEMAS, BarFlush
from raven.sinks.timescale import scan, scan_bars
from tests.databases.bars import store_on
from tests.unit.store_compliance import FUTURES, ODD_SYMBOLS, SPOT, ltc_bars, some_bars

MIDNIGHT = datetime(2024, 8, 9, tzinfo=UTC)


def settings(url: str) -> TimescaleSettings:
    return TimescaleSettings(url=url, timeout_s=10)


@pytest.fixture
def bars(url, tmp_path) -> pl.DataFrame:
    """The rows of `time_bars`, as they are stored."""
    rows = pl.concat(
        [
            some_bars("time_bars", range(300), symbol="币安人生USDT", spec="5m"),
            some_bars("time_bars", range(20)),
            some_bars("time_bars", range(20), venue=FUTURES),
            *(some_bars("time_bars", range(2), symbol=symbol, spec=symbol) for symbol in ODD_SYMBOLS),
            some_bars("time_bars", range(5), symbol="NONE").with_columns(
                complete=pl.lit(None, pl.Boolean), first_trade_id=pl.lit(None, pl.Int64)
            ),
            some_bars("time_bars", range(3), symbol="ODD").with_columns(
                vwap=pl.Series([float("nan"), float("inf"), -0.0])
            ),
        ]
    )
    store = store_on(url, tmp_path)
    store.open()
    store.write(BarFlush([rows]))
    store.close()
    return rows


@pytest.fixture
def asked(monkeypatch) -> list[str]:
    """The statements that scans send."""
    sent: list[str] = []
    build = scan.select

    def spy(*arguments):
        sent.append(build(*arguments))
        return sent[-1]

    monkeypatch.setattr(scan, "select", spy)
    return sent


def same(found: pl.DataFrame, wanted: pl.DataFrame) -> None:
    order = [name for name in ("venue", "symbol", "spec", "open_time") if name in wanted.columns]
    assert_frame_equal(found.sort(order or wanted.columns), wanted.sort(order or wanted.columns), check_exact=True)


@pytest.mark.parametrize("kind", list(BAR_SCHEMAS))
def test_a_scan_gives_what_the_scan_of_the_embedded_store_gives(url, tmp_path, shared_data, kind):
    rows = ltc_bars(shared_data, kind)
    stores = [store_on(url, tmp_path, kind), DeltaBarStore(tmp_path / "delta", kind)]
    for store in stores:
        store.open()
        store.write(BarFlush([rows, some_bars(kind, range(9))]))
        store.close()
    edge = rows["open_time"][rows.height // 2]
    for filters in ({}, {"symbol": "LTCUSDT"}, {"spec": "x", "start": edge}, {"end": edge.isoformat()}):
        ours = scan_bars(settings(url), kind, **filters)
        theirs = scan_delta_bars(tmp_path / "delta", kind, **filters)
        assert ours.collect_schema() == theirs.collect_schema()
        assert ours.collect_schema() == ours.collect().schema
        keys = ["symbol", "first_trade_id"]
        assert_frame_equal(ours.collect().sort(keys), theirs.collect().sort(keys), check_exact=True)
        assert not ours.collect().is_empty()


@pytest.mark.parametrize(
    "predicate",
    [
        pl.col("symbol") == "币安人生USDT",
        pl.lit("ODD") == pl.col("symbol"),
        pl.col("symbol") != "NONE",
        pl.col("symbol") > "C",
        pl.col("symbol") == "A\0",
        pl.col("symbol").is_in(["NONE", "ODD"]),
        pl.col("symbol").str.starts_with("A"),
        pl.col("open_time") >= MIDNIGHT + timedelta(minutes=7),
        pl.col("open_time").is_between(MIDNIGHT, MIDNIGHT + timedelta(minutes=9), closed="none"),
        (pl.col("open_time") < MIDNIGHT + timedelta(minutes=5)) & (pl.col("venue") == FUTURES),
        (pl.col("symbol") == "ODD") | (pl.col("venue") == FUTURES),
        ~(pl.col("symbol") == "BTCUSDT"),
        (pl.col("symbol") == "ODD").not_() & (pl.col("close_time") > MIDNIGHT),
        pl.col("symbol") == pl.col("spec"),
        pl.col("vwap") > 8.0,
        pl.col("vwap").is_nan(),
        pl.col("complete"),
        pl.col("complete").is_null(),
        pl.col("first_trade_id").is_null() | (pl.col("first_trade_id") < 200),
        pl.col("first_trade_id") == 100,
        (pl.col("symbol") == "ODD") & (pl.col("vwap") == float("inf")),
        pl.col("total_ticks").cast(pl.Float64) == 3.0,
        pl.lit(value=False),
    ],
)
def test_a_filter_gives_what_it_gives_in_memory(url, bars, predicate):
    lazy = scan_bars(settings(url))
    same(lazy.filter(predicate).collect(), bars.filter(predicate))
    same(
        lazy.filter(predicate).select("vwap", "symbol").collect().sort("symbol", "vwap"),
        bars.filter(predicate).select("vwap", "symbol").sort("symbol", "vwap"),
    )
    assert lazy.filter(predicate).head(3).collect().height == min(3, bars.filter(predicate).height)
    assert lazy.filter(predicate).select(pl.len()).collect().item() == bars.filter(predicate).height
    assert lazy.head(7).filter(predicate).collect().height <= 7


FAR_US = [
    -(2**63) + 1, -(2**63) + 946_684_800_000_000 - 1, -(2**62), -62_135_596_800_000_001, -62_135_596_800_000_000,
    253_402_300_799_999_999, 253_402_300_800_000_000, 2**62, 2**63 - 1,
]  # fmt: skip


@pytest.mark.parametrize("time_us", FAR_US)
def test_a_time_that_the_server_may_not_know_gives_what_it_gives_in_memory(url, bars, time_us):
    lazy = scan_bars(settings(url), symbol="ODD")
    wanted = bars.filter(symbol="ODD")
    column, time = pl.col("open_time"), pl.lit(time_us).cast(pl.Datetime("us", "UTC"))
    for predicate in (column >= time, column > time, column < time, column <= time, column == time, column != time):
        same(lazy.filter(predicate).collect(), wanted.filter(predicate))


def test_the_first_and_last_times_there_are_may_begin_and_end_a_scan(url, bars):
    first, last = datetime(1, 1, 1, tzinfo=UTC), datetime(9999, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC)
    same(scan_bars(settings(url), start=first, end=last).collect(), bars)
    assert scan_bars(settings(url), start=last, end=first).collect().is_empty()
    for beyond in ("9999-12-31T23:59-05:00", "0001-01-01T00:00+05:00"):
        with pytest.raises(InputError, match="not a time"):
            scan_bars(settings(url), start=beyond)


def test_only_what_is_needed_is_asked_for(url, bars, asked):
    lazy = scan_bars(settings(url), symbol="币安人生USDT", start=MIDNIGHT)
    wanted = bars.filter(pl.col("symbol") == "币安人生USDT")
    found = lazy.filter(pl.col("spec") == "5m", pl.col("vwap") > 9).select("close").collect()
    assert found.height == wanted.filter(pl.col("vwap") > 9).height
    assert asked.pop() == (
        'SELECT "spec", "close", "vwap" FROM time_bars WHERE "symbol" = $1 AND "open_time" >= $2 AND "spec" = $3'
    )
    assert lazy.head(4).collect().height == 4
    assert asked.pop().endswith(" LIMIT 4")
    lazy.filter(pl.col("vwap") > 9).head(4).collect()
    assert "LIMIT" not in asked.pop()
    assert all("币" not in statement and "2024" not in statement for statement in asked)


def test_a_limit_counts_the_rows_that_a_filter_lets_through(url, bars, asked):
    """Polars keeps the two apart today; a source is called with both all the same."""
    predicate = pl.col("vwap") > bars["vwap"].median()
    layout = BARS["time_bars"]
    found = scan._read(settings(url), layout, ["spec"], [], predicate, 4)
    assert (found.columns, found.height) == (["spec"], 4)
    assert "LIMIT" not in asked.pop()


def test_the_arguments_are_values_whatever_they_hold(url, bars):
    for symbol in ODD_SYMBOLS:
        same(scan_bars(settings(url), symbol=symbol, spec=symbol).collect(), bars.filter(symbol=symbol, spec=symbol))
    for symbol in ("' OR true --", "A\0B", "", "$1"):
        assert scan_bars(settings(url), symbol=symbol).collect().is_empty()
        assert scan_bars(settings(url), symbol=symbol).select("vwap").collect().columns == ["vwap"]
    same(scan_bars(settings(url), venue=SPOT).collect(), bars.filter(venue=SPOT))


def test_a_scan_is_read_anew_each_time(url, bars, tmp_path):
    lazy = scan_bars(settings(url))
    before = lazy.select(pl.len()).collect().item()
    assert before == bars.height
    store = store_on(url, tmp_path)
    store.open()
    store.write(BarFlush([some_bars("time_bars", range(4), symbol="LATER")]))
    store.close()
    assert lazy.select(pl.len()).collect().item() == before + 4


def test_what_is_no_kind_or_no_time_is_refused(url):
    with pytest.raises(InputError, match="not a kind of bars"):
        scan_bars(settings(url), "renko")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="not a time"):
        scan_bars(settings(url), start="yesterday")
