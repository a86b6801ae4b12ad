"""Files that are hard to read right, replayed through the services and imported from the command line."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest

from raven.journal import JournalReader
from tests.e2e.cluster import Cluster, cluster, wait_until
from tests.unit.samples import trades

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]

FUTURES = {
    # symbol: file, and the ids that are its trades
    "BTCUSDT": ("hole/*.csv", list(range(1, 8))),
    "LTCUSDT": ("dup/*.csv", list(range(1000, 1006))),
    "XRPUSDT": ("interleaved/*.csv", [100, 101, 102, 103, 900, 901, 902, 903]),
    "ETHUSDT": ("zero/*.csv", [501, 503]),
}


def raven_command(*arguments: str, folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "raven.cli.raven", *arguments],
        cwd=folder, env={**os.environ, **environment}, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip


def test_replayed_through_the_services(tmp_path: Path, shared_cases: Path) -> None:
    files = tmp_path / "files"  # one symbol each: two of the cases are of other times with ids that come between
    files.mkdir()
    for symbol, (pattern, _) in FUTURES.items():
        for path in shared_cases.glob(pattern):
            shutil.copy(path, files / f"{symbol}-{path.name.partition('-')[2]}")
    with cluster(tmp_path, data="replay", RAVEN__TIMEBAR__SECONDS="[60, 86400]") as run:
        refused = raven_command("replay", str(files / "ETH*"), folder=tmp_path, **run.environment)
        assert refused.returncode == 1
        assert "line 2" in refused.stderr
        assert "bad_quantity" in refused.stderr
        assert "--on-bad skip" in refused.stderr
        assert "Traceback" not in refused.stderr

        run.start("raven_timebar", "raven_tibs", "tick_persistence", "bar_persistence")
        futures = ("--speed", "max", "--venue", "futures", "--on-bad", "skip")
        run.replay(str(files / "*.csv"), *futures, name="binance_futures")
        run.replay(str(next((shared_cases / "unordered").iterdir())), "--speed", "max")
        for arguments in (
            [*(f"--symbol={symbol}" for symbol in FUTURES), "--venue", "futures"],
            ["--symbol", "BNBUSDT"],
        ):
            run.ctl("start", "--service", "tick_persistence", *arguments, "--wait", "20")
            run.ctl("start", "--service", "bar_persistence", *arguments, "--wait", "0")

        expected = {symbol: ids for symbol, (_, ids) in FUTURES.items()} | {"BNBUSDT": list(range(140, 149))}
        total = sum(map(len, expected.values()))
        wait_until(lambda: run.rows("trades") >= total, 120, f"{total} trades are stored: {run.rows('trades')}")
        wait_until(lambda: ticks(run) == {"1m": total, "1d": total}, 120, f"their bars are stored: {ticks(run)}")
        stored = run.table("trades").sort("symbol", "trade_id")
        bars = run.table("time_bars").sort("symbol", "open_time")
        told = run.log("binance_futures")
        assert run.counter("binance_futures", "duplicate_rows") == 5
    ids = dict(stored.group_by("symbol").agg("trade_id").iter_rows())
    assert ids == expected
    assert volumes(bars, "BTCUSDT", "1d", "%F") == {"2022-04-23": 2.0, "2022-04-24": 3.0, "2022-04-25": 2.0}
    assert volumes(bars, "BNBUSDT", "1m", "%H:%M") == {"14:51": 8.0, "14:52": 1.0}
    assert volumes(bars, "LTCUSDT", "1d", "%F") == {"2022-09-12": 16.0}
    assert volumes(bars, "ETHUSDT", "1m", "%H:%M") == {"00:00": 1.5, "00:01": 2.0}
    assert list(volumes(bars, "XRPUSDT", "1d", "%F")) == ["2023-11-01", "2023-11-27"]
    whole = bars.filter(pl.col("symbol").eq("BTCUSDT"), pl.col("spec").eq("1d"))
    assert whole["complete"].to_list() == [False, True, False]
    assert "5 rows left out: repeats of trades that are there" in told
    assert "2 rows left out: bad_quantity" in told


def ticks(run: Cluster) -> dict[str, int]:
    bars = run.table("time_bars")
    if bars.is_empty():
        return {}
    return dict(bars.group_by("spec").agg(pl.col("total_ticks").sum()).iter_rows())


def volumes(bars: pl.DataFrame, symbol: str, spec: str, shown: str) -> dict[str, float]:
    own = bars.filter(pl.col("symbol").eq(symbol), pl.col("spec").eq(spec))
    return dict(own.select(pl.col("open_time").dt.strftime(shown), "volume").iter_rows())


def test_import_from_the_command_line(tmp_path: Path, shared_cases: Path) -> None:
    def bring(*arguments: str, code: int = 0) -> subprocess.CompletedProcess[str]:
        done = raven_command("import", *arguments, "--into", "journal", folder=tmp_path)
        assert done.returncode == code, done.stdout + done.stderr
        assert "Traceback" not in done.stderr
        return done

    hole = sorted((shared_cases / "hole").glob("*.csv"))
    for first, second in (hole, hole[::-1]):
        bring(str(first))
        report = json.loads(bring(str(second), "--json").stdout)
        assert (report["duplicates"], report["gaps"]) == (0, 0)
        assert "7 rows left out: repeats" in bring(str(shared_cases / "hole" / "*.csv")).stdout
        assert sum(entry.rows for entry in JournalReader(tmp_path / "journal").entries()) == 7
        shutil.rmtree(tmp_path / "journal")

    zero = str(next((shared_cases / "zero").iterdir()))
    assert "--on-bad skip" in bring(zero, code=1).stderr
    assert not list(tmp_path.iterdir())
    told = bring(zero, "--on-bad", "skip").stdout
    assert told.splitlines() == [
        "2 trades of ETHUSDT into journal", "2 rows left out: bad_quantity", "1 gap, 1 id missing",
    ]  # fmt: skip


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["SIGINT", "SIGTERM"])
def test_an_import_that_is_interrupted_leaves_nothing(tmp_path: Path, number: signal.Signals) -> None:
    many = pl.concat([trades(range(1000))] * 3_000).with_columns(pl.int_range(3_000_000).alias("trade_id"))
    many.write_parquet(tmp_path / "BTCUSDT.parquet")
    with subprocess.Popen(
        [sys.executable, "-m", "raven.cli.raven", "import", "BTCUSDT.parquet", "--venue", "spot", "--into", "new/journal"],
        cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        try:
            wait_until((tmp_path / "new" / ".journal.importing").exists, 60, "the import works")
            process.send_signal(number)
            told, errors = process.communicate(timeout=60)
        finally:
            process.kill()
    assert (process.returncode, told) == (130, ""), errors
    assert errors == "raven: interrupted; nothing was imported\n"
    assert [path.name for path in tmp_path.iterdir()] == ["BTCUSDT.parquet"]
