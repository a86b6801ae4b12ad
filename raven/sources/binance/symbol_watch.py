"""Watching the symbols that are collected: their state at the venue, shown with each and told once per change."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence

from raven.clock import Backoff
from raven.errors import ExchangeError, RavenError
from raven.rpc.limits import MOST_SUGGESTED
from raven.rpc.subscriptions import SubscriptionTable
from raven.sources.binance.symbols import TRADING, SymbolList
from raven.telemetry import Telemetry


class SymbolWatch:
    """Reads the venue's list every `poll_s` and notes in `facts` how each collected symbol is.

    `on_symbols` is awaited after each reading.
    """

    def __init__(
        self, symbols: SymbolList, facts: SubscriptionTable, *, venue: str, poll_s: float, telemetry: Telemetry
    ) -> None:
        self.on_symbols: Callable[[], Awaitable[None]] | None = None
        self._symbols = symbols
        self._facts = facts
        self._venue = venue
        self._poll_s = poll_s
        self._telemetry = telemetry
        self._noted: dict[str, str] = {}  # of each collected symbol the state that was told last
        self._is_unread = False
        self._is_off = False

    def want(self, symbols: Iterable[str]) -> None:
        """Watch these symbols too."""
        for symbol in symbols:
            self._noted.setdefault(symbol, TRADING)
            self._note(symbol)

    def leave(self, symbols: Iterable[str]) -> None:
        """Watch these symbols no more."""
        for symbol in symbols:
            self._noted.pop(symbol, None)

    async def check(self, symbols: Sequence[str], last_id: Callable[[str], int | None]) -> Mapping[str, str]:
        """Those of `symbols` that there are not, each with why; of one with a `last_id` it is known that it was."""
        try:
            await self._symbols.know(symbols)
        except ExchangeError as error:
            self._telemetry.warning("symbols_unchecked", f"symbols are taken unchecked: {error}")
            return {}
        for symbol in symbols:
            if last_id(symbol) is not None:
                self._symbols.delisted(symbol)  # unless it is listed
        unknown = [symbol for symbol in symbols if symbol not in self._symbols.states]
        refused = {
            symbol: self._symbols.why_not(symbol, suggest=place < MOST_SUGGESTED)
            for place, symbol in enumerate(unknown)
        }
        for symbol in self._noted.keys() & set(symbols):  # collected since before a restart, whatever the list says
            self._note(symbol)
            if symbol in refused:
                self._facts.of(self._venue, symbol).message = refused[symbol]
        return refused

    async def run(self) -> None:
        """Read the list at once and then every `poll_s`, until cancelled."""
        backoff = Backoff(1.0, 60.0)
        while True:
            pause_s = self._poll_s
            try:
                await self._symbols.read()
                for symbol in self._noted:
                    self._note(symbol)
                if self.on_symbols is not None:
                    await self.on_symbols()
                self._is_unread = False
                backoff.reset()
            except RavenError as error:
                if not self._is_unread:
                    self._telemetry.warning("symbols_unread", f"the list of symbols is as old as it was: {error}")
                self._is_unread = True
                pause_s = min(pause_s, backoff.next_s())
            await asyncio.sleep(pause_s)

    def _note(self, symbol: str) -> None:
        """Show the state of a collected symbol, and tell of it when it changed."""
        state = self._symbols.states.get(symbol, TRADING)
        message = "" if state == TRADING else f"{symbol} does not trade now: {self._venue} says {state}"
        facts = self._facts.of(self._venue, symbol)
        facts.message, facts.is_trading = message, state == TRADING
        before, self._noted[symbol] = self._noted[symbol], state
        if state == before:
            return
        if state == TRADING:
            self._telemetry.info("symbol_trades", f"{symbol} trades again", symbol=symbol, state=state)
        else:
            self._telemetry.warning("symbol_state", message, symbol=symbol, state=state)
