"""The handler of Control, the same for every service: keeps what is wanted, drives the component, reports."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from importlib.metadata import version

from raven.clock import monotonic_ns, now_us
from raven.control.components import Component
from raven.control.wanted import USER, WantedFile
from raven.errors import InputError
from raven.rpc.cursors import to_message
from raven.rpc.hub import Hub
from raven.rpc.pb import control_pb2
from raven.telemetry import Telemetry

POLL_S = 0.05
REFUSED = control_pb2.SYMBOL_STATE_REFUSED


class ControlService:
    """Start, stop and report for one service."""

    def __init__(
        self, service: str, component: Component, wanted: WantedFile, telemetry: Telemetry, *,
        hub: Hub | None, simulated: bool,
    ) -> None:  # fmt: skip
        self._service = service
        self._component = component
        self._wanted = wanted
        self._telemetry = telemetry
        self._hub = hub
        self._simulated = simulated
        self._started_us = now_us()
        self._turn = asyncio.Lock()

    async def restore(self) -> None:
        """Collect again what was collected before a restart."""
        entries = list(self._wanted.symbols.values())
        if entries:
            await self._component.add(entries, restored=True)
            self._telemetry.info("restored", f"collecting again: {', '.join(sorted(self._wanted.symbols))}")

    async def start(self, request: control_pb2.StartRequest) -> control_pb2.StartResponse:
        """Collect symbols; answers when rows flow, after `wait_s`, or with why not."""
        symbols = _symbols(request.symbols)
        requester = request.requester or USER
        async with self._turn:
            new = [symbol for symbol in symbols if symbol not in self._wanted.symbols]
            place = self._hub.place if self._hub is not None else None
            for symbol in symbols:
                self._wanted.add(symbol, requester, session_start=place, joining=self._component.upstreams)
            self._wanted.save()
            entries = [self._wanted.symbols[symbol] for symbol in new]
            refused = set(new)
            try:
                added = await self._component.add(entries, restored=False) if entries else []
                refused = {result.symbol for result in added if result.state == REFUSED}
            finally:
                for symbol in refused:
                    self._wanted.remove(symbol, requester)
                self._wanted.save()
            answers = {result.symbol: result for result in added}
        await self._until_streaming([symbol for symbol in symbols if symbol in self._wanted.symbols], request.wait_s)
        now = {entry.symbol: entry for entry in self._subscriptions()}
        return control_pb2.StartResponse(results=[self._answer(symbol, now, answers) for symbol in symbols])

    def _answer(
        self,
        symbol: str,
        now: dict[str, control_pb2.Subscription],
        answers: dict[str, control_pb2.SymbolResult],
    ) -> control_pb2.SymbolResult:
        if symbol not in now:
            return answers[symbol]
        entry = now[symbol]
        added = answers.get(symbol)
        return control_pb2.SymbolResult(
            venue=entry.venue, symbol=symbol, state=entry.state,
            message=entry.message or (added.message if added is not None else ""),
            session_start=to_message(self._wanted.symbols[symbol].session_start),
        )  # fmt: skip

    async def _until_streaming(self, symbols: Sequence[str], wait_s: float) -> None:
        deadline_ns = monotonic_ns() + int(wait_s * 1e9)
        waiting = set(symbols)
        while waiting and monotonic_ns() < deadline_ns:
            for entry in self._subscriptions():
                if entry.state == control_pb2.SYMBOL_STATE_STREAMING:
                    waiting.discard(entry.symbol)
            await asyncio.sleep(POLL_S)

    async def stop(self, request: control_pb2.StopRequest) -> control_pb2.StopResponse:
        """Collect symbols no more, unless somebody else still wants them."""
        requester = request.requester or USER
        return await self._stop(_symbols(request.symbols), requester)

    async def stop_all(self, *, force: bool) -> control_pb2.StopResponse:
        """Collect nothing that users asked for; with `force` nothing at all, whoever wanted it."""
        if not force:
            return await self._stop(list(self._wanted.symbols), USER)
        async with self._turn:
            symbols = list(self._wanted.symbols)
            self._wanted.symbols.clear()
            self._wanted.save()
            await self._component.remove(symbols)
        return control_pb2.StopResponse(
            results=[
                control_pb2.SymbolResult(symbol=symbol, state=control_pb2.SYMBOL_STATE_STOPPED) for symbol in symbols
            ]
        )

    async def _stop(self, symbols: Sequence[str], requester: str) -> control_pb2.StopResponse:
        results, ended = [], []
        async with self._turn:
            for symbol in symbols:
                result = control_pb2.SymbolResult(symbol=symbol, state=control_pb2.SYMBOL_STATE_STOPPED)
                results.append(result)
                if symbol not in self._wanted.symbols:
                    result.state = control_pb2.SYMBOL_STATE_NOT_WANTED
                    result.message = "was not being collected"
                elif others := self._wanted.remove(symbol, requester):
                    result.state = control_pb2.SYMBOL_STATE_KEPT
                    result.message = f"still wanted by {', '.join(others)}"
                else:
                    ended.append(symbol)
            self._wanted.save()
            await self._component.remove(ended)
        return control_pb2.StopResponse(results=results)

    def _subscriptions(self) -> list[control_pb2.Subscription]:
        return self._component.subscriptions(self._wanted.symbols)

    def list(self) -> control_pb2.ListResponse:
        """What is being collected."""
        return control_pb2.ListResponse(subscriptions=self._subscriptions())

    def status(self) -> control_pb2.StatusResponse:
        """How the service is: unhealthy when something wanted cannot be collected now."""
        subscriptions, links = self._subscriptions(), self._component.links()
        problems = []
        if subscriptions:
            problems = [f"{link.name}: {link.error or 'not connected'}" for link in links if not link.connected]
            problems += [f"{entry.symbol} is refused" for entry in subscriptions if entry.state == REFUSED]
            problems += self._component.problems()
        return control_pb2.StatusResponse(
            service=self._service, version=version("raven-market-data"), pid=os.getpid(),
            started_us=self._started_us, healthy=not problems, problems=problems, subscriptions=subscriptions,
            links=links, counters=self._telemetry.totals, simulated=self._simulated,
        )  # fmt: skip

    async def forget(self, consumer: str) -> bool:
        """Free a dead consumer's hold on the journal, and stop what only it wanted."""
        wished = [symbol for symbol, entry in self._wanted.symbols.items() if consumer in entry.wanted_by]
        if wished:
            await self._stop(wished, consumer)
        held = self._hub is not None and self._hub.journal.forget(consumer)
        return held or bool(wished)


def _symbols(symbols: Sequence[str]) -> list[str]:
    """The symbols, upper case, each once; raises InputError for none or an empty one."""
    cleaned = list(dict.fromkeys(symbol.strip().upper() for symbol in symbols))
    if not cleaned or "" in cleaned:
        raise InputError("no symbol given", hint="name at least one, such as BTCUSDT")
    return cleaned
