"""`raven replay`: a recorded day through aggregators and sinks gives the trades and bars of the live day."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import zip_longest
from pathlib import Path

import polars as pl
import pytest
from polars.testing import assert_frame_equal

import raven
from raven.journal import JournalReader
from tests.e2e.cluster import Cluster, cluster, wait_until
from tests.e2e.conftest import ARCHIVE, TIBS, TRADES
from tests.e2e.test_archive import NINE_FIGURES, official_klines

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]

CONSUMERS = ("raven_timebar", "raven_tibs", "tick_persistence", "bar_persistence")
KEYS = {
    "trades": ["symbol", "trade_id"],
    "time_bars": ["symbol", "spec", "open_time"],
    "tick_imbalance_bars": ["symbol", "spec", "first_trade_id"],
}
MARKET = ("BTCUSDT", "ETHUSDT")


@dataclass(frozen=True)
class Day:
    """What a source journaled, and what the stores hold of it, every column."""

    journal: Path
    tables: dict[str, pl.DataFrame]


def collect(run: Cluster, symbols: Sequence[str]) -> None:
    arguments = [argument for symbol in symbols for argument in ("--symbol", symbol)]
    run.ctl("start", "--service", "tick_persistence", *arguments, "--wait", "20")
    run.ctl("start", "--service", "bar_persistence", *arguments, "--wait", "0")


def recorded_ids(journal: Path) -> dict[str, int]:
    return JournalReader(journal).tail_ids()


def stored(run: Cluster, last_ids: dict[str, int]) -> dict[str, pl.DataFrame]:
    """The tables once every consumer has taken everything and all was stopped; open time bars are stored by that."""

    def taken(name: str) -> bool:
        entries = {entry.symbol: entry.last_trade_id for entry in run.status(name).subscriptions}
        return entries == last_ids

    for name in ("raven_timebar", "raven_tibs", "tick_persistence"):
        wait_until(lambda name=name: taken(name), 90, f"{name} took all of {last_ids}: {run.status(name)}")
    run.ctl("stop-all")

    def all_flushed() -> bool:
        ticks = run.table("time_bars").group_by("spec").agg(pl.col("total_ticks").sum())
        return set(ticks.get_column("total_ticks")) == {run.rows("trades")}

    wait_until(all_flushed, 60, "all trades and time bars are stored")
    run.terminate("bar_persistence")  # which writes what it holds
    return {name: run.table(name).sort(keys) for name, keys in KEYS.items()}


def assert_same(found: dict[str, pl.DataFrame], expected: dict[str, pl.DataFrame]) -> None:
    """Bit for bit, every column of every table."""
    for name, table in expected.items():
        assert table.height
        assert_frame_equal(found[name], table, check_exact=True)


def assert_replayed_once(own: Path, recording: Path) -> None:
    """The replay's journal holds each recorded batch once, its rows, watermark, held and gaps; and its own end."""
    *replayed, end = JournalReader(own).entries()
    assert (end.rows, end.meta.input) == (0, replayed[-1].meta.input)
    for mine, theirs in zip_longest(replayed, JournalReader(recording).entries()):
        assert mine.meta.input[1] == theirs.meta.cursor
        assert (mine.meta.watermark_us, mine.meta.held, mine.meta.gaps) == (
            theirs.meta.watermark_us, theirs.meta.held, theirs.meta.gaps,
        )  # fmt: skip
        assert mine.rows == theirs.rows


@pytest.fixture(scope="module")
def live_archive(tmp_path_factory: pytest.TempPathFactory, shared_data: Path) -> Day:
    """The 12-hour archive, played by the exchange into the live services."""
    with cluster(tmp_path_factory.mktemp("archive")) as run:
        run.simulate("--play", str(shared_data / ARCHIVE), "--speed", "max")
        run.start("binance_spot", *CONSUMERS)
        collect(run, ["BTCUSDT"])
        wait_until(lambda: run.counter("binance_spot", "rows") == TRADES, 90, "all trades are received")
        journal = run.data / f"binance_spot-{run.ports['binance_spot']}"
        tables = stored(run, recorded_ids(journal))
    return Day(journal, tables)


@pytest.fixture(scope="module")
def live_market(tmp_path_factory: pytest.TempPathFactory) -> Day:
    """Some seconds of a generated market of two symbols, one of which joined late, and a silent end."""
    with cluster(tmp_path_factory.mktemp("market"), RAVEN__TIMEBAR__SECONDS="[1, 60]") as run:
        run.simulate("--symbol", "BTCUSDT", "--symbol", "ETHUSDT", "--rate", "300", "--seed", "5")
        run.start("binance_spot", *CONSUMERS)
        collect(run, MARKET[:1])
        wait_until(lambda: run.counter("binance_spot", "rows") >= 500, 60, "trades flow")
        collect(run, MARKET)
        wait_until(lambda: run.counter("binance_spot", "rows") >= 4_000, 60, "trades flow")
        run.terminate("simulate")
        wait_until(lambda: not run.status("binance_spot").links[0].connected, 20, "the exchange is gone")
        journal = run.data / f"binance_spot-{run.ports['binance_spot']}"
        tables = stored(run, recorded_ids(journal))
    return Day(journal, tables)


def test_a_replayed_archive_day_is_the_live_day_bit_for_bit(tmp_path: Path, live_archive: Day) -> None:
    with cluster(tmp_path, data="replay") as run:
        run.start(*CONSUMERS)  # the order of starting does not matter
        run.replay(str(live_archive.journal), "--speed", "max")
        collect(run, ["BTCUSDT"])
        assert_same(stored(run, recorded_ids(live_archive.journal)), live_archive.tables)
        own = run.data / f"binance_spot-{run.ports['binance_spot']}"
        assert "replayed to the end" in run.log("binance_spot")
    assert_replayed_once(own, live_archive.journal)
    assert live_archive.tables["time_bars"].height == 720
    assert live_archive.tables["tick_imbalance_bars"].height == TIBS


def test_a_replayed_market_of_two_symbols_killed_in_the_middle(tmp_path: Path, live_market: Day) -> None:
    total = live_market.tables["trades"].height
    with cluster(tmp_path, data="replay", RAVEN__TIMEBAR__SECONDS="[1, 60]") as run:
        run.replay(str(live_market.journal), "--speed", "0.5")
        run.start(*CONSUMERS)
        collect(run, MARKET[1:])
        wait_until(lambda: run.counter("binance_spot", "rows") >= total // 3, 60, "a third is replayed")
        run.kill("binance_spot")
        run.replay(str(live_market.journal), "--speed", "max")
        wait_until(lambda: "replayed to the end" in run.log("binance_spot"), 60, "the end is reached")
        assert 0 < run.counter("binance_spot", "rows") < total, "it went on where it was killed"
        collect(run, MARKET)  # the other symbol joins when all is over, and gets all
        messages = {entry.symbol: entry.message for entry in run.status("binance_spot").subscriptions}
        assert messages == dict.fromkeys(MARKET, "replayed to the end")
        assert_same(stored(run, recorded_ids(live_market.journal)), live_market.tables)
        own = run.data / f"binance_spot-{run.ports['binance_spot']}"
    assert_replayed_once(own, live_market.journal)


def test_an_archive_without_a_live_day_killed_in_the_middle(
    tmp_path: Path, shared_data: Path, live_archive: Day
) -> None:
    archive = str(shared_data / ARCHIVE)
    with cluster(tmp_path, data="replay") as run:
        run.replay(archive, "--speed", "5000")
        run.start(*CONSUMERS)
        collect(run, ["BTCUSDT"])
        wait_until(lambda: run.counter("binance_spot", "rows") >= 20_000, 60, "trades flow")
        run.kill("binance_spot")
        run.replay(archive, "--speed", "max")
        tables = stored(run, recorded_ids(live_archive.journal))
    when = ["ts_recv", "origin"]  # an archive does not tell when a trade would have been received
    assert_frame_equal(tables["trades"].drop(when), live_archive.tables["trades"].drop(when), check_exact=True)
    for name in ("time_bars", "tick_imbalance_bars"):  # cut otherwise, so sums agree to rounding
        found, expected = tables[name], live_archive.tables[name]
        exact = pl.selectors.exclude(pl.selectors.float())
        assert_frame_equal(found.select(exact), expected.select(exact))
        assert_frame_equal(found, expected, rel_tol=1e-12, abs_tol=0.0)
    assert tables["time_bars"].height == 720
    assert tables["tick_imbalance_bars"].height == TIBS
    hours = tables["time_bars"].group_by_dynamic("open_time", every="1h").agg(
        pl.col("open").first(), pl.col("high").max(), pl.col("low").min(), pl.col("close").last(),
        pl.col("volume", "quote_volume", "total_ticks", "buy_volume", "buy_quote_volume").sum(),
    )  # fmt: skip
    official = official_klines(shared_data / "BTCUSDT-1h-official-2019-04-01_00h-12h.json")
    for figure in NINE_FIGURES:
        ours = hours.get_column(figure).cast(pl.Float64).round(8)
        assert ours.to_list() == official.get_column(figure).round(8).to_list()


def test_wrong_uses(tmp_path: Path, shared_data: Path, live_archive: Day) -> None:
    archive = str(shared_data / ARCHIVE)
    with cluster(tmp_path, data="replay") as run:

        def refused(*arguments: str) -> str:
            done = subprocess.run(
                [sys.executable, "-m", "raven.cli.raven", "replay", *arguments],
                env=run.environment, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False,
            )  # fmt: skip
            assert done.returncode == 1, done.stdout + done.stderr
            assert "Traceback" not in done.stderr
            return done.stderr

        torn = tmp_path / "BTCUSDT-trades-2019.zip"
        torn.write_bytes((shared_data / ARCHIVE).read_bytes()[:100_000])
        other_version = tmp_path / "other"
        shutil.copytree(live_archive.journal, other_version)
        identity = other_version / "journal.json"
        identity.write_text(identity.read_text().replace('"format": 1', '"format": 9'))
        bars = next(live_archive.journal.parent.glob("raven_timebar-*"))
        assert "cannot be read" in refused(str(tmp_path / "nowhere"))
        assert f"{torn.name} is damaged" in refused(str(torn))
        assert "of another version" in refused(str(other_version))
        assert "a journal of time_bars" in refused(str(bars))
        assert "one venue" in refused(archive, str(shared_data / "cryptofeed_BINANCE_FUTURES.jsonl.zst"))
        assert "is of venue BINANCE_SPOT by its columns, not BINANCE_FUTURES" in refused(
            archive, str(live_archive.journal), "--venue", "futures"
        )
        assert "cannot be replayed together" in refused(archive, str(live_archive.journal))
        assert "is not a speed" in refused(archive, "--speed", "0")
        assert "not before its end" in refused(archive, "--start", "2019-04-02", "--end", "2019-04-01")
        assert "no trade lies between" in refused(archive, "--start", "2019-04-02")
        assert "did you mean BTCUSDT?" in refused(str(live_archive.journal), "--symbol", "BTCUSD")

        run.replay(archive, "--speed", "max")
        assert "BTCUSDTT is not in the recording; did you mean BTCUSDT?" in str(
            run.ctl("start", "--service", "binance_spot", "--symbol", "BTCUSDTT", code=1)
        )
        run.ctl("start", "--service", "binance_spot", "--symbol", "BTC*")
        own = run.data / f"binance_spot-{run.ports['binance_spot']}"
        elsewhere = ("--data", str(tmp_path / "elsewhere"))
        assert "cannot listen" in refused(archive, *elsewhere)
        assert "another process holds" in refused(archive)
        assert "is where this replay is journaled" in refused(str(own))
        assert run.terminate("binance_spot") == 0
        assert "holds a replay of" in refused(str(live_archive.journal))
        run.run("binance_spot", "raven.services.binance_spot")
        assert run.processes["binance_spot"].wait(30) == 1
        assert "not what was collected live" in run.log("binance_spot")


def test_once_ends_when_every_consumer_has_it_all(tmp_path: Path, shared_data: Path) -> None:
    with cluster(tmp_path, data="replay") as run:
        run.replay(str(shared_data / ARCHIVE), "--speed", "max", "--once", "--end", "2019-04-01T01:00")
        run.start("raven_tibs")
        run.ctl("start", "--service", "raven_tibs", "--symbol", "BTCUSDT", "--wait", "0")
        assert run.processes["binance_spot"].wait(60) == 0, run.log("binance_spot")
        own = run.data / f"binance_spot-{run.ports['binance_spot']}"
    replayed, archive = pl.concat(raven.replay(own)), raven.read_trades(shared_data / ARCHIVE)
    assert_frame_equal(replayed, archive.filter(pl.col("ts_event") < datetime(2019, 4, 1, 1, tzinfo=UTC)))
