"""Binance's REST: which symbols there are, and whether the exchange answers."""

from __future__ import annotations

import difflib
import math
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import aiohttp
import msgspec

from raven.errors import ExchangeError, RegionBlockedError

SYMBOLS_MAX_AGE_S: Final = 600.0
UNKNOWN_MAX_AGE_S: Final = 5.0
BLOCKED: Final = (403, 451)


class _SymbolInfo(msgspec.Struct):
    symbol: str
    status: str = ""


class _ExchangeInfo(msgspec.Struct):
    symbols: list[_SymbolInfo]


class _Trade(msgspec.Struct):
    id: int


@dataclass(frozen=True, slots=True)
class SymbolCheck:
    """`problem` is empty when the symbol trades; `refused` when it does not exist."""

    symbol: str
    problem: str = ""
    refused: bool = False


class BinanceRest:
    """REST calls to the exchange at `url`. Errors are ExchangeError, with the status and what to do."""

    def __init__(self, url: str, *, timeout_s: float = 10.0) -> None:
        self.url = url.rstrip("/")
        self._timeout = aiohttp.ClientTimeout(total=timeout_s)
        self._session: aiohttp.ClientSession | None = None
        self._symbols: dict[str, str] = {}
        self._fetched_at = -math.inf

    async def close(self) -> None:
        """Close the connections."""
        if self._session is not None:
            await self._session.close()

    async def get(self, path: str, **parameters: str) -> bytes:
        """The body of a GET."""
        if self._session is None:
            self._session = aiohttp.ClientSession(timeout=self._timeout, trust_env=True)
        try:
            async with self._session.get(self.url + path, params=parameters) as response:
                body = await response.read()
        except (aiohttp.ClientError, TimeoutError) as error:
            raise ExchangeError(f"{self.url} cannot be reached: {error or type(error).__name__}") from error
        if response.status in BLOCKED:
            raise RegionBlockedError(
                f"{self.url} answers {response.status}: this region is blocked",
                hint="set binance_spot.rest_url to https://data-api.binance.vision and "
                "binance_spot.websocket_url to wss://data-stream.binance.vision",
            )
        if response.status != 200:
            raise ExchangeError(f"{self.url}{path} answers {response.status}: {body[:200].decode(errors='replace')}")
        return body

    async def server_time_ms(self) -> int:
        """The exchange's clock."""
        body = await self.get("/api/v3/time")
        try:
            return msgspec.json.decode(body, type=dict[str, int])["serverTime"]
        except (msgspec.MsgspecError, KeyError) as error:
            raise ExchangeError(f"{self.url}/api/v3/time answered something else: {body[:80]!r}") from error

    async def check_symbols(self, symbols: list[str]) -> list[SymbolCheck]:
        """Whether each symbol exists and trades, with the nearest names where it does not exist."""
        age_s = time.monotonic() - self._fetched_at
        is_unknown = any(symbol not in self._symbols for symbol in symbols)
        if age_s > SYMBOLS_MAX_AGE_S or (is_unknown and age_s > UNKNOWN_MAX_AGE_S):
            await self._fetch_symbols()
        return [self._check(symbol) for symbol in symbols]

    @property
    def symbols(self) -> Mapping[str, str]:
        """The symbols read last, and the state of each."""
        return self._symbols

    async def _fetch_symbols(self) -> None:
        body = await self.get("/api/v3/exchangeInfo")
        try:
            info = msgspec.json.decode(body, type=_ExchangeInfo)
        except msgspec.MsgspecError as error:
            raise ExchangeError(f"{self.url}/api/v3/exchangeInfo cannot be understood: {error}") from error
        self._symbols = {entry.symbol: entry.status for entry in info.symbols}
        self._fetched_at = time.monotonic()

    async def last_trade_id(self, symbol: str) -> int | None:
        """The id of the symbol's newest trade; None when it never traded."""
        body = await self.get("/api/v3/trades", symbol=symbol, limit="1")
        try:
            newest = msgspec.json.decode(body, type=list[_Trade])
        except msgspec.MsgspecError as error:
            raise ExchangeError(f"{self.url}/api/v3/trades cannot be understood: {error}") from error
        return newest[-1].id if newest else None

    def _check(self, symbol: str) -> SymbolCheck:
        status = self._symbols.get(symbol)
        if status is None:
            close = difflib.get_close_matches(symbol, self._symbols, n=3)
            nearest = f"; did you mean {', '.join(close)}?" if close else ""
            return SymbolCheck(symbol, f"{symbol} is not a symbol of the exchange{nearest}", refused=True)
        if status not in {"", "TRADING"}:
            return SymbolCheck(symbol, f"{symbol} is not trading now ({status})")
        return SymbolCheck(symbol)
