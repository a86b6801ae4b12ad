"""The live screen on a real terminal (a pty): a screen of its own, drawn anew when resized, nothing lost when it ends."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable
from pathlib import Path
from typing import Self

import pytest

ENTER, LEAVE = "\x1b[?1049h", "\x1b[?1049l"
LIMIT_S = 120  # only shows a hang
STYLE = re.compile(r"\x1b\[[0-9;?]*[a-zA-Z]")
SCREEN = """
import asyncio, pathlib, sys
from raven.batches.instrument import Instrument
from raven.cli.screen import Screen
from raven.cli.supervisor import Child
from raven.cli.child_log import ChildLog
from raven.cli.watch import Watch

async def main():
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(2, stop.set)
    screen = Screen(stop, logs=False, simulated=False)
    screen.say("before")
    asyncio.get_running_loop().call_later(0.5, screen.announce, "raven_tibs was killed")
    children = [Child("raven_tibs", [], ChildLog(pathlib.Path("none")))]
    await screen.show(Watch({}), children, [Instrument("BINANCE_SPOT", "BTCUSDT")], "Raven")
    screen.say("after")

asyncio.run(main())
"""


class Terminal:
    """A program on a terminal of a size."""

    def __init__(self, *command: str, width: int, height: int, folder: Path) -> None:
        self._main, terminal = pty.openpty()
        os.set_blocking(self._main, False)
        self._height = height
        self.resize(width, height)
        environment = {
            name: value for name, value in os.environ.items() if name not in {"COLUMNS", "LINES", "NO_COLOR"}
        }
        self.process = subprocess.Popen(
            [sys.executable, *command], stdin=terminal, stdout=terminal, stderr=terminal, start_new_session=True,
            env={**environment, "TERM": "xterm-256color", "RAVEN__DATA": str(folder)}, cwd=folder,
        )  # fmt: skip
        os.close(terminal)
        self.shown = ""

    def resize(self, width: int, height: int) -> None:
        """As when its user drags the window."""
        fcntl.ioctl(self._main, termios.TIOCSWINSZ, struct.pack("HHHH", height, width, 0, 0))

    def until(self, happened: Callable[[str], object]) -> None:
        """Read what it shows until that has happened, or it has ended."""
        deadline = time.monotonic() + LIMIT_S
        while not happened(self.shown):
            assert time.monotonic() < deadline, self.shown
            try:
                self.shown += os.read(self._main, 1 << 16).decode(errors="replace")
            except BlockingIOError:
                time.sleep(0.02)
            except OSError:  # it has ended
                assert happened(self.shown), self.shown
                return

    def end(self) -> int:
        """Ctrl-C, and its exit code."""
        self.process.send_signal(signal.SIGINT)
        self.until(lambda _: self.process.poll() is not None)
        self.until(lambda shown: LEAVE in shown)
        return self.process.returncode

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self._main)


def frames(shown: str) -> list[list[str]]:
    """The lines of each time that the screen was drawn, without colours."""
    inside = shown.partition(ENTER)[2].partition(LEAVE)[0]
    drawn = ([STYLE.sub("", line).rstrip("\r") for line in part.split("\n")] for part in inside.split("\x1b[H"))
    return [frame for frame in drawn if len(frame) > 1]


def after(shown: str) -> list[str]:
    """The lines that are printed once the live screen has ended."""
    return [line.strip() for line in STYLE.sub("", shown.partition(LEAVE)[2]).splitlines() if line.strip()]


@pytest.mark.slow
def test_the_live_screen_is_its_own_is_drawn_anew_when_resized_and_keeps_what_was_said(tmp_path: Path) -> None:
    with Terminal("-c", SCREEN, width=80, height=24, folder=tmp_path) as terminal:
        terminal.until(lambda shown: "was killed" in shown)
        first = frames(terminal.shown)[0]
        assert len(first) == 24
        assert all(len(line) == 80 for line in first), "each line is drawn to its end, so that nothing old is left"
        assert "before" in terminal.shown.partition(ENTER)[0]
        terminal.resize(100, 30)
        terminal.until(lambda shown: any(len(frame) == 30 and len(frame[0]) == 100 for frame in frames(shown)[:-1]))
        assert not any(len(frame) > 30 for frame in frames(terminal.shown)), "what is said scrolls nothing"
        assert terminal.end() == 0
    kept = after(terminal.shown)
    assert kept[0] == "Raven  Ctrl-C stops"
    assert any(line.startswith("BTCUSDT") for line in kept), "the last tables stay on the terminal"
    assert [line.partition(" ")[2] for line in kept[-2:]] == ["raven_tibs was killed", "after"]


def test_status_can_be_watched(tmp_path: Path) -> None:
    with Terminal("-m", "raven.cli.ravenctl", "status", "--watch", width=80, height=24, folder=tmp_path) as terminal:
        terminal.until(lambda shown: len(frames(shown)) > 1)
        assert "Ctrl-C stops" in frames(terminal.shown)[0][0]
        terminal.end()
    assert after(terminal.shown)[0] == "Services"


@pytest.mark.slow
def test_status_that_is_watched_through_a_pipe_is_printed_again_and_again(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "raven.cli.ravenctl", "status", "--watch"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, cwd=tmp_path, env={**os.environ, "RAVEN__DATA": str(tmp_path)}
    ) as process:
        assert process.stdout is not None
        titles = 0
        while titles < 2:
            line = process.stdout.readline()
            assert line, "it has ended"
            assert "\x1b" not in line
            titles += line == "Services\n"
        process.send_signal(signal.SIGINT)
        process.stdout.read()
    assert process.returncode in (0, 1), "as of the services that answer"
