"""What the control handler drives, as it sees it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final, Protocol

from raven.batches.instrument import Instrument
from raven.control.wanted import Wanted
from raven.rpc.pb import control_pb2

Entries = Mapping[Instrument, Wanted]

CONNECTING: Final = control_pb2.SYMBOL_STATE_CONNECTING
WAITING: Final = control_pb2.SYMBOL_STATE_WAITING
STREAMING: Final = control_pb2.SYMBOL_STATE_STREAMING
REFUSED: Final = control_pb2.SYMBOL_STATE_REFUSED


class Component(Protocol):
    """What a service does, as Control sees it. `venues`: where its symbols can trade, the default first."""

    venues: Sequence[str]

    def upstreams_of(self, venue: str) -> Sequence[str]:
        """What a new symbol of `venue` has to join, by name: each is told in `Wanted.joining` until it has."""

    async def add(self, wanted: Sequence[Wanted], *, restored: bool) -> list[control_pb2.SymbolResult]:
        """Collect these; `restored`: they were collected before a restart."""

    def resume_ending(self, ending: Sequence[Wanted]) -> None:
        """These were stopped before a restart, and what there was of them is not durable everywhere yet."""

    async def remove(self, gone: Sequence[Wanted], remaining: Entries) -> None:
        """Collect what was wanted by the entries `gone` no more, but for what those `remaining` want."""

    def subscriptions(self, wanted: Entries) -> list[control_pb2.Subscription]:
        """The facts of what is wanted; a pattern's own entry is followed by those of the symbols it matches."""

    def stores(self) -> list[control_pb2.Store]:
        """The tables this service writes."""

    def links(self) -> list[control_pb2.Link]:
        """The connections this service depends on."""

    def starting(self) -> set[str]:
        """Links that have not been made yet, while what is at their other end may still be starting, too."""

    def problems(self) -> list[str]:
        """What is wrong beside the links."""


def summary(entry: Wanted, every: Sequence[control_pb2.Subscription]) -> control_pb2.Subscription:
    """A pattern's own entry: as far as the furthest of `every` symbol it matches."""
    states = {subscription.state for subscription in every}
    state = next((state for state in (STREAMING, WAITING) if state in states), CONNECTING)
    return control_pb2.Subscription(
        venue=entry.venue,
        symbol=entry.symbol,
        state=state,
        wanted_by=entry.wanted_by,
        matches=len(every),
        message=f"{len(every)} symbol{'' if len(every) == 1 else 's'}",
    )
