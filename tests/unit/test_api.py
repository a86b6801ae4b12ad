"""The Python API as a notebook uses it, on real recordings."""

from __future__ import annotations

import gzip
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest
from polars.testing import assert_frame_equal

import raven
from raven.batches.batch import Cursor
from raven.builders import DroppedRowsWarning
from raven.errors import InputError, StateError, StoreError
from raven.sinks.delta import DeltaBarStore, DeltaTradeStore
from raven.sinks.store import BarFlush, TradeFlush
from raven.sources.importing import import_files
from tests.unit.samples import START, trades

ARCHIVE = "BTCUSDT-trades-2019-04-01_00h-12h.zip"
REQUIRED = ["ts_event", "price", "quantity", "side"]


@pytest.fixture(scope="module")
def archive(shared_data: Path) -> pl.DataFrame:
    return raven.read_trades(shared_data / ARCHIVE)


def test_frames_lazy_frames_and_iterables_give_the_same_bars(archive: pl.DataFrame, shared_data: Path) -> None:
    bars = raven.time_bars(archive, "5m")
    assert bars.height == 12 * 12 - 1
    assert_frame_equal(raven.time_bars(archive.lazy(), timedelta(minutes=5)), bars)
    pieces = raven.iter_trades(shared_data / ARCHIVE, batch_rows=7_777)
    assert_frame_equal(raven.time_bars(pieces, 300), bars, rel_tol=1e-12)
    tibs = raven.tick_imbalance_bars(archive)
    assert (tibs.height, tibs["total_ticks"].sum()) == (370, 102_372)
    assert_frame_equal(raven.tick_imbalance_bars([archive[:50_000], archive[50_000:]]), tibs, rel_tol=1e-12)


def test_a_frame_out_of_order_is_put_in_order_and_frames_out_of_order_warn(archive: pl.DataFrame) -> None:
    assert_frame_equal(raven.time_bars(archive.reverse(), "1h"), raven.time_bars(archive, "1h"), rel_tol=1e-12)
    without_ids = archive.drop("trade_id").sample(fraction=1.0, shuffle=True, seed=1)
    hours = raven.time_bars(without_ids, "1h")
    assert hours["total_ticks"].to_list() == raven.time_bars(archive, "1h")["total_ticks"].to_list()
    with pytest.warns(DroppedRowsWarning, match="50000 rows were left out"):
        raven.time_bars([archive[50_000:], archive[:50_000]], "1h")


def test_tick_volume_and_dollar_bars(archive: pl.DataFrame) -> None:
    ticks = raven.tick_bars(archive, ticks=1000)
    assert (ticks.height, ticks["total_ticks"].unique().to_list()) == (102, [1000])
    assert ticks["complete"].to_list() == [False, *[True] * 101]
    volume, dollars = raven.volume_bars(archive, volume=50), raven.dollar_bars(archive, dollars=250_000)
    assert (volume["volume"] >= 50 * (1 - 1e-12)).all()
    assert (dollars["quote_volume"] >= 250_000 * (1 - 1e-12)).all()
    for bars, again in (
        (ticks, raven.tick_bars(archive.lazy(), 1000)),
        (volume, raven.volume_bars([archive[:50_000], archive[50_000:]], 50)),
        (dollars, raven.dollar_bars(archive.reverse(), 250_000)),
    ):
        assert_frame_equal(again, bars, rel_tol=1e-12)
        assert bars["expected_size"].null_count() == bars["expected_imbalance"].null_count() == bars.height
        assert (bars["theta"] == bars["buy_ticks"] - bars["sell_ticks"]).all()
    whole = raven.volume_bars(archive, 50, partial=True)
    assert (whole.height, whole["total_ticks"].sum()) == (volume.height + 1, archive.height)


def test_partial_adds_the_open_bar(archive: pl.DataFrame) -> None:
    closed, all_bars = raven.time_bars(archive, "1h"), raven.time_bars(archive, "1h", partial=True)
    assert (closed.height, all_bars.height) == (11, 12)
    assert all_bars["complete"].to_list() == [False, *[True] * 10, False]
    assert all_bars["total_ticks"].sum() == archive.height
    tibs = raven.tick_imbalance_bars(archive, partial=True)
    assert (tibs.height, tibs["total_ticks"].sum()) == (371, archive.height)


def test_a_users_own_frame_needs_four_columns(archive: pl.DataFrame) -> None:
    own = archive.select(REQUIRED).with_columns(
        pl.col("ts_event").dt.replace_time_zone(None).dt.cast_time_unit("ns"),
        side=pl.when(pl.col("side") > 0).then(pl.lit("buy")).otherwise(pl.lit("sell")),
    )
    bars = raven.time_bars(own, "1h", venue="MINE", symbol="COIN")
    reference = raven.time_bars(archive, "1h", venue="MINE")
    assert bars["complete"].null_count() == bars["first_trade_id"].null_count() == bars.height == 11
    assert bars["revision"].to_list() == (2 * bars["total_ticks"]).to_list()
    assert bars["symbol"].unique().to_list() == ["COIN"]
    same = ["venue", "open_time", "open", "high", "low", "close", "volume", "vwap", "buy_ticks", "total_ticks"]
    assert_frame_equal(bars.select(same), reference.select(same), rel_tol=1e-12)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda frame: frame.drop("side"), "columns missing: side"),
        (
            lambda frame: frame.with_columns(side=pl.lit("BID")),
            "row 0, counted from 0: bad_side: side is BID; a side is",
        ),
        (lambda frame: frame.with_columns(side=pl.lit(True)), "side is Boolean.*booleans are taken as is_buyer_maker"),
        (lambda frame: frame.with_columns(pl.col("ts_event").dt.date()), "ts_event is Date, which are no times"),
        (lambda frame: frame.with_columns(price=pl.lit("1,5")), "bad_price: price is 1,5; a price is"),
        (lambda frame: frame.with_columns(price=pl.lit(None)), "bad_price: price is missing"),
        (lambda frame: frame.with_columns(price=pl.lit(float("nan"))), "bad_price: price is nan"),
        (lambda frame: frame.with_columns(quantity=pl.lit(-1.0)), "bad_quantity: quantity is -1.0"),
        (lambda frame: frame.with_columns(side=pl.lit(0)), "bad_side: side is 0"),
        (lambda frame: frame.with_columns(trade_id=pl.lit(1.5)), "bad_id: trade_id is 1.5"),
        (lambda frame: frame.with_columns(symbol=pl.lit("")), "bad_symbol: symbol is"),
    ],
)
def test_frames_that_do_not_fit_say_why(change: object, message: str) -> None:
    assert callable(change)
    with pytest.raises(InputError, match=message):
        raven.time_bars(change(trades(range(5))))


def test_wrong_parameters_say_why() -> None:
    frame = trades(range(5))
    with pytest.raises(InputError):
        raven.time_bars(frame, "1 fortnight")
    with pytest.raises(InputError, match=r"size.min"):
        raven.tick_imbalance_bars(frame, size_min=-1)
    with pytest.raises(InputError, match=r"^ticks must be a whole number above 0, got 2.5"):
        raven.tick_bars(frame, 2.5)  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"^volume must be above 0, got 0"):
        raven.volume_bars(frame, 0)
    with pytest.raises(InputError, match=r"^dollars must be a finite number, got nan"):
        raven.DollarBars(float("nan"))
    with pytest.raises(InputError, match=r"trades are dict.*give frames of Polars, pandas or pyarrow"):
        raven.TimeBars().update({"price": [1.0]})  # type: ignore[arg-type]


def test_step_by_step_with_a_snapshot_in_the_middle(archive: pl.DataFrame) -> None:
    for make, reference in (
        (lambda: raven.TimeBars("1m"), raven.time_bars(archive, partial=True)),
        (raven.TickImbalanceBars, raven.tick_imbalance_bars(archive, partial=True)),
        (lambda: raven.TickBars(500), raven.tick_bars(archive, 500, partial=True)),
        (lambda: raven.VolumeBars(20.5), raven.volume_bars(archive, 20.5, partial=True)),
        (lambda: raven.DollarBars(1e5), raven.dollar_bars(archive, 1e5, partial=True)),
    ):
        first = make()
        parts = [first.update(archive[:40_000])]
        second = make().restore(first.snapshot())
        parts += [second.update(archive[39_000:]), second.open_bars()]
        assert second.duplicates == 1_000
        joined = pl.concat(parts).sort("open_time", "first_trade_id", maintain_order=True)
        assert_frame_equal(joined, reference, rel_tol=1e-12)
    with pytest.raises(StateError):
        raven.TimeBars("5m").restore(raven.TimeBars("1m").restore(first_snapshot()).snapshot())
    with pytest.raises(StateError):
        raven.VolumeBars(10).restore(second.snapshot())
    with pytest.raises(StateError, match="damaged"):
        raven.TimeBars("1m").restore(b"\x00 nothing")


def first_snapshot() -> bytes:
    bars = raven.TimeBars("1m")
    bars.update(trades(range(10)))
    return bars.snapshot()


def test_two_venues_in_one_frame_never_mix() -> None:
    frame = trades(range(100))
    both = pl.concat([frame.with_columns(venue=pl.lit(venue)) for venue in ("BINANCE_SPOT", "BINANCE_FUTURES")])
    bars = raven.time_bars(both, "1s")
    one = raven.time_bars(frame, "1s", venue="BINANCE_SPOT")
    assert_frame_equal(bars.filter(pl.col("venue") == "BINANCE_SPOT"), one)
    assert bars.height == 2 * one.height


def test_a_quiet_market_has_no_bar_in_an_empty_minute_and_all_when_filled(shared_data: Path) -> None:
    quiet = raven.read_trades(shared_data / "rest_aggTrades_XRPETH_20191011-13.json.gz", symbol="XRPETH")
    bars = raven.time_bars(quiet, "1m", partial=True)
    minutes = quiet["ts_event"].dt.truncate("1m").unique()
    assert bars["open_time"].to_list() == minutes.sort().to_list()
    assert (bars["total_ticks"] > 0).all()
    filled = raven.time_bars(quiet, "1m", partial=True, fill_empty=True)
    steps = filled["open_time"].diff().drop_nulls()
    assert (steps == timedelta(minutes=1)).all()
    third_party = json.loads(gzip.decompress((shared_data / "freqtrade_XRPETH-1m_from_trades.json.gz").read_bytes()))
    assert filled["open_time"].dt.epoch("ms").to_list() == [candle[0] for candle in third_party]
    assert filled.height - bars.height == 1_091
    empty = filled.filter(pl.col("total_ticks") == 0)
    assert empty["complete"].all(), "the ids on both sides prove that nothing was traded"
    assert empty["volume"].sum() == 0
    before = filled.with_columns(pl.col("close").shift(1).alias("before")).filter(pl.col("total_ticks") == 0)
    assert (before["open"] == before["before"]).all()
    closes = [candle[4] for candle in third_party]
    assert filled["close"].to_list() == closes


def test_replay_gives_the_batches_as_they_were_cut(archive: pl.DataFrame, shared_data: Path, tmp_path: Path) -> None:
    journal = tmp_path / "journal"
    report = import_files([shared_data / ARCHIVE], into=journal, data=tmp_path)
    assert (report.rows, report.duplicates, report.gaps) == (102_899, 0, 0)
    batches = list(raven.replay(journal))
    assert len(batches) > 1
    assert_frame_equal(pl.concat(batches), archive)
    assert_frame_equal(raven.read_trades(journal), archive)
    assert list(raven.replay(journal, symbols=["ETHUSDT"])) == []
    hour = pl.concat(raven.replay(journal, start="2019-04-01T03:00", end=datetime(2019, 4, 1, 4, tzinfo=UTC)))
    assert_frame_equal(hour, archive.filter(pl.col("ts_event").dt.hour() == 3))
    again = import_files([shared_data / ARCHIVE], into=journal, data=tmp_path)
    assert (again.rows, again.duplicates) == (0, 102_899)
    with pytest.raises(InputError, match="a folder, and no journal"):
        raven.replay(tmp_path)
    with pytest.raises(InputError, match="is not a time"):
        list(raven.replay(journal, start="yesterday"))


def test_scans_read_the_configured_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAVEN__DATA", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(StoreError):
        raven.scan_trades().collect()
    frame = trades(range(1000))
    store = DeltaTradeStore(tmp_path / "delta")
    store.open()
    store.write(TradeFlush([("BINANCE_SPOT", frame)], {"binance_spot": Cursor("j", 1)}))
    store.close()
    bars = DeltaBarStore(tmp_path / "delta", "time_bars")
    bars.open()
    expected = raven.time_bars(frame, "10s", venue="BINANCE_SPOT")
    bars.write(BarFlush([expected], {"raven_timebar": Cursor("j", 1)}))
    bars.close()
    assert raven.scan_trades("BINANCE_SPOT", "BTCUSDT").collect().height == 1000
    part = raven.scan_trades(start=START + timedelta(seconds=10), end=START + timedelta(seconds=20)).collect()
    assert part["trade_id"].sort().to_list() == list(range(40, 80))
    found = raven.scan_bars("BINANCE_SPOT", "BTCUSDT", "10s").collect().sort("open_time")
    assert_frame_equal(found.select(expected.columns), expected)
    with pytest.warns(raven.NotStoredWarning, match="with spec 1m are stored: there are 10s"):
        assert raven.scan_bars(spec="1m").collect().is_empty()
    closed = DeltaBarStore(tmp_path / "delta", "tick_imbalance_bars")
    closed.open()
    for number, make in enumerate(
        (raven.TickBars(9), raven.VolumeBars(10), raven.DollarBars(5e3), raven.TickImbalanceBars())
    ):
        expected = make.update(frame.with_columns(venue=pl.lit("BINANCE_SPOT")))
        closed.write(BarFlush([expected], {"raven_tibs": Cursor("j", number + 1)}))
        found = raven.scan_bars(spec=expected["spec"][0]).collect().sort("first_trade_id")
        assert_frame_equal(found.select(expected.columns), expected)
    closed.close()
