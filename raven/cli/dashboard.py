"""The screen of `raven up`: price, trades a second, last bars, rows stored, each service's state, and what is wrong."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Final

from rich.markup import escape
from rich.text import Text

from raven.batches.instrument import Instrument
from raven.cli import output
from raven.cli.figures import bar_cells, price, shared, short_specs
from raven.cli.growth import growth_sentences
from raven.cli.supervisor import Child
from raven.cli.tables import Layout, fewer, sentence, table_lines
from raven.cli.watch import AGGREGATORS, Watch
from raven.clock import now_us
from raven.control.plan import SERVICES
from raven.rpc.pb import control_pb2

MOST_SYMBOLS: Final = 12
LEAST_SYMBOLS: Final = 2
MOST_BARS: Final = 6
MOST_NAMED: Final = 3
TITLE_LINES: Final = 2  # of each table: its title and the names of its columns
PART_OF_PROBLEMS: Final = 3  # of a screen's lines at most one in so many tells of problems
MORE_BELOW: Final = "on a taller terminal, or by `ravenctl status`"
COLOURS: Final = {"ok": "green", "idle": "green", "starting": "yellow", "stopped": "dim"}

TRADES: Final = Layout(
    "Trades",
    ("venue", "symbol", "state", "price>", "trades/s>", "trades>", "last trade>", "age>", "gaps>"),
    leaving=("last trade", "trades", "age", "gaps", "trades/s"),
)
_BAR_COLUMNS: Final = (
    "venue", "symbol", "spec", "from", "to", "open>", "high>", "low>", "close>", "vwap>", "volume>", "ticks>",
)  # fmt: skip
BARS: Final = {
    "raven_timebar": Layout(
        "Time bars",
        (*_BAR_COLUMNS, "buys>", "complete"),
        leaving=("vwap", "from", "buys", ("high", "low"), "volume", "open", "ticks", "complete"),
    ),
    "raven_tibs": Layout(
        "Tick imbalance bars",
        (*_BAR_COLUMNS, "theta / threshold>", "complete"),
        leaving=("vwap", ("high", "low"), "volume", "open", "from", "theta / threshold", "ticks", "complete"),
    ),
}
SERVICE_TABLE: Final = Layout(
    "Services",
    ("service", "state", "restarts>", "behind>", "rows in>", "rows stored>", "last flush>"),
    leaving=("last flush", "behind", "restarts", "rows in"),
)


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

    def view(self, width: int, height: int, said: Sequence[Text] = ()) -> list[Text]:
        """The lines of the whole screen, for a terminal of that size; `said` is shown as far as there is room.

        Where it is low, first the bars and symbols are fewer, then services that are well are told in one line.
        """
        head = sentence(f"[bold]{escape(self._title)}[/]  [dim]Ctrl-C stops[/]", width)
        problems = fewer(list(self._problems(width)), max(2, height // PART_OF_PROBLEMS), MORE_BELOW)
        names = [name for name in AGGREGATORS if name in {child.name for child in self._children}]
        fixed = len(head) + len(problems) + TITLE_LINES * (len(names) + 2)
        wants = [max(1, min(MOST_SYMBOLS, len(self._rows()))), *(MOST_BARS for _ in names)]
        leasts = [LEAST_SYMBOLS, *(1 for _ in names)]
        services = self._service_rows()
        well = self._well()
        if fixed + len(services) + sum(leasts) > height and len(well) > 1:
            services = [row for row in services if row[0] not in well]
            problems = [*sentence(f"[green]ok[/]: {', '.join(well)}", width), *problems]
            fixed = len(head) + len(problems) + TITLE_LINES * (len(names) + 1 + bool(services))
        symbols, *bars = shared(wants, leasts, height - fixed - len(services))
        tables = [self._symbol_lines(symbols, width)]
        tables += [self._bar_lines(name, most, width) for name, most in zip(names, bars, strict=True)]
        tables.append([*(table_lines(SERVICE_TABLE, services, width) if services else []), *problems])
        lines = [*head, *_apart(tables, height - len(head))]
        below = [*sentence_lines(growth_sentences(self._watch.status), width), *said]
        room = height - len(lines)
        lines += below[-room:] if room > 0 else []
        return fewer(lines, height, "on a taller terminal")

    def _rows(self) -> list[control_pb2.Subscription]:
        """What is collected, and what was asked for and is not yet."""
        found = self._watch.collections()
        known = {(entry.venue, entry.symbol) for entry in found}
        return found + [
            control_pb2.Subscription(venue=one.venue, symbol=one.symbol, state=control_pb2.SYMBOL_STATE_CONNECTING)
            for one in self._expected
            if one not in known
        ]

    def _symbol_lines(self, most: int, width: int) -> list[Text]:
        rows = self._rows()
        shown = sorted(rows, key=self._watch.rate, reverse=True) if len(rows) > most else rows
        most = most if len(rows) <= most else most - 1
        cells = [self._symbol_row(row) for row in shown[:most]]
        if len(rows) > most:
            cells.append(self._rest_row(shown[most:]))
        if not rows:
            return [Text("Trades", style="bold"), Text("nothing is collected yet", style="dim")]
        return self._lines(TRADES, cells, width)

    def _symbol_row(self, entry: control_pb2.Subscription) -> list[str]:
        seen = entry.last_event_us > 0
        return [
            entry.venue,
            escape(entry.symbol),
            output.state_word(entry.state),
            price(entry.last_price) if seen else "",
            f"{self._watch.rate(entry):,.1f}",
            output.count(entry.rows),
            f"{datetime.fromtimestamp(entry.last_event_us / 1e6, UTC):%H:%M:%S} UTC" if seen else "",
            output.duration(max(0, now_us() - entry.last_event_us) / 1e6) if seen else "",
            output.count(entry.gaps),
        ]

    def _rest_row(self, rest: Sequence[control_pb2.Subscription]) -> list[str]:
        """One line for the symbols that are not shown, with how most of those are that do not stream."""
        states = Counter(entry.state for entry in rest if entry.state != control_pb2.SYMBOL_STATE_STREAMING)
        return [
            "",
            f"{output.count(len(rest))} more",
            ", ".join(f"{output.count(number)} {output.state_word(state)}" for state, number in states.most_common(1)),
            "",
            f"{sum(self._watch.rate(entry) for entry in rest):,.1f}",
            output.count(sum(entry.rows for entry in rest)),
            "",
            "",
            output.count(sum(entry.gaps for entry in rest)),
        ]

    def _bar_lines(self, name: str, most: int, width: int) -> list[Text]:
        bars = list(self._watch.bars[name])[-most:] if most else []
        layout, note = BARS[name], f": last of {output.count(self._watch.bar_counts[name])}"
        if not bars:
            return [Text(layout.title + note, style="bold"), Text("none closed yet", style="dim")]
        specs = short_specs(bar["spec"] for bar in bars)
        cells = []
        for bar in bars:
            symbol, spec, *rest = bar_cells(bar)
            complete = "[green]yes[/]" if bar["complete"] else "[yellow]no[/]"
            cells.append([bar["venue"], symbol, specs[spec], *rest, complete])
        return self._lines(layout, cells, width, note)

    def _lines(self, layout: Layout, cells: Sequence[Sequence[str]], width: int, note: str = "") -> list[Text]:
        """A table whose first column, the venue, is left out where there is only one."""
        if len({row.venue for row in self._rows()}) > 1:
            return table_lines(layout, cells, width, note)
        single = Layout(layout.title, layout.columns[1:], layout.leaving)
        return table_lines(single, [row[1:] for row in cells], width, note)

    def _service_rows(self) -> list[list[str]]:
        rows = []
        for child in (*self._children, *self._others):
            answer, state = answer_of(child, self._watch), self._state(child)
            shown = f"[{COLOURS.get(state, 'red')}]{state}[/]"
            restarts = output.count(child.restarts) if child.restarts else ""
            rows.append([child.name, shown, restarts, *(_figures(child.name, answer) if answer else [""] * 4)])
        return rows

    def _state(self, child: Child) -> str:
        if child in self._others:
            return service_state(child, control_pb2.StatusResponse(healthy=True) if child.is_running else None)
        return service_state(child, answer_of(child, self._watch))

    def _well(self) -> list[str]:
        return [child.name for child in (*self._children, *self._others) if self._state(child) == "ok"]

    def _problems(self, width: int) -> Iterator[Text]:
        """What is wrong, the services first; each whole, in as many lines as it takes."""
        for child in (*self._children, *self._others):
            answer = answer_of(child, self._watch)
            told = [f" {child.last_exit}"] if child.failures else []
            told += [f": {problem}" for problem in answer.problems] if answer else []
            for problem in told:
                yield from sentence(f"[red]{child.name}[/]{escape(problem)}", width)
        wrong = [(entry, told) for entry in self._watch.collections() if (told := symbol_problems(entry))]
        wrong.sort(key=lambda each: each[0].missing_ids, reverse=True)
        for entry, told in wrong[:MOST_NAMED]:
            yield from sentence(f"[yellow]{escape(entry.symbol)} of {entry.venue}[/]: {escape('; '.join(told))}", width)
        if rest := wrong[MOST_NAMED:]:
            missing = sum(entry.missing_ids for entry, _ in rest)
            others = f"{output.counted(len(rest), 'symbol')} more with problems"
            yield from sentence(f"[yellow]{others}[/]: {output.counted(missing, 'trade')} missing", width)


def symbol_problems(entry: control_pb2.Subscription) -> list[str]:
    """What is wrong with one symbol, in words."""
    told = [entry.message] if entry.message else []
    if entry.gaps:
        told.append(f"{output.counted(entry.gaps, 'gap')}, {output.counted(entry.missing_ids, 'trade')} missing")
    return told


def sentence_lines(sentences: Sequence[str], width: int) -> list[Text]:
    """Each sentence in as many lines as it takes."""
    return [line for told in sentences for line in sentence(told, width)]


def _apart(tables: Sequence[Sequence[Text]], room: int) -> list[Text]:
    """The tables below each other, with a blank line between them where there is room for it."""
    blank = [Text()] if sum(len(table) for table in tables) + len(tables) <= room else []
    return [line for table in tables for line in (*blank, *table)]


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
    ]
