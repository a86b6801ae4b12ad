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
from raven.sources.binance.frames import UNREADABLE, Int64
from raven.sources.binance.limits import Room, WeightBudget
from raven.sources.binance.protocol import VenueProtocol
from raven.telemetry import Telemetry

RETRIES: Final = 3  # of a request that failed although the exchange was reached
MAX_PAUSE_S: Final = 120.0  # what a request waits in all when the exchange asks for less
SHORTEST_PAUSE_S: Final = 1.0
REQUESTS_AT_ONCE: Final = 4
"""The budget allows four a second, so more are hardly faster; each that is under way at a refusal is one too many."""
MOST_DIGITS: Final = 9  # of the weight the exchange says was used
ANSWER_TIMES: Final = 6  # a whole answer takes at most so many times the connect timeout
MOST_ANSWER_BYTES: Final = 1 << 26
"""Of one answer, unpacked: the list of all symbols has about 20 MB."""
HEADERS: Final = {"X-MBX-TIME-UNIT": "MICROSECOND"}
_MICROSECONDS_FROM: Final = 10**15
_FAILED: Final = (aiohttp.ClientError, TimeoutError, OSError, ProxyError, ProxyConnectionError, ProxyTimeoutError)


class _Time(msgspec.Struct):
    serverTime: Int64  # noqa: N815 - the exchange's name


class BinanceRest:
    """REST calls to one venue, from many tasks at once. Errors are ExchangeError, with the status and what to do.

    All requests share one budget of weight and wait rather than exceed it, first come, first served. What the exchange
    forbids for a time (429, 418) holds all of them back; after it they go one at a time, until answers are good again.
    Times in answers are microseconds where the venue has them.
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
        self._room = Room(REQUESTS_AT_ONCE)
        self._left = asyncio.Event()  # a request under way was answered
        self._refusal = ""
        self._session: aiohttp.ClientSession | None = None

    @property
    def url(self) -> str:
        """Where it asks; after a blocked region was found, the alternative."""
        return self._endpoint.url

    @property
    def refusal(self) -> str:
        """Why no request is sent now, and for how long; empty when the exchange forbids none."""
        pause_s = self._budget.paused_s(time.monotonic())
        return f"{self._refusal}; no request is sent for {pause_s:.0f} s more" if pause_s else ""

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
            waited_s, entered = await self._admit(weight, paused_s)
            paused_s += waited_s
            url = self._endpoint.url
            try:
                answer = await self._send(url + path, parameters)
            finally:
                self._room.leave()
                self._left.set()
            if isinstance(answer, bytes):
                self._room.answered(entered)
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

    async def _admit(self, weight: int, paused_s: float) -> tuple[float, int]:
        """Wait for the budget and for room; how long the exchange asked to, and the place in the room.

        `paused_s` is what the request waited for the exchange before.
        """
        waited_s = 0.0
        async with self._turn:
            while (wait_s := self._budget.wait_s(time.monotonic(), weight)) > 0 or self._room.is_full:
                if wait_s <= 0:
                    self._left.clear()
                    await self._left.wait()
                    continue
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
            entered = self._room.enter()
        self._telemetry.add("rest_requests")
        return waited_s, entered

    async def _send(self, url: str, parameters: dict[str, str]) -> bytes | Failure:
        if self._session is None:
            self._session = self._new_session()
        proxy = self._endpoint.proxy
        try:
            async with self._session.get(
                url, params=parameters, headers=HEADERS, proxy=None if _is_socks(proxy) else proxy
            ) as response:
                body = await _bounded(response)
        except _FAILED as error:
            return classify_request(error)
        self._observe(response.headers.get("X-MBX-USED-WEIGHT-1M", ""))
        if body is None and response.status == 200:
            return Failure(Kind.FAULT, f"answers with more than {MOST_ANSWER_BYTES >> 20} MiB")
        if body is not None and response.status == 200:
            return body
        return classify_status(response.status, retry_after=response.headers.get("Retry-After"), body=body or b"")

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
        if len(used) <= MOST_DIGITS and used.isdecimal():
            now_s = time.monotonic()
            self._budget.observe(now_s, int(used))
            self._telemetry.set("rest_used_weight", self._budget.used(now_s))

    def _pause(self, failure: Failure) -> None:
        """Hold all requests back."""
        pause_s = max(SHORTEST_PAUSE_S, failure.retry_after_s or 0.0)
        self._refusal = failure.cause.partition(":")[0]
        self._room.refused()
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
            time_ = msgspec.json.decode(body, type=_Time).serverTime
        except UNREADABLE as error:
            raise ExchangeError(f"{self.url}{path} answered something else: {body[:80]!r}") from error
        return time_ // 1000 if time_ >= _MICROSECONDS_FROM else time_


async def _bounded(response: aiohttp.ClientResponse) -> bytes | None:
    """The body of an answer; None when it is longer than any can be: it may unpack to thousands of times its size."""
    body = bytearray()
    async for part in response.content.iter_any():
        body += part
        if len(body) > MOST_ANSWER_BYTES:
            return None
    return bytes(body)


def _is_socks(proxy: str | None) -> bool:
    return proxy is not None and proxy.startswith("socks")
