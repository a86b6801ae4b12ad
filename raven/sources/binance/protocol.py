"""What differs between Binance's venues, as a table: streams, paths, request weights and limits.

Sources: the exchange's WebSocket and REST documents for spot and USD-M futures (2026).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from raven.sources.binance import BINANCE_FUTURES, BINANCE_SPOT, TradeEvent


@dataclass(frozen=True, slots=True)
class VenueProtocol:
    """One venue as its clients meet it; URLs are settings, what follows them is here.

    - `event`: the series collected, and so whose ids must be contiguous.
    - `stream_query`: what follows the path of a combined connection.
    - `*_path`: REST paths; `trades_path` takes `symbol`, `fromId` and `limit`, and answers in the form of `event`.
    - `*_weight`: what a request costs of `weight_per_minute`, which is shared by all requests of an address.
    - `max_streams`: streams a connection; `max_messages_per_s`: control messages to the exchange a connection.
    - `max_attempts_per_5min`: connection attempts of an address.
    - `alternative_rest_url`, `alternative_websocket_url`: public market data where the region is blocked; empty: none.
    """

    venue: str
    event: TradeEvent
    stream_query: str
    time_path: str
    symbols_path: str
    symbols_weight: int
    trades_path: str
    trades_weight: int
    trades_limit: int
    weight_per_minute: int
    max_messages_per_s: int
    max_streams: int = 1024
    max_attempts_per_5min: int = 300
    alternative_rest_url: str = ""
    alternative_websocket_url: str = ""


SPOT: Final = VenueProtocol(
    venue=BINANCE_SPOT,
    event="trade",
    stream_query="?timeUnit=MICROSECOND",
    time_path="/api/v3/time",
    symbols_path="/api/v3/exchangeInfo",
    symbols_weight=20,
    trades_path="/api/v3/historicalTrades",
    trades_weight=25,
    trades_limit=1_000,
    weight_per_minute=6_000,
    max_messages_per_s=5,
    alternative_rest_url="https://data-api.binance.vision",
    alternative_websocket_url="wss://data-stream.binance.vision",
)

FUTURES: Final = VenueProtocol(
    venue=BINANCE_FUTURES,
    event="aggTrade",
    stream_query="",
    time_path="/fapi/v1/time",
    symbols_path="/fapi/v1/exchangeInfo",
    symbols_weight=1,
    trades_path="/fapi/v1/aggTrades",
    trades_weight=20,
    trades_limit=1_000,
    weight_per_minute=2_400,
    max_messages_per_s=10,
)

EVENTS: Final = {protocol.venue: protocol.event for protocol in (SPOT, FUTURES)}
"""The series that is collected at each venue: another one has ids of its own, and would be taken for it."""
