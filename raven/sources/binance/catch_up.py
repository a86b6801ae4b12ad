"""What symbols missed whose next trade does not show it: silent connections, and quiet symbols after a lost one."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Sequence
from collections.abc import Set as AbstractSet
from typing import Final

import polars as pl

from raven.batches.hold import Hold
from raven.clock import now_us
from raven.errors import ExchangeError
from raven.sources.binance.epochs import newest_trade_id
from raven.sources.binance.heal import Page, read_answer, tell_refused
from raven.sources.binance.protocol import VenueProtocol
from raven.sources.binance.rest import BinanceRest
from raven.telemetry import Telemetry

QUIET_S: Final = 10.0
ASKED_WHEN_STALE: Final = 5
SHARE: Final = 0.5
"""Of the weight budget: what is known to be missing goes first."""


class CatchUp:
    """Fetches what came of symbols while no connection carried them, should they stay quiet afterwards.

    `hold` knows what came; `wanted` are the symbols that are collected; `fetched` is given the trades.
    """

    def __init__(
        self,
        rest: BinanceRest,
        protocol: VenueProtocol,
        *,
        hold: Hold,
        wanted: AbstractSet[str],
        fetched: Callable[[pl.DataFrame], None],
        telemetry: Telemetry,
    ) -> None:
        self._rest = rest
        self._protocol = protocol
        self._hold = hold
        self._wanted = wanted
        self._fetched = fetched
        self._telemetry = telemetry
        self._due: dict[str, tuple[float, int]] = {}
        self._changed = asyncio.Event()

    def _last_id(self, symbol: str) -> int | None:
        """The last id of a symbol that is being collected, None before the first of its session.

        None too while it waits for missing ids: what it missed shows in these.
        """
        if symbol not in self._wanted or symbol in self._hold.held:
            return None
        return self._hold.last_in_session(symbol)

    async def is_behind(self, symbols: Sequence[str]) -> bool:
        """Whether the exchange has trades of one of these (the first few are asked) that did not come."""
        try:
            for symbol in symbols[:ASKED_WHEN_STALE]:
                newest = await newest_trade_id(self._rest, self._protocol, symbol)
                last = self._hold.last_id(symbol)
                if newest is not None and (last is None or newest > last):
                    return True
        except ExchangeError as error:
            self._telemetry.warning("stale_unchecked", f"a silent connection is opened anew: {error}")
            return True
        return False

    def carried_again(self, symbols: Iterable[str]) -> None:
        """A connection carries these symbols after none did."""
        due_s = time.monotonic() + QUIET_S
        for symbol in symbols:
            last = self._last_id(symbol)
            if last is not None:
                self._due[symbol] = (due_s, last)
        self._changed.set()

    async def run(self) -> None:
        """Ask for one symbol after the other, until cancelled."""
        pause_s = self._protocol.trades_weight / (self._protocol.weight_per_minute * SHARE) * 60
        while True:
            while not self._due:
                self._changed.clear()
                await self._changed.wait()
            symbol, (due_s, last) = next(iter(self._due.items()))
            await asyncio.sleep(max(0.0, due_s - time.monotonic()))
            if self._due.get(symbol) == (due_s, last):
                del self._due[symbol]
                if self._last_id(symbol) == last:  # else its next trade has shown what it missed
                    await self._ask(symbol, last)
                    await asyncio.sleep(pause_s)

    async def _ask(self, symbol: str, last: int) -> None:
        protocol = self._protocol
        page = Page(symbol, last + 1, last + 1 + protocol.trades_limit)
        try:
            body = await self._rest.get(
                protocol.trades_path, weight=protocol.trades_weight, symbol=symbol,
                fromId=str(page.first_id), limit=str(protocol.trades_limit),
            )  # fmt: skip
            answer = read_answer(body, page, protocol, recv_us=now_us())
        except ExchangeError as error:
            self._telemetry.warning(
                "catch_up_failed", f"whether a quiet symbol missed trades cannot be asked: {error}", symbol=symbol
            )
            return
        tell_refused(self._telemetry, page, answer.refused)
        trades = answer.trades
        if trades.height:
            self._fetched(trades)  # what lies behind them shows as a jump, or is asked for by the next one
            if trades.height == protocol.trades_limit:
                self._due[symbol] = (time.monotonic(), int(trades.get_column("trade_id")[-1]))
