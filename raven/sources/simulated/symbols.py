"""Which symbols are listed and which of them trade, and the ids their trades are known by.

What would have been traded while a symbol did not trade has never happened: later ids move down, so that they stay
contiguous, and a newly listed symbol begins with id 1. A market's own ids are called raw here, the others public.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

import polars as pl

from raven.sources.simulated.market import MARKET_DTYPES, Listing, Market

TRADING: Final = "TRADING"


@dataclass(frozen=True, slots=True)
class _Stretch:
    """Trades from the public id `first_id` on have the raw id `id + shift`."""

    first_id: int
    shift: int


class Symbols:
    """The symbols of a market as clients see them; `version` counts the changes.

    `halted` is the status of a symbol that does not trade; those of `not_trading` begin so, those of `not_listed` are
    not there yet.
    """

    def __init__(
        self, market: Market, *, halted: str, not_trading: Iterable[str] = (), not_listed: Iterable[str] = ()
    ) -> None:
        self.version = 0
        self._market = market
        self._halted = halted
        absent = set(not_listed)
        self._statuses = {symbol: TRADING for symbol in market.listings if symbol not in absent}
        self._stretches = {symbol: [_Stretch(1, 0)] for symbol in market.listings}
        # of the symbols that do not trade the last public id
        self._stopped: dict[str, int] = dict.fromkeys(absent, 0)
        self._not_trading = tuple(not_trading)

    def begin(self, raw_id: Callable[[str], int]) -> None:
        """Halt those that begin so after their history; `raw_id` is of the last trade of a symbol in it."""
        for symbol in self._not_trading:
            self.halt(symbol, raw_id(symbol))

    @property
    def statuses(self) -> dict[str, str]:
        """The status of every listed symbol, in the market's order."""
        return {symbol: self._statuses[symbol] for symbol in self._market.listings if symbol in self._statuses}

    def status(self, symbol: str) -> str | None:
        """The status of a symbol; None when it is not listed."""
        return self._statuses.get(symbol)

    def listing(self, symbol: str) -> Listing:
        """What the exchange says of a symbol."""
        return self._market.listings[symbol]

    def halt(self, symbol: str, raw_id: int) -> None:
        """Trade no more after the trade `raw_id`."""
        self._stopped.setdefault(symbol, raw_id - self._stretches[symbol][-1].shift)
        self._statuses[symbol] = self._halted
        self.version += 1

    def delist(self, symbol: str, raw_id: int) -> None:
        """Be gone after the trade `raw_id`."""
        self.halt(symbol, raw_id)
        del self._statuses[symbol]

    def trade(self, symbol: str, raw_id: int) -> None:
        """Trade (again, or from now on) after the trade `raw_id`."""
        last_id = self._stopped.pop(symbol, None)
        if last_id is not None:
            stretch = _Stretch(last_id + 1, raw_id - last_id)
            known = self._stretches[symbol]
            self._stretches[symbol] = [*known, stretch] if last_id else [stretch]
        self._statuses[symbol] = TRADING
        self.version += 1

    def last_id(self, symbol: str, raw_id: int) -> int:
        """The public id of the last trade, where the market has come to `raw_id`."""
        stopped = self._stopped.get(symbol)
        return raw_id - self._stretches[symbol][-1].shift if stopped is None else stopped

    def seen(self, trades: pl.DataFrame) -> pl.DataFrame:
        """Those of a block's trades (MARKET_DTYPES and more) that happen, by their public ids."""
        if self.version == 0 and not self._stopped:
            return trades
        shifts = {symbol: stretches[-1].shift for symbol, stretches in self._stretches.items() if stretches[-1].shift}
        happening = trades.filter(~pl.col("symbol").is_in(list(self._stopped)))
        if not shifts:
            return happening
        shift = pl.col("symbol").replace_strict(shifts, default=0, return_dtype=pl.Int64)
        return happening.with_columns(trade_id=pl.col("trade_id") - shift)

    def trades(
        self, symbol: str, first_id: int, stop_id: int, *, head: int | None = None, tail: int | None = None
    ) -> pl.DataFrame:
        """See Market, by public ids."""
        stretches = self._stretches[symbol]
        if len(stretches) == 1 and stretches[0].shift == 0:
            return self._market.trades(symbol, first_id, stop_id, head=head, tail=tail)
        parts = [pl.DataFrame(schema=MARKET_DTYPES)]
        ends = [*(stretch.first_id for stretch in stretches[1:]), stop_id]
        for stretch, end in zip(stretches, ends, strict=True):
            first, stop = max(first_id, stretch.first_id), min(stop_id, end)
            if first < stop:
                raw = self._market.trades(symbol, first + stretch.shift, stop + stretch.shift, head=head, tail=tail)
                parts.append(raw.with_columns(trade_id=pl.col("trade_id") - stretch.shift))
        found = pl.concat(parts)
        found = found if head is None else found.head(head)
        return found if tail is None else found.tail(tail)

    def id_at(self, symbol: str, time_us: int) -> int:
        """See Market, by public ids."""
        raw_id = self._market.id_at(symbol, time_us)
        stretches = self._stretches[symbol]
        for stretch, after in pairwise(stretches):
            public_id = max(raw_id - stretch.shift, stretch.first_id)
            if public_id < after.first_id:
                return public_id
        return max(raw_id - stretches[-1].shift, stretches[-1].first_id)
