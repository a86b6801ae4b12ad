"""What the path of a recorded file tells of its trades. Pure: nothing is opened.

What the exchange's own names and partition folders tell is certain; words that people put into names are guesses.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Final
from urllib.parse import unquote

from raven.sources.binance import BINANCE_FUTURES, BINANCE_SPOT
from raven.sources.binance.markets import is_coin_m, venue_named
from raven.sources.recordings.identity import COIN_M, Told

OTHER_EXCHANGES: Final = frozenset(
    (
        "BINANCEUS", "BITFINEX", "BITGET", "BITHUMB", "BITMEX", "BITSTAMP", "BITTREX", "BYBIT", "COINBASE", "DERIBIT",
        "FTX", "GATEIO", "GEMINI", "HITBTC", "HTX", "HUOBI", "HYPERLIQUID", "KRAKEN", "KUCOIN", "MEXC", "OKEX", "OKX",
        "POLONIEX", "UPBIT",
    )
)  # fmt: skip
"""Exchanges that names and hosts speak of, and whose trades are not Binance's."""

_NO_SYMBOLS: Final = OTHER_EXCHANGES | frozenset(
    (
        "AGGTRADE", "AGGTRADES", "ALL", "BINANCE", "COIN", "DAILY", "DATA", "EXPORT", "FUTURES", "MONTHLY", "PERP",
        "PERPETUAL", "RAW", "SPOT", "TICK", "TICKS", "TRADE", "TRADES", "USDM", "USDTM",
    )
)  # fmt: skip
_STABLE: Final = ("USDT", "USDC", "BUSD", "FDUSD", "TUSD", "USD1")
_COINS: Final = ("BTC", "BNB", "ETH")
_ARCHIVE: Final = re.compile(r"([^\W_]{5,}(?:_PERP|_\d{6})?)-(?:trades|aggTrades)-\d{4}-\d{2}")
_COIN_M_WORD: Final = re.compile(r"(?<![^\W_])[^\W_]+USD_(?:PERP|\d{6})(?![^\W_])", re.IGNORECASE)
_DATED: Final = re.compile(r"[^\W_]+(?:USDT|BUSD)_\d{6}(?!\d)", re.IGNORECASE)
"""A delivery future of USD-M, or the recording of a day: it cannot be told."""

_SEPARATORS: Final = re.compile(r"[^\w]+|_+")


def symbol_of_path(path: Path) -> list[Told]:
    """The symbol by a partition folder and an archive's own name; else the one word like a symbol in a name."""
    told = [Told(value, f"its folder {key}={value}") for key, value in _partitions(path) if key == "symbol"]
    archive = _archive_symbol(path)
    if archive is not None:
        told.append(Told(archive, "its name"))
    if told or _DATED.search(path.name):
        return told
    for name, by in ((path.name, "its name"), (path.absolute().parent.name, "its folder's name")):
        found = _symbols_in(name)
        if found:
            return [Told(found.pop(), by, is_guess=True)] if len(found) == 1 else []
    return []


def venue_of_path(path: Path) -> list[Told]:
    """The venue by partition folders and the exchange's own (`data/futures/um/daily/…`); else by words in the name."""
    told = [
        Told(venue_named(value) or value, f"its folder {key}={value}")
        for key, value in _partitions(path) if key == "venue"
    ]  # fmt: skip
    for outer, inner in pairwise(folder.lower() for folder in path.parent.parts):
        if (outer, inner) in _FOLDERS:
            told.append(Told(_FOLDERS[outer, inner], f"its folder {outer}/{inner}"))
    if is_coin_m(_archive_symbol(path) or "") or any(map(is_coin_m, _COIN_M_WORD.findall(path.name))):
        told.append(Told(COIN_M, "its name"))
    found = _venues_in(path.name)
    if told or len(found) > 1:
        return told
    return [Told(venue, "its name", is_guess=True) for venue in found]


def venue_of_folder(path: Path) -> list[Told]:
    """The venue by the nearest folder that is named after one or after an exchange: where nothing else tells it."""
    for folder in reversed(path.absolute().parent.parts):
        venue = venue_named(folder) or next(iter(_venues_in(folder) - {BINANCE_FUTURES, BINANCE_SPOT}), None)
        if venue is not None:
            return [Told(venue, f"its folder {folder}", is_guess=True)]
    return []


_FOLDERS: Final = {
    ("futures", "um"): BINANCE_FUTURES,
    ("futures", "cm"): COIN_M,
    ("spot", "daily"): BINANCE_SPOT,
    ("spot", "monthly"): BINANCE_SPOT,
}


def _partitions(path: Path) -> Iterator[tuple[str, str]]:
    """The keys and values of the folders that tables are parted into: `venue=BINANCE_FUTURES/date=2024-01-01`."""
    for folder in path.parent.parts:
        key, equals, value = folder.partition("=")
        if equals:
            yield key.lower(), unquote(value)


def _archive_symbol(path: Path) -> str | None:
    """The symbol in the exchange's own file name, `BTCUSDT-trades-2025-01-01.zip`; None where it is no such name."""
    match = _ARCHIVE.match(path.name)
    if match is None or not match[1].isupper() or match[1] in _NO_SYMBOLS:
        return None
    return match[1]


def _symbols_in(name: str) -> set[str]:
    """The words of a name that are like a symbol, base before quote, and pairs of words that are: `BTC-USDT`."""
    words = _SEPARATORS.split(name)
    found = {word.upper() for word in words if _is_like_symbol(word)}
    bases = {word for word in words if word.isupper() and word not in _NO_SYMBOLS | found | set(_STABLE)}
    return found | {base + quote for base, quote in pairwise(words) if base in bases and quote in (*_STABLE, *_COINS)}


def _is_like_symbol(word: str) -> bool:
    upper = word.upper()
    if upper in _NO_SYMBOLS or upper in _STABLE:
        return False
    for quote in _STABLE:
        if upper.endswith(quote):
            return not upper.removesuffix(quote).isdigit()
    coins = _COINS if word.isupper() else _COINS[:2]  # `kenneth` is no pair
    return any(upper.endswith(quote) and len(upper) >= len(quote) + 3 for quote in coins)


def _venues_in(name: str) -> set[str]:
    words = [word.upper() for word in _SEPARATORS.split(name)]
    pairs = {"".join(pair) for pair in pairwise(words)}
    found = {word for word in {*words, *pairs} if word in OTHER_EXCHANGES}
    if pairs & {"COINM", "FUTURESCM"} or {"COINM", "DAPI", "DSTREAM"} & set(words):
        return found | {COIN_M}
    if {"FUTURES", "USDM", "PERP", "FAPI", "FSTREAM"} & set(words):
        found.add(BINANCE_FUTURES)
    return found | ({BINANCE_SPOT} if "SPOT" in words else set())
