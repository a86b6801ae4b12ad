"""A consumer as Control drives it: an aggregator or a sink that follows upstreams."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator, Sequence

from raven.batches.instrument import Instrument
from raven.batches.selection import Selection
from raven.control.components import CONNECTING, REFUSED, Entries, summary
from raven.control.wanted import Wanted
from raven.rpc.cursors import to_message
from raven.rpc.follower import Follower
from raven.rpc.pb import control_pb2
from raven.rpc.subscriptions import SubscriptionTable


class ConsumerComponent:
    """An aggregator or a sink behind its followers, for the symbols of `venues`."""

    def __init__(
        self,
        followers: Sequence[Follower],
        facts: SubscriptionTable,
        *,
        venues: Sequence[str],
        stores: Callable[[], list[control_pb2.Store]] = list,
    ) -> None:
        self._followers = followers
        self._stores = stores
        self._facts = facts
        self.venues = venues

    def upstreams_of(self, venue: str) -> Sequence[str]:
        """The followings of upstreams that have symbols of `venue`."""
        return [follower.key for follower in self._following(venue)]

    def _following(self, venue: str) -> Iterator[Follower]:
        return (follower for follower in self._followers if follower.venue in ("", venue))

    async def add(self, wanted: Sequence[Wanted], *, restored: bool) -> list[control_pb2.SymbolResult]:  # noqa: ARG002
        """Ask every upstream of its venue for a symbol; it is refused when all of them refuse it."""
        answers: dict[Instrument, list[control_pb2.SymbolResult]] = {entry.instrument: [] for entry in wanted}
        asked = []
        for follower in self._followers:
            own = [entry for entry in wanted if follower.venue in ("", entry.venue)]
            follower.resume_joining([entry.instrument for entry in own if follower.key in entry.earlier])
            for joining in (True, False):
                instruments = [entry.instrument for entry in own if (follower.key in entry.joining) is joining]
                if instruments:
                    asked.append(follower.add(instruments, joining=joining))
        # all at once: whoever waited for another upstream's answer would take it that nothing is wanted of its own
        for results in await asyncio.gather(*asked):
            for result in results:
                answers[Instrument(result.venue, result.symbol)].append(result)
        return [_merge(instrument, results) for instrument, results in answers.items()]

    def resume_ending(self, ending: Sequence[Wanted]) -> None:
        """Take what there was of these when they were stopped, then leave them."""
        for follower in self._followers:
            own = [entry for entry in ending if follower.key in entry.ending]
            follower.resume_leaving(
                [entry.instrument for entry in own],
                joining=[entry.instrument for entry in own if follower.key in entry.joining],
            )

    async def remove(self, gone: Sequence[Wanted], remaining: Entries) -> None:
        """Take no more rows of `gone` and let the upstreams know."""
        await asyncio.gather(
            *(
                follower.remove([entry.instrument for entry in gone if follower.venue in ("", entry.venue)])
                for follower in self._followers
            )
        )
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
                every = [
                    self._subscription(entry, symbol, connected=connected, pattern=entry.symbol)
                    for symbol in self._facts.symbols(entry.venue)
                    if entry.instrument.matches(symbol)
                ]
                shown = summary(entry, every)
                found += [shown, *(one for one in every if Instrument(entry.venue, one.symbol) not in wanted)]
            else:
                shown = self._subscription(entry, entry.symbol, connected=connected)
                found.append(shown)
            refusals = [
                follower.refused[entry.instrument] for follower in following if entry.instrument in follower.refused
            ]
            waits_for = [follower.consumer.problem for follower in following if not follower.consumer.ready.is_set()]
            if waits_for and not shown.rows:
                shown.message = "; ".join(dict.fromkeys(filter(None, waits_for)))
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

    def stores(self) -> list[control_pb2.Store]:
        """The tables it writes."""
        return self._stores()

    def links(self) -> list[control_pb2.Link]:
        """The upstreams."""
        return [self._link(follower) for follower in self._followers]

    def starting(self) -> set[str]:
        """Upstreams that were never reached, of a service that began just now: they may have begun with it."""
        return {follower.name for follower in self._followers if follower.is_starting}

    def _link(self, follower: Follower) -> control_pb2.Link:
        return control_pb2.Link(
            name=follower.name, target=follower.target, connected=follower.connected, error=follower.error,
            cursor=to_message(follower.consumer.position(follower.name)), lag_us=follower.lag_us,
            needed=follower.is_wanted and follower.consumer.ready.is_set(),
        )  # fmt: skip


def _merge(instrument: Instrument, results: Iterable[control_pb2.SymbolResult]) -> control_pb2.SymbolResult:
    """One answer of several upstreams: refused when all refuse, else as far as the slowest of the others."""
    results = list(results)
    accepted = [result for result in results if result.state != REFUSED]
    messages = list(dict.fromkeys(result.message for result in results if result.message))
    state = CONNECTING if accepted else REFUSED
    return control_pb2.SymbolResult(
        venue=instrument.venue, symbol=instrument.symbol, state=state, message="; ".join(messages)
    )
