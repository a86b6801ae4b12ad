"""The screen of `raven up`: price, trades a second, last bars, lag, gaps, rows stored, and each service's state."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final

from rich.console import Group
from rich.markup import escape
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from raven.batches.instrument import Instrument
from raven.cli import output
from raven.cli.supervisor import Child
from raven.cli.watch import AGGREGATORS, Watch
from raven.clock import now_us
from raven.control.plan import SERVICES
from raven.rpc.pb import control_pb2

MOST_SYMBOLS: Final = 12
LEAST_ROWS: Final = 2
LINES_OF_TITLES: Final = 13  # the frame, and two lines over each table
TITLES: Final = {"raven_timebar": ("Time bars", "buys"), "raven_tibs": ("Tick imbalance bars", "theta / threshold")}
COLOURS: Final = {"ok": "green", "idle": "green", "starting": "yellow", "stopped": "dim"}


class Dashboard:
    """Renders what `watch` knows of the services, and of their processes, `children`.

    `expected` are symbols that were asked for, shown before their source knows of them.
    """

    def __init__(self, watch: Watch, children: Sequence[Child], expected: Sequence[Instrument], title: str) -> None:
        self._watch = watch
        self._children = [child for child in children if child.name in SERVICES]
        self._others = [child for child in children if child.name not in SERVICES]
        self._expected = [one for one in dict.fromkeys(expected) if not one.is_pattern]
        self._title = title

    def view(self, height: int) -> Panel:
        """The whole screen, for a terminal of `height` lines."""
        room = height - LINES_OF_TITLES - len(self._children) - len(self._others)
        symbols = max(LEAST_ROWS, min(MOST_SYMBOLS, room // 3))
        bars = max(LEAST_ROWS, (room - min(symbols, len(self._rows()) + 1)) // 2)
        watched = {child.name for child in self._children}
        parts = [
            self._symbol_table(symbols),
            *(self._bar_table(name, bars) for name in AGGREGATORS if name in watched),
            self._service_table(),
        ]
        notes = [
            Text(f"{child.name} {child.last_exit}", style="red", overflow="ellipsis", no_wrap=True)
            for child in (*self._children, *self._others)
            if child.failures
        ]
        return Panel(Group(*parts, *notes), title=self._title, subtitle="Ctrl-C stops", title_align="left")

    def _rows(self) -> list[control_pb2.Subscription]:
        """What is collected, and what was asked for and is not yet."""
        found = self._watch.collections()
        known = {(entry.venue, entry.symbol) for entry in found}
        return found + [
            control_pb2.Subscription(venue=one.venue, symbol=one.symbol, state=control_pb2.SYMBOL_STATE_CONNECTING)
            for one in self._expected
            if one not in known
        ]

    def _symbol_table(self, most: int) -> Table:
        rows = self._rows()
        venues = len({row.venue for row in rows}) > 1
        columns = ("symbol", "state", "price>", "trades/s>", "trades>", "last trade>", "age>", "gaps>", "missing ids>")
        view = output.new_table("Trades", ("venue", *columns) if venues else columns)
        busiest = sorted(rows, key=self._watch.rate, reverse=True)[:most] if len(rows) > most else rows
        for row in busiest:
            view.add_row(*([row.venue] if venues else []), *self._symbol_row(row))
        if len(rows) > most:
            rest = sorted(rows, key=self._watch.rate, reverse=True)[most:]
            view.add_row(*([""] if venues else []), *self._rest_row(rest))
        if not rows:
            view.add_row("[dim]nothing is collected yet[/]", *[""] * (len(columns) - 1 + venues))
        return view

    def _symbol_row(self, entry: control_pb2.Subscription) -> list[str]:
        seen = entry.last_event_us > 0
        return [
            escape(entry.symbol),
            output.state_text(entry.state),
            price(entry.last_price) if seen else "",
            f"{self._watch.rate(entry):,.1f}",
            output.count(entry.rows),
            f"{datetime.fromtimestamp(entry.last_event_us / 1e6, UTC):%H:%M:%S} UTC" if seen else "",
            output.duration(max(0, now_us() - entry.last_event_us) / 1e6) if seen else "",
            output.count(entry.gaps),
            output.count(entry.missing_ids),
        ]

    def _rest_row(self, rest: Sequence[control_pb2.Subscription]) -> list[str]:
        """One line for the symbols that are not shown."""
        states = Counter(entry.state for entry in rest)
        return [
            f"{output.count(len(rest))} more",
            ", ".join(f"{output.count(number)} {output.state_text(state)}" for state, number in states.most_common(2)),
            "",
            f"{sum(self._watch.rate(entry) for entry in rest):,.1f}",
            output.count(sum(entry.rows for entry in rest)),
            "",
            "",
            output.count(sum(entry.gaps for entry in rest)),
            output.count(sum(entry.missing_ids for entry in rest)),
        ]

    def _bar_table(self, name: str, most: int) -> Table:
        title, figure = TITLES[name]
        venues = len({row.venue for row in self._rows()}) > 1
        columns = (
            *(["venue"] if venues else []), "symbol", "spec", "from", "to", "open>", "high>", "low>", "close>", "vwap>",
            "volume>", "ticks>", f"{figure}>", "complete",
        )  # fmt: skip
        view = output.new_table(f"{title}: last of {self._watch.bar_counts[name]}", columns)
        bars = list(self._watch.bars[name])[-most:]
        for bar in bars:
            complete = "[green]yes[/]" if bar["complete"] else "[yellow]no[/]"
            view.add_row(*([bar["venue"]] if venues else []), *bar_cells(bar), complete)
        if not bars:
            view.add_row("[dim]none closed yet[/]", *[""] * (len(columns) - 1))
        return view

    def _service_table(self) -> Table:
        view = output.new_table(
            "Services",
            ("service", "state", "restarts>", "behind>", "rows in>", "rows stored>", "last flush>", "problems"),
        )
        for child in self._children:
            answer = answer_of(child, self._watch)
            state = service_state(child, answer)
            shown = f"[{COLOURS.get(state, 'red')}]{state}[/]"
            restarts = output.count(child.restarts) if child.restarts else ""
            view.add_row(child.name, shown, restarts, *(_figures(child.name, answer) if answer else [""] * 5))
        for child in self._others:
            state = service_state(child, None if not child.is_running else control_pb2.StatusResponse(healthy=True))
            view.add_row(child.name, f"[{COLOURS.get(state, 'red')}]{state}[/]", *[""] * 6)
        return view


def answer_of(child: Child, watch: Watch) -> control_pb2.StatusResponse | None:
    """What the child's process said of itself; None until it did, whatever the one before it had said."""
    answer = watch.status.get(child.name)
    is_its_own = answer is not None and child.process is not None and answer.pid == child.process.pid
    return answer if is_its_own else None


def service_state(child: Child, answer: control_pb2.StatusResponse | None) -> str:
    """One word for a service: of its process first, then what it says of itself."""
    if child.is_failing:
        return "failing"
    if not child.is_running:
        return "restarting" if child.restarts else "starting"
    if answer is None:
        return "starting"
    return "ok" if answer.healthy else "unhealthy"


def _figures(name: str, answer: control_pb2.StatusResponse) -> list[str]:
    counters = answer.counters
    behind_us = max((link.lag_us for link in answer.links), default=0)
    return [
        "" if SERVICES[name].venue else output.duration(behind_us / 1e6),
        output.count(counters.get("rows", 0)),
        output.count(counters.get("stored_rows", 0)) if "persistence" in name else "",
        f"{counters['last_flush_ms']} ms" if "last_flush_ms" in counters else "",
        escape("; ".join(answer.problems)),
    ]


def bar_cells(bar: Mapping[str, Any]) -> list[str]:
    """A bar in the words of the tables and lines, from its symbol to what closed it."""
    return [
        escape(bar["symbol"]),
        bar["spec"].partition("-")[0],
        f"{bar['open_time']:%H:%M:%S}",
        f"{bar['close_time']:%H:%M:%S}",
        *(price(bar[column]) for column in ("open", "high", "low", "close", "vwap")),
        f"{bar['volume']:,.4f}",
        output.count(bar["total_ticks"]),
        theta_or_buys(bar),
    ]


def theta_or_buys(bar: Mapping[str, Any]) -> str:
    """The imbalance of a bar that a trade closed, and what it closed at; how many of a time bar's ticks were buys."""
    if "theta" in bar:
        # a size has no sign
        threshold = f"{bar['threshold']:,g}" if bar["expected_size"] is None else f"{bar['threshold']:+.1f}"
        return f"{bar['theta']:+.0f} / {threshold}"
    return f"{bar['buy_ticks'] / bar['total_ticks']:.0%}"


def price(number: float) -> str:
    """A price with as many decimals as its size deserves."""
    return f"{number:,.2f}" if abs(number) >= 10 else f"{number:.6f}"
