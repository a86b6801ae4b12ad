"""The REST side: every path of the venue's table, answered out of what has been played."""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from types import MappingProxyType
from typing import Any, Final, TypeAlias

import msgspec
import polars as pl
from aiohttp import web

from raven.sources.simulated import klines
from raven.sources.simulated.frames import texts
from raven.sources.simulated.limits import WeightLimit
from raven.sources.simulated.market import is_legal
from raven.sources.simulated.player import Player
from raven.sources.simulated.rest_faults import BLOCKED_STATUS, RestFaults
from raven.sources.simulated.symbols import Symbols
from raven.sources.simulated.venue import Endpoint, Reply, Venue

Query: TypeAlias = Mapping[str, str]

_PART_ROWS: Final = 500_000
_MOST_KLINE_TRADES: Final = 50_000_000
_FIRST_MICROSECONDS: Final = 10**15
_LEGAL_SYMBOL_TEXT: Final = r"^[\w\-._&&[^a-z]]{1,50}$"
_LEGAL_SYMBOLS_TEXT: Final = r'^\[("[\w\-._&&[^a-z]]{1,50}"(,"[\w\-._&&[^a-z]]{1,50}"){0,}){0,1}\]$'


class RequestError(Exception):
    """A request the exchange refuses, with its code."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


class Rest:
    """Answers the REST paths of one venue, within its limits, and as the faults will have it."""

    def __init__(self, venue: Venue, symbols: Symbols, player: Player, limit: WeightLimit, faults: RestFaults) -> None:
        self._venue = venue
        self._symbols = symbols
        self._player = player
        self._limit = limit
        self._faults = faults

    def routes(self) -> list[web.RouteDef]:
        """One route a path."""
        return [web.get(path, self._handler(endpoint)) for path, endpoint in self._venue.endpoints.items()]

    def _handler(self, endpoint: Endpoint) -> Callable[[web.Request], Awaitable[web.Response]]:
        async def handle(request: web.Request) -> web.Response:
            refused = self._refused(endpoint, request.query)
            if refused is not None:
                return refused
            micros = self._venue.has_micros and request.headers.get("X-MBX-TIME-UNIT", "").upper() == "MICROSECOND"
            await asyncio.sleep(self._faults.delay_s())
            try:
                text = await self._text(endpoint, request.query, micros=micros)
            except RequestError as error:
                return self._error(400, error.code, error.message)
            return web.Response(text=text, content_type="application/json", headers=self._headers())

        return handle

    def _refused(self, endpoint: Endpoint, query: Query) -> web.Response | None:
        """The answer to a request that is not served."""
        now_s = time.time()
        if self._faults.is_blocked(now_s):
            return blocked()
        self._faults.meet_refusals(now_s)
        refusal = self._limit.admit(_weight(endpoint, query), now_s)
        if refusal is not None:
            message = f"Too many requests; banned until {refusal.until_s * 1_000:.0f}."
            if refusal.status == 429:
                message = f"Too much request weight used; the limit is {self._limit.weight_per_minute} a minute."
            return self._error(refusal.status, -1003, message, {"Retry-After": str(refusal.retry_after_s)})
        if self._faults.fails():
            return self._error(500, -1001, "Internal error; unable to process your request. Please try again.")
        return None

    def _headers(self) -> dict[str, str]:
        used = str(self._limit.used)
        return {"X-MBX-USED-WEIGHT": used, "X-MBX-USED-WEIGHT-1M": used}

    def _error(
        self, status: int, code: int, message: str, headers: Mapping[str, str] = MappingProxyType({})
    ) -> web.Response:
        text = json.dumps({"code": code, "msg": message})
        every = {**self._headers(), **headers}
        return web.Response(status=status, text=text, content_type="application/json", headers=every)

    async def _text(self, endpoint: Endpoint, query: Query, *, micros: bool) -> str:
        match endpoint.reply:
            case Reply.PING:
                return "{}"
            case Reply.TIME:
                return json.dumps({"serverTime": self._time(micros=micros)})
            case Reply.EXCHANGE_INFO:
                return json.dumps(self._exchange_info(query, micros=micros), ensure_ascii=False)
            case Reply.KLINES:
                return await asyncio.to_thread(self._klines, endpoint, query, micros=micros)
            case Reply.RECENT_TRADES | Reply.TRADES_BY_ID | Reply.TRADES_BY_ID_OR_TIME:
                trades = self._trades(endpoint, query)
                return _array(trades.select(texts(endpoint.template, micros=micros)).to_series())

    def _time(self, *, micros: bool) -> int:
        time_us = self._player.server_time_us()
        return time_us if micros else time_us // 1_000

    def _trades(self, endpoint: Endpoint, query: Query) -> pl.DataFrame:
        symbol = self._symbol(query)
        limit = _rows(endpoint, query)
        first_id = None if endpoint.reply is Reply.RECENT_TRADES else _number(query, "fromId")
        stop_id = self._player.last_id(symbol) + 1
        if endpoint.reply is Reply.TRADES_BY_ID_OR_TIME:
            start_us, end_us = _time_us(query, "startTime"), _time_us(query, "endTime")
            if first_id is not None and (start_us is not None or end_us is not None):
                raise RequestError(-1128, "Combination of optional parameters invalid.")
            if end_us is not None:
                stop_id = min(stop_id, self._symbols.id_at(symbol, end_us + 1))
            if start_us is not None:
                first_id = self._symbols.id_at(symbol, start_us)
        if first_id is None:
            return self._symbols.trades(symbol, 0, stop_id, tail=limit)
        return self._symbols.trades(symbol, first_id, stop_id, head=limit)

    def _klines(self, endpoint: Endpoint, query: Query, *, micros: bool) -> str:
        symbol = self._symbol(query)
        interval = _sent(query, "interval")
        if interval not in klines.INTERVALS:
            raise RequestError(-1120, "Invalid interval.")
        limit = _rows(endpoint, query)
        start_us, end_us = _time_us(query, "startTime"), _time_us(query, "endTime")
        stop_id = self._player.last_id(symbol) + 1
        very_first = self._symbols.trades(symbol, 0, stop_id, head=1)
        if very_first.is_empty():
            return "[]"
        last_us = self._player.time_us()
        opens = klines.windows(
            interval,
            very_first_us=int(very_first.get_column("time_us")[0]),
            start_us=start_us,
            end_us=last_us if end_us is None else min(end_us, last_us),
            limit=limit,
        )
        if opens.is_empty():
            return "[]"
        first_id = self._symbols.id_at(symbol, int(opens.dt.timestamp("us")[0]))
        stop_id = min(stop_id, self._symbols.id_at(symbol, klines.window_end_us(opens, interval)))
        if stop_id - first_id > _MOST_KLINE_TRADES:
            raise RequestError(-1127, f"Lookup interval is too big: it holds more than {_MOST_KLINE_TRADES} trades.")
        before = self._symbols.trades(symbol, 0, first_id, tail=1).get_column("price")
        found = klines.bars(self._parts(symbol, first_id, stop_id), interval)
        price_before = None if before.is_empty() else float(before[0])
        return _array(klines.rows(opens, found, interval, price_before=price_before, micros=micros))

    def _parts(self, symbol: str, first_id: int, stop_id: int) -> Iterator[pl.DataFrame]:
        for start in range(first_id, stop_id, _PART_ROWS):
            yield self._symbols.trades(symbol, start, min(start + _PART_ROWS, stop_id))

    def _exchange_info(self, query: Query, *, micros: bool) -> dict[str, Any]:
        return {
            "timezone": "UTC",
            "serverTime": self._time(micros=micros),
            "rateLimits": [
                {
                    "rateLimitType": "REQUEST_WEIGHT",
                    "interval": "MINUTE",
                    "intervalNum": 1,
                    "limit": self._limit.weight_per_minute,
                }
            ],
            "exchangeFilters": [],
            "symbols": [
                self._venue.describe(self._symbols.listing(symbol), status)
                for symbol, status in self._asked_for(query).items()
            ],
            **self._venue.info,
        }

    def _asked_for(self, query: Query) -> dict[str, str]:
        """The statuses of the symbols of `symbol`, of `symbols` (a JSON list), or of all."""
        statuses = self._symbols.statuses
        if not self._venue.selects_symbols or not ("symbol" in query or "symbols" in query):
            return statuses
        if "symbol" in query and "symbols" in query:
            raise RequestError(-1128, "Combination of optional parameters invalid.")
        if "symbol" in query:
            symbol = self._symbol(query)
            return {symbol: statuses[symbol]}
        try:
            symbols = msgspec.json.decode(query["symbols"], type=list[str])
        except msgspec.MsgspecError as error:
            raise _illegal("symbols", _LEGAL_SYMBOLS_TEXT) from error
        return {symbol: statuses[self._listed(symbol)] for symbol in symbols}

    def _symbol(self, query: Query) -> str:
        return self._listed(_sent(query, "symbol"))

    def _listed(self, symbol: str) -> str:
        if not is_legal(symbol):
            raise _illegal("symbol", _LEGAL_SYMBOL_TEXT)
        if self._symbols.status(symbol) is None:
            raise RequestError(-1121, "Invalid symbol.")
        return symbol


def blocked() -> web.Response:
    """The answer to whom the exchange does not serve, by where they are."""
    text = json.dumps({"code": 0, "msg": "Service unavailable from a restricted location."})
    return web.Response(status=BLOCKED_STATUS, text=text, content_type="application/json")


def _sent(query: Query, name: str) -> str:
    value = query.get(name, "")
    if not value:
        raise RequestError(-1102, f"Mandatory parameter '{name}' was not sent, was empty/null, or malformed.")
    return value


def _number(query: Query, name: str) -> int | None:
    value = query.get(name)
    if value is None:
        return None
    if re.fullmatch(r"[0-9]{1,18}", value) is None:
        raise _illegal(name, "^[0-9]{1,20}$")
    return int(value)


def _weight(endpoint: Endpoint, query: Query) -> int:
    limit = query.get("limit", "")
    rows = int(limit) if limit.isdecimal() else endpoint.default_rows
    return max((weight for from_rows, weight in endpoint.dearer if rows >= from_rows), default=endpoint.weight)


def _rows(endpoint: Endpoint, query: Query) -> int:
    """How many rows are wanted at most."""
    limit = _number(query, "limit")
    if limit == 0:
        raise RequestError(-1130, "Data sent for parameter 'limit' is not valid.")
    return endpoint.default_rows if limit is None else min(limit, endpoint.max_rows)


def _time_us(query: Query, name: str) -> int | None:
    """A time parameter, which may be in milliseconds or microseconds."""
    value = _number(query, name)
    return value if value is None or value >= _FIRST_MICROSECONDS else value * 1_000


def _illegal(name: str, legal: str) -> RequestError:
    return RequestError(-1100, f"Illegal characters found in parameter '{name}'; legal range is '{legal}'.")


def _array(items: pl.Series) -> str:
    return f"[{','.join(items)}]"
