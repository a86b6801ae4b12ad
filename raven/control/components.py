"""What the control handler drives: a source, or a consumer that follows upstreams."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final, Protocol

from raven.batches.instrument import Instrument
from raven.batches.selection import Selection
from raven.control.wanted import Wanted, WantedFile
from raven.errors import ExchangeError
from raven.rpc.cursors import to_message
from raven.rpc.follower import Follower
from raven.rpc.pb import control_pb2
from raven.rpc.subscriptions import SubscriptionTable
from raven.sources.source import Source

Entries = Mapping[Instrument, Wanted]

CONNECTING: Final = control_pb2.SYMBOL_STATE_CONNECTING
WAITING: Final = control_pb2.SYMBOL_STATE_WAITING
STREAMING: Final = control_pb2.SYMBOL_STATE_STREAMING
REFUSED: Final = control_pb2.SYMBOL_STATE_REFUSED


class Component(Protocol):
    """What a service does, as Control sees it. `venues`: where its symbols can trade, the default first."""

    venues: Sequence[str]

    def upstreams_of(self, venue: str) -> Sequence[str]:
        """Names of the services a new symbol of `venue` has to join."""

    async def add(self, wanted: Sequence[Wanted], *, restored: bool) -> list[control_pb2.SymbolResult]:
        """Collect these; `restored`: they were collected before a restart."""

    async def remove(self, gone: Sequence[Wanted], remaining: Entries) -> None:
        """Collect what was wanted by the entries `gone` no more, but for what those `remaining` want."""

    def subscriptions(self, wanted: Entries) -> list[control_pb2.Subscription]:
        """The facts of what is wanted; a pattern's own entry is followed by those of the symbols it matches."""

    def links(self) -> list[control_pb2.Link]:
        """The connections this service depends on."""

    def problems(self) -> list[str]:
        """What is wrong beside the links."""


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
            await self._source.check([entry.symbol for entry in named])
            for entry in patterns:
                await self._expand(entry)
            return []
        results = await self._add_named(named) if named else []
        return results + [await self._add_pattern(entry) for entry in patterns]

    async def _add_named(self, wanted: Sequence[Wanted]) -> list[control_pb2.SymbolResult]:
        refused = await self._source.check([entry.symbol for entry in wanted])
        for entry in wanted:
            if entry.symbol not in refused:
                self._begin(entry, [entry.symbol])
        return [
            self._result(entry, REFUSED, refused[entry.symbol])
            if entry.symbol in refused
            else self._result(entry, CONNECTING)
            for entry in wanted
        ]

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
        new = [symbol for symbol in await self._source.matching(entry.symbol) if symbol not in entry.ids_before]
        if new:
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
        found: list[control_pb2.Subscription] = []
        for entry in wanted.values():
            pattern = entry.instrument.is_pattern
            symbols = [
                symbol for symbol in entry.ids_before if not pattern or Instrument(entry.venue, symbol) not in wanted
            ]
            if not pattern and not symbols:
                symbols = [entry.symbol]
            own = [
                self._source.facts.subscription(
                    entry.venue,
                    symbol,
                    connected=self._source.is_acknowledged(symbol),
                    wanted_by=entry.wanted_by,
                    pattern=entry.symbol if pattern else "",
                )
                for symbol in symbols
            ]
            if pattern:
                found.append(summary(entry, own))
            found += own
        return found

    def links(self) -> list[control_pb2.Link]:
        """The connections to the venue."""
        return self._source.links()

    def problems(self) -> list[str]:
        """What the source says is wrong."""
        return self._source.problems()


class ConsumerComponent:
    """An aggregator or a sink behind its followers, for the symbols of `venues`."""

    def __init__(self, followers: Sequence[Follower], facts: SubscriptionTable, *, venues: Sequence[str]) -> None:
        self._followers = followers
        self._facts = facts
        self.venues = venues

    def upstreams_of(self, venue: str) -> Sequence[str]:
        """The upstreams that have symbols of `venue`."""
        return [follower.name for follower in self._following(venue)]

    def _following(self, venue: str) -> Iterator[Follower]:
        return (follower for follower in self._followers if follower.venue in ("", venue))

    async def add(self, wanted: Sequence[Wanted], *, restored: bool) -> list[control_pb2.SymbolResult]:  # noqa: ARG002
        """Ask every upstream of its venue for a symbol; it is refused when all of them refuse it."""
        answers: dict[Instrument, list[control_pb2.SymbolResult]] = {entry.instrument: [] for entry in wanted}
        for follower in self._followers:
            own = [entry for entry in wanted if follower.venue in ("", entry.venue)]
            for joining in (True, False):
                instruments = [entry.instrument for entry in own if (follower.name in entry.joining) is joining]
                if instruments:
                    for result in await follower.add(instruments, joining=joining):
                        answers[Instrument(result.venue, result.symbol)].append(result)
        return [_merge(instrument, results) for instrument, results in answers.items()]

    async def remove(self, gone: Sequence[Wanted], remaining: Entries) -> None:
        """Take no more rows of `gone` and let the upstreams know."""
        for follower in self._followers:
            own = [entry.instrument for entry in gone if follower.venue in ("", entry.venue)]
            if own:
                await follower.remove(own)
        left, still = Selection(entry.instrument for entry in gone), Selection(remaining)
        for venue in {entry.venue for entry in gone}:
            symbols = [Instrument(venue, symbol) for symbol in self._facts.symbols(venue)]
            self._facts.forget(venue, [one.symbol for one in symbols if one in left and one not in still])

    def subscriptions(self, wanted: Entries) -> list[control_pb2.Subscription]:
        """Connected means that an upstream is being followed."""
        found: list[control_pb2.Subscription] = []
        for entry in wanted.values():
            following = list(self._following(entry.venue))
            connected = any(follower.connected for follower in following)
            if entry.instrument.is_pattern:
                own = [
                    self._subscription(entry, symbol, connected=connected, pattern=entry.symbol)
                    for symbol in self._facts.symbols(entry.venue)
                    if entry.instrument.matches(symbol) and Instrument(entry.venue, symbol) not in wanted
                ]
                shown = summary(entry, own)
                found += [shown, *own]
            else:
                shown = self._subscription(entry, entry.symbol, connected=connected)
                found.append(shown)
            refusals = [
                follower.refused[entry.instrument] for follower in following if entry.instrument in follower.refused
            ]
            if refusals:
                shown.message = "; ".join(dict.fromkeys(refusals))
            if len(refusals) == len(following):
                shown.state = REFUSED
        return found

    def _subscription(
        self, entry: Wanted, symbol: str, *, connected: bool, pattern: str = ""
    ) -> control_pb2.Subscription:
        return self._facts.subscription(
            entry.venue, symbol, connected=connected, wanted_by=entry.wanted_by, pattern=pattern
        )

    def problems(self) -> list[str]:
        """Stores that cannot be written."""
        return list(
            dict.fromkeys(follower.consumer.problem for follower in self._followers if follower.consumer.problem)
        )

    def links(self) -> list[control_pb2.Link]:
        """The upstreams."""
        return [self._link(follower) for follower in self._followers]

    def _link(self, follower: Follower) -> control_pb2.Link:
        return control_pb2.Link(
            name=follower.name, target=follower.target, connected=follower.connected, error=follower.error,
            cursor=to_message(follower.consumer.position(follower.name)), lag_us=follower.lag_us,
            needed=follower.is_needed,
        )  # fmt: skip


def summary(entry: Wanted, matched: Sequence[control_pb2.Subscription]) -> control_pb2.Subscription:
    """A pattern's own entry: as far as the furthest of what it matches."""
    states = {subscription.state for subscription in matched}
    state = next((state for state in (STREAMING, WAITING) if state in states), CONNECTING)
    return control_pb2.Subscription(
        venue=entry.venue,
        symbol=entry.symbol,
        state=state,
        wanted_by=entry.wanted_by,
        matches=len(matched),
        message=f"{len(matched)} symbols",
    )


def _merge(instrument: Instrument, results: Iterable[control_pb2.SymbolResult]) -> control_pb2.SymbolResult:
    """One answer of several upstreams: refused when all refuse, else as far as the slowest of the others."""
    results = list(results)
    accepted = [result for result in results if result.state != REFUSED]
    messages = list(dict.fromkeys(result.message for result in results if result.message))
    state = CONNECTING if accepted else REFUSED
    return control_pb2.SymbolResult(
        venue=instrument.venue, symbol=instrument.symbol, state=state, message="; ".join(messages)
    )
