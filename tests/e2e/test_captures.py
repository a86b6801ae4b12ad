"""Raw captures over midnight through the services; cuts of every size; importing; live batches."""

from __future__ import annotations

import asyncio
import json
import re
import subprocess
import sys
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from urllib.request import urlopen

import polars as pl
import pytest
from polars.testing import assert_frame_equal

import raven
from raven.bars.kernel import Kernel
from raven.bars.tick_imbalance import TickImbalanceKernel
from raven.bars.time_bars import TimeBarKernel
from raven.batches.batch import TradeBatch
from raven.errors import InputError, UpstreamError
from tests.e2e.cluster import cluster, wait_until
from tests.e2e.conftest import ARCHIVE

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]

CAPTURES = ("ws_raw_spot_btcusdt_20240808.gz", "ws_raw_spot_btcusdt_20240809.gz")
MIDNIGHT = datetime(2024, 8, 9, tzinfo=UTC)


def test_captures_over_midnight_through_the_services(tmp_path: Path, shared_data: Path) -> None:
    paths = [shared_data / name for name in CAPTURES]
    expected = raven.read_trades(*paths)
    assert expected.height == 19_904
    with cluster(tmp_path) as run:
        run.simulate(*(argument for path in paths for argument in ("--play", str(path))), "--speed", "max")
        run.start()
        run.ctl("start", "--service", "tick_persistence", "--symbol", "BTCUSDT", "--wait", "20")
        run.ctl("start", "--service", "bar_persistence", "--symbol", "BTCUSDT", "--wait", "0")
        wait_until(lambda: run.rows("trades") >= expected.height, 60, "all trades stored")
        wait_until(lambda: run.rows("time_bars") >= 12, 90, "the last bar is stored, closed by the watermark")
        assert run.counter("binance_spot", "dead_frames") == 0
        trades, bars = run.table("trades").sort("trade_id"), run.table("time_bars").sort("open_time")
    columns = ["trade_id", "ts_event", "price", "quantity"]
    assert_frame_equal(trades.select(columns), expected.select(columns))
    assert trades.get_column("date").unique().sort().to_list() == [date(2024, 8, 8), date(2024, 8, 9)]

    by_minute = expected.group_by(open_time=pl.col("ts_event").dt.truncate("1m")).agg(
        open=pl.col("price").first(), high=pl.col("price").max(), low=pl.col("price").min(),
        close=pl.col("price").last(), volume=pl.col("quantity").sum(), total_ticks=pl.len().cast(pl.Int64),
    ).sort("open_time")  # fmt: skip
    assert_frame_equal(bars.select(by_minute.columns), by_minute, rel_tol=1e-12)
    assert bars.get_column("complete").to_list() == [False, *[True] * (bars.height - 2), False]
    first_of_day = bars.filter(pl.col("open_time") == MIDNIGHT)
    before = expected.filter(pl.col("ts_event") < MIDNIGHT).get_column("trade_id").max()
    assert first_of_day.get_column("first_trade_id").item() == before + 1
    day = raven.time_bars(expected, "1d", partial=True)
    assert day.get_column("open_time").to_list() == [MIDNIGHT - timedelta(days=1), MIDNIGHT]


@pytest.mark.parametrize("rows", [1, 7, 1_000, 100_000])
@pytest.mark.parametrize("kernel", [TimeBarKernel(60_000_000), TickImbalanceKernel()], ids=["time bars", "TIBs"])
def test_the_archive_in_batches_of_any_size_gives_the_same_bars(kernel: Kernel, rows: int, shared_data: Path) -> None:
    whole = raven.read_trades(shared_data / ARCHIVE)
    state, reference = kernel.step(kernel.initial(), TradeBatch("BINANCE_SPOT", whole))
    reference = pl.concat([reference, kernel.open_bars(state, "BINANCE_SPOT")])
    assert reference.get_column("total_ticks").sum() == whole.height
    state, parts = kernel.initial(), []
    for trades in whole.iter_slices(rows):
        state, bars = kernel.step(state, TradeBatch("BINANCE_SPOT", trades))
        if bars.height:
            parts.append(bars)
    bars = pl.concat([*parts, kernel.open_bars(state, "BINANCE_SPOT")])
    exact = pl.selectors.exclude(pl.selectors.float())
    assert_frame_equal(bars.select(exact), reference.select(exact))
    assert_frame_equal(bars, reference, rel_tol=1e-12, abs_tol=0.0)


def test_import_and_replay_from_the_command_line(tmp_path: Path, shared_data: Path) -> None:
    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "raven.cli.raven", "import", *arguments],
            cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False,
        )  # fmt: skip

    done = run(str(shared_data / ARCHIVE))
    assert done.stdout == "102,899 trades of BTCUSDT into data/imported-binance_spot\n", done.stderr
    again = json.loads(run(str(shared_data / ARCHIVE), "--json").stdout)
    assert (again["rows"], again["duplicates"]) == (0, 102_899)
    captured = run(*(str(shared_data / name) for name in CAPTURES), "--into", str(tmp_path / "captured"))
    assert captured.stdout.startswith("19,904 trades of BTCUSDT"), captured.stderr
    assert sum(batch.height for batch in raven.replay(tmp_path / "captured")) == 19_904

    broken = tmp_path / "BTCUSDT-trades-2019.zip"
    broken.write_bytes((shared_data / ARCHIVE).read_bytes()[:100_000])
    for wrong, message in (
        (str(broken), broken.name),
        (str(tmp_path / "nowhere.zip"), "nowhere.zip"),
        (str(shared_data / "ADABTC-1m-2021-11-27.csv"), "kline"),
    ):
        failed = run(wrong)
        assert failed.returncode == 1
        assert message in failed.stderr
        assert "Traceback" not in failed.stderr


def test_live_batches_in_a_notebook(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with cluster(tmp_path) as run:
        run.simulate("--rate", "200")
        run.start("binance_spot", "raven_timebar")
        run.ctl("start", "--service", "timebar", "--symbol", "ETHUSDT", "--symbol", "BTCUSDT")
        for key, value in run.environment.items():
            if key.startswith("RAVEN__"):
                monkeypatch.setenv(key, value)

        async def take(count: int, symbol: str = "ETHUSDT", **options: str) -> pl.DataFrame:
            frames: list[pl.DataFrame] = []
            async with asyncio.timeout(20):
                async for frame in raven.live(symbol, **options):
                    frames.append(frame)
                    if len(frames) == count:
                        break
            return pl.concat(frames)

        trades = asyncio.run(take(5))
        assert trades.get_column("symbol").unique().to_list() == ["ETHUSDT"]
        assert (trades.get_column("trade_id").diff().drop_nulls() == 1).all()
        with pytest.raises(InputError, match=r"binance_spot at .* does not collect ETHUSD "):
            asyncio.run(take(1, "ETHUSD"))
        with pytest.raises(InputError, match=r"raven_timebar at .* does not collect ETHUSDT "):
            asyncio.run(take(1, kind="time_bars", venue="futures"))
        metrics = urlopen(f"http://127.0.0.1:{run.ports['binance_spot'] + 1000}/metrics").read().decode()
        assert re.search(r'raven_rows_total\{upstream="exchange"\} [1-9]', metrics)
        assert run.ctl("status")["raven_timebar"]["healthy"]
        run.kill("raven_timebar")
        assert "no service answers" in run.ctl("status", code=1)["raven_timebar"]["error"]
        run.kill("binance_spot")
        with pytest.raises(UpstreamError, match="no service answers"):
            asyncio.run(take(1))
