"""What `raven up` shows: live tables on a terminal; plain lines when piped or where logs are followed."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Final

from rich.text import Text

from raven.batches.instrument import Instrument
from raven.cli import output
from raven.cli.dashboard import Dashboard, answer_of, service_state
from raven.cli.figures import bar_line
from raven.cli.live import REDRAW_S, is_live, show_live
from raven.cli.supervisor import Child
from raven.cli.tables import wrapped
from raven.cli.watch import AGGREGATORS, Watch
from raven.control.plan import SERVICES
from raven.rpc.pb import control_pb2

SUMMARY_EVERY_S: Final = 10.0
BARS_A_SUMMARY: Final = 2
MOST_SAID: Final = 1000


class Screen:
    """Shows until `stop` is set, and sets it itself when there is nobody to show to any more."""

    def __init__(self, stop: asyncio.Event, *, logs: bool, simulated: bool) -> None:
        self._stop = stop
        self._logs = logs
        self._mark = "SIMULATED " if simulated else ""
        self._states: dict[str, tuple[str, int]] = {}
        self._bars_said: dict[str, int] = {}
        self._is_live = False
        self._said: deque[Text] = deque(maxlen=MOST_SAID)

    def say(self, text: str, style: str = "") -> None:
        """One line, with the time; while the live tables are shown it is below them, and printed when they end."""
        line = Text(f"{datetime.now(UTC):%H:%M:%S} {text}", style=style)
        if self._is_live:
            self._said.append(line)
            return
        try:
            output.print_lines([line])
        except (OSError, SystemExit):  # the terminal is gone, or whoever read the pipe
            self._stop.set()

    def announce(self, text: str) -> None:
        """One line about something that went wrong."""
        self.say(text, "red")

    async def show(self, watch: Watch, children: Sequence[Child], expected: Sequence[Instrument], title: str) -> None:
        """Show until told to stop."""
        if is_live() and not self._logs:
            await self._show_live(Dashboard(watch, children, expected, title))
        else:
            await self._show_lines(watch, children)

    async def _show_live(self, dashboard: Dashboard) -> None:
        """The tables alone on the terminal; once they end, the last ones and what was said stay on it."""

        def view(width: int, height: int) -> list[Text]:
            said = [line for text in self._said for line in wrapped(text, width)]
            return dashboard.view(width, height, said)

        self._is_live = True
        try:
            await show_live(view, self._stop)
        except OSError:
            self._stop.set()
        finally:
            self._is_live = False
            try:
                output.print_lines([*dashboard.view(output.console.width, output.console.height), *self._said])
            except (OSError, SystemExit):
                self._stop.set()

    async def _show_lines(self, watch: Watch, children: Sequence[Child]) -> None:
        due = time.monotonic() + SUMMARY_EVERY_S
        while not self._stop.is_set():
            self._say_changes(watch, children)
            if self._logs:
                for child in children:
                    for line in child.log.new_lines():
                        self.say(f"{child.name}: {line}")
            if time.monotonic() >= due:
                due += SUMMARY_EVERY_S
                for line in self._summary(watch):
                    self.say(self._mark + line)
            await asyncio.sleep(REDRAW_S)

    def _say_changes(self, watch: Watch, children: Sequence[Child]) -> None:
        """Which services became ready or unhealthy; of those whose process ended the supervisor tells."""
        for child in children:
            answer = answer_of(child, watch)
            if child.name not in SERVICES or answer is None:
                continue
            state = service_state(child, answer)
            if state == "unhealthy":
                state = f"unhealthy: {'; '.join(answer.problems)}"
            if (state, child.restarts) != self._states.get(child.name):
                self._states[child.name] = (state, child.restarts)
                self.say(f"{child.name} is {state}", "" if state == "ok" else "yellow")

    def _summary(self, watch: Watch) -> list[str]:
        """All that is collected in one line, and the newest bars of each kind that came since the last one."""
        entries = watch.collections()
        streaming = sum(entry.state == control_pb2.SYMBOL_STATE_STREAMING for entry in entries)
        figures = (
            output.counted(len(entries), "symbol"),
            f"{output.count(streaming)} streaming",
            f"{sum(watch.rate(entry) for entry in entries):,.1f} trades/s",
            output.counted(sum(entry.rows for entry in entries), "trade"),
            output.counted(sum(entry.gaps for entry in entries), "gap"),
            output.counted(sum(watch.bar_counts.values()), "bar"),
            f"{output.counted(watch.stored_rows(), 'row')} stored",
        )
        lines = [", ".join(figures)]
        for name in AGGREGATORS:
            came = watch.bar_counts[name] - self._bars_said.get(name, 0)
            self._bars_said[name] = watch.bar_counts[name]
            newest = list(watch.bars[name])[-BARS_A_SUMMARY:] if came else []
            lines += [bar_line(bar) for bar in newest[-came:]]
        return lines
