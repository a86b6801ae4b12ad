"""What every source is to the control plane, be it an exchange or a replayed recording."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import Protocol

from raven.rpc.pb import control_pb2
from raven.rpc.subscriptions import SubscriptionTable


class Source(Protocol):
    """Collects the trades of the wanted symbols of one venue and publishes them.

    - `venue`: where its symbols trade. `facts`: what is known of each.
    - `on_symbols`: called after each reading of the venue's list of symbols, so that patterns follow new listings.
    """

    venue: str
    facts: SubscriptionTable
    on_symbols: Callable[[], Awaitable[None]] | None

    async def check(self, symbols: Sequence[str]) -> Mapping[str, str]:
        """Which of `symbols` the venue does not have, each with why, nearest names included.

        One that is halted is not refused; its state is noted in `facts`. When the venue cannot be asked, none is.
        """

    async def matching(self, pattern: str) -> Sequence[str]:
        """The symbols that trade now and match `pattern` (`*USDT`), sorted; raises ExchangeError."""

    def want(self, symbols: Mapping[str, int | None]) -> None:
        """Collect these symbols from now on. Each comes with the last id before its session: no gap begins there."""

    async def leave(self, symbols: Sequence[str]) -> None:
        """Collect these symbols no more; what came of them is published before this returns, and nothing after."""

    def last_id(self, symbol: str) -> int | None:
        """The last trade id of `symbol`; None when it was never collected."""

    @property
    def acknowledged(self) -> AbstractSet[str]:
        """The symbols whose trades the venue has confirmed to send."""

    def links(self) -> list[control_pb2.Link]:
        """The connections to the venue."""

    def problems(self) -> list[str]:
        """What is wrong beside the links."""
