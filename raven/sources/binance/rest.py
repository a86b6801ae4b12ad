"""Binance's REST: requests within one weight budget, repeated where that helps; the clock."""

from __future__ import annotations

import asyncio
import time
from typing import Final

import aiohttp
import msgspec
from aiohttp_socks import ProxyConnectionError, ProxyConnector, ProxyError, ProxyTimeoutError

from raven.clock import Backoff
from raven.errors import ExchangeError, RegionBlockedError
from raven.settings import BinanceSettings
from raven.sources.binance.endpoints import Endpoint
from raven.sources.binance.failures import Failure, Kind, classify_request, classify_status
from raven.sources.binance.limits import WeightBudget
from raven.sources.binance.protocol import VenueProtocol
from raven.telemetry import Telemetry

RETRIES: Final = 3  # of a request that failed although the exchange was reached
MAX_PAUSE_S: Final = 120.0  # what a request waits in all when the exchange asks for less
SHORTEST_PAUSE_S: Final = 1.0
REQUESTS_AT_ONCE: Final = 32
ANSWER_TIMES: Final = 6  # a whole answer takes at most so many times the connect timeout
HEADERS: Final = {"X-MBX-TIME-UNIT": "MICROSECOND"}
_MICROSECONDS_FROM: Final = 10**15
_FAILED: Final = (aiohttp.ClientError, TimeoutError, OSError, ProxyError, ProxyConnectionError, ProxyTimeoutError)


class BinanceRest:
    """REST calls to one venue, from many tasks at once. Errors are ExchangeError, with the status and what to do.

    All requests share one budget of weight and wait rather than exceed it, first come, first served. What the exchange
    forbids for a time (429, 418) holds all of them back. Times in answers are microseconds where the venue has them.
    """

    def __init__(
        self, settings: BinanceSettings, protocol: VenueProtocol, *, telemetry: Telemetry | None = None
    ) -> None:
        self._endpoint = Endpoint(settings, protocol, "rest_url")
        self._protocol = protocol
        self._timeout_s = settings.connect_timeout_s
        self._telemetry = telemetry or Telemetry("binance")
        self._budget = WeightBudget(protocol.weight_per_minute)
        self._turn = asyncio.Lock()
        self._places = asyncio.Semaphore(REQUESTS_AT_ONCE)
        self._session: aiohttp.ClientSession | None = None

    @property
    def url(self) -> str:
        """Where it asks; after a blocked region was found, the alternative."""
        return self._endpoint.url

    async def close(self) -> None:
        """Close the connections."""
        if self._session is not None:
            await self._session.close()

    async def get(self, path: str, *, weight: int, **parameters: str) -> bytes:
        """The body of a GET that costs `weight`.

        Raises ExchangeError: refused, not reachable, failed several times, or not allowed for longer than
        `MAX_PAUSE_S`; RegionBlockedError where no address serves this region.
        """
        backoff = Backoff(first_s=0.5, most_s=5.0)
        paused_s, retries = 0.0, 0
        while True:
            paused_s += await self._admit(weight, paused_s)
            async with self._places:
                url = self._endpoint.url
                answer = await self._send(url + path, parameters)
            if isinstance(answer, bytes):
                return answer
            if answer.kind is Kind.BLOCKED and self._go_on_elsewhere(answer, url):
                continue
            if answer.kind is Kind.LIMITED:
                self._pause(answer)
            elif answer.kind is Kind.FAULT and retries < RETRIES:
                retries += 1
                await asyncio.sleep(backoff.next_s())
            else:
                raise self._error(answer, url, path)
            self._telemetry.add("rest_retries", reason=answer.kind)

    async def _admit(self, weight: int, paused_s: float) -> float:
        """Wait for the budget; how long the exchange asked to. `paused_s` is what the request waited for it before."""
        waited_s = 0.0
        async with self._turn:
            while (wait_s := self._budget.wait_s(time.monotonic(), weight)) > 0:
                pause_s = self._budget.paused_s(time.monotonic())
                if paused_s + waited_s + pause_s > MAX_PAUSE_S:
                    raise ExchangeError(
                        f"{self.url} allows no request for {pause_s:.0f} s more; one waits {MAX_PAUSE_S:g} s at most",
                        hint="another program at this address may use up the exchange's request limits",
                    )
                self._telemetry.add("rest_waits", reason="exchange" if pause_s else "budget")
                waited_s += pause_s
                await asyncio.sleep(wait_s)
            self._budget.take(time.monotonic(), weight)
        self._telemetry.add("rest_requests")
        return waited_s

    async def _send(self, url: str, parameters: dict[str, str]) -> bytes | Failure:
        if self._session is None:
            self._session = self._new_session()
        proxy = self._endpoint.proxy
        try:
            async with self._session.get(
                url, params=parameters, headers=HEADERS, proxy=None if _is_socks(proxy) else proxy
            ) as response:
                body = await response.read()
        except _FAILED as error:
            return classify_request(error)
        self._observe(response.headers.get("X-MBX-USED-WEIGHT-1M", ""))
        if response.status == 200:
            return body
        return classify_status(response.status, retry_after=response.headers.get("Retry-After"), body=body)

    def _new_session(self) -> aiohttp.ClientSession:
        proxy = self._endpoint.proxy
        connector: aiohttp.BaseConnector
        if proxy is not None and _is_socks(proxy):
            connector = ProxyConnector.from_url(
                proxy.replace("socks5h://", "socks5://", 1), rdns=proxy.startswith("socks5h"), limit=0
            )
        else:
            connector = aiohttp.TCPConnector(limit=0)
        timeout = aiohttp.ClientTimeout(
            total=ANSWER_TIMES * self._timeout_s, connect=self._timeout_s, sock_read=self._timeout_s
        )
        return aiohttp.ClientSession(connector=connector, timeout=timeout)

    def _observe(self, used: str) -> None:
        if used.isdecimal():
            now_s = time.monotonic()
            self._budget.observe(now_s, int(used))
            self._telemetry.set("rest_used_weight", self._budget.used(now_s))

    def _pause(self, failure: Failure) -> None:
        """Hold all requests back."""
        pause_s = max(SHORTEST_PAUSE_S, failure.retry_after_s or 0.0)
        self._telemetry.warning("rest_limited", f"{self.url} {failure.cause}; no request is sent before")
        self._budget.pause(time.monotonic(), pause_s)

    def _go_on_elsewhere(self, failure: Failure, url: str) -> bool:
        is_first = url == self._endpoint.url
        other = self._endpoint.replace(url)
        if other and is_first:
            reason = self._endpoint.describe(failure, url)
            self._telemetry.warning("region_blocked", f"{reason}; going on with {other}")
        return bool(other)

    def _error(self, failure: Failure, url: str, path: str) -> ExchangeError:
        error = RegionBlockedError if failure.kind is Kind.BLOCKED else ExchangeError
        where = url if failure.kind in (Kind.BLOCKED, Kind.UNREACHABLE) else url + path
        return error(self._endpoint.describe(failure, where), hint=self._endpoint.hint(failure))

    async def server_time_ms(self) -> int:
        """The exchange's clock."""
        path = self._protocol.time_path
        body = await self.get(path, weight=1)
        try:
            time_ = msgspec.json.decode(body, type=dict[str, int])["serverTime"]
        except (msgspec.MsgspecError, KeyError) as error:
            raise ExchangeError(f"{self.url}{path} answered something else: {body[:80]!r}") from error
        return time_ // 1000 if time_ >= _MICROSECONDS_FROM else time_


def _is_socks(proxy: str | None) -> bool:
    return proxy is not None and proxy.startswith("socks")
