"""Binance's markets as names tell them: which of them Raven collects, and whose symbols are COIN-M's. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable
from types import MappingProxyType
from typing import Final

from raven.sources.binance import BINANCE_FUTURES, BINANCE_SPOT

_COIN_M: Final = re.compile(r"(?:[^_]+USD_PERP|(?:[^_]*[^_B]|BNB)USD_\d{6})")
"""A symbol of COIN-M futures, whose quantities are contracts: `BTCUSD_PERP`, `BTCUSD_240927`.

It is quoted in USD and has a suffix. Perpetuals of USD-M have none, and its delivery futures are quoted in USDT or BUSD
(`BTCUSDT_240927`, `BTCBUSD_210129`); of the coins that COIN-M delivers, BNB alone ends in B.
"""

VENUE_NAMES: Final = MappingProxyType(
    {
        BINANCE_SPOT: BINANCE_SPOT,
        BINANCE_FUTURES: BINANCE_FUTURES,
        "SPOT": BINANCE_SPOT,
        "FUTURES": BINANCE_FUTURES,
    }
)
"""The venues by the names, in upper case, that people and files give them."""


def is_coin_m(symbol: str) -> bool:
    """Whether `symbol`, in any case, is one of COIN-M futures."""
    upper = symbol.upper()
    return "USD_" in upper and _COIN_M.fullmatch(upper) is not None


def coin_m_among(symbols: Iterable[str | None]) -> list[str]:
    """The different ones of `symbols` that are of COIN-M; of a stream of Raven's venues hardly ever any."""
    return [name for name in set(symbols) if name is not None and is_coin_m(name)]


def venue_named(name: str) -> str | None:
    """The venue that `name` means (`spot`, `BINANCE_FUTURES`, in any case), None where there is no such venue."""
    return VENUE_NAMES.get(name.strip().upper())
