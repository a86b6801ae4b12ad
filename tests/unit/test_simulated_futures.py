"""The futures of the simulated exchange: their paths, frames and REST, alone and beside spot."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from raven.sources.recordings import read_trades
from raven.sources.simulated import FUTURES, SPOT, GeneratedMarket, RecordedMarket
from tests.unit.simulated_clients import START_US, ask, client, made, running, take


def market(**options: object) -> GeneratedMarket:
    return GeneratedMarket(["BTCUSDT", "ETHUSDT"], trades_per_second=200, **options)


async def test_aggregate_trades_have_contiguous_ids_and_the_shape_of_2026(shared_data: Path):
    lines = (shared_data / "control_and_2026_frames.jsonl").read_text().splitlines()
    recorded = {
        entry["name"]: json.loads(entry["frame"]) for entry in map(json.loads, lines) if "%" not in entry["frame"]
    }
    async with running(market(), venue=FUTURES) as (exchange, _):
        for kind, stream, name in (("a", "aggTrade", "usdm aggTrade"), ("t", "trade", "usdm trade")):
            async with client(exchange, f"/market/stream?streams=btcusdt@{stream}") as ws:
                frames = await take(ws, 100)
            assert frames[0]["stream"] == f"btcusdt@{stream}"
            rows = [frame["data"] for frame in frames]
            assert {frozenset(row) for row in rows} == {frozenset(recorded[name]["data"])}
            assert [row[kind] for row in rows] == list(range(rows[0][kind], rows[0][kind] + 100))
            assert all(10**12 < row["T"] < 10**13 for row in rows)
        async with client(exchange, "/market/ws") as ws:
            assert await ask(ws, "SUBSCRIBE", ["ethusdt@aggTrade"]) == [{"result": None, "id": 1}]
            assert (await take(ws, 1))[0]["s"] == "ETHUSDT"


@pytest.mark.parametrize("root", ["", "/public"])
async def test_the_old_root_acknowledges_and_sends_nothing(root: str):
    async with (
        running(market(), venue=FUTURES) as (exchange, rest),
        client(exchange, f"{root}/stream?streams=btcusdt@aggTrade") as ws,
    ):
        assert await ask(ws, "SUBSCRIBE", ["ethusdt@aggTrade"]) == [{"result": None, "id": 1}]
        assert (await ask(ws, "LIST_SUBSCRIPTIONS"))[-1]["result"] == ["btcusdt@aggTrade", "ethusdt@aggTrade"]
        before = (await rest.get("/fapi/v1/aggTrades", symbol="BTCUSDT", limit=1))[0]["a"]
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(ws.recv(), 0.5)
        assert (await rest.get("/fapi/v1/aggTrades", symbol="BTCUSDT", limit=1))[0]["a"] > before


async def test_rest_has_what_the_streams_had():
    async with running(market(start_us=START_US), venue=FUTURES) as (exchange, rest):
        async with client(exchange, "/market/ws/btcusdt@aggTrade") as ws:
            frames = await take(ws, 300)
        rows = await rest.get("/fapi/v1/aggTrades", symbol="BTCUSDT", fromId=frames[0]["a"], limit=300)
        fields = ("a", "p", "q", "nq", "f", "l", "T", "m")
        assert [[row[name] for name in fields] for row in rows] == [[row[name] for name in fields] for row in frames]
        both = await rest.get("/fapi/v1/aggTrades", symbol="BTCUSDT", fromId=1, endTime=START_US // 1_000)
        assert (rest.status, both["code"]) == (400, -1128)
        bars = await rest.get("/fapi/v1/klines", symbol="BTCUSDT", interval="1m", limit=5)
        assert bars[-1][0] == START_US // 1_000
        assert len(await rest.get("/fapi/v1/historicalTrades", symbol="BTCUSDT", limit=1_000)) == 500
        assert len(await rest.get("/fapi/v1/trades", symbol="BTCUSDT")) == 500
        assert (await rest.get("/fapi/v1/time"))["serverTime"] < 10**13


@pytest.mark.slow
async def test_requests_weigh_what_they_weigh():
    async with running(market(), venue=FUTURES) as (_, rest):
        for path, params, weight in (
            ("ping", {}, 1),
            ("exchangeInfo", {}, 1),
            ("trades", {"symbol": "BTCUSDT"}, 5),
            ("historicalTrades", {"symbol": "BTCUSDT"}, 20),
            ("aggTrades", {"symbol": "BTCUSDT"}, 20),
            ("klines", {"symbol": "BTCUSDT", "interval": "1m", "limit": 99}, 1),
            ("klines", {"symbol": "BTCUSDT", "interval": "1m"}, 5),
            ("klines", {"symbol": "BTCUSDT", "interval": "1m", "limit": 1_500}, 10),
        ):
            assert await rest.weight(f"/fapi/v1/{path}", "/fapi/v1/time", **params) == weight, path


async def test_exchange_information_is_that_of_futures():
    async with running(market(), venue=FUTURES) as (_, rest):
        info = await rest.get("/fapi/v1/exchangeInfo")
        assert info["futuresType"] == "U_MARGINED"
        assert info["rateLimits"][0]["limit"] == 2_400
        first = info["symbols"][0]
        assert (first["symbol"], first["contractType"], first["status"]) == ("BTCUSDT", "PERPETUAL", "TRADING")
        assert (first["pricePrecision"], first["filters"][0]["tickSize"]) == (2, "0.01")


async def test_a_recording_plays_its_own_series(shared_data: Path):
    trades = read_trades(shared_data / "cryptofeed_BINANCE_FUTURES.jsonl.zst")
    symbols = trades.get_column("symbol").unique().to_list()
    streams = "/".join(f"{symbol.lower()}@aggTrade" for symbol in symbols)
    async with (
        running(RecordedMarket(trades, speed=None), venue=FUTURES) as (exchange, _),
        client(exchange, f"/market/ws/{streams}") as ws,
    ):
        frames = await take(ws, trades.height)
    for symbol in symbols:
        own = trades.filter(trades.get_column("symbol") == symbol).sort("trade_id")
        got = [(frame["a"], float(frame["p"]), float(frame["q"])) for frame in frames if frame["s"] == symbol]
        assert got == own.select("trade_id", "price", "quantity").rows()


async def test_both_venues_share_a_port():
    spot, futures = (RecordedMarket(made("BTCUSDT", 50, first_id=first), speed=None) for first in (1, 1_001))
    async with running(spot, venue=SPOT, beside=[(FUTURES, futures)]) as (exchange, rest):
        async with client(exchange, "/ws/btcusdt@trade") as ws:
            assert [frame["t"] for frame in await take(ws, 50)] == list(range(1, 51))
        async with client(exchange, "/market/ws/btcusdt@aggTrade") as ws:
            assert [frame["a"] for frame in await take(ws, 50)] == list(range(1_001, 1_051))
        await exchange.finished()
        assert (await rest.get("/api/v3/trades", symbol="BTCUSDT", limit=1))[0]["id"] == 50
        assert (await rest.get("/fapi/v1/aggTrades", symbol="BTCUSDT", limit=1))[0]["a"] == 1_050
