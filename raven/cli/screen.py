"""What `raven up` shows: a live table on a terminal; plain lines when piped or where logs are followed."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, Final

from rich.live import Live
from rich.text import Text

from raven.batches.instrument import Instrument
from raven.cli import output
from raven.cli.dashboard import Dashboard, answer_of, bar_cells, service_state
from raven.cli.supervisor import Child
from raven.cli.watch import AGGREGATORS, Watch
from raven.control.plan import SERVICES
from raven.rpc.pb import control_pb2

REDRAW_S: Final = 0.25
SUMMARY_EVERY_S: Final = 10.0
BARS_A_SUMMARY: Final = 2


class Screen:
    """Shows until `stop` is set, and sets it itself when there is nobody to show to any more."""

    def __init__(self, stop: asyncio.Event, *, logs: bool, simulated: bool) -> None:
        self._stop = stop
        self._logs = logs
        self._mark = "SIMULATED " if simulated else ""
        self._states: dict[str, tuple[str, int]] = {}
        self._bars_said: dict[str, int] = {}

    def say(self, text: str, style: str = "") -> None:
        """One line, with the time; above the live table where there is one."""
        try:
            output.console.print(Text(f"{datetime.now(UTC):%H:%M:%S} {text}", style=style), soft_wrap=True)
        except (OSError, SystemExit):  # the terminal is gone, or whoever read the pipe
            self._stop.set()

    def announce(self, text: str) -> None:
        """One line about something that went wrong."""
        self.say(text, "red")

    async def show(self, watch: Watch, children: Sequence[Child], expected: Sequence[Instrument], title: str) -> None:
        """Show until told to stop."""
        if sys.stdout.isatty() and not self._logs:
            await self._show_live(Dashboard(watch, children, expected, title))
        else:
            await self._show_lines(watch, children)

    async def _show_live(self, dashboard: Dashboard) -> None:
        try:
            with Live(console=output.console, auto_refresh=False, transient=False) as live:
                while not self._stop.is_set():
                    live.update(dashboard.view(output.console.height), refresh=True)
                    await asyncio.sleep(REDRAW_S)
        except OSError:
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
            f"{output.count(len(entries))} symbols",
            f"{output.count(streaming)} streaming",
            f"{sum(watch.rate(entry) for entry in entries):,.1f} trades/s",
            f"{output.count(sum(entry.rows for entry in entries))} trades",
            f"{output.count(sum(entry.gaps for entry in entries))} gaps",
            f"{output.count(sum(watch.bar_counts.values()))} bars",
            f"{output.count(watch.stored_rows())} rows stored",
        )
        lines = [", ".join(figures)]
        for name in AGGREGATORS:
            came = watch.bar_counts[name] - self._bars_said.get(name, 0)
            self._bars_said[name] = watch.bar_counts[name]
            newest = list(watch.bars[name])[-BARS_A_SUMMARY:] if came else []
            lines += [bar_line(bar) for bar in newest[-came:]]
        return lines


def bar_line(bar: dict[str, Any]) -> str:
    """A bar as one line."""
    symbol, spec, begin, end, opened, high, low, close, vwap, volume, ticks, figure = bar_cells(bar)
    return (
        f"{bar['venue']} {symbol} {spec} {begin}–{end} open {opened} high {high} low {low} close {close} vwap {vwap} "  # noqa: RUF001
        f"volume {volume} ticks {ticks} {'theta' if 'theta' in bar else 'buys'} {figure}"
        f"{'' if bar['complete'] else ' incomplete'}"
    )
