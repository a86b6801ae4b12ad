"""REST against real HTTP servers: one budget for all tasks, bans and rate limits waited out, faults tried again."""

from __future__ import annotations

import asyncio
import gzip
import logging
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import pytest
from aiohttp import web

from raven.errors import ExchangeError
from raven.settings import BinanceFuturesSettings, BinanceSpotSettings
from raven.sources.binance import limits
from raven.sources.binance import rest as transport
from raven.sources.binance.epochs import newest_trade_id
from raven.sources.binance.failures import Kind, classify_status
from raven.sources.binance.protocol import FUTURES, SPOT, VenueProtocol
from raven.sources.binance.rest import BinanceRest
from raven.sources.binance.symbols import SymbolList
from raven.sources.simulated.build import build_market
from raven.sources.simulated.exchange import SimulatedExchange
from raven.telemetry import Telemetry


@dataclass
class Server:
    """`answer` is asked with the number of each request, from 1; `requests` are their times and paths."""

    url: str = ""
    requests: list[tuple[float, str]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)


@asynccontextmanager
async def serving(answer: Callable[[int], Any]) -> AsyncIterator[Server]:
    server = Server()

    async def handle(request: web.Request) -> web.StreamResponse:
        server.requests.append((time.monotonic(), request.path_qs))
        server.headers.append(dict(request.headers))
        answered = answer(len(server.requests))
        return await answered(request) if callable(answered) else answered

    app = web.Application()
    app.add_routes([web.get("/{path:.*}", handle)])
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    server.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield server
    finally:
        await runner.cleanup()


@asynccontextmanager
async def resting(
    url: str, protocol: VenueProtocol = SPOT, telemetry: Telemetry | None = None, timeout_s: float = 5.0
) -> AsyncIterator[BinanceRest]:
    settings = BinanceSpotSettings(rest_url=url, connect_timeout_s=timeout_s)
    rest = BinanceRest(settings, protocol, telemetry=telemetry)
    try:
        yield rest
    finally:
        await rest.close()


def ok(text: str = "[]", **headers: str) -> web.Response:
    return web.Response(text=text, headers={name.replace("_", "-"): value for name, value in headers.items()})


async def test_many_tasks_keep_to_one_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "MINUTE_S", 1.0)
    telemetry = Telemetry("test")
    protocol = replace(SPOT, weight_per_minute=100)
    async with serving(lambda _: ok()) as server, resting(server.url, protocol, telemetry) as rest:
        await asyncio.gather(*(rest.get("/trades", weight=25, symbol=f"S{number}") for number in range(12)))
    times = [when for when, _ in server.requests]
    assert len(times) == 12
    # requests are let go in time, but a busy machine may deliver one late and the next in time
    assert all(end - begin > 0.5 for begin, end in zip(times, times[3:], strict=False))
    assert times[-1] - times[0] > 2.7, "90 of 100 fit three requests of 25 into a period: twelve take four"
    assert times[-1] - times[0] < 10
    order = [path for _, path in server.requests]
    assert sorted(order[:3]) == [f"/trades?symbol=S{number}" for number in range(3)], "first come, first served"
    assert telemetry.totals["rest_requests"] == 12
    assert telemetry.totals["rest_waits"] >= 3


async def test_what_others_of_the_address_use_is_left_to_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "MINUTE_S", 1.0)
    async with serving(lambda _: ok(X_MBX_USED_WEIGHT_1M="5990")) as server, resting(server.url) as rest:
        await rest.get("/trades", weight=25)
        await rest.get("/trades", weight=25)
    (first, _), (second, _) = server.requests
    assert second - first > 0.9


async def test_the_exchange_itself_counts_no_more_than_the_budget() -> None:
    exchange = SimulatedExchange(build_market(symbols=["BTCUSDT"]), port=0)
    await exchange.start()
    telemetry = Telemetry("test")
    try:
        async with resting(exchange.rest_url, telemetry=telemetry) as rest:
            await asyncio.gather(*(newest_trade_id(rest, SPOT, "BTCUSDT") for _ in range(20)))
            assert await rest.server_time_ms() > 0
            await SymbolList(rest, SPOT).read()
        assert telemetry.totals["rest_used_weight"] == 20 * 25 + 1 + 20, "as much as the exchange counts"
    finally:
        await exchange.stop()


@pytest.mark.parametrize("status", [429, 418])
async def test_a_rate_limit_holds_back_every_request_and_none_fails(
    status: int, caplog: pytest.LogCaptureFixture
) -> None:
    telemetry = Telemetry("test")

    def answer(number: int) -> web.Response:
        return web.Response(status=status, headers={"Retry-After": "2"}) if number == 1 else ok()

    async with serving(answer) as server, resting(server.url, telemetry=telemetry) as rest:
        first = asyncio.ensure_future(rest.get("/first", weight=1))
        while not server.requests or not telemetry.totals.get("rest_retries"):
            await asyncio.sleep(0.01)
        others = [rest.get(f"/{number}", weight=1) for number in range(5)]
        assert await asyncio.gather(first, *others) == [b"[]"] * 6
    times = [when for when, _ in server.requests]
    assert len(times) == 7
    assert times[1] - times[0] > 1.9, "nothing was sent while it was forbidden"
    assert telemetry.totals["rest_retries"] == 1
    assert telemetry.totals["rest_waits"] >= 1
    assert caplog.text.count("too many requests, come again in 2 s") == 1


async def test_a_ban_that_is_too_long_fails_and_nothing_more_is_sent() -> None:
    async with serving(lambda _: web.Response(status=418, headers={"Retry-After": "86400"})) as server:
        async with resting(server.url) as rest:
            for _ in range(3):
                with pytest.raises(ExchangeError, match=r"no request for 8\d{4} s more; one waits 120 s at most"):
                    await rest.get("/trades", weight=1)
        assert len(server.requests) == 1


async def test_limits_without_an_end_are_not_waited_for_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transport, "MAX_PAUSE_S", 2.5)
    async with serving(lambda _: web.Response(status=429, headers={"Retry-After": "0"})) as server:
        async with resting(server.url) as rest:
            with pytest.raises(ExchangeError, match=r"one waits 2\.5 s at most"):
                await rest.get("/trades", weight=1)
        assert len(server.requests) == 3, "at once, after a second, after another"


@pytest.mark.parametrize("fault", ["500", "503", "cut", "slow"])
async def test_faults_are_tried_again_a_few_times(fault: str) -> None:
    async def break_off(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Length": "100"})
        await response.prepare(request)
        await response.write(b"[")
        assert request.transport is not None
        request.transport.close()
        return response

    async def be_slow(_: web.Request) -> web.Response:
        await asyncio.sleep(5)
        return web.Response()

    faults = {"cut": break_off, "slow": be_slow}
    telemetry = Telemetry("test")

    def answer(number: int) -> Any:
        if number == 3:
            return ok("[1]")
        return faults.get(fault) or web.Response(status=int(fault))

    async with serving(answer) as server, resting(server.url, telemetry=telemetry, timeout_s=0.3) as rest:
        assert await rest.get("/trades", weight=1) == b"[1]"
        assert len(server.requests) == 3
        assert telemetry.totals["rest_retries"] == 2
        assert telemetry.totals["rest_requests"] == 3, "each of them costs weight"
        with pytest.raises(ExchangeError, match=r"answers|did not answer|broke off"):
            await rest.get("/trades", weight=1)
        assert len(server.requests) == 3 + 1 + transport.RETRIES


async def test_what_the_exchange_refuses_is_not_asked_twice() -> None:
    body = '{"code":-1121,"msg":"Invalid symbol."}'
    async with serving(lambda _: web.Response(status=400, text=body)) as server, resting(server.url) as rest:
        with pytest.raises(ExchangeError, match=r"/api/v3/historicalTrades answers 400: .*Invalid symbol"):
            await newest_trade_id(rest, SPOT, "NOUSDT")
        assert len(server.requests) == 1


async def test_microseconds_are_asked_for_and_the_clock_is_milliseconds_either_way() -> None:
    for text in ('{"serverTime":1760000000000}', '{"serverTime":1760000000000000}'):
        async with serving(lambda _, text=text: ok(text)) as server, resting(server.url) as rest:
            assert await rest.server_time_ms() == 1_760_000_000_000
            assert server.headers[0]["X-MBX-TIME-UNIT"] == "MICROSECOND"


async def test_futures_have_paths_of_their_own() -> None:
    async with serving(lambda _: ok('{"serverTime":1}')) as server:
        rest = BinanceRest(BinanceFuturesSettings(rest_url=f"{server.url}/"), FUTURES)
        try:
            assert await rest.server_time_ms() == 1
        finally:
            await rest.close()
        assert [path for _, path in server.requests] == ["/fapi/v1/time"]


async def test_a_cancelled_request_lets_the_others_through(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)

    def answer(number: int) -> web.Response:
        return web.Response(status=429, headers={"Retry-After": "2"}) if number == 1 else ok()

    async with serving(answer) as server, resting(server.url) as rest:
        waiting = [asyncio.ensure_future(rest.get("/trades", weight=1)) for _ in range(2)]
        while "come again" not in caplog.text:
            await asyncio.sleep(0.01)
        waiting.append(asyncio.ensure_future(rest.get("/trades", weight=1)))
        await asyncio.sleep(0)
        waiting[0].cancel()
        assert await asyncio.wait_for(waiting[2], 10) == b"[]"
        await asyncio.gather(*waiting, return_exceptions=True)


@pytest.mark.parametrize(
    ("status", "retry_after", "pause_s"),
    [
        (429, "3", 3), (429, "0.5", 0.5), (429, "300", 300), (418, "259200", 259_200), (429, None, 60), (418, "", 60),
        (429, "301", 60), (429, "99999999999", 60), (418, "99999999999", 60), (418, "9" * 5_000, 60),
        (429, "-1", 60), (429, "nan", 60), (429, "٣", 60), (429, "Wed, 21 Oct 2026 07:28:00 GMT", 60),
    ],
)  # fmt: skip
def test_a_pause_longer_than_there_is_says_nothing(status: int, retry_after: str | None, pause_s: float) -> None:
    failure = classify_status(status, retry_after=retry_after)
    assert (failure.kind, failure.retry_after_s) == (Kind.LIMITED, pause_s)


async def test_after_a_refusal_requests_go_one_at_a_time_until_answers_are_good_again() -> None:
    under_way: list[int] = [0]
    seen: list[int] = []  # how many were under way when each came

    def answer(number: int) -> Any:
        async def reply(_: web.Request) -> web.StreamResponse:
            under_way[0] += 1
            seen.append(under_way[0])
            try:
                await asyncio.sleep(0.05)
                return ok() if number > 4 else web.Response(status=429, headers={"Retry-After": "1"})
            finally:
                under_way[0] -= 1

        return reply

    telemetry = Telemetry("test")
    async with serving(answer) as server, resting(server.url, telemetry=telemetry) as rest:
        asking = asyncio.gather(*(rest.get(f"/{number}", weight=1) for number in range(24)))
        while not rest.refusal:
            await asyncio.sleep(0.005)
        assert rest.refusal in (
            "answers 429; no request is sent for 1 s more", "answers 429; no request is sent for 0 s more",
        )  # fmt: skip
        assert await asyncio.wait_for(asking, 30) == [b"[]"] * 24
        assert rest.refusal == ""
    times = [when for when, _ in server.requests]
    assert len(times) == 24 + 4, "no other was refused"
    assert times[4] - times[3] > 0.9
    assert max(seen[:4]) == 4 == max(seen[8:]), "as many as before, in the end"
    assert (seen[4], max(seen[5:7])) == (1, 2), "one, then one more with each answer"


def test_room_after_a_refusal_grows_with_answers_to_what_was_sent_after_it() -> None:
    room = limits.Room(3)
    before = [room.enter() for _ in range(3)]
    assert room.is_full
    room.refused()
    room.leave()
    room.answered(before[0])
    room.refused()  # a second one that was under way adds nothing
    room.leave()
    room.leave()
    assert not room.is_full
    probe = room.enter()
    assert room.is_full
    room.leave()
    room.answered(probe)
    assert [room.is_full for _ in range(3) if room.enter() is not None] == [False, True, True]


@pytest.mark.parametrize("body", ['{"serverTime":1e400}', f'{{"serverTime":{"9" * 400}}}', "[1]", "\xff", '{"a":1}'])
async def test_a_clock_that_is_none_is_an_error_of_the_exchange(body: str) -> None:
    async with serving(lambda _: ok(body, X_MBX_USED_WEIGHT_1M="9" * 5_000)) as server, resting(server.url) as rest:
        with pytest.raises(ExchangeError, match="answered something else"):
            await rest.server_time_ms()


@pytest.mark.parametrize("status", [200, 500])
async def test_an_answer_that_unpacks_without_end_is_not_taken(monkeypatch: pytest.MonkeyPatch, status: int) -> None:
    monkeypatch.setattr(transport, "RETRIES", 0)
    bomb = gzip.compress(b" " * (transport.MOST_ANSWER_BYTES + 1))
    answer = partial(web.Response, body=bomb, headers={"Content-Encoding": "gzip"}, status=status)
    async with serving(lambda _: answer()) as server:
        rest = BinanceRest(BinanceSpotSettings(rest_url=server.url), SPOT)
        with pytest.raises(ExchangeError, match="more than 64 MiB" if status == 200 else "answers 500"):
            await rest.get("/bomb", weight=1)
        await rest.close()
