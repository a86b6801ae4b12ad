"""What strangers send, what a disk refuses and what an upgrade takes away never ends or freezes a running service."""

from __future__ import annotations

import json
import resource
import shutil
import socket
import subprocess
import sys
import sysconfig
import time
import urllib.request
import venv
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import polars as pl
import pytest

from raven.errors import UpstreamError
from raven.settings import METRICS_PORT_OFFSET
from tests.e2e.cluster import Cluster, cluster, wait_until

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(400)]

PROJECT = Path(__file__).parents[2]
STARS = "*" * 60 + "X"
HTTP2 = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])
COLLECTING = ("binance_spot", "binance_futures", "raven_timebar", "raven_tibs", "tick_persistence", "bar_persistence")
FLOOD = 1_500
FEW_FILES = 200


@contextmanager
def idle_connections(port: int, count: int, *, address: str = "127.0.0.9", hello: bytes = b"") -> Iterator[None]:
    """`count` connections of `address` that say `hello` and nothing more; some may be refused."""
    with ExitStack() as stack:
        opened = []
        for _ in range(count):
            connection = stack.enter_context(socket.socket())
            connection.setblocking(False)
            connection.bind((address, 0))
            connection.connect_ex(("127.0.0.1", port))
            opened.append(connection)
        time.sleep(1)
        for connection in opened:
            with suppress(OSError):
                connection.send(hello)
        yield


def set_file_limit(run: Cluster, name: str, soft: int, hard: int | None = None) -> tuple[int, int]:
    """Change how many files a running service may open; what it was before."""
    pid = run.processes[name].pid
    before = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (soft, hard if hard is not None else before[1]))
    return before


def open_files(run: Cluster, name: str) -> int:
    return len(list(Path(f"/proc/{run.processes[name].pid}/fd").iterdir()))


def published(run: Cluster, name: str) -> int:
    """0 while it takes no more connections."""
    try:
        return run.counter(name, "published_rows")
    except UpstreamError:
        return 0


def go_on(run: Cluster, *sources: str) -> None:
    """Wait until these have published more than they have now."""
    for name in sources:
        before = wait_until(lambda name=name: published(run, name), 60, f"{name} tells what it published")
        wait_until(lambda name=name, before=before: published(run, name) > before, 60, f"{name} goes on")


def alive(run: Cluster) -> None:
    for name in COLLECTING:
        assert run.processes[name].poll() is None, f"{name} ended:\n{run.log(name)[-4000:]}"


def healthy(run: Cluster) -> bool:
    try:
        return all(run.status(name).healthy for name in COLLECTING)
    except UpstreamError:
        return False


def test_doors(tmp_path: Path) -> None:
    with cluster(
        tmp_path, RAVEN__TIMEBAR__SECONDS="[1]", RAVEN__JOURNAL__SEGMENT_BYTES="1048576", RAVEN__CHECKPOINT_S="1"
    ) as run:
        run.simulate("--venue", "both", "--symbol", "BTCUSDT", "--rate", "300")
        run.run("binance_futures", "raven.services.binance_futures")
        set_file_limit(run, "binance_futures", FEW_FILES, FEW_FILES)  # of this one it is the most
        run.start(*(name for name in COLLECTING if name != "binance_futures"))
        wait_until(lambda: run.answers("binance_futures"), 60, "binance_futures answers")
        for service in ("tick_persistence", "bar_persistence"):
            for venue in ("spot", "futures"):
                run.ctl("start", "--service", service, "--symbol", "BTCUSDT", "--venue", venue, "--wait", "20")
        patterns_that_freeze(run)
        entries_that_cannot_be_served(run)
        idle_connections_end_nothing(run)
        no_file_to_open_ends_nothing(run)
        wait_until(lambda: healthy(run), 60, "all is well")
        run.ctl("stop-all")
        run.stop()
        trades = run.table("trades").sort("venue", "trade_id")
        for (venue,), own in trades.group_by("venue"):
            assert own.get_column("trade_id").diff().drop_nulls().eq(1).all(), f"trades of {venue} are missing"
        assert trades.get_column("venue").n_unique() == 2
        bars = run.table("time_bars")
        assert bars.filter(~pl.col("complete")).height <= 2 * 2, "but the first and the last"


def patterns_that_freeze(run: Cluster) -> None:
    """They are answered at once, are not saved where nothing matches, and the service goes on."""
    for symbol in (STARS, "*A" * 31 + "X", "*" * 65, "A\x1b[2J"):
        answer = json.dumps(run.ctl("start", "--service", "binance_spot", "--symbol", symbol, code=1))
        assert "matches" in answer or "is no symbol" in answer, answer
    unknown = [f"NO{number:04}USDT" for number in range(2_000)]
    run.ctl("start", "--service", "binance_spot", *(f"--symbol={symbol}" for symbol in unknown), code=1)
    go_on(run, "binance_spot", "binance_futures")
    assert [entry.symbol for entry in run.status("binance_spot").subscriptions] == ["BTCUSDT"]


def entries_that_cannot_be_served(run: Cluster) -> None:
    """What an earlier version had saved, or something damaged, keeps nothing from starting."""
    file = run.data / f"binance_spot-{run.ports['binance_spot']}" / "wanted.json"
    run.kill("binance_spot")
    saved = json.loads(file.read_text())
    frozen = {**saved[0], "symbol": STARS, "ids_before": {}}
    bad = [{**saved[0], "symbol": "*" * 1_000}, {"version": 9}, {**saved[0], "venue": "NASDAQ", "symbol": "AAPL"}]
    file.write_text(json.dumps([frozen, *bad, *saved]))
    run.start("binance_spot")
    go_on(run, "binance_spot")
    status = run.status("binance_spot")
    assert not status.healthy
    [problem] = [problem for problem in status.problems if "set aside" in problem]
    for why in ("64 letters at most", "another version", "no symbols of NASDAQ"):
        assert why in problem
        assert why in run.log("binance_spot")
    run.ctl("stop", "--service", "binance_spot", "--symbol", STARS)
    file.with_name("wanted.aside.json").unlink()
    wait_until(lambda: run.status("binance_spot").healthy, 30, "it is well again")


def idle_connections_end_nothing(run: Cluster) -> None:
    """1,500 of them at the port and at that of the metrics, of sources with many files and with few."""
    for name in ("binance_spot", "binance_futures"):
        port = run.ports[name]
        limit = resource.prlimit(run.processes[name].pid, resource.RLIMIT_NOFILE)
        assert limit[0] == limit[1], "a service may open what it may at all"
        for hello in (b"", HTTP2):
            with (
                idle_connections(port, FLOOD, hello=hello),
                idle_connections(port + METRICS_PORT_OFFSET, FLOOD),
            ):
                held = open_files(run, name)
                assert held < min(limit[0], 1_400), f"{name} holds {held} files"
                go_on(run, name)
                with urllib.request.urlopen(f"http://127.0.0.1:{port + METRICS_PORT_OFFSET}/", timeout=30) as answer:
                    assert b"raven_published_rows_total" in answer.read()
            alive(run)
        wait_until(lambda name=name: open_files(run, name) < 120, 60, f"{name} lets go of them")
    assert "may open 200 files" in run.log("binance_futures")
    assert "holds too many connections" in run.log("binance_spot")


def no_file_to_open_ends_nothing(run: Cluster) -> None:
    """For longer than every upkeep waits no service can open a file; segments, checkpoints and tables go on after."""
    before = {name: set_file_limit(run, name, open_files(run, name) - 3) for name in COLLECTING}
    until = time.monotonic() + 25
    while time.monotonic() < until:
        alive(run)
        time.sleep(0.5)
    for name, (soft, hard) in before.items():
        set_file_limit(run, name, soft, hard)
    go_on(run, "binance_spot", "binance_futures", "raven_timebar")
    rows = run.rows("trades")
    wait_until(lambda: run.rows("trades") > rows, 60, "trades are stored again")
    alive(run)


def test_an_upgrade_ends_no_running_service(tmp_path: Path) -> None:
    python, wheel = environment_of_its_own(tmp_path / "venv"), built_wheel(tmp_path)
    pip = [sys.executable, "-m", "pip", "--python", python, "--disable-pip-version-check", "--quiet"]
    subprocess.run([*pip, "install", "--no-deps", wheel], check=True)
    with cluster(tmp_path / "run", RAVEN__TIMEBAR__SECONDS="[1]", RAVEN__CHECKPOINT_S="1") as run:
        run.simulate("--venue", "both", "--symbol", "BTCUSDT", "--symbol", "ETHUSDT", "--rate", "100")
        run.python = str(python)
        run.start()
        for service in ("tick_persistence", "bar_persistence"):
            for venue in ("spot", "futures"):
                run.ctl("start", "--service", service, "--symbol", "BTCUSDT", "--venue", venue, "--wait", "20")
        go_on(run, "binance_spot", "binance_futures", "raven_timebar")
        subprocess.run([*pip, "uninstall", "--yes", "raven-market-data"], check=True)
        gone = subprocess.run([python, "-c", "import raven"], capture_output=True, check=False, cwd=tmp_path)
        assert gone.returncode != 0
        time.sleep(6)  # longer than anything that is looked at again and again
        run.ctl("start", "--service", "tick_persistence", "--symbol", "ETHUSDT", "--wait", "20")
        run.ctl("start", "--service", "tibs", "--symbol", "*USDT", "--wait", "20")
        go_on(run, "binance_spot", "binance_futures", "raven_timebar")
        subprocess.run([*pip, "install", "--no-deps", "--force-reinstall", wheel], check=True)
        go_on(run, "binance_spot", "binance_futures", "raven_timebar")
        alive(run)
        wait_until(lambda: healthy(run), 60, "all is well")
        rows = run.rows("trades")
        wait_until(lambda: run.rows("trades") > rows, 60, "trades are stored")
        for name in reversed(COLLECTING):
            assert run.terminate(name) == 0, f"{name} does not end as told:\n{run.log(name)[-2000:]}"
        assert not any("raceback" in run.log(name) for name in COLLECTING)


def environment_of_its_own(folder: Path) -> Path:
    """A virtual environment with all that Raven needs, but Raven itself; its interpreter."""
    venv.create(folder, symlinks=True)
    here, there = (Path(sysconfig.get_path("purelib", vars={"base": base})) for base in (sys.prefix, str(folder)))
    for package in here.iterdir():
        if "raven" not in package.name.lower():
            (there / package.name).symlink_to(package)
    return folder / "bin" / "python"


def built_wheel(folder: Path) -> Path:
    source = folder / "source"  # building leaves folders beside the sources
    source.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(PROJECT / name, source)
    for name in ("raven", "sql"):
        shutil.copytree(PROJECT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]
    subprocess.run([*pip, "wheel", "--no-deps", "--wheel-dir", folder, source], check=True)
    return next(folder.glob("*.whl"))
