"""Whether a venue can be reached: its REST, its clock, and its WebSocket, each asked once."""

from __future__ import annotations

import time
from dataclasses import dataclass

from websockets.asyncio.client import connect

from raven.errors import ExchangeError, RegionBlockedError
from raven.settings import BinanceSettings
from raven.sources.binance.connection import LOST
from raven.sources.binance.endpoints import Endpoint
from raven.sources.binance.failures import Kind, classify_websocket
from raven.sources.binance.protocol import VenueProtocol
from raven.sources.binance.rest import BinanceRest
from raven.sources.binance.symbols import SymbolList


@dataclass(frozen=True, slots=True)
class Clock:
    """The address that answered, how far the venue's clock is ahead of ours, and what that may be wrong by."""

    url: str
    offset_ms: float
    error_ms: float


async def read_clock(settings: BinanceSettings, protocol: VenueProtocol) -> Clock:
    """The venue's clock over REST; raises ExchangeError, RegionBlockedError where no address serves this region."""
    rest = BinanceRest(settings, protocol)
    try:
        await rest.server_time_ms()  # so that connecting is not timed
        began_s = time.monotonic()
        offset_ms = await SymbolList(rest, protocol).clock_offset_ms()
        return Clock(rest.url, offset_ms, (time.monotonic() - began_s) * 500)
    finally:
        await rest.close()


async def open_websocket(settings: BinanceSettings, protocol: VenueProtocol) -> str:
    """Open a WebSocket and close it: the address that did; raises ExchangeError or RegionBlockedError likewise."""
    endpoint = Endpoint(settings, protocol, "websocket_url")
    while True:
        url = endpoint.url
        try:
            async with connect(
                f"{url}/stream{protocol.stream_query}", proxy=endpoint.proxy,
                compression=None, open_timeout=settings.connect_timeout_s, close_timeout=1,
            ):  # fmt: skip
                return url
        except LOST as error:
            failure = classify_websocket(error)
        is_blocked = failure.kind is Kind.BLOCKED
        if is_blocked and endpoint.replace(url):
            continue
        kind = RegionBlockedError if is_blocked else ExchangeError
        raise kind(endpoint.describe(failure, url), hint=endpoint.hint(failure))
