"""Which market the frames of a capture are of: by its trades' own keys and symbols, and by the hosts it names. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable
from itertools import islice
from typing import Final

from raven.sources.binance import BINANCE_FUTURES, BINANCE_SPOT
from raven.sources.binance.markets import is_coin_m, venue_named
from raven.sources.recordings.identity import COIN_M, VENUES, Told
from raven.sources.recordings.names import OTHER_EXCHANGES

_LOOKED_AT: Final = 5_000
"""How many trades at most are looked at."""

_FLAT: Final = re.compile(rb"\{[^{}]*\}")
_IS_TRADE: Final = re.compile(rb'\\?"e\\?"\s*:\s*\\?"(?:trade|aggTrade)\\?"')
_SYMBOL: Final = re.compile(rb'\\?"s\\?"\s*:\s*\\?"([^"\\]+)')
_COIN_M_TRADE: Final = re.compile(rb'\\?"st\\?"\s*:\s*2\b')
_SPOT_TRADE: Final = re.compile(rb'\\?"M\\?"\s*:')
_FUTURES_TRADE: Final = re.compile(rb'\\?"(?:X|nq|st)\\?"\s*:|\\?"e\\?"\s*:\s*\\?"aggTrade\\?"[^{}]*\\?"l\\?"\s*:')
"""Spot marks every trade with `M`, USD-M none; its own keys are newer, and an aggregate trade need not have any."""

_FUTURES_SIGNS: Final = re.compile(rb'"pu\\?":|\\?"e\\?":\\?"bookTicker')
_HOST: Final = re.compile(rb"://([\w-]+(?:\.[\w-]+)+)(?::\d+)?(/\w+)?")
_SPOT_HOSTS: Final = re.compile(r"(?:data-)?(?:stream|api\d?|ws-api)$|api-gcp$")


def venue_of_frames(head: bytes) -> list[Told]:
    """What the beginning of a capture tells of its venue; another market than Raven's where all of it is of that."""
    by_trades = _by_trades(head)
    by_hosts = _by_hosts(head)
    if by_trades or by_hosts:
        foreign = [one for one in by_hosts if one.value not in VENUES]
        return foreign or [*by_trades, *by_hosts]
    if symbols := _symbols(head):
        if all(map(is_coin_m, symbols)):
            return [Told(COIN_M, "its symbols")]
        if _FUTURES_SIGNS.search(head):
            return [Told(BINANCE_FUTURES, "its frames")]
    return []


def venue_of_exchange(name: str) -> list[Told]:
    """The venue of the exchange that a capture's header names."""
    venue = {"BINANCE": BINANCE_SPOT, "BINANCE_DELIVERY": COIN_M}.get(name.upper()) or venue_named(name) or name
    return [Told(venue, "its header")] if name else []


def _by_trades(head: bytes) -> list[Told]:
    objects = (match[0] for match in _FLAT.finditer(head))
    found = set(map(_market, islice(filter(_IS_TRADE.search, objects), _LOOKED_AT)))
    ours = found - {COIN_M}
    if found and not ours:
        return [Told(COIN_M, "its trades")]
    return [Told(venue, "its trades") for venue in sorted(ours - {""})]


def _market(trade: bytes) -> str:
    if _COIN_M_TRADE.search(trade) or any(map(is_coin_m, _symbols(trade))):
        return COIN_M
    if _SPOT_TRADE.search(trade):
        return BINANCE_SPOT
    return BINANCE_FUTURES if _FUTURES_TRADE.search(trade) else ""


def _symbols(frames: bytes) -> set[str]:
    return {symbol.decode(errors="replace") for symbol in _SYMBOL.findall(frames)}


def _by_hosts(head: bytes) -> list[Told]:
    """The venue by the hosts that were connected to; another exchange's only where none is Binance's."""
    named = {(host.decode().lower(), path.decode()) for host, path in _HOST.findall(head)}
    markets = {market: host for host, path in sorted(named) if (market := _market_of_host(host, path))}
    ours = [venue for venue in VENUES if venue in markets]
    return [Told(market, f"the host {markets[market]} in it") for market in ours or _first(markets)]


def _first(markets: Iterable[str]) -> list[str]:
    return list(islice(sorted(markets), 1))


def _market_of_host(host: str, path: str) -> str:
    labels = host.split(".")
    if labels[-2:] == ["binance", "us"]:
        return "BINANCE_US"
    if labels[-2] not in {"binance", "binancefuture"}:
        return next((label.upper() for label in labels if label.upper() in OTHER_EXCHANGES), "")
    if labels[0] in {"dstream", "dapi"} or path == "/dapi":
        return COIN_M
    if labels[0] in {"fstream", "fapi"} or path == "/fapi":
        return BINANCE_FUTURES
    return BINANCE_SPOT if _SPOT_HOSTS.match(labels[0]) or path == "/api" else ""
