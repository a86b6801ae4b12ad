"""What a JSON list holds, told by its first entry: REST replies, plain or wrapped, frames, or what is refused. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from raven.sources.binance import BINANCE_FUTURES, BINANCE_SPOT, TradeEvent
from raven.sources.recordings.identity import COIN_M


class Entry(NamedTuple):
    """The first entry: `refused` says what it is instead of a trade; without `event` it is a frame, of any event."""

    refused: str = ""
    event: TradeEvent | None = None
    venue: str | None = None


def first_entry(text: bytes) -> Entry:
    """What the first entry of the list that `text` begins with tells; `text` may be cut short after it."""
    decoded = text.decode(errors="replace")
    start = len(decoded) - len(decoded[1:].lstrip())
    try:
        entry, _ = json.JSONDecoder().raw_decode(decoded, start)
    except (ValueError, RecursionError):
        return Entry("a JSON list that is empty, or cut short")
    if isinstance(entry, list):
        return Entry(_row(entry))
    if not isinstance(entry, dict):
        return Entry("a JSON list")
    wrapped = entry.get("info")
    if isinstance(wrapped, dict):
        return _trade(wrapped, str(entry.get("symbol") or ""))
    return _trade(entry, "")


def _row(row: Sequence[Any]) -> str:
    if len(row) == 7 and row[3] in ("buy", "sell"):
        return (
            "freqtrade's trades (time, id, type, side, price, amount, cost), which tell neither exchange nor whether "
            "their ids are of single or aggregate trades"
        )
    if len(row) in (6, 12) and isinstance(row[0], int):
        return "klines (bars), not trades"
    return "a list of rows without names"


def _trade(trade: Mapping[str, Any], unified: str) -> Entry:
    """`unified`: the symbol as wrappers write it, `XRP/ETH` on spot, `ETH/USDT:USDT` and `ETH/USD:ETH` on futures."""
    data = trade.get("data")
    if "e" in trade or (isinstance(data, dict) and "e" in data):
        return Entry()
    keys, (pair, _, settled) = set(trade), unified.partition(":")
    if settled and settled != pair.partition("/")[2]:
        return Entry(f"trades of {COIN_M}, whose quantities are contracts")
    if "baseQty" in keys:
        return Entry(f"trades of {COIN_M}, whose quantities are contracts")
    if {"a", "p", "q", "T", "m"} <= keys:
        is_spot = "M" in keys
        event: TradeEvent = "aggTrade"
    elif {"id", "price", "qty", "time", "isBuyerMaker"} <= keys:
        is_spot = "isBestMatch" in keys
        event = "trade"
    else:
        return Entry("a JSON list of something other than trades")
    if is_spot:
        return Entry(event=event, venue=BINANCE_SPOT)
    return Entry(event=event, venue=BINANCE_FUTURES if settled or keys & {"quoteQty", "nq", "f"} else None)
