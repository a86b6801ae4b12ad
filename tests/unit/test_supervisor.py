"""The supervisor of `raven up` over small real processes: why they ended, restarts, stages, logs, no orphans."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import psutil
import pytest

from raven.cli import supervisor as module
from raven.cli.child_log import ChildLog
from raven.cli.supervisor import Child, Supervisor, exit_text
from raven.clock import Backoff


def python(code: str) -> list[str]:
    return [sys.executable, "-u", "-c", textwrap.dedent(code)]


SLEEP = python("import time; print('up'); time.sleep(600)")


def child(folder: Path, name: str, command: list[str], stage: int = 0) -> Child:
    return Child(name, command, ChildLog(folder / f"{name}.log"), stage, backoff=Backoff(0.01, 0.05))


@asynccontextmanager
async def supervised(*children: Child) -> AsyncIterator[tuple[Supervisor, list[str]]]:
    lines: list[str] = []
    running = Supervisor(children, {}, lines.append)
    running.start()
    try:
        yield running, lines
    finally:
        await running.stop()


async def until(condition: Callable[[], object], timeout_s: float = 20) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.02)


async def test_one_that_is_killed_starts_again_and_the_line_says_why(tmp_path: Path) -> None:
    one = child(tmp_path, "one", SLEEP)
    async with supervised(one) as (_, lines):
        await until(lambda: one.is_running and one.log.last_line() == "up")
        assert one.process is not None
        first = one.process.pid
        one.process.kill()
        await until(lambda: one.is_running and one.process is not None and one.process.pid != first)
        assert lines[0].startswith("one was killed by SIGKILL; its last log line: up; starting again in 0.0 s")
        assert (one.restarts, one.is_failing) == (1, False)


async def test_one_that_cannot_run_is_failing_with_its_reason(tmp_path: Path) -> None:
    one = child(tmp_path, "one", python("import sys; sys.exit('one: its port is taken')"))
    async with supervised(one) as (_, lines):
        await until(lambda: one.is_failing)
    assert one.last_exit == "ended with exit code 1; its last log line: one: its port is taken"
    assert "(failing: ended 3 times in a row)" in lines[2]
    assert "failing" not in lines[1]


async def test_one_that_is_not_there_is_reported_too(tmp_path: Path) -> None:
    one = child(tmp_path, "one", [str(tmp_path / "nothing")])
    async with supervised(one) as (_, lines):
        await until(lambda: lines)
    assert lines[0].startswith("one cannot be started: ")


async def test_one_that_runs_for_a_while_has_settled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SETTLED_S", 0.5)
    marker = tmp_path / "marker"
    code = f"import pathlib, time, sys; p = pathlib.Path({str(marker)!r}); n = len(p.read_text()) if p.exists() else 0; p.write_text('x' * (n + 1)); sys.exit(1) if n < 3 else time.sleep(600)"
    one = child(tmp_path, "one", python(code))
    async with supervised(one) as (_, lines):
        await until(lambda: one.is_failing)
        await until(lambda: lines[-1] == "one runs again")
        assert (one.restarts, one.failures, one.is_failing) == (3, 0, False)


async def test_stages_end_in_order_and_who_does_not_end_is_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "STOP_S", 1.0)
    ends = tmp_path / "ends"
    orderly = f"""
        import signal, sys, time
        def end(*_):
            with open({str(ends)!r}, "a") as file: file.write(sys.argv[1])
            sys.exit(0)
        signal.signal(signal.SIGTERM, end)
        print("up")
        time.sleep(600)
    """
    stubborn = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up'); time.sleep(600)"
    children = [
        child(tmp_path, "sink", [*python(orderly), "s"], stage=2),
        child(tmp_path, "stubborn", python(stubborn), stage=1),
        child(tmp_path, "source", [*python(orderly), "o"], stage=0),
    ]
    async with supervised(*children) as (running, lines):
        await until(lambda: all(one.is_running and one.log.last_line() == "up" for one in children))
        assert await running.stop() == ["stubborn"]
    assert ends.read_text() == "os"
    assert not any(one.is_running for one in children)
    assert lines == []


async def test_all_can_be_ended_at_once(tmp_path: Path) -> None:
    stubborn = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up'); time.sleep(600)"
    children = [child(tmp_path, name, python(stubborn), stage) for stage, name in enumerate("abc")]
    async with supervised(*children) as (running, _):
        await until(lambda: all(one.is_running and one.log.last_line() == "up" for one in children))
        began = time.monotonic()
        stopping = asyncio.ensure_future(running.stop())
        await asyncio.sleep(0)
        running.kill()
        await stopping
        assert time.monotonic() - began < module.STOP_S


def test_children_end_with_a_supervisor_that_is_killed(tmp_path: Path) -> None:
    code = f"""
        import asyncio, sys
        from pathlib import Path
        from raven.cli.child_log import ChildLog
        from raven.cli.supervisor import Child, Supervisor, child_command
        async def main():
            command = child_command("raven.cli.raven", "simulate", "--port", "0", "--rate", "1")
            one = Child("one", command, ChildLog(Path({str(tmp_path)!r}) / "one.log"))
            supervisor = Supervisor([one], {{}}, print)
            supervisor.start()
            while one.process is None:
                await asyncio.sleep(0.01)
            print(one.process.pid, flush=True)
            await asyncio.sleep(600)
        asyncio.run(main())
    """
    process = subprocess.Popen(python(code), stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    orphan = psutil.Process(int(process.stdout.readline()))
    process.kill()
    process.wait()
    process.stdout.close()
    try:
        orphan.wait(20)  # raises when it is still there
    finally:
        if orphan.is_running():
            orphan.kill()


class TestLogs:
    def test_one_that_grows_is_moved_away_and_its_child_goes_on(self, tmp_path: Path) -> None:
        log = ChildLog(tmp_path / "logs" / "one.log", max_bytes=100)
        with log.open() as file:
            os.write(file.fileno(), b"x" * 101 + b"\n")
            log.rotate()
            os.write(file.fileno(), b"later\n")
        assert (tmp_path / "logs" / "one.log").read_text() == "later\n"
        assert (tmp_path / "logs" / "one.log.1").read_text() == "x" * 101 + "\n"
        assert log.new_lines() == ["later"]
        assert log.last_line() == "later"

    def test_new_lines_come_whole_and_once(self, tmp_path: Path) -> None:
        path = tmp_path / "one.log"
        path.write_text("before\n")
        log = ChildLog(path)
        with log.open() as file:
            os.write(file.fileno(), b"one\ntw")
            assert log.new_lines() == ["one"]
            assert log.new_lines() == []
            os.write(file.fileno(), "o ü\n".encode())
            assert log.new_lines() == ["two ü"]

    def test_the_last_line_is_of_this_run(self, tmp_path: Path) -> None:
        path = tmp_path / "one.log"
        path.write_text("of the run before\n")
        log = ChildLog(path)
        with log.open():
            assert log.last_line() == "it logged nothing"

    def test_of_a_json_line_the_message_is_shown(self, tmp_path: Path) -> None:
        log = ChildLog(tmp_path / "one.log")
        with log.open() as file:
            os.write(file.fileno(), b'{"level": "error", "message": "its disk is full"}\n')
        assert log.last_line() == "its disk is full"


def test_how_processes_end() -> None:
    assert exit_text(3) == "ended with exit code 3"
    assert exit_text(-signal.SIGSEGV) == "was killed by SIGSEGV"
    assert exit_text(-63) == "was killed by signal 63"
