"""Which symbols a venue lists and in what state they are, and how far its clock is from ours."""

from __future__ import annotations

import asyncio
import difflib
import math
import re
import time
from collections.abc import Collection
from typing import Final

import msgspec

from raven.batches.instrument import Instrument
from raven.clock import now_us
from raven.errors import ExchangeError
from raven.sources.binance import BINANCE_FUTURES
from raven.sources.binance.frames import UNREADABLE
from raven.sources.binance.protocol import VenueProtocol
from raven.sources.binance.rest import BinanceRest

TRADING: Final = "TRADING"
DELISTED: Final = "DELISTED"
UNKNOWN_MAX_AGE_S: Final = 5.0

_DELIVERING: Final = "DELIVERING"
_SEPARATORS: Final = re.compile(r"[\s/:._-]+")
_CONTRACT: Final = re.compile(r"(_?PERP|\.P|_[0-9]{6})$")


class _Listing(msgspec.Struct, rename="camel"):
    symbol: str
    status: str = TRADING
    contract_type: str = ""


class _ExchangeInfo(msgspec.Struct):
    symbols: list[_Listing]


class SymbolList:
    """The symbols of one venue, as last read; `states` maps each to the state the venue tells.

    One that was listed once and is no more stays, as DELISTED.
    """

    def __init__(self, rest: BinanceRest, protocol: VenueProtocol) -> None:
        self._rest = rest
        self._protocol = protocol
        self.states: dict[str, str] = {}
        self._read_at_s = -math.inf

    async def read(self) -> None:
        """Read the list anew; raises ExchangeError."""
        body = await self._rest.get(self._protocol.symbols_path, weight=self._protocol.symbols_weight)
        states = await asyncio.to_thread(read_states, body)  # it is some megabytes
        self.states = {**dict.fromkeys(self.states, DELISTED), **states}
        self._read_at_s = time.monotonic()

    async def know(self, symbols: Collection[str]) -> None:
        """Read the list unless it holds all of these, or is fresh enough to be believed; raises ExchangeError."""
        is_fresh = time.monotonic() - self._read_at_s < UNKNOWN_MAX_AGE_S
        if not is_fresh and not self.states.keys() >= set(symbols):
            await self.read()

    def delisted(self, symbol: str) -> None:
        """It was listed in earlier days."""
        self.states.setdefault(symbol, DELISTED)

    def why_not(self, symbol: str, *, suggest: bool = True) -> str:
        """Why there is no such symbol, with the nearest names unless not to `suggest` them; empty when there is."""
        if symbol in self.states:
            return ""
        names = nearest(symbol, self.states) if suggest else []
        close = f"; did you mean {', '.join(names)}?" if names else ""
        if self._protocol.venue != BINANCE_FUTURES and _CONTRACT.search(symbol.upper()):
            close += f" {BINANCE_FUTURES} has contracts of such names"
        return f"{symbol} is not a symbol of {self._protocol.venue}{close}"

    async def matching(self, pattern: str) -> list[str]:
        """The symbols that trade now and match `pattern` (`*` any letters, `?` one), sorted; raises ExchangeError."""
        if not self.states:
            await self.read()
        wanted = Instrument(self._protocol.venue, pattern.strip().upper())
        return sorted(symbol for symbol, state in self.states.items() if state == TRADING and wanted.matches(symbol))

    async def clock_offset_ms(self) -> float:
        """How far the venue's clock is ahead of ours, taken at the middle of the request; raises ExchangeError."""
        began_us = now_us()
        server_ms = await self._rest.server_time_ms()
        return server_ms - (began_us + now_us()) / 2_000


def read_states(body: bytes) -> dict[str, str]:
    """The state of each symbol in a venue's `exchangeInfo`; raises ExchangeError when it is something else.

    A contract that is being delivered trades no longer as others do: its contract type is its state then.
    """
    try:
        info = msgspec.json.decode(body, type=_ExchangeInfo)
    except UNREADABLE as error:
        raise ExchangeError(f"the list of symbols cannot be understood: {error}") from error
    return {
        listing.symbol: listing.contract_type
        if listing.status == TRADING and _DELIVERING in listing.contract_type
        else listing.status
        for listing in info.symbols
    }


def nearest(symbol: str, known: Collection[str]) -> list[str]:
    """The names most like `symbol`: written otherwise (`btc/usdt`, `BTC-USDT-PERP`), or misspelt; at most three."""
    upper = symbol.upper()
    candidates = (upper, _bare(upper), _bare(_CONTRACT.sub("", upper)))
    found = dict.fromkeys(name for name in candidates if name in known)
    if not found:
        close = (difflib.get_close_matches(name, known, n=3) for name in dict.fromkeys(candidates))
        found = dict.fromkeys(name for names in close for name in names)
    return list(found)[:3]


def _bare(name: str) -> str:
    return _SEPARATORS.sub("", name)
