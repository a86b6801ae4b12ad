"""Blocked regions, missing networks and proxies, each told apart, over WebSocket and REST; with real servers."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from http import HTTPStatus

import pytest
from aiohttp import web

from raven.errors import ExchangeError, RegionBlockedError, SettingsError
from raven.settings import BinanceFuturesSettings, BinanceSpotSettings
from raven.sources.binance.endpoints import Endpoint, hide, shown
from raven.sources.binance.failures import Kind, classify_status
from raven.sources.binance.protocol import FUTURES, SPOT
from raven.sources.binance.rest import BinanceRest
from tests.unit.exchanges import Exchange, Taker, spot, until
from tests.unit.proxies import PASSWORD, PLAIN_PASSWORD, USER, http_proxy, socks_proxy


def defaults(websocket_url: str = "ws://127.0.0.1:1", rest_url: str = "http://127.0.0.1:1") -> BinanceSpotSettings:
    """Settings whose endpoints are the default ones: only these have alternatives."""

    class LocalSettings(BinanceSpotSettings):
        pass

    for key, url in (("websocket_url", websocket_url), ("rest_url", rest_url)):
        LocalSettings.model_fields[key].default = url
    LocalSettings.model_rebuild(force=True)
    return LocalSettings(connect_timeout_s=2.0)


@asynccontextmanager
async def answering(status: int, text: str = '{"serverTime":1760000000000}') -> AsyncIterator[str]:
    async def answer(_: web.Request) -> web.Response:
        return web.Response(status=status, text=text)

    app = web.Application()
    app.add_routes([web.get("/{path:.*}", answer)])
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


def closed_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.mark.parametrize("status", [HTTPStatus.UNAVAILABLE_FOR_LEGAL_REASONS, HTTPStatus.FORBIDDEN])
async def test_where_the_region_is_blocked_the_alternative_is_taken_with_one_word(
    status: HTTPStatus, caplog: pytest.LogCaptureFixture
) -> None:
    async with Exchange().running() as blocked, Exchange().running() as alternative:
        blocked.status = status
        settings = defaults(websocket_url=blocked.url).model_copy(update={"streams_per_connection": 1})
        taker = Taker(settings, replace(SPOT, alternative_websocket_url=alternative.url))
        with caplog.at_level(logging.INFO):
            async with taker.running(["AUSDT", "BUSDT", "CUSDT"]):
                await until(lambda: len(taker.ids) == 3)
                assert {link.target for link in taker.feed.links()} == {alternative.url}
                assert len(blocked.handshakes) == 3
                assert len(alternative.handshakes) == 3
    assert caplog.text.count("this region is blocked") == 1
    assert (
        f"{blocked.url} answers {status.value}: this region is blocked; going on with {alternative.url}" in caplog.text
    )


async def test_an_endpoint_that_the_user_set_is_not_replaced_but_the_alternative_is_named() -> None:
    async with Exchange().running() as blocked, Exchange().running() as alternative:
        blocked.status = HTTPStatus.UNAVAILABLE_FOR_LEGAL_REASONS
        taker = Taker(spot(blocked.url), replace(SPOT, alternative_websocket_url=alternative.url))
        async with taker.running(["BTCUSDT"]):
            await until(lambda: taker.feed.error)
            assert "this region is blocked" in taker.feed.error
            assert f"set binance_spot.websocket_url to {alternative.url}" in taker.feed.error
            assert "binance_spot.proxy" in taker.feed.error
            assert not alternative.handshakes


async def test_a_venue_without_alternative_says_what_else_can_be_done() -> None:
    async with Exchange().running() as blocked:
        blocked.status = HTTPStatus.UNAVAILABLE_FOR_LEGAL_REASONS
        taker = Taker(BinanceFuturesSettings(websocket_url=f"{blocked.url}/market"), FUTURES)
        async with taker.running(["BTCUSDT"]):
            await until(lambda: taker.feed.error)
            assert taker.feed.error == (
                f"{blocked.url}/market answers 451: this region is blocked "
                "(set binance_futures.proxy to a proxy in a region that the exchange serves)"
            )


async def test_an_alternative_that_is_blocked_too_is_the_end_of_it() -> None:
    async with Exchange().running() as blocked, Exchange().running() as alternative:
        blocked.status = alternative.status = HTTPStatus.UNAVAILABLE_FOR_LEGAL_REASONS
        taker = Taker(defaults(websocket_url=blocked.url), replace(SPOT, alternative_websocket_url=alternative.url))
        async with taker.running(["BTCUSDT"]):
            await until(lambda: taker.feed.error)
            assert f"{alternative.url} answers 451: this region is blocked" in taker.feed.error
            assert "set binance_spot.websocket_url" not in taker.feed.error
            await until(lambda: len(alternative.handshakes) == 2)
            assert alternative.handshakes[1] - alternative.handshakes[0] > 0.9


async def test_no_network_is_not_a_blocked_region() -> None:
    port = closed_port()
    taker = Taker(spot(f"ws://127.0.0.1:{port}"))
    async with taker.running(["BTCUSDT"]):
        await until(lambda: taker.feed.error)
        assert taker.feed.error == (
            f"ws://127.0.0.1:{port} cannot be reached: connection refused "
            "(check the network, its DNS and firewall, and binance_spot.websocket_url)"
        )
        assert not taker.feed.connected
        assert taker.feed.links()[0].error == taker.feed.error


@pytest.mark.parametrize(
    ("address", "cause"),
    [("nowhere.invalid", "its name cannot be resolved"), ("127.0.0.1", "connection refused"), ("", "no address")],
)
async def test_rest_that_cannot_be_reached_fails_at_once_and_says_why(address: str, cause: str) -> None:
    url = f"http://{address}:{closed_port()}"
    # as a copy, since settings that are loaded refuse an address without a host
    rest = BinanceRest(BinanceSpotSettings().model_copy(update={"rest_url": url}), SPOT)
    try:
        with pytest.raises(ExchangeError, match=cause) as raised:
            await rest.server_time_ms()
    finally:
        await rest.close()
    assert not isinstance(raised.value, RegionBlockedError)
    assert url in str(raised.value)


async def test_a_server_that_never_finishes_the_handshake_cannot_be_reached() -> None:
    async def ignore(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    server = await asyncio.start_server(ignore, "127.0.0.1", 0)
    async with server:
        url = f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        taker = Taker(spot(url, connect_timeout_s=0.3))
        async with taker.running(["BTCUSDT"]):
            await until(lambda: taker.feed.error)
            assert f"{url} cannot be reached: timed out" in taker.feed.error


async def test_what_is_no_websocket_server_is_said_to_be_none() -> None:
    async with answering(200) as url:
        taker = Taker(spot(url.replace("http", "ws")))
        async with taker.running(["BTCUSDT"]):
            await until(lambda: taker.feed.error)
            assert "answers 200" in taker.feed.error


async def test_rest_takes_the_alternative_too_and_says_so_once(caplog: pytest.LogCaptureFixture) -> None:
    async with answering(451) as blocked, answering(200) as alternative:
        rest = BinanceRest(defaults(rest_url=blocked), replace(SPOT, alternative_rest_url=alternative))
        try:
            times = await asyncio.gather(*(rest.server_time_ms() for _ in range(5)))
        finally:
            await rest.close()
        assert times == [1_760_000_000_000] * 5
        assert rest.url == alternative
        assert caplog.text.count("this region is blocked") == 1


async def test_blocked_rest_names_what_can_be_set() -> None:
    async with answering(451) as blocked:
        rest = BinanceRest(BinanceSpotSettings(rest_url=blocked), SPOT)
        try:
            with pytest.raises(RegionBlockedError, match="blocked") as raised:
                await rest.server_time_ms()
        finally:
            await rest.close()
    assert "binance_spot.rest_url to https://data-api.binance.vision" in raised.value.hint


@pytest.mark.parametrize("scheme", ["http", "socks5", "socks5h"])
async def test_both_servers_are_reached_through_the_proxy(scheme: str) -> None:
    proxying = http_proxy if scheme == "http" else socks_proxy
    async with Exchange().running() as exchange, answering(200) as rest_url, proxying() as proxy:
        settings = spot(
            exchange.url.replace("127.0.0.1", "localhost"),
            rest_url=rest_url, proxy=f"{scheme}://{USER}:{PASSWORD}@127.0.0.1:{proxy.port}",
        )  # fmt: skip
        taker, rest = Taker(settings), BinanceRest(settings, SPOT)
        try:
            async with taker.running(["BTCUSDT"]):
                await until(lambda: taker.ids)
            assert await rest.server_time_ms() == 1_760_000_000_000
        finally:
            await rest.close()
        host = "127.0.0.1" if scheme == "socks5" else "localhost"  # socks5h and HTTP leave the name to the proxy
        assert proxy.reached[0] == f"{host}:{exchange.port}"
        assert proxy.reached[-1] == rest_url.removeprefix("http://")
        assert len(proxy.reached) == 2


@pytest.mark.parametrize(
    ("scheme", "problem"),
    [("http", "password"), ("http", "refuses"), ("http", "down"), ("socks5", "password"), ("socks5", "down")],
)
async def test_a_proxy_that_fails_is_named_without_its_secrets(
    scheme: str, problem: str, caplog: pytest.LogCaptureFixture
) -> None:
    proxying = http_proxy if scheme == "http" else socks_proxy
    caplog.set_level(logging.INFO)
    async with proxying() as proxy:
        proxy.refuses = problem == "refuses"
        password = "wr0ng-word" if problem == "password" else PASSWORD
        address = f"127.0.0.1:{closed_port() if problem == 'down' else proxy.port}"
        settings = spot(
            "ws://127.0.0.1:1", rest_url="https://127.0.0.1:1", proxy=f"{scheme}://{USER}:{password}@{address}"
        )
        taker, rest = Taker(settings), BinanceRest(settings, SPOT)
        async with taker.running(["BTCUSDT"]):
            await until(lambda: taker.feed.error)
        try:
            with pytest.raises(ExchangeError, match="cannot be reached") as raised:
                await rest.server_time_ms()
        finally:
            await rest.close()
    assert not isinstance(raised.value, RegionBlockedError), "the proxy's 403 is not the exchange's"
    for said in (taker.feed.error, str(raised.value)):
        assert f"cannot be reached through the proxy {scheme}://{address}" in said
        assert "the proxy (binance_spot.proxy or the environment's)" in said
    for secret in (password, PLAIN_PASSWORD, USER + ":"):
        assert secret not in f"{taker.feed.error} {raised.value} {caplog.text}"


async def test_without_a_setting_the_environment_names_the_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    async with Exchange().running() as exchange, answering(200) as rest_url, http_proxy() as proxy:
        monkeypatch.setenv("http_proxy", f"http://{USER}:{PASSWORD}@127.0.0.1:{proxy.port}")
        monkeypatch.delenv("no_proxy", raising=False)
        settings = spot(exchange.url, rest_url=rest_url)
        taker, rest = Taker(settings), BinanceRest(settings, SPOT)
        try:
            async with taker.running(["BTCUSDT"]):
                await until(lambda: taker.ids)
            await rest.server_time_ms()
            assert len(proxy.reached) == 2
            monkeypatch.setenv("no_proxy", "127.0.0.1")
            await rest.server_time_ms()
            assert len(proxy.reached) == 2
        finally:
            await rest.close()


@pytest.mark.parametrize("proxy", ["proxy.local:3128", "ftp://proxy:1", "http://proxy", "http://u:s3cret@[bad:1"])
def test_what_is_no_proxy_is_refused_without_saying_it(proxy: str) -> None:
    with pytest.raises(SettingsError, match=r"binance_spot\.proxy") as raised:
        Endpoint(BinanceSpotSettings(proxy=proxy), SPOT, "rest_url")
    assert "s3cret" not in str(raised.value)


def test_secrets_of_a_proxy_are_hidden_however_they_are_written() -> None:
    proxy = "http://user:p%40ss@proxy:3128"
    assert shown(proxy) == "http://proxy:3128"
    said = hide("http://user:p%40ss@proxy:3128 failed for user:p%40ss with p@ss", proxy)
    assert said == "http://***@proxy:3128 failed for *** with ***"
    assert hide("nothing to hide", "http://proxy:3128") == hide("nothing to hide", None) == "nothing to hide"


def test_statuses_are_told_apart() -> None:
    kinds = {status: classify_status(status).kind for status in (400, 403, 404, 418, 429, 451, 500, 503)}
    assert kinds == {
        400: Kind.REFUSED, 403: Kind.BLOCKED, 404: Kind.REFUSED, 418: Kind.LIMITED, 429: Kind.LIMITED,
        451: Kind.BLOCKED, 500: Kind.FAULT, 503: Kind.FAULT,
    }  # fmt: skip
    assert classify_status(429, retry_after="7").retry_after_s == 7
    assert classify_status(418, retry_after="soon").retry_after_s == 60
