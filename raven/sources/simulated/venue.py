"""The exchange as its clients meet it, as a table: paths, streams, texts of frames and replies, limits.

Texts are templates for `frames.texts`: what stands between angle brackets is a field of the trade.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Final


class Reply(Enum):
    """What a REST path answers."""

    PING = "ping"
    TIME = "time"
    EXCHANGE_INFO = "exchange information"
    RECENT_TRADES = "the latest trades"
    TRADES_BY_ID = "trades by id"
    TRADES_BY_ID_OR_TIME = "trades by id or time"
    KLINES = "klines"


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One REST path: what it answers, its request weight, and the text of one trade where it answers trades."""

    reply: Reply
    weight: int
    template: str = ""


@dataclass(frozen=True, slots=True)
class Venue:
    """One venue's protocol; `streams` maps what follows the @ of a stream's name to the text of its frames."""

    name: str
    raw_path: str
    combined_path: str
    streams: Mapping[str, str]
    endpoints: Mapping[str, Endpoint]
    max_streams: int
    max_messages_per_s: int
    max_rows: int
    weight_per_minute: int
    ping_interval_s: float
    pong_timeout_s: float


_TRADE_ROW: Final = (
    '{"id":<id>,"price":"<price>","qty":"<quantity>","quoteQty":"<quote_quantity>","time":<time>,'
    '"isBuyerMaker":<is_sell>,"isBestMatch":true}'
)

SPOT: Final = Venue(
    name="BINANCE_SPOT",
    raw_path="/ws",
    combined_path="/stream",
    streams={
        "trade": '{"e":"trade","E":<time>,"s":"<symbol>","t":<id>,"p":"<price>","q":"<quantity>","T":<time>,'
        '"m":<is_sell>,"M":true}',
        "aggTrade": '{"e":"aggTrade","E":<time>,"s":"<symbol>","a":<id>,"p":"<price>","q":"<quantity>","f":<id>,'
        '"l":<id>,"T":<time>,"m":<is_sell>,"M":true}',
    },
    endpoints={
        "/api/v3/ping": Endpoint(Reply.PING, 1),
        "/api/v3/time": Endpoint(Reply.TIME, 1),
        "/api/v3/exchangeInfo": Endpoint(Reply.EXCHANGE_INFO, 20),
        "/api/v3/trades": Endpoint(Reply.RECENT_TRADES, 25, _TRADE_ROW),
        "/api/v3/historicalTrades": Endpoint(Reply.TRADES_BY_ID, 25, _TRADE_ROW),
        "/api/v3/aggTrades": Endpoint(
            Reply.TRADES_BY_ID_OR_TIME,
            4,
            '{"a":<id>,"p":"<price>","q":"<quantity>","f":<id>,"l":<id>,"T":<time>,"m":<is_sell>,"M":true}',
        ),
        "/api/v3/klines": Endpoint(Reply.KLINES, 2),
    },
    max_streams=1_024,
    max_messages_per_s=5,
    max_rows=1_000,
    weight_per_minute=6_000,
    ping_interval_s=20.0,
    pong_timeout_s=60.0,
)
