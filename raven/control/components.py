"""What the control handler drives: a source, or a consumer that follows upstreams."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Protocol

from raven.control.wanted import Wanted
from raven.rpc.cursors import to_message
from raven.rpc.follower import Follower
from raven.rpc.pb import control_pb2
from raven.rpc.subscriptions import SubscriptionTable
from raven.sources.binance import BINANCE_SPOT
from raven.sources.binance.source import BinanceSource


class Component(Protocol):
    """What a service does, as Control sees it."""

    @property
    def upstreams(self) -> Sequence[str]:
        """Names of the services a new symbol has to join."""

    async def add(self, wanted: Sequence[Wanted], *, restored: bool) -> list[control_pb2.SymbolResult]:
        """Collect these symbols; `restored`: they were collected before a restart."""

    async def remove(self, symbols: Sequence[str]) -> None:
        """Collect these symbols no more."""

    def subscriptions(self, wanted: Mapping[str, Wanted]) -> list[control_pb2.Subscription]:
        """The facts of the wanted symbols."""

    def links(self) -> list[control_pb2.Link]:
        """The connections this service depends on."""

    def problems(self) -> list[str]:
        """What is wrong beside the links."""


class SourceComponent:
    """A source: its symbols are the exchange's."""

    upstreams: Sequence[str] = ()

    def __init__(self, source: BinanceSource) -> None:
        self._source = source

    async def add(self, wanted: Sequence[Wanted], *, restored: bool) -> list[control_pb2.SymbolResult]:
        """Collect the symbols the exchange knows; after a restart none is refused."""
        symbols = [entry.symbol for entry in wanted]
        if restored:
            self._source.want({entry.symbol: entry.id_before for entry in wanted})
            await self._source.check(symbols)
            return []
        refused = await self._source.check(symbols)
        accepted = [entry for entry in wanted if entry.symbol not in refused]
        for entry in accepted:
            entry.id_before = self._source.last_id(entry.symbol)
        self._source.want({entry.symbol: entry.id_before for entry in accepted})
        return [
            refused[symbol]
            if symbol in refused
            else control_pb2.SymbolResult(venue=BINANCE_SPOT, symbol=symbol, state=control_pb2.SYMBOL_STATE_CONNECTING)
            for symbol in symbols
        ]

    async def remove(self, symbols: Sequence[str]) -> None:
        """End the session of these symbols."""
        self._source.leave(symbols)

    def subscriptions(self, wanted: Mapping[str, Wanted]) -> list[control_pb2.Subscription]:
        """Connected means that the exchange acknowledged the subscription."""
        feed = self._source.feed
        return [
            self._source.facts.subscription(
                BINANCE_SPOT, symbol, connected=symbol in feed.acknowledged, wanted_by=entry.wanted_by
            )
            for symbol, entry in wanted.items()
        ]

    def links(self) -> list[control_pb2.Link]:
        """The connections to the exchange."""
        return self._source.feed.links()

    def problems(self) -> list[str]:
        """Streams the exchange refuses."""
        return [f"{symbol}: {reason}" for symbol, reason in self._source.feed.refused.items()]


class ConsumerComponent:
    """An aggregator or a sink behind its followers; `venue` is where its symbols trade."""

    def __init__(self, followers: Sequence[Follower], facts: SubscriptionTable, *, venue: str) -> None:
        self._followers = followers
        self._facts = facts
        self._venue = venue
        self.upstreams = [follower.name for follower in followers]

    async def add(self, wanted: Sequence[Wanted], *, restored: bool) -> list[control_pb2.SymbolResult]:  # noqa: ARG002
        """Ask every upstream for the symbols; one is refused when every upstream refuses it."""
        answers: dict[str, list[control_pb2.SymbolResult]] = {entry.symbol: [] for entry in wanted}
        for follower in self._followers:
            for joining in (True, False):
                symbols = [entry.symbol for entry in wanted if (follower.name in entry.joining) is joining]
                if symbols:
                    for result in await follower.add(symbols, joining=joining):
                        answers[result.symbol].append(result)
        return [_merge(self._venue, symbol, results) for symbol, results in answers.items()]

    async def remove(self, symbols: Sequence[str]) -> None:
        """Take no more rows of these symbols and let the upstreams know."""
        for follower in self._followers:
            await follower.remove(symbols)
            await follower.consumer.leave(follower.name, symbols)
        self._facts.forget(self._venue, symbols)

    def subscriptions(self, wanted: Mapping[str, Wanted]) -> list[control_pb2.Subscription]:
        """Connected means that an upstream is being followed."""
        connected = any(follower.connected for follower in self._followers)
        found = [
            self._facts.subscription(self._venue, symbol, connected=connected, wanted_by=entry.wanted_by)
            for symbol, entry in wanted.items()
        ]
        for entry in found:
            refusals = [
                follower.refused[entry.symbol] for follower in self._followers if entry.symbol in follower.refused
            ]
            if refusals:
                entry.message = "; ".join(refusals)
            if len(refusals) == len(self._followers):
                entry.state = control_pb2.SYMBOL_STATE_REFUSED
        return found

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
        )  # fmt: skip


def _merge(venue: str, symbol: str, results: Iterable[control_pb2.SymbolResult]) -> control_pb2.SymbolResult:
    """One answer of several upstreams: refused when all refuse, else as far as the slowest of the others."""
    results = list(results)
    accepted = [result for result in results if result.state != control_pb2.SYMBOL_STATE_REFUSED]
    messages = list(dict.fromkeys(result.message for result in results if result.message))
    state = control_pb2.SYMBOL_STATE_CONNECTING if accepted else control_pb2.SYMBOL_STATE_REFUSED
    return control_pb2.SymbolResult(venue=venue, symbol=symbol, state=state, message="; ".join(messages))
