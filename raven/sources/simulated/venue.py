"""The exchange as its clients meet it, as a table: paths, streams, texts of frames and replies, limits.

Texts are templates for `frames.texts`: what stands between angle brackets is a field of the trade. Sources: the
exchange's own documents and frames recorded in 2026.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any, Final

from raven.sources.simulated.exchange_info import futures_symbol, spot_symbol
from raven.sources.simulated.market import Listing


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
    """One REST path: what it answers, its request weight, its row limit, and the text of a trade if it answers trades.

    Where the weight depends on the `limit` asked for, `dearer` has (from this limit on, weight), ascending.
    """

    reply: Reply
    weight: int
    template: str = ""
    default_rows: int = 500
    max_rows: int = 1_000
    dearer: tuple[tuple[int, int], ...] = ()


@dataclass(frozen=True, slots=True)
class Venue:
    """One venue's protocol.

    `streams` maps what follows the @ of a stream's name to the text of its frames. Below `root` lie `/ws` (raw) and
    `/stream` (combined); below `silent_roots` they connect and acknowledge, but send no trade. `has_micros` is
    whether clients may ask for times in microseconds, `selects_symbols` whether `exchangeInfo` tells of single ones.
    `halted` is the status of a symbol that does not trade.
    """

    name: str
    root: str
    silent_roots: tuple[str, ...]
    streams: Mapping[str, str]
    endpoints: Mapping[str, Endpoint]
    describe: Callable[[Listing, str], dict[str, Any]]
    info: Mapping[str, Any]
    halted: str
    has_micros: bool
    selects_symbols: bool
    max_messages_per_s: int
    weight_per_minute: int
    ping_interval_s: float
    pong_timeout_s: float
    max_streams: int = 1_024
    max_attempts_per_5min: int = 300


_SPOT_TRADE_ROW: Final = (
    '{"id":<id>,"price":"<price>","qty":"<quantity>","quoteQty":"<quote_quantity>","time":<time>,'
    '"isBuyerMaker":<is_sell>,"isBestMatch":true}'
)
_FUTURES_TRADE_ROW: Final = (
    '{"id":<id>,"price":"<short_price>","qty":"<short_quantity>","quoteQty":"<quote_quantity>","time":<time>,'
    '"isBuyerMaker":<is_sell>}'
)

SPOT: Final = Venue(
    name="BINANCE_SPOT",
    root="",
    silent_roots=(),
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
        "/api/v3/trades": Endpoint(Reply.RECENT_TRADES, 25, _SPOT_TRADE_ROW),
        "/api/v3/historicalTrades": Endpoint(Reply.TRADES_BY_ID, 25, _SPOT_TRADE_ROW),
        "/api/v3/aggTrades": Endpoint(
            Reply.TRADES_BY_ID_OR_TIME,
            4,
            '{"a":<id>,"p":"<price>","q":"<quantity>","f":<id>,"l":<id>,"T":<time>,"m":<is_sell>,"M":true}',
        ),
        "/api/v3/klines": Endpoint(Reply.KLINES, 2),
    },
    describe=spot_symbol,
    info={},
    halted="BREAK",
    has_micros=True,
    selects_symbols=True,
    max_messages_per_s=5,
    weight_per_minute=6_000,
    ping_interval_s=20.0,
    pong_timeout_s=60.0,
)

FUTURES: Final = Venue(
    name="BINANCE_FUTURES",
    root="/market",
    silent_roots=("", "/public", "/private"),
    streams={
        "aggTrade": '{"e":"aggTrade","E":<time>,"a":<id>,"s":"<symbol>","p":"<short_price>","q":"<short_quantity>",'
        '"nq":"<short_quantity>","f":<id>,"l":<id>,"T":<time>,"m":<is_sell>,"st":1}',
        "trade": '{"e":"trade","E":<time>,"T":<time>,"s":"<symbol>","t":<id>,"p":"<short_price>",'
        '"q":"<short_quantity>","X":"MARKET","m":<is_sell>,"st":1}',
    },
    endpoints={
        "/fapi/v1/ping": Endpoint(Reply.PING, 1),
        "/fapi/v1/time": Endpoint(Reply.TIME, 1),
        "/fapi/v1/exchangeInfo": Endpoint(Reply.EXCHANGE_INFO, 1),
        "/fapi/v1/trades": Endpoint(Reply.RECENT_TRADES, 5, _FUTURES_TRADE_ROW),
        "/fapi/v1/historicalTrades": Endpoint(
            Reply.TRADES_BY_ID, 20, _FUTURES_TRADE_ROW, default_rows=100, max_rows=500
        ),
        "/fapi/v1/aggTrades": Endpoint(
            Reply.TRADES_BY_ID_OR_TIME,
            20,
            '{"a":<id>,"p":"<short_price>","q":"<short_quantity>","nq":"<short_quantity>","f":<id>,"l":<id>,"T":<time>,"m":<is_sell>}',
        ),
        "/fapi/v1/klines": Endpoint(Reply.KLINES, 1, max_rows=1_500, dearer=((100, 2), (500, 5), (1_001, 10))),
    },
    describe=futures_symbol,
    info={"futuresType": "U_MARGINED", "assets": []},
    halted="SETTLING",
    has_micros=False,
    selects_symbols=False,
    max_messages_per_s=10,
    weight_per_minute=2_400,
    ping_interval_s=180.0,
    pong_timeout_s=600.0,
)

VENUES: Final = {venue.name: venue for venue in (SPOT, FUTURES)}
