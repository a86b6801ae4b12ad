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

import pytest

from tests.e2e.cluster import MODULES, is_free, wait_until
from tests.e2e.conftest import ARCHIVE

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]

ROOT = Path(__file__).resolve().parents[2]
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```", re.MULTILINE | re.DOTALL)
PORTS = [50001, 50051, 50052, 50091, 50092, 9443]


def blocks() -> list[tuple[str, str]]:
    return BLOCK.findall((ROOT / "README.md").read_text())


def shell(command: str, folder: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    return subprocess.run(
        ["bash", "-c", command], cwd=folder, env=environment, capture_output=True, text=True, timeout=120, check=False
    )


def free_ports() -> None:
    taken = [port for port in PORTS if not is_free(port)]
    assert not taken, f"the README's ports are taken: {taken}"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, shared_data: Path) -> Iterator[Path]:
    """A folder in which the services of the README's block run."""
    free_ports()
    folder = tmp_path_factory.mktemp("readme")
    shutil.copy(shared_data / ARCHIVE, folder / "BTCUSDT-trades-2019-04-01.zip")
    (folder / ".venv" / "bin").mkdir(parents=True)
    (folder / ".venv" / "bin" / "activate").write_text(f'export PATH="{Path(sys.executable).parent}:$PATH"\n')
    [services] = [text for language, text in blocks() if language == "sh" and "source .venv" in text]
    with (folder / "services.log").open("wb") as log:
        process = subprocess.Popen(
            ["bash", "-c", f"{services}\nwait"], cwd=folder, stdout=log, stderr=log, start_new_session=True,
            env={**os.environ, "RAVEN__DELTA__FLUSH_S": "1"},
        )  # fmt: skip
    try:
        wait_until(lambda: not any(is_free(port) for port in PORTS), 60, "all services listen")
        yield folder
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(30)
        wait_until(lambda: all(is_free(port) for port in PORTS), 30, "all services end")


def test_no_block_is_left_out() -> None:
    kinds = [(language, text.splitlines()[0]) for language, text in blocks()]
    assert kinds == [
        ("sh", "make run"), ("sh", "make test"), ("sh", "source .venv/bin/activate"),
        ("sh", "ravenctl start --service tick_persistence --symbol BTCUSDT"), ("sh", "ravenctl stop --symbol BTCUSDT"),
        ("python", "import raven"), ("python", 'for batch in raven.replay("data/binance_spot-50001"):'),
        ("python", "import raven"),
    ]  # fmt: skip


def test_start_list_status_and_read(folder: Path) -> None:
    [text] = [text for language, text in blocks() if "start --service tick_persistence" in text]
    tick, bars, listing, status = [shell(line, folder) for line in text.splitlines()]
    assert tick.stdout == "tick_persistence BTCUSDT streaming\n", tick.stderr
    assert bars.stdout.splitlines()[0].startswith("bar_persistence BTCUSDT "), bars.stderr
    assert [done.returncode for done in (tick, bars, listing)] == [0, 0, 0]
    wanted = {tuple(line.split()[:3]) for line in listing.stdout.splitlines()[2:]}
    assert {(name, "BINANCE_SPOT", "BTCUSDT") for name in MODULES} <= wanted
    assert ("tick_persistence", "BINANCE_SPOT", "ETHUSDT") not in wanted
    assert all(name in status.stdout for name in MODULES)
    assert status.returncode == 0, status.stdout

    def stored() -> bool:
        code = "import raven; print(raven.scan_bars(spec='5s').collect().height, raven.scan_trades().collect().height)"
        done = shell(f'python -c "{code}"', folder)
        return done.returncode == 0 and all(int(number) >= 2 for number in done.stdout.split())

    wait_until(stored, 60, "5 s bars and trades are stored")
    python = [text for language, text in blocks() if language == "python"]
    for text in (python[0], "import raven\n" + python[1], python[2]):
        (folder / "block.py").write_text(text)
        done = shell("python block.py", folder)
        assert done.returncode == 0, done.stderr
        assert not done.stderr


def test_stop_goes_everywhere(folder: Path) -> None:
    [text] = [text for _, text in blocks() if text.startswith("ravenctl stop")]
    stop, stop_all = [shell(line, folder) for line in text.splitlines()]
    assert (stop.returncode, stop_all.returncode) == (0, 0), stop.stderr + stop_all.stderr
    lines = stop.stdout.splitlines()
    assert {line.split(":")[0] for line in lines} >= {
        "bar_persistence BTCUSDT stopped",
        "tick_persistence BTCUSDT stopped",
    }
    assert "bar_persistence ETHUSDT stopped" in stop_all.stdout
    listing = json.loads(shell("ravenctl list --json", folder).stdout)
    assert all(entries == [] for entries in listing.values())
