"""Symbols: checked with the nearest names, matched by patterns, watched over halts, delistings and new listings."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Mapping
from pathlib import Path

import polars as pl
import pytest
import zstandard
from websockets.asyncio.server import ServerConnection

from raven.errors import ExchangeError
from raven.rpc.pb import control_pb2
from raven.settings import BinanceSettings
from raven.sources.binance.protocol import FUTURES, SPOT, VenueProtocol
from raven.sources.binance.rest import BinanceRest
from raven.sources.binance.symbols import DELISTED, SymbolList, nearest, read_states
from raven.sources.simulated import FUTURES as SIMULATED_FUTURES
from raven.sources.simulated import GeneratedMarket, SimulatedExchange
from raven.sources.simulated.faults import given_faults
from raven.sources.simulated.served import ExchangeOptions
from tests.unit.collecting import NOWHERE, begin, collecting, recorded, rows_of, serving, total, until

HAN = "币安人生USDT"

TOLD = ("symbol_state", "symbol_trades")


def listed(path: Path) -> bytes:
    """The list of symbols in a recorded session of cryptofeed."""
    with zstandard.open(path, "rt") as lines:
        for line in lines:
            entry = json.loads(line)
            if entry["t"] == "http" and entry["url"].endswith("exchangeInfo"):
                return str(entry["data"]).encode()
    raise AssertionError(path)


def known(states: Mapping[str, str], protocol: VenueProtocol = SPOT) -> SymbolList:
    settings = BinanceSettings(websocket_url="ws://127.0.0.1:1", rest_url=NOWHERE, connect_timeout_s=1)
    symbols = SymbolList(BinanceRest(settings, protocol), protocol)
    symbols.states = dict(states)
    return symbols


def test_recorded_lists_are_read(shared_data: Path) -> None:
    spot = read_states(listed(shared_data / "cryptofeed_BINANCE.jsonl.zst"))
    assert (len(spot), spot["BTCUSDT"], sum(state == "BREAK" for state in spot.values())) == (1_695, "TRADING", 433)
    futures = read_states(listed(shared_data / "cryptofeed_BINANCE_FUTURES.jsonl.zst"))
    assert sum(state == "TRADING" for state in futures.values()) == 121
    assert futures["BTCUSDT_210924"] == "TRADING"
    assert "PENDING_TRADING" in futures.values()
    states = read_states((shared_data / "rest_futures_market_exchange_info.json").read_bytes())
    assert states["BTCUSDT_220325"] == "TRADING"


def test_a_contract_that_is_delivered_does_not_trade_like_others() -> None:
    body = {"symbols": [{"symbol": "FTTUSDT", "status": "TRADING", "contractType": "PERPETUAL_DELIVERING"}]}
    assert read_states(json.dumps(body).encode()) == {"FTTUSDT": "PERPETUAL_DELIVERING"}


@pytest.mark.parametrize("body", [b"<html>", b"[]", b'{"symbols":[{"name":"BTCUSDT"}]}'])
def test_what_is_no_list_is_an_error(body: bytes) -> None:
    with pytest.raises(ExchangeError, match="list of symbols"):
        read_states(body)


@pytest.mark.parametrize(
    ("asked", "first"),
    [
        ("BTCUSTD", "BTCUSDT"),
        ("btcusdt", "BTCUSDT"),
        ("BTC/USDT", "BTCUSDT"),
        ("BTC-USDT-PERP", "BTCUSDT"),
        ("BTCUSDT.P", "BTCUSDT"),
        ("BTCUSDT_220325", "BTCUSDT"),
        ("币安USDT", HAN),
    ],
)
def test_the_nearest_names(asked: str, first: str) -> None:
    assert nearest(asked, {"BTCUSDT", "ETHUSDT", "BTCUSDC", HAN})[0] == first


def test_why_there_is_no_such_symbol() -> None:
    symbols = known({"BTCUSDT": "TRADING", "OLDUSDT": "BREAK"})
    assert symbols.why_not("BTCUSDT") == symbols.why_not("OLDUSDT") == ""
    assert symbols.why_not("BTCUSTD").startswith("BTCUSTD is not a symbol of BINANCE_SPOT; did you mean BTCUSDT")
    assert symbols.why_not("XYZ") == "XYZ is not a symbol of BINANCE_SPOT"
    other = symbols.why_not("BTCUSDT_220325")
    assert other.endswith("did you mean BTCUSDT? BINANCE_FUTURES has contracts of such names")
    assert "BINANCE_SPOT" not in known({"BTCUSDT": "TRADING"}, FUTURES).why_not("BTCUSDT_220325")


@pytest.mark.parametrize(
    ("pattern", "matching"),
    [
        ("*USDT", ["BTCUSDT", "ETHUSDT", HAN]),
        ("?TC*C", ["BTCUSDC"]),
        ("btcusd?", ["BTCUSDC", "BTCUSDT"]),
        ("BTCUSDT_*", ["BTCUSDT_220325"]),
        ("币安*", [HAN]),
        ("BTC[A-Z]*", []),
        ("BTC", []),
        ("*", ["BTCUSDC", "BTCUSDT", "BTCUSDT_220325", "ETHUSDT", HAN]),
    ],
)
async def test_patterns_match_what_trades(pattern: str, matching: list[str]) -> None:
    names = ("BTCUSDT", "ETHUSDT", "BTCUSDC", "BTCUSDT_220325", HAN)
    symbols = known({**dict.fromkeys(names, "TRADING"), "LUNAUSDT": "BREAK", "GONEUSDT": DELISTED})
    assert await symbols.matching(pattern) == matching


def told(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if getattr(record, "raven_event", "") in TOLD]


@pytest.mark.parametrize("protocol", [SPOT, FUTURES], ids=lambda protocol: protocol.venue)
async def test_a_halt_and_a_delisting_are_shown_told_once_and_harm_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, protocol: VenueProtocol
) -> None:
    caplog.set_level(logging.INFO)
    market = GeneratedMarket(["BTCUSDT", HAN, "NEWUSDT"], trades_per_second=100.0)
    faults = given_faults([f"halt@0.3:600ms,{HAN}", f"delist@1.8:{HAN}", "list@1.2:NEWUSDT"])
    venue = {"venue": SIMULATED_FUTURES} if protocol is FUTURES else {}
    exchange = SimulatedExchange(market, port=0, options=ExchangeOptions(faults=faults), **venue)
    await exchange.start()
    url = exchange.ws_url + ("/market" if protocol is FUTURES else "")
    new: list[str] = []
    try:
        async with collecting(tmp_path, url, exchange.rest_url, protocol=protocol, symbols_poll_s=0.05) as source:

            async def follow() -> None:
                new[:] = await source.matching("NEW*")

            source.on_symbols = follow
            begin(source, "BTCUSDT")
            begin(source, HAN)
            facts = source.facts.of(protocol.venue, HAN)
            await until(lambda: "does not trade now" in facts.message)
            shown = source.facts.subscription(protocol.venue, HAN, connected=True, wanted_by=[])
            assert shown.state == control_pb2.SYMBOL_STATE_NOT_TRADING
            await until(lambda: facts.message == "")
            assert facts.is_trading
            assert "币安人生USDT trades again" in told(caplog)
            await until(lambda: new == ["NEWUSDT"])
            await until(lambda: facts.message.endswith("says DELISTED"))
            await asyncio.sleep(0.2)
            assert len(told(caplog)) == 3
            assert await source.check([HAN]) == {}
            assert await source.matching("*USDT") == ["BTCUSDT", "NEWUSDT"]
            rows = rows_of(source)
            await until(lambda: rows_of(source) > rows + 20)
        async with collecting(tmp_path, url, exchange.rest_url, protocol=protocol) as source:  # after a restart
            source.want({HAN: None, "BTCUSDT": None})
            assert await source.check([HAN, "BTCUSDT"]) == {}
            assert source.facts.of(protocol.venue, HAN).message.endswith("says DELISTED")
            await until(lambda: rows_of(source) > 20)
            assert source.problems() == []
    finally:
        await exchange.stop()
    trades, _ = recorded(tmp_path, protocol.venue)
    assert trades.filter(pl.col("symbol") == HAN).height > 20


async def test_a_symbol_in_a_break_is_accepted_and_a_misspelt_one_refused(tmp_path: Path) -> None:
    market = GeneratedMarket(["BTCUSDT", "LUNAUSDT"])
    exchange = SimulatedExchange(market, port=0, options=ExchangeOptions(not_trading=["LUNAUSDT"]))
    await exchange.start()
    try:
        async with collecting(tmp_path, exchange.ws_url, exchange.rest_url) as source:
            refused = await source.check(["LUNAUSDT", "BTCUSDT", "LUNAUSTD"])
            assert list(refused) == ["LUNAUSTD"]
            source.want({"LUNAUSDT": None})
            assert "says BREAK" in source.facts.of("BINANCE_SPOT", "LUNAUSDT").message
            await until(lambda: "LUNAUSDT" in source.acknowledged)
    finally:
        await exchange.stop()


async def test_when_the_venue_cannot_be_asked_nothing_is_refused_and_no_pattern_matches(tmp_path: Path) -> None:
    async with collecting(tmp_path, "ws://127.0.0.1:1") as source:
        assert await source.check(["NEVERUSDT"]) == {}
        with pytest.raises(ExchangeError):
            await source.matching("*USDT")


async def test_the_clock_is_compared_and_a_large_difference_told_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    hour_us = 3_600_000_000
    market = GeneratedMarket(["BTCUSDT"], start_us=1_767_225_600_000_000 + hour_us)
    exchange = SimulatedExchange(market, port=0)
    await exchange.start()
    try:
        async with collecting(tmp_path, exchange.ws_url, exchange.rest_url, symbols_poll_s=0.05) as source:
            await until(lambda: total(source, "clock_offset_ms") != 0)
            await asyncio.sleep(0.3)
            assert abs(total(source, "clock_offset_ms")) > 1_000
    finally:
        await exchange.stop()
    assert caplog.text.count("the clock of BINANCE_SPOT is") == 1


async def test_names_in_any_script_reach_the_dead_letters_and_come_back(tmp_path: Path) -> None:
    async def script(socket: ServerConnection) -> None:
        frame = {"stream": f"{HAN.lower()}@trade", "data": {"e": "trade", "s": HAN}}
        await socket.send(json.dumps(frame, ensure_ascii=False))
        await socket.wait_closed()

    async with serving(script) as url, collecting(tmp_path, url) as source:
        begin(source, HAN)
        await until(lambda: total(source, "dead_frames") == 1)
    assert HAN in json.loads((tmp_path / "dead_letters.jsonl").read_text())["frame"]
