"""The live table of `raven up`: price, trades a second, last bars, lag, gaps, rows stored."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import defaultdict, deque
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import polars as pl
from rich.console import Group
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from raven.batches.ipc import decode
from raven.batches.schema import to_frame
from raven.cli import output
from raven.clock import now_us
from raven.errors import UpstreamError
from raven.rpc.access import Access
from raven.rpc.client import Client
from raven.rpc.pb import control_pb2

REFRESH_S = 0.5
RATE_WINDOW_S = 10.0
BARS_SHOWN = 6


class Dashboard:
    """Asks the services how they are and listens to their bars; `view` renders what is known."""

    def __init__(self, targets: Mapping[str, str], access: Access, symbols: Sequence[str], title: str) -> None:
        self._clients = {name: Client(target, access) for name, target in targets.items()}
        self._symbols = symbols
        self._title = title
        self._status: dict[str, control_pb2.StatusResponse] = {}
        self._rows: dict[str, deque[tuple[float, int]]] = defaultdict(deque)
        self._bars: dict[str, deque[tuple[str, ...]]] = defaultdict(lambda: deque(maxlen=BARS_SHOWN))
        self._bar_counts: dict[str, int] = defaultdict(int)

    async def run(self) -> None:
        """Keep asking and listening until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._poll())
            for name in ("raven_timebar", "raven_tibs"):
                group.create_task(self._listen(name))

    async def close(self) -> None:
        """Close the channels."""
        for client in self._clients.values():
            await client.close()

    async def _poll(self) -> None:
        while True:
            for name, client in self._clients.items():
                try:
                    self._status[name] = await client.status(timeout_s=1.0)
                except UpstreamError:
                    self._status.pop(name, None)
            for entry in self._entries("binance_spot"):
                window = self._rows[entry.symbol]
                if window and entry.rows < window[-1][1]:
                    window.clear()  # the service was started again
                window.append((time.monotonic(), entry.rows))
                while window[0][0] < time.monotonic() - RATE_WINDOW_S:
                    window.popleft()
            await asyncio.sleep(REFRESH_S)

    async def _listen(self, name: str) -> None:
        while True:
            stream = self._clients[name].subscribe("latest")
            with contextlib.suppress(UpstreamError):
                async with contextlib.aclosing(stream):
                    async for _, payload in stream:
                        if payload is not None:
                            self._take_bars(name, to_frame(decode(payload)[0]))
            await asyncio.sleep(1.0)

    def _take_bars(self, name: str, bars: pl.DataFrame) -> None:
        for bar in bars.filter(pl.col("symbol").is_in(list(self._symbols))).iter_rows(named=True):
            self._bar_counts[name] += 1
            row = (
                bar["symbol"],
                bar["spec"] if name == "raven_timebar" else bar["spec"].partition("-")[0],
                f"{bar['open_time']:%H:%M:%S}",
                f"{bar['close_time']:%H:%M:%S}",
                *(price(bar[column]) for column in ("open", "high", "low", "close", "vwap")),
                f"{bar['volume']:,.4f}",
                output.count(bar["total_ticks"]),
                theta_or_buys(bar),
                "[green]yes[/]" if bar["complete"] else "[yellow]no[/]",
            )
            same = next((old for old in self._bars[name] if old[:4] == row[:4]), None)
            if same is not None and name == "raven_timebar":
                self._bars[name].remove(same)
            self._bars[name].append(row)

    def _entries(self, name: str) -> Sequence[control_pb2.Subscription]:
        answer = self._status.get(name)
        return list(answer.subscriptions) if answer is not None else []

    def view(self, notes: Sequence[str]) -> Panel:
        """The whole screen; `notes` are lines about child processes."""
        parts = [
            self._symbol_table(),
            self._bar_table("Time bars", "raven_timebar", "buys"),
            self._bar_table("Tick imbalance bars", "raven_tibs", "theta / threshold"),
            self._service_table(),
        ]
        lines = [Text(note, style="red") for note in notes]
        return Panel(Group(*parts, *lines), title=self._title, subtitle="Ctrl-C stops", title_align="left")

    def _symbol_table(self) -> Table:
        columns = (
            "symbol",
            "state",
            "price>",
            "trades/s>",
            "trades>",
            "last trade>",
            "age>",
            "gaps>",
            "missing ids>",
        )
        view = output.new_table("Trades", columns)
        collected = {entry.symbol: entry for entry in self._entries("binance_spot")}
        for symbol in self._symbols:
            entry = collected.get(symbol)
            if entry is None:
                view.add_row(symbol, "[yellow]starting[/]", *[""] * 7)
                continue
            seen = entry.last_event_us > 0
            view.add_row(
                symbol,
                output.state_text(entry.state),
                price(entry.last_price) if seen else "",
                f"{self._rate(symbol):,.1f}",
                output.count(entry.rows),
                f"{datetime.fromtimestamp(entry.last_event_us / 1e6, UTC):%H:%M:%S} UTC" if seen else "",
                output.duration(max(0, now_us() - entry.last_event_us) / 1e6) if seen else "",
                output.count(entry.gaps),
                output.count(entry.missing_ids),
            )
        return view

    def _rate(self, symbol: str) -> float:
        window = self._rows[symbol]
        if len(window) < 2 or window[-1][0] == window[0][0]:
            return 0.0
        return (window[-1][1] - window[0][1]) / (window[-1][0] - window[0][0])

    def _bar_table(self, title: str, name: str, figure: str) -> Table:
        columns = (
            "symbol",
            "spec",
            "from",
            "to",
            "open>",
            "high>",
            "low>",
            "close>",
            "vwap>",
            "volume>",
            "ticks>",
            f"{figure}>",
            "complete",
        )
        view = output.new_table(f"{title}: last of {self._bar_counts[name]}", columns)
        for row in self._bars[name]:
            view.add_row(*row)
        if not self._bars[name]:
            view.add_row("[dim]none closed yet[/]", *[""] * (len(columns) - 1))
        return view

    def _service_table(self) -> Table:
        view = output.new_table(
            "Services", ("service", "state", "behind>", "rows in>", "rows stored>", "last flush>", "problems")
        )
        for name in self._clients:
            answer = self._status.get(name)
            if answer is None:
                view.add_row(name, "[yellow]starting[/]", *[""] * 5)
                continue
            counters = answer.counters
            behind_us = max((link.lag_us for link in answer.links), default=0)
            stored = output.count(counters.get("stored_rows", 0)) if "persistence" in name else ""
            view.add_row(
                name,
                "[green]ok[/]" if answer.healthy else "[red]unhealthy[/]",
                output.duration(behind_us / 1e6) if name != "binance_spot" else "",
                output.count(counters.get("rows", 0)),
                stored,
                f"{counters['last_flush_ms']} ms" if "last_flush_ms" in counters else "",
                "; ".join(answer.problems),
            )
        return view


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
