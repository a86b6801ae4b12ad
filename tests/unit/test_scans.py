"""What a notebook reads of the embedded store: order, names that are not stored, and the list of all there is."""

from __future__ import annotations

import random
import warnings
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path

import polars as pl
import pytest
from polars.testing import assert_frame_equal

import raven
from raven.batches.batch import Cursor
from raven.errors import StoreError
from raven.sinks.contents import CONTENTS, not_stored
from raven.sinks.delta import DeltaBarStore, DeltaTradeStore, Upkeep
from raven.sinks.delta.contents import groups
from raven.sinks.encode import TRADES
from raven.sinks.store import BarFlush, BarKind, TradeFlush
from tests.unit.samples import START, trades
from tests.unit.store_compliance import FUTURES, ODD_SYMBOLS, SPOT

EAGER = Upkeep(retention_h=0, small_files=2, settled_s=0)
SYMBOLS = ["BTCUSDT", "ETHUSDT", "BTCUSDC"]


@pytest.fixture(autouse=True)
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the embedded tables lie that the settings lead to."""
    monkeypatch.setenv("RAVEN__DATA", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    return tmp_path / "delta"


@pytest.fixture
def store(root: Path) -> Iterator[DeltaTradeStore]:
    store = DeltaTradeStore(root, EAGER)
    store.open()
    yield store
    store.close()


def write_bars(root: Path, kind: BarKind, *frames: pl.DataFrame) -> None:
    store = DeltaBarStore(root, kind)
    store.open()
    for number, bars in enumerate(frames):
        store.write(BarFlush([bars], {"raven_timebar": Cursor("j", number)}))
    store.close()


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, pl.DataFrame]:
    """A data folder with trades of three symbols at two venues, flushed in no order, and bars; and those trades."""
    data = tmp_path_factory.mktemp("market")
    parts = [(venue, symbol) for venue in (SPOT, FUTURES) for symbol in SYMBOLS]
    flushes = [(*part, piece) for part in parts for piece in range(3)]
    random.Random(5).shuffle(flushes)
    flushes.sort(key=lambda flush: flush[2])  # ids of a symbol only go up
    store = DeltaTradeStore(data / "delta")
    store.open()
    for venue, symbol, piece in flushes:
        store.write(TradeFlush([(venue, trades(range(piece * 100, piece * 100 + 100), symbol))]))
    store.close()
    given = pl.concat(trades(range(300), symbol).with_columns(venue=pl.lit(venue)) for venue, symbol in parts)
    write_bars(data / "delta", "time_bars", *(raven.time_bars(given, every).reverse() for every in ("10s", "5s")))
    write_bars(data / "delta", "tick_imbalance_bars", raven.tick_bars(given, 7), raven.volume_bars(given, 9.0))
    return data, given


@pytest.fixture
def market(built: tuple[Path, pl.DataFrame], monkeypatch: pytest.MonkeyPatch) -> pl.DataFrame:
    """The settings lead to what is `built`; its trades."""
    monkeypatch.setenv("RAVEN__DATA", str(built[0]))
    return built[1]


def in_order(rows: pl.DataFrame, *columns: str) -> bool:
    return rows.select(columns).equals(rows.select(columns).sort(columns, maintain_order=True))


@pytest.mark.usefixtures("market")
def test_rows_come_in_order_whatever_was_flushed_when() -> None:
    lazy = raven.scan_trades()
    assert isinstance(lazy, pl.LazyFrame)
    found = lazy.collect()
    assert found.height == 6 * 300
    assert in_order(found, "venue", "symbol", "trade_id")
    assert not in_order(raven.scan_trades(ordered=False).collect(), "venue", "symbol", "trade_id")
    assert in_order(raven.scan_trades("spot").collect(), "venue", "symbol", "trade_id")
    one = raven.scan_trades("spot", "BTCUSDT", START + timedelta(seconds=10), START + timedelta(seconds=60)).collect()
    assert one["trade_id"].to_list() == list(range(40, 240))
    narrowed = lazy.filter(pl.col("price") > 103).select("symbol", "trade_id", "price").head(50).collect()
    assert_frame_equal(narrowed, found.filter(pl.col("price") > 103)[:50].select(narrowed.columns))
    bars = raven.scan_bars().collect()
    assert set(bars["spec"]) == {"5s", "10s"}
    assert in_order(bars, "venue", "symbol", "open_time", "spec")
    assert in_order(raven.scan_bars("spot", "ETHUSDT", "5s").collect(), "open_time")
    closed_by_trades = raven.scan_bars(kind="tick_imbalance_bars").collect()
    assert in_order(closed_by_trades, "venue", "symbol", "first_trade_id", "spec")
    assert in_order(raven.scan_bars(symbol="BTCUSDT", spec="tick-7").collect(), "venue", "first_trade_id")
    assert_frame_equal(raven.scan_bars(ordered=False).collect().sort("venue", "symbol", "open_time", "spec"), bars)


def test_ids_make_the_order_where_times_do_not(root: Path, store: DeltaTradeStore) -> None:
    rows = trades(range(60)).with_columns(pl.col("ts_event", "ts_recv").reverse())
    store.write(TradeFlush([(SPOT, rows[:30]), (SPOT, rows[30:])]))
    assert raven.scan_trades("spot", "BTCUSDT").collect()["trade_id"].to_list() == list(range(60))
    at_once = trades(range(60), every_ms=0).with_columns(venue=pl.lit(SPOT))
    bars = raven.tick_bars(at_once, 3)
    assert bars["open_time"].n_unique() == 1
    write_bars(root, "tick_imbalance_bars", bars.sample(fraction=1.0, shuffle=True, seed=3))
    found = raven.scan_bars(spec="tick-3").collect()["first_trade_id"].to_list()
    assert found == bars["first_trade_id"].to_list()


@pytest.mark.usefixtures("market")
def test_a_filter_goes_below_the_order() -> None:
    plan = raven.scan_trades().filter(pl.col("symbol") == "BTCUSDT", pl.col("price") > 103).explain()
    assert plan.index("SORT") < plan.index('"price"')


@pytest.mark.parametrize(
    ("scan", "message"),
    [
        (lambda: raven.scan_trades(symbol="BTCUSTD"), r"no trades with symbol BTCUSTD are stored: did you mean BTCUSDT"),
        (lambda: raven.scan_trades("spot", "btcusdt"), r"symbol btcusdt of BINANCE_SPOT are stored: did you mean BTCUSDT"),
        (lambda: raven.scan_trades("KRAKEN"), r"venue KRAKEN are stored: there are BINANCE_FUTURES, BINANCE_SPOT"),
        (lambda: raven.scan_trades("BINANCE_SPOTS"), r"did you mean BINANCE_SPOT or BINANCE_FUTURES\?"),
        (lambda: raven.scan_bars("spot", "BTCUSDT", "7m"), r"time_bars with spec 7m of BINANCE_SPOT BTCUSDT are .* 10s, 5s"),
        (lambda: raven.scan_bars(spec="tick-8"), r"tick_imbalance_bars with spec tick-8 are stored: did you mean tick-7\?"),
        (lambda: raven.scan_bars("futures", "XRPUSDT", "5s"), r"no time_bars with symbol XRPUSDT of BINANCE_FUTURES are"),
    ],
)  # fmt: skip
@pytest.mark.usefixtures("market")
def test_a_name_that_is_not_stored_is_a_warning_with_the_nearest(scan, message) -> None:
    with pytest.warns(raven.NotStoredWarning, match=message) as told:
        rows = scan()
    assert told[0].filename == __file__
    assert rows.collect().is_empty()


@pytest.mark.usefixtures("market")
def test_what_is_stored_is_no_warning_even_where_no_row_is_in_the_time_asked_for() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert raven.scan_trades("spot", "ETHUSDT", start="2030-01-01").collect().is_empty()
        assert raven.scan_bars("futures", "BTCUSDC", "10s", end="2020-01-01").collect().is_empty()


def test_a_name_that_is_stored_with_another_is_told_of_where() -> None:
    known = pl.DataFrame(
        [("A", "X", "1m"), ("A", "Y", "5m"), ("B", "Y", "1m")], ["venue", "symbol", "spec"], orient="row"
    )
    assert not_stored(known, {"venue": "B", "symbol": "X"}, "bars") == (
        "no bars with symbol X of B are stored: there are some of A"
    )
    assert not_stored(known, {"symbol": "Y", "spec": "1m", "venue": "A"}, "bars") == (
        "no bars with venue A of Y 1m are stored: there are some of X 1m, Y 5m"
    )
    assert not_stored(known, {"venue": "A", "symbol": None, "spec": "5m"}, "bars") is None
    assert (
        not_stored(known.clear(), {"symbol": "Y"}, "bars") == "no bars with symbol Y are stored: nothing is stored yet"
    )
    many = pl.DataFrame({"symbol": [f"{number:03}" for number in range(30)]})
    assert "007 and 22 more" in str(not_stored(many, {"symbol": "none like it"}, "trades"))


def test_the_log_tells_the_groups_through_checkpoints_and_its_cleanup(root: Path, store: DeltaTradeStore) -> None:
    assert groups(root, TRADES).is_empty()
    written = set()
    for number, symbol in enumerate(ODD_SYMBOLS * 6):
        venue = (SPOT, FUTURES)[number % 2]
        store.write(TradeFlush([(venue, trades([number], symbol))], {"x": Cursor("j", number)}))
        written.add((venue, symbol))
        if number % 20 == 19:
            store.maintain()
        if number in (1, 19, 20, 60):
            assert set(groups(root, TRADES).iter_rows()) == written
    assert set(groups(root, TRADES).iter_rows()) == written
    log = root / "trades" / "_delta_log"
    assert len(list(log.glob("*.json"))) < len(ODD_SYMBOLS) * 6, "what the log began with is gone"
    assert set(raven.stored().select("venue", "symbol").iter_rows()) == written


def test_stored_lists_all_there_is(market: pl.DataFrame) -> None:
    found = raven.stored()
    assert found.schema == CONTENTS
    group = found.select("venue", "symbol", "spec")
    assert group.equals(group.sort("venue", "symbol", "spec"))
    assert group.height == 6 * 5
    assert found.row(0) == (
        FUTURES, "BTCUSDC", None, 300, START, START + timedelta(seconds=299 * 0.25),
    )  # fmt: skip
    for venue, symbol, spec, rows, first, last in found.drop_nulls("spec").iter_rows():
        bars = raven.scan_bars(venue, symbol, spec).collect()
        assert (bars.height, bars["open_time"].min(), bars["open_time"].max()) == (rows, first, last)
    trades_of = found.filter(pl.col("spec").is_null())
    assert trades_of["rows"].sum() == market.height


def test_with_nothing_stored_the_list_is_empty_and_a_scan_says_so() -> None:
    assert raven.stored().equals(pl.DataFrame(schema=CONTENTS))
    for scan in (raven.scan_trades, raven.scan_bars):
        with pytest.raises(StoreError, match="are stored in"):
            scan()


def test_a_venue_of_somebody_elses_is_read_by_its_name(store: DeltaTradeStore) -> None:
    store.write(TradeFlush([("MINE", trades(range(5)))], {"x": Cursor("j", 1)}))
    assert raven.scan_trades("MINE").collect().height == 5
    assert isinstance(raven.stored()["first_time"][0], datetime)
