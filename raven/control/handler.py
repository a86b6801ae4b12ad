"""The handler of Control, the same for every service: keeps what is wanted, drives the component, reports."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence

from raven.batches.instrument import Instrument, by_venue, symbol_problem
from raven.clock import monotonic_ns, now_us
from raven.control.components import Component
from raven.control.wanted import MAX_PATTERNS, MAX_REQUESTERS, USER, Wanted, WantedFile
from raven.errors import InputError
from raven.rpc.cursors import to_message
from raven.rpc.hub import Hub
from raven.rpc.pb import control_pb2, market_data_pb2
from raven.telemetry import Telemetry

POLL_S = 0.05
REFUSED = control_pb2.SYMBOL_STATE_REFUSED
SHOWN_RESTORED = 8


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
        """Collect again what was collected before a restart; what this service cannot serve is set aside."""
        for venue in {one.venue for one in (*self._wanted.entries, *self._wanted.ending)} - {*self._component.venues}:
            strangers = [one for one in (*self._wanted.entries, *self._wanted.ending) if one.venue == venue]
            self._wanted.set_aside(strangers, f"{self._service} has no symbols of {venue}")
        entries = list(self._wanted.entries.values())
        self._component.resume_ending(list(self._wanted.ending.values()))
        if entries:
            async with self._turn:
                await self._component.add(entries, restored=True)
                self._wanted.save()
            shown = by_venue(entry.instrument for entry in entries[:SHOWN_RESTORED])
            names = "; ".join(f"{', '.join(symbols)} of {venue}" for venue, symbols in shown.items())
            more = f" and {len(entries) - SHOWN_RESTORED} more" if len(entries) > SHOWN_RESTORED else ""
            self._telemetry.info("restored", f"collecting again: {names}{more}")

    async def start(self, request: control_pb2.StartRequest) -> control_pb2.StartResponse:
        """Collect symbols; answers when rows flow, after `wait_s`, or with why not. Raises as WantedFile.change."""
        venue = self._venue(request.venue)
        instruments = [Instrument(venue, symbol) for symbol in _symbols(request.symbols)]
        requester = request.requester or USER
        async with self._turn:
            answers = await self._apply(venue, instruments, requester)
        await self._until_streaming([one for one in instruments if one in self._wanted.entries], request.wait_s)
        now = self._current()
        return control_pb2.StartResponse(results=[self._answer(one, now, answers) for one in instruments])

    async def _apply(
        self, venue: str, instruments: Sequence[Instrument], requester: str
    ) -> dict[Instrument, control_pb2.SymbolResult]:
        """Note and begin what `requester` wants; the answers for what is new. It is saved once it goes on."""
        wanted = self._wanted
        new = [one for one in instruments if one not in wanted.entries]
        self._check_patterns(new)
        for one in instruments:
            others = wanted.entries[one].wanted_by if one in wanted.entries else []
            if len(others) >= MAX_REQUESTERS and requester not in others:
                raise InputError(f"{one} is wanted by {len(others)} already", hint="stop it for those that are gone")
        ending = {one: wanted.ending[one] for one in new if one in wanted.ending}
        place = self._hub.session_start if self._hub is not None else None
        with wanted.change(trying=new):  # also shows, before anything begins, whether it can be saved
            for one in instruments:
                wanted.add(one, requester, session_start=place, joining=self._component.upstreams_of(venue))
        entries = [wanted.entries[one] for one in new]
        refused = set(new)
        try:
            added = await self._component.add(entries, restored=False) if entries else []
            refused = {Instrument(result.venue, result.symbol) for result in added if result.state == REFUSED}
        finally:
            for one in refused:
                wanted.remove(one, requester)
            self._end_after_all([ending[one] for one in refused if one in ending])
            wanted.settle()
        return {Instrument(result.venue, result.symbol): result for result in added}

    def _check_patterns(self, new: Sequence[Instrument]) -> None:
        """Raises InputError when with these there are too many: each is matched with every symbol."""
        patterns = sum(one.is_pattern for one in (*self._wanted.entries, *new))
        if patterns > MAX_PATTERNS and any(one.is_pattern for one in new):
            raise InputError(
                f"{patterns} patterns; a service collects by {MAX_PATTERNS} at most", hint="name the symbols instead"
            )

    def _end_after_all(self, entries: Sequence[Wanted]) -> None:
        """These were ending when they were wanted again, which is refused: there still is something of them to take."""
        self._wanted.ending.update({entry.instrument: entry for entry in entries})
        self._component.resume_ending(entries)

    def _venue(self, venue: str) -> str:
        """The venue asked for, by default the first one of the service; raises InputError when it has not got it."""
        venues = self._component.venues
        if venue and venue not in venues:
            raise InputError(f"{self._service} has no symbols of {venue}", hint=f"it has those of {', '.join(venues)}")
        return venue or venues[0]

    def _current(self) -> dict[Instrument, control_pb2.Subscription]:
        """What is wanted by its own name, as it is now."""
        found = (entry for entry in self._subscriptions() if not entry.pattern)
        return {Instrument(entry.venue, entry.symbol): entry for entry in found}

    def _answer(
        self,
        instrument: Instrument,
        now: dict[Instrument, control_pb2.Subscription],
        answers: dict[Instrument, control_pb2.SymbolResult],
    ) -> control_pb2.SymbolResult:
        if instrument not in now:
            stopped = control_pb2.SymbolResult(
                venue=instrument.venue,
                symbol=instrument.symbol,
                state=control_pb2.SYMBOL_STATE_STOPPED,
                message="stopped meanwhile",
            )
            return answers.get(instrument, stopped)
        entry = now[instrument]
        added = answers.get(instrument)
        # once rows flow, what upstreams said when they were asked is past
        earlier = "" if added is None or entry.state == control_pb2.SYMBOL_STATE_STREAMING else added.message
        return control_pb2.SymbolResult(
            venue=entry.venue, symbol=entry.symbol, state=entry.state,
            message="; ".join(filter(None, [earlier, entry.message])),
            session_start=to_message(self._wanted.entries[instrument].session_start),
        )  # fmt: skip

    async def _until_streaming(self, instruments: Sequence[Instrument], wait_s: float) -> None:
        deadline_ns = monotonic_ns() + int(wait_s * 1e9)
        waiting = set(instruments)
        while waiting and monotonic_ns() < deadline_ns:
            entries = {one: self._wanted.entries[one] for one in waiting if one in self._wanted.entries}
            states = {
                Instrument(entry.venue, entry.symbol): entry.state
                for entry in self._component.subscriptions(entries)
                if not entry.pattern
            }
            streaming = control_pb2.SYMBOL_STATE_STREAMING
            waiting = {one for one, state in states.items() if state != streaming}
            if waiting:
                await asyncio.sleep(POLL_S)

    async def stop(self, request: control_pb2.StopRequest) -> control_pb2.StopResponse:
        """Collect symbols no more, unless somebody else still wants them.

        Without a venue at each that collects them. A pattern ends itself and every wanted symbol that it matches.
        """
        instruments: list[Instrument] = []
        for symbol in _symbols(request.symbols):
            asked = [Instrument(self._venue(request.venue), symbol)]
            if not request.venue:
                asked = [Instrument(venue, symbol) for venue in self._component.venues]
            found = [
                one for one in self._wanted.entries for pattern in asked
                if one.venue == pattern.venue and pattern.matches(one.symbol)
            ]  # fmt: skip
            instruments += found or asked[:1]
        return await self._stop(list(dict.fromkeys(instruments)), request.requester or USER)

    async def stop_all(self, *, force: bool) -> control_pb2.StopResponse:
        """Collect nothing that users asked for; with `force` nothing at all, whoever wanted it."""
        if not force:
            return await self._stop(list(self._wanted.entries), USER)
        async with self._turn:
            gone = list(self._wanted.entries.values())
            with self._wanted.change():
                for entry in gone:
                    self._wanted.end(entry.instrument, self._component.upstreams_of(entry.venue))
            await self._component.remove(gone, {})
        stopped, message = control_pb2.SYMBOL_STATE_STOPPED, self._unsafe()
        return control_pb2.StopResponse(
            results=[
                control_pb2.SymbolResult(venue=entry.venue, symbol=entry.symbol, state=stopped, message=message)
                for entry in gone
            ]
        )

    async def _stop(self, instruments: Sequence[Instrument], requester: str) -> control_pb2.StopResponse:
        results: list[control_pb2.SymbolResult] = []
        gone: list[Wanted] = []
        async with self._turn:
            with self._wanted.change():
                for one in instruments:
                    result = control_pb2.SymbolResult(
                        venue=one.venue, symbol=one.symbol, state=control_pb2.SYMBOL_STATE_STOPPED
                    )
                    results.append(result)
                    entry = self._wanted.entries.get(one)
                    if entry is None:
                        result.state, result.message = self._why_not(one)
                    elif others := self._wanted.remove(one, requester, self._component.upstreams_of(one.venue)):
                        result.state = control_pb2.SYMBOL_STATE_KEPT
                        result.message = f"still wanted by {', '.join(others)}"
                    else:
                        gone.append(entry)
                        state, why = self._why_not(one)
                        if state == control_pb2.SYMBOL_STATE_KEPT:
                            result.state, result.message = state, why
            await self._component.remove(gone, self._wanted.entries)
            end = to_message(self._hub.place) if self._hub is not None else None
        for result in results:
            result.session_end.CopyFrom(end or market_data_pb2.Cursor())
            if result.state == control_pb2.SYMBOL_STATE_STOPPED:
                result.message = self._unsafe()
        return control_pb2.StopResponse(results=results)

    def _unsafe(self) -> str:
        """Why what was stopped is not durable yet; empty when it is."""
        problems = self._component.problems()
        return f"not all of it is stored yet: {'; '.join(problems)}" if problems else ""

    def _why_not(self, instrument: Instrument) -> tuple[control_pb2.SymbolState, str]:
        """Why there is nothing to stop."""
        for one in self._wanted.entries:
            if one.venue == instrument.venue and one.matches(instrument.symbol):
                return control_pb2.SYMBOL_STATE_KEPT, f"collected by the pattern {one.symbol}: stop that"
        return control_pb2.SYMBOL_STATE_NOT_WANTED, "was not being collected"

    def _subscriptions(self) -> list[control_pb2.Subscription]:
        return self._component.subscriptions(self._wanted.entries)

    def list(self) -> control_pb2.ListResponse:
        """What is being collected."""
        return control_pb2.ListResponse(subscriptions=self._subscriptions())

    def status(self) -> control_pb2.StatusResponse:
        """How the service is: unhealthy when something wanted cannot be collected now."""
        subscriptions, links = self._subscriptions(), self._component.links()
        problems = []
        if subscriptions:
            starting = self._component.starting()
            problems = [
                f"{link.name}: {link.error or 'not connected'}"
                for link in links
                if link.needed and not link.connected and link.name not in starting
            ]
            problems += [
                f"{entry.symbol} of {entry.venue} is refused: {entry.message}"
                for entry in subscriptions
                if entry.state == REFUSED
            ]
            problems += [*self._component.problems(), *filter(None, [self._wanted.problem])]
        problems += filter(None, [self._wanted.aside])
        return control_pb2.StatusResponse(
            service=self._service, version=self._telemetry.version, pid=os.getpid(),
            started_us=self._started_us, healthy=not problems, problems=problems, subscriptions=subscriptions,
            links=links, counters=self._telemetry.totals, simulated=self._simulated,
            metrics=self._telemetry.snapshot(), stores=self._component.stores(),
        )  # fmt: skip

    async def forget(self, consumer: str) -> bool:
        """Free a dead consumer's hold on the journal, and stop what only it wanted."""
        # the hold first: without it the journal can make the room to save the rest
        held = self._hub is not None and self._hub.journal.forget(consumer)
        wished = [one for one, entry in self._wanted.entries.items() if consumer in entry.wanted_by]
        if wished:
            await self._stop(wished, consumer)
        return held or bool(wished)


def _symbols(symbols: Sequence[str]) -> list[str]:
    """The symbols, upper case, each once; raises InputError for none, or for what cannot be one."""
    cleaned = list(dict.fromkeys(symbol.strip().upper() for symbol in symbols))
    if not cleaned or "" in cleaned:
        raise InputError("no symbol given", hint="name at least one, such as BTCUSDT")
    for symbol in cleaned:
        if problem := symbol_problem(symbol):
            raise InputError(problem, hint="symbols look like BTCUSDT, patterns like '*USDT'")
    return cleaned
