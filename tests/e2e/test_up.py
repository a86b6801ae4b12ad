"""`raven up`: in a real terminal (bars within a minute, a clean end, a second run that resumes), and as a supervisor."""

from __future__ import annotations

import asyncio
import os
import pty
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import polars as pl
import pytest

import raven
from raven.batches.instrument import Instrument
from raven.cli.collecting import collect
from raven.errors import ExchangeError
from raven.rpc.access import Access
from raven.rpc.client import Client
from tests.e2e.cluster import Cluster, cluster, is_free, wait_until
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
    trades = pl.concat(raven.replay(next(tmp_path.glob("data/**/binance_spot-50001"))))
    assert (trades.get_column("origin") == 1).any(), "the market went on while Raven was down: that was fetched"
    for _, rows in trades.group_by("symbol"):
        assert (rows.get_column("trade_id").diff().drop_nulls() == 1).all(), "no id is missing or out of order"


def start_up(run: Cluster, *arguments: str) -> subprocess.Popen[bytes]:
    """`raven up` with its output in a log, as when it is piped."""
    run.run("up", "raven.cli.raven", "up", *arguments)
    return run.processes["up"]


def says(run: Cluster, pattern: str, timeout_s: float = 60) -> str:
    """The first line of `raven up` that matches."""
    found = wait_until(
        lambda: re.search(f"^.*{pattern}.*$", run.log("up"), re.MULTILINE), timeout_s, f"{pattern} in:\n{run.log('up')}"
    )
    assert isinstance(found, re.Match)
    return found.group()


def says_after(run: Cluster, part: str, text: str) -> None:
    """Wait until `raven up` says something after a part of its log."""
    wait_until(lambda: text in run.log("up").partition(part)[2], 60, f"{text} after {part} in:\n{run.log('up')}")


def nothing_listens(run: Cluster) -> bool:
    return all(is_free(port) for port in (*run.ports.values(), run.exchange_port))


def test_a_killed_service_starts_again_and_none_survives_a_killed_supervisor(tmp_path: Path) -> None:
    services = ["--only", "binance_spot", "--only", "timebar", "--only", "bars"]
    with cluster(tmp_path) as run:
        simulated = ["--simulate", "--simulated-port", str(run.exchange_port)]
        supervisor = start_up(run, *simulated, *services, "--symbols", "BTCUSDT,SOLUSDT")
        says(run, "bar_persistence is ok")
        says(run, "SIMULATED 2 symbols, 2 streaming")
        assert is_free(run.ports["raven_tibs"]), "it was not asked for"
        killed = run.status("raven_timebar").pid
        os.kill(killed, signal.SIGKILL)
        line = says(run, "raven_timebar was killed by SIGKILL")
        assert re.search(r"its last log line: \w.*; starting again in \d\.\d s$", line)
        says_after(run, line, "raven_timebar is ok")
        assert run.status("raven_timebar").pid != killed
        supervisor.kill()
        supervisor.wait()
        wait_until(lambda: nothing_listens(run), 30, "every service has ended with the supervisor")
        # what was collected before goes on, also at another port, and an orderly end is a success
        before = run.ports["raven_timebar"]
        run.ports["raven_timebar"] = moved = run.ports["binance_spot"] + 7
        run.environment["RAVEN__SERVER__PORT_TIMEBAR_MINUTES"] = str(moved)
        second = start_up(run, *simulated, *services)
        says(
            run,
            f"The port of raven_timebar was changed: its folder raven_timebar-{before} is raven_timebar-{moved} now",
        )
        again = says(run, "Going on with what was collected before: BTCUSDT of BINANCE_SPOT, SOLUSDT of BINANCE_SPOT")
        says_after(run, again, "raven_timebar is ok")
        says_after(run, again, "2 symbols, 2 streaming")
        wanted_by = {
            entry["symbol"]: entry["wanted_by"] for entry in run.ctl("list", "--service", "spot")["binance_spot"]
        }
        assert wanted_by == {symbol: [f"raven_timebar-{before}"] for symbol in ("BTCUSDT", "SOLUSDT")}
        third = [sys.executable, "-m", "raven.cli.raven", "up", *simulated, *services]
        done = subprocess.run(third, env=run.environment, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 1
        running = "binance_spot, raven_timebar, bar_persistence"
        assert done.stderr == f"raven: Raven is running already: {running} (`ravenctl status` shows it)\n"
        assert run.terminate("up") == 0, run.log("up")
        assert second.returncode == 0
        assert run.log("up").rstrip().endswith("Stopped.")
        assert nothing_listens(run)
        assert (run.data / "simulated" / "logs" / "raven_timebar.log").exists()
        # what is named is collected alone
        start_up(run, *simulated, *services, "--symbols", "SOLUSDT")
        alone = says(run, "What was collected before is stopped: BTCUSDT of BINANCE_SPOT")
        says_after(run, alone, "raven up --symbols SOLUSDT,BTCUSDT")
        wait_until(
            lambda: re.search(r"SIMULATED 1 symbols?, 1 streaming", run.log("up").partition(alone)[2]),
            60,
            "BTCUSDT ends",
        )
        for name in ("binance_spot", "raven_timebar", "bar_persistence"):
            assert [entry["symbol"] for entry in run.ctl("list", "--service", name)[name]] == ["SOLUSDT"]
        assert run.terminate("up") == 0, run.log("up")


def test_a_service_whose_port_is_taken_meanwhile_is_reported_and_the_others_go_on(tmp_path: Path) -> None:
    with cluster(tmp_path) as run, socket.socket() as thief:
        start_up(
            run, "--simulate", "--simulated-port", str(run.exchange_port), "--only", "binance_spot", "--only", "tibs"
        )
        says(run, "raven_tibs is ok")
        pid = run.status("raven_tibs").pid
        thief.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        os.kill(pid, signal.SIGKILL)
        wait_until(lambda: is_free(run.ports["raven_tibs"]), 5, "its port is free")
        thief.bind(("127.0.0.1", run.ports["raven_tibs"]))
        thief.listen()
        line = says(run, r"raven_tibs ended with exit code 1.*failing", 90)
        assert str(run.ports["raven_tibs"]) in line, line
        assert run.status("binance_spot").healthy
        assert run.terminate("up") == 0


def test_what_cannot_begin_says_why_and_fails(tmp_path: Path) -> None:
    with cluster(tmp_path) as run, socket.socket() as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        taken.bind(("127.0.0.1", run.ports["raven_tibs"] + 1000))
        taken.listen()
        assert start_up(run, "--simulate").wait(60) == 1
        assert f"port {run.ports['raven_tibs'] + 1000} of raven_tibs's metrics (server.port_tibs + 1000)" in run.log(
            "up"
        )
        taken.close()
        run.simulate("--symbol", "BTCUSDT", "--symbol", "ETHUSDT")
        services = ["--only", "binance_spot", "--only", "ticks"]
        assert start_up(run, "--live", *services, "--symbols", "BTCUSDT,ETHUSTD").wait(90) == 1
        assert "did you mean ETHUSDT" in run.log("up")
        assert "Stopped." in run.log("up")
        # what was refused is not wanted later either
        before = run.log("up")
        start_up(run, "--live", *services)
        says_after(run, before, "tick_persistence is ok")
        entries = run.ctl("list", "--service", "tick_persistence")["tick_persistence"]
        assert [entry["symbol"] for entry in entries] == ["BTCUSDT"]
        assert run.terminate("up") == 0, run.log("up")


def test_what_is_refused_once_the_source_is_there_is_not_wanted_later_either(tmp_path: Path) -> None:
    wanted = [Instrument("BINANCE_SPOT", symbol) for symbol in ("BTCUSDT", "ETHUSTD")]
    with cluster(tmp_path) as run:
        run.simulate("--symbol", "BTCUSDT", "--symbol", "ETHUSDT")
        run.start("tick_persistence")

        async def ask() -> None:
            async with Client(f"127.0.0.1:{run.ports['tick_persistence']}", Access()) as client:
                collecting = asyncio.ensure_future(collect({"tick_persistence": client}, wanted, lambda: True))
                while len(await client.list()) < len(wanted):
                    await asyncio.sleep(0.1)
                await asyncio.to_thread(run.start, "binance_spot")
                with pytest.raises(ExchangeError, match="did you mean ETHUSDT"):
                    await collecting

        asyncio.run(ask())
        entries = run.ctl("list", "--service", "tick_persistence")["tick_persistence"]
        assert [entry["symbol"] for entry in entries] == ["BTCUSDT"]


def test_both_venues_side_by_side(tmp_path: Path) -> None:
    with cluster(tmp_path) as run:
        start_up(
            run, "--simulate", "--simulated-port", str(run.exchange_port), "--rate", "200",
            "--symbols", "BTCUSDT,futures:BTCUSDT",
        )  # fmt: skip
        says(run, "SIMULATED 2 symbols, 2 streaming")
        says(run, "SIMULATED BINANCE_SPOT BTCUSDT 10s")
        says(run, "SIMULATED BINANCE_FUTURES BTCUSDT 10s")
        data = run.data / "simulated" / "delta"
        wait_until(
            lambda: (data / "trades").exists()
            and pl.scan_delta(str(data / "trades")).collect().get_column("venue").n_unique() == 2,
            60, "trades of both venues are stored",
        )  # fmt: skip
        assert run.terminate("up", 40) == 0
