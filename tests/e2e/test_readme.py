"""Every command and code block of the README, in its order, with its output checked.

The blocks run as they stand, on the default ports, in a folder of their own.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.request import urlopen

import polars as pl
import pytest

import raven
from tests.e2e.cluster import MODULES, is_free, wait_until
from tests.e2e.conftest import ARCHIVE
from tests.servers.influx import Bucket

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]

ROOT = Path(__file__).resolve().parents[2]
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```", re.MULTILINE | re.DOTALL)
PORTS = [50001, 50002, 50051, 50052, 50091, 50092, 9443]


def blocks() -> list[tuple[str, str]]:
    return BLOCK.findall((ROOT / "README.md").read_text())


def exports() -> str:
    """What the README's terminal has exported since its services were started."""
    return "\n".join(line for line in block("source .venv").splitlines() if line.startswith("export"))


def shell(command: str, folder: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    return subprocess.run(
        ["bash", "-c", f"{exports()}\n{command}"],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def free_ports() -> None:
    taken = [port for port in PORTS if not is_free(port)]
    assert not taken, f"the README's ports are taken: {taken}"


class Run:
    """The README's services in a folder of their own, as its block starts them."""

    def __init__(self, folder: Path, **environment: str) -> None:
        self.folder = folder
        activate(folder)
        [services] = [text for language, text in blocks() if language == "sh" and "source .venv" in text]
        self.process = background(services, folder, "services.log", **environment)

    def end(self) -> None:
        end(self.process)
        wait_until(lambda: all(is_free(port) for port in PORTS), 30, "all services end")


def activate(folder: Path) -> None:
    """Make the virtual environment that the README's block enters."""
    (folder / ".venv" / "bin").mkdir(parents=True)
    (folder / ".venv" / "bin" / "activate").write_text(f'export PATH="{Path(sys.executable).parent}:$PATH"\n')


def background(command: str, folder: Path, log_name: str, **environment: str) -> subprocess.Popen[bytes]:
    with (folder / log_name).open("wb") as log:
        return subprocess.Popen(
            ["bash", "-c", f"{command}\nwait"], cwd=folder, stdout=log, stderr=log, start_new_session=True,
            env={
                **os.environ, "RAVEN__DELTA__FLUSH_S": "1",
                "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", **environment,
            },
        )  # fmt: skip


def end(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(30)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, shared_data: Path) -> Iterator[Run]:
    free_ports()
    folder = tmp_path_factory.mktemp("readme")
    shutil.copy(shared_data / ARCHIVE, folder / "BTCUSDT-trades-2019-04-01.zip")
    running = Run(folder)
    try:
        wait_until(lambda: not any(is_free(port) for port in PORTS), 60, "all services listen")
        yield running
    finally:
        running.end()


@pytest.fixture
def folder(run: Run) -> Path:
    return run.folder


def block(words: str) -> str:
    """The one block that holds these words."""
    [text] = [text for _, text in blocks() if words in text]
    return text


def test_no_block_is_left_out() -> None:
    kinds = [(language, text.splitlines()[0]) for language, text in blocks()]
    assert kinds == [
        ("sh", "make run"), ("sh", "make test"), ("sh", "source .venv/bin/activate"),
        ("sh", "ravenctl start --service tick_persistence --symbol BTCUSDT"),
        ("sh", "ravenctl stop --symbol BTCUSDT --venue spot"),
        ("python", "import raven"), ("python", 'for batch in raven.replay("data/tour/binance_spot-50001"):'),
        ("toml", "[influx]"), ("sh", "export RUN_MODE=prod"), ("sh", "raven deadletters"),
        ("python", "import raven"), ("sh", "raven replay data/tour/binance_spot-50001 --speed max"),
        ("sh", "raven simulate --symbols 1000 --rate 1 --port 9444 --fault drop@5 --faults 20 --fault-seed 7"),
        ("sh", "raven config"),
    ]  # fmt: skip


def test_start_list_status_and_read(folder: Path) -> None:
    tick, bars, futures, listing, status = [
        shell(line, folder) for line in block("start --service tick_persistence").splitlines()
    ]
    assert tick.stdout == "tick_persistence BTCUSDT of BINANCE_SPOT streaming\n", tick.stderr
    assert bars.stdout.splitlines()[0].startswith("bar_persistence BTCUSDT of BINANCE_SPOT "), bars.stderr
    assert futures.stdout.startswith("bar_persistence *USDT of BINANCE_FUTURES "), futures.stderr
    assert [done.returncode for done in (tick, bars, futures, listing)] == [0, 0, 0, 0]
    wanted = {tuple(line.split()[:3]) for line in listing.stdout.splitlines()[2:]}
    spot = {name for name in MODULES if name != "binance_futures"}
    assert {(name, "BINANCE_SPOT", "BTCUSDT") for name in spot} <= wanted
    assert {
        (name, "BINANCE_FUTURES", "*USDT") for name in MODULES if "spot" not in name and "tick" not in name
    } <= wanted
    assert ("tick_persistence", "BINANCE_SPOT", "ETHUSDT") not in wanted
    assert all(name in status.stdout for name in MODULES)
    assert status.returncode == 0, status.stdout

    def stored() -> bool:
        counts = [
            "raven.scan_bars('BINANCE_SPOT', spec='5s')",
            "raven.scan_bars('BINANCE_FUTURES', 'ETHUSDT', '5s')",
            "raven.scan_bars('BINANCE_SPOT', spec='volume-5')",
            "raven.scan_trades()",
        ]
        code = f"import raven; print({', '.join(f'{count}.collect().height' for count in counts)})"
        done = shell(f'python -c "{code}"', folder)
        return done.returncode == 0 and all(int(number) >= 2 for number in done.stdout.split())

    wait_until(stored, 90, "bars of both venues and kinds, and trades, are stored")
    python = [text for language, text in blocks() if language == "python"]
    for text in (python[0], "import raven\n" + python[1], python[2]):
        (folder / "block.py").write_text(text)
        done = shell("python block.py", folder)
        assert done.returncode == 0, done.stderr
        assert not done.stderr


def test_settings_are_printed(folder: Path) -> None:
    everything, server = [shell(line, folder) for line in block("raven config server").splitlines()]
    assert re.search(
        r"futures\.rest_url +http://127\.0\.0\.1:9443 +RAVEN__BINANCE_FUTURES__REST_URL", everything.stdout
    )
    assert "each a default where nothing else is named" in server.stdout
    assert re.search(r"^server\.port_tibs +50052$", server.stdout, re.MULTILINE)
    assert "binance" not in server.stdout.replace("server.port_binance", "")
    assert (everything.returncode, server.returncode) == (0, 0)


def test_the_misbehaving_exchange(folder: Path) -> None:
    process = background(block("--fault drop@5"), folder, "faults.log")
    try:
        address = "http://127.0.0.1:9444"
        wait_until(lambda: not is_free(9444), 60, "the exchange listens")
        with urlopen(f"{address}/api/v3/exchangeInfo", timeout=10) as reply:
            assert len(json.load(reply)["symbols"]) == 1000
        with urlopen(f"{address}/simulated/faults", timeout=10) as reply:
            [told] = json.load(reply)
        assert len(told["happened"]) + told["to_come"] == 21
    finally:
        end(process)
    assert "SIMULATED exchange" in (folder / "faults.log").read_text()


def test_stop_goes_everywhere(folder: Path) -> None:
    spot, pattern, stop_all = [shell(line, folder) for line in block("ravenctl stop --symbol").splitlines()]
    assert (spot.returncode, pattern.returncode, stop_all.returncode) == (0, 0, 0), spot.stderr + pattern.stderr
    assert {line.split(":")[0] for line in spot.stdout.splitlines()} >= {
        "bar_persistence BTCUSDT of BINANCE_SPOT stopped",
        "tick_persistence BTCUSDT of BINANCE_SPOT stopped",
    }
    assert "bar_persistence *USDT of BINANCE_FUTURES stopped" in pattern.stdout
    assert "bar_persistence ETHUSDT of BINANCE_SPOT stopped" in pattern.stdout
    assert stop_all.stdout == "Nothing was being collected.\n"
    listing = json.loads(shell("ravenctl list --json", folder).stdout)
    assert all(entries == [] for entries in listing.values())


def test_yesterday_is_replayed(run: Run) -> None:
    run.end()
    live = complete_bars(run.folder / "data" / "tour" / "raven_timebar-50051")
    assert live.height > 2
    replayed = background(f"{exports()}\n{block('raven replay')}", run.folder, "replay.log")
    consumer = None
    try:
        wait_until(lambda: not is_free(50001), 60, "the replay listens")
        log = run.folder / "replay.log"
        told = wait_until(lambda: re.search(r"export RAVEN__DATA=(\S+)", log.read_text()), 20, "the line is printed")
        consumer = background("raven_timebar --seconds 5", run.folder, "replayed_bars.log", RAVEN__DATA=told[1])
        wait_until(lambda: not is_free(50051), 60, "the aggregator listens")
        started = shell("ravenctl start --service timebar --symbol BTCUSDT --wait 20", run.folder)
        assert "raven_timebar BTCUSDT of BINANCE_SPOT streaming" in started.stdout, started.stdout + started.stderr
        wait_until(lambda: "replayed to the end" in shell("ravenctl list", run.folder).stdout, 60, "the end is told")
        bars = Path(told[1]) / "raven_timebar-50051"
        wait_until(lambda: complete_bars(bars).height >= live.height, 30, "the aggregator has taken all of it")
    finally:
        end(replayed)
        if consumer is not None:
            end(consumer)
    assert complete_bars(bars).head(live.height).equals(live)


def complete_bars(journal: Path) -> pl.DataFrame:
    """The complete 5 s bars of spot BTCUSDT in an aggregator's journal, as they came."""
    batches = list(raven.replay(journal))
    if not batches:
        return pl.DataFrame()
    bars = pl.concat(batches)
    spot = (pl.col("symbol") == "BTCUSDT") & (pl.col("venue") == "BINANCE_SPOT")
    return bars.filter(spot, pl.col("spec") == "5s", pl.col("complete"))


def test_into_the_databases(run: Run, tmp_path: Path, bucket: Bucket, database: str) -> None:
    run.end()  # what began above may still hold the ports
    settings = block('[influx]\nurl = "')
    for written, real in (
        ("http://localhost:8086", bucket.url), ("the token", bucket.token), ('org = "raven"', f'org = "{bucket.org}"'),
        ('bucket = "raven"', f'bucket = "{bucket.name}"'),
        ("postgresql://raven:password@localhost:5432/raven", database),
    ):  # fmt: skip
        assert written in settings
        settings = settings.replace(written, real)
    (tmp_path / "prod.toml").write_text(settings)
    set_up, letters = block("raven init-db"), block("raven deadletters")
    stores = "export RAVEN__STORES=influx,timescale"  # the market is simulated: only what is named takes its trades
    production = Run(tmp_path, RUN_MODE="prod", RAVEN__STORES="influx,timescale")
    try:
        wait_until(lambda: not any(is_free(port) for port in PORTS), 60, "all services listen")
        wait_until(lambda: "init-db" in shell("ravenctl status --service bar_persistence", tmp_path).stdout, 20, "told")
        done = shell(f"{stores}\n{set_up}", tmp_path)
        assert done.returncode == 0, done.stdout + done.stderr
        assert "time_bars" in done.stdout
        assert "failed" not in done.stdout
        for line in block("start --service tick_persistence").splitlines():
            if "start" in line:
                # 3: all is collected; the tables that were missing are tried again every half minute
                assert shell(line, tmp_path).returncode in (0, 3)

        def read_back() -> bool:
            code = "import raven; print(raven.scan_trades().collect().height, raven.scan_bars().collect().height)"
            done = shell(f'{stores}; RUN_MODE=prod python -c "{code}"', tmp_path)
            return done.returncode == 0 and all(int(number) >= 2 for number in done.stdout.split())

        wait_until(read_back, 90, "trades and bars are read back from the databases")
        # each table is tried on its own, every half minute or so
        wait_until(lambda: shell("ravenctl status", tmp_path).returncode == 0, 60, "every table is written")
        status = shell("ravenctl status", tmp_path)
        assert "influx/trades" in status.stdout
        assert "timescale/time_bars" in status.stdout
        for line in letters.splitlines():
            done = shell(f"RUN_MODE=prod {line}", tmp_path)
            assert done.returncode == 0, done.stdout + done.stderr
        assert not (tmp_path / "data" / "tour" / "delta").exists(), "the databases alone are written"
        assert shell("ravenctl stop-all", tmp_path).returncode == 0
    finally:
        production.end()
