"""A source as Control drives it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping, Sequence
from typing import Final

from raven.batches.instrument import Instrument
from raven.control.components import CONNECTING, REFUSED, Entries, summary
from raven.control.wanted import Wanted, WantedFile
from raven.errors import ExchangeError
from raven.rpc.pb import control_pb2
from raven.sources.source import Source

UNCHECKED: Final = "taken unchecked: the venue did not answer in time whether it has it"
ASK_S: Final = 3.0
"""How long a request to start waits for the venue's list of symbols; others wait behind it."""


class SourceComponent:
    """A source: its symbols are the venue's, and patterns follow its list of symbols."""

    def __init__(self, source: Source, wanted: WantedFile) -> None:
        self.venues: Sequence[str] = [source.venue]
        self._source = source
        self._wanted = wanted
        source.on_symbols = self.follow_patterns

    def upstreams_of(self, venue: str) -> Sequence[str]:  # noqa: ARG002
        """None: a source has no service before it."""
        return ()

    async def add(self, wanted: Sequence[Wanted], *, restored: bool) -> list[control_pb2.SymbolResult]:
        """Collect the symbols the venue knows; after a restart none is refused."""
        named = [entry for entry in wanted if not entry.instrument.is_pattern]
        patterns = [entry for entry in wanted if entry.instrument.is_pattern]
        if restored:
            self._source.want({symbol: before for entry in wanted for symbol, before in entry.ids_before.items()})
            for entry in named:
                if not entry.ids_before:  # the service ended before their session began
                    self._begin(entry, [entry.symbol])
            await self._refused([entry.symbol for entry in named])
            for entry in patterns:
                with contextlib.suppress(ExchangeError):  # they are matched when the list can be read
                    await self._expand(entry)
            return []
        results = await self._add_named(named) if named else []
        return results + [await self._add_pattern(entry) for entry in patterns]

    async def _add_named(self, wanted: Sequence[Wanted]) -> list[control_pb2.SymbolResult]:
        refused = await self._refused([entry.symbol for entry in wanted])
        for entry in wanted:
            if entry.symbol not in refused:
                self._begin(entry, [entry.symbol])
        return [
            self._result(entry, REFUSED, refused[entry.symbol])
            if entry.symbol in refused
            else self._result(entry, CONNECTING)
            for entry in wanted
        ]

    async def _refused(self, symbols: Sequence[str]) -> Mapping[str, str]:
        """Which of `symbols` the venue does not have; none when it does not say in time, which each then shows."""
        try:
            async with asyncio.timeout(ASK_S):
                return await self._source.check(symbols)
        except TimeoutError:
            for symbol in symbols:  # until the next reading of the list says more
                self._source.facts.of(self._source.venue, symbol).message = UNCHECKED
            return {}

    async def _add_pattern(self, entry: Wanted) -> control_pb2.SymbolResult:
        try:
            await self._expand(entry)
        except ExchangeError as error:
            return self._result(entry, CONNECTING, f"will be matched when the list of symbols can be read: {error}")
        if not entry.ids_before:
            return self._result(entry, REFUSED, f"no symbol that trades at {self._source.venue} matches {entry.symbol}")
        return self._result(entry, CONNECTING)

    async def _expand(self, entry: Wanted) -> None:
        """Collect the symbols that match and are not collected by this pattern yet."""
        try:
            async with asyncio.timeout(ASK_S):
                matching = await self._source.matching(entry.symbol)
        except TimeoutError as error:
            raise ExchangeError(f"{self._source.venue} did not answer in {ASK_S:g} s") from error
        new = [symbol for symbol in matching if symbol not in entry.ids_before]
        if new and entry.instrument in self._wanted.entries:  # it may have been stopped meanwhile
            self._begin(entry, new)

    def _begin(self, entry: Wanted, symbols: Sequence[str]) -> None:
        """Begin the session of symbols; one that another entry collects already goes on in the session it has."""
        running = self._collected()
        for symbol in symbols:
            entry.ids_before[symbol] = running[symbol] if symbol in running else self._source.last_id(symbol)
        self._source.want({symbol: entry.ids_before[symbol] for symbol in symbols if symbol not in running})

    def _collected(self) -> dict[str, int | None]:
        """Every symbol some entry collects, with the id before its session."""
        return {
            symbol: before for entry in self._wanted.entries.values() for symbol, before in entry.ids_before.items()
        }

    async def follow_patterns(self) -> None:
        """Collect what the venue has listed since; called when its list of symbols was read anew."""
        for entry in list(self._wanted.entries.values()):
            if entry.instrument.is_pattern:
                before = len(entry.ids_before)
                with contextlib.suppress(ExchangeError):  # tried again at the next reading
                    await self._expand(entry)
                if len(entry.ids_before) > before:
                    self._wanted.save()

    async def remove(self, gone: Sequence[Wanted], remaining: Entries) -> None:
        """End the sessions of the symbols of `gone`, but for those another entry still collects."""
        still = {symbol for entry in remaining.values() for symbol in entry.ids_before}
        await self._source.leave(sorted({symbol for entry in gone for symbol in entry.ids_before} - still))

    def _result(self, entry: Wanted, state: control_pb2.SymbolState, message: str = "") -> control_pb2.SymbolResult:
        return control_pb2.SymbolResult(venue=entry.venue, symbol=entry.symbol, state=state, message=message)

    def subscriptions(self, wanted: Entries) -> list[control_pb2.Subscription]:
        """Connected means that the venue acknowledged the subscription."""
        acknowledged = self._source.acknowledged
        found: list[control_pb2.Subscription] = []
        for entry in wanted.values():
            pattern = entry.instrument.is_pattern
            every = [
                self._source.facts.subscription(
                    entry.venue,
                    symbol,
                    connected=symbol in acknowledged,
                    wanted_by=entry.wanted_by,
                    pattern=entry.symbol if pattern else "",
                )
                for symbol in (entry.ids_before if pattern else [entry.symbol])
            ]
            if pattern:
                found.append(summary(entry, every))
            found += [one for one in every if not pattern or Instrument(entry.venue, one.symbol) not in wanted]
        return found

    def resume_ending(self, ending: Sequence[Wanted]) -> None:
        """Nothing: what a source has taken is in its journal."""

    def stores(self) -> list[control_pb2.Store]:
        """None: a source has its journal alone."""
        return []

    def links(self) -> list[control_pb2.Link]:
        """The connections to the venue."""
        return self._source.links()

    def starting(self) -> set[str]:
        """None: the venue does not start together with the service."""
        return set()

    def problems(self) -> list[str]:
        """What the source says is wrong."""
        return self._source.problems()
