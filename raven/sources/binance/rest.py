"""Binance's REST: which symbols there are, and whether the exchange answers."""

from __future__ import annotations

from typing import Final

import aiohttp
import msgspec

from raven.errors import ExchangeError, RegionBlockedError
from raven.settings import BinanceSettings
from raven.sources.binance.protocol import VenueProtocol
from raven.telemetry import Telemetry

BLOCKED: Final = (403, 451)
_MICROSECONDS_FROM: Final = 10**15


class BinanceRest:
    """REST calls to the exchange at `url`. Errors are ExchangeError, with the status and what to do."""

    def __init__(
        self,
        settings: BinanceSettings,
        protocol: VenueProtocol,
        *,
        telemetry: Telemetry | None = None,  # noqa: ARG002
    ) -> None:
        self.url = settings.rest_url.rstrip("/")
        self._protocol = protocol
        self._timeout = aiohttp.ClientTimeout(total=settings.connect_timeout_s)
        self._session: aiohttp.ClientSession | None = None

    async def close(self) -> None:
        """Close the connections."""
        if self._session is not None:
            await self._session.close()

    async def get(self, path: str, *, weight: int, **parameters: str) -> bytes:  # noqa: ARG002
        """The body of a GET."""
        if self._session is None:
            headers = {"X-MBX-TIME-UNIT": "MICROSECOND"}
            self._session = aiohttp.ClientSession(timeout=self._timeout, trust_env=True, headers=headers)
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
        path = self._protocol.time_path
        body = await self.get(path, weight=1)
        try:
            time_ = msgspec.json.decode(body, type=dict[str, int])["serverTime"]
        except (msgspec.MsgspecError, KeyError) as error:
            raise ExchangeError(f"{self.url}{path} answered something else: {body[:80]!r}") from error
        return time_ // 1000 if time_ >= _MICROSECONDS_FROM else time_
