"""`make run` in a real terminal: bars within a minute, a clean end, and a second run that resumes."""

from __future__ import annotations

import os
import pty
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.e2e.cluster import is_free, wait_until
from tests.e2e.test_readme import PORTS, ROOT, free_ports

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]

ANSI = re.compile(r"\x1b\[[0-9;?]*[a-zA-Z]")


def watch_make_run(folder: Path, seconds: float) -> str:
    """The terminal of `make run`, which gets Ctrl-C after `seconds` or once both kinds of bars are shown."""
    main, terminal = pty.openpty()
    os.set_blocking(main, False)
    environment = {**os.environ, "COLUMNS": "160", "LINES": "60", "RAVEN__DATA": str(folder / "data")}
    process = subprocess.Popen(
        ["make", "-C", str(ROOT), "run", f"VENV={sys.prefix}"],
        stdin=terminal, stdout=terminal, stderr=terminal, env=environment, start_new_session=True,
    )  # fmt: skip
    os.close(terminal)
    screen, deadline, interrupted = "", time.monotonic() + seconds, False
    while process.poll() is None:
        try:
            screen += ANSI.sub("", os.read(main, 1 << 16).decode(errors="replace"))
        except BlockingIOError:
            time.sleep(0.1)
        except OSError:
            break
        done = re.search(r"Time bars: last of [1-9]", screen) and re.search(r"imbalance bars: last of [1-9]", screen)
        if not interrupted and (done or time.monotonic() > deadline):
            time.sleep(12)  # let the sinks flush
            os.killpg(process.pid, signal.SIGINT)
            interrupted = True
    process.wait(30)
    os.close(main)
    return screen


def test_make_run_shows_bars_within_a_minute_stops_cleanly_and_resumes(tmp_path: Path) -> None:
    free_ports()
    first = watch_make_run(tmp_path, 60)
    assert re.search(r"Time bars: last of [1-9]", first), first[-5000:]
    assert re.search(r"imbalance bars: last of [1-9]", first), first[-5000:]
    assert re.search(r"BTCUSDT +streaming +[\d,]+\.\d\d", first)
    assert first.rstrip().endswith("Stopped.") or "Stopped." in first[-400:], first[-1000:]
    wait_until(lambda: all(is_free(port) for port in PORTS), 10, "every process has ended")
    second = watch_make_run(tmp_path, 60)
    assert "Stopped." in second[-400:]
    logs = next(tmp_path.glob("data/**/logs"))
    assert "collecting again: BTCUSDT, ETHUSDT" in (logs / "binance_spot.log").read_text()
    assert '"event": "gap"' in (logs / "binance_spot.log").read_text(), "the market went on while Raven was down"
