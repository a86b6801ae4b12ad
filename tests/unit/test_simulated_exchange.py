"""The simulated exchange as real clients meet it, over loopback."""

from __future__ import annotations

import asyncio
import json
import socket
import time
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import quote

import aiohttp
import polars as pl
import pytest
from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed, InvalidStatus

from raven.errors import InputError
from raven.sources.recordings import read_trades
from raven.sources.simulated import (
    ExchangeOptions,
    GeneratedMarket,
    RecordedMarket,
    SimulatedExchange,
    connection,
    klines,
)
from raven.sources.simulated.venue import SPOT
from tests.unit.simulated_clients import (
    START_US,
    ask,
    client,
    made,
    running,
    socket_that_never_reads,
    take,
    take_until,
)

ARCHIVE_ROWS = 5_000


@pytest.fixture(scope="module")
def archive(shared_data: Path) -> pl.DataFrame:
    trades = read_trades(shared_data / "BTCUSDT-trades-2019-04-01_00h-12h.zip")
    return trades.sort("trade_id").head(ARCHIVE_ROWS)


# --- streams -----------------------------------------------------------------------------------------------------


async def test_the_archive_at_full_speed_arrives_whole_and_in_order(archive):
    async with running(RecordedMarket(archive, speed=None)) as (exchange, rest):
        async with client(exchange, "/ws/btcusdt@trade") as ws:
            frames = await take(ws, ARCHIVE_ROWS)
            await exchange.finished()
            assert (await ask(ws, "LIST_SUBSCRIPTIONS"))[-1]["result"] == ["btcusdt@trade"]
        assert [frame["t"] for frame in frames] == archive["trade_id"].to_list()
        assert [float(frame["p"]) for frame in frames] == archive["price"].to_list()
        assert [float(frame["q"]) for frame in frames] == archive["quantity"].to_list()
        assert [frame["m"] for frame in frames] == (archive["side"] == -1).to_list()
        assert [frame["T"] for frame in frames] == archive["ts_event"].dt.timestamp("ms").to_list()
        assert list(frames[0]) == ["e", "E", "s", "t", "p", "q", "T", "m", "M"]
        history: list[Any] = []
        while len(history) < ARCHIVE_ROWS:
            from_id = history[-1]["id"] + 1 if history else 1
            history += await rest.get("/api/v3/historicalTrades", symbol="BTCUSDT", fromId=from_id, limit=1000)
        fields = {"id": "t", "price": "p", "qty": "q", "time": "T", "isBuyerMaker": "m", "isBestMatch": "M"}
        assert [{fields[k]: v for k, v in row.items() if k in fields} for row in history] == [
            {name: frame[name] for name in fields.values()} for frame in frames
        ]


async def test_both_paths_both_units_and_both_kinds():
    async with running(GeneratedMarket(["BTCUSDT", "ETHUSDT"], trades_per_second=300)) as (exchange, _):
        async with client(exchange, "/stream?streams=btcusdt@trade/ethusdt@aggTrade&timeUnit=MICROSECOND") as ws:
            frames = await take_until(ws, "stream", {"btcusdt@trade", "ethusdt@aggTrade"})
            for frame in frames:
                symbol, kind = frame["stream"].split("@")
                data = frame["data"]
                assert (data["e"], data["s"]) == (kind, symbol.upper())
                assert data["T"] > 10**15
                assert abs(data["T"] / 1e6 - time.time()) < 5
                if kind == "aggTrade":
                    assert data["a"] == data["f"] == data["l"]
        async with client(exchange, "/ws/btcusdt@trade/ethusdt@trade") as ws:
            frames = await take_until(ws, "s", {"BTCUSDT", "ETHUSDT"})
            assert all(10**12 < frame["T"] < 10**13 for frame in frames)


async def test_control_messages():
    async with running(GeneratedMarket(["BTCUSDT", "ETHUSDT"], trades_per_second=300)) as (exchange, _):
        async with client(exchange, "/ws") as ws:
            assert await ask(ws, "SUBSCRIBE", ["btcusdt@trade", "nosuchusdt@trade"]) == [{"result": None, "id": 1}]
            frames = await take(ws, 20)
            assert {frame["s"] for frame in frames} == {"BTCUSDT"}
            assert (await ask(ws, "LIST_SUBSCRIPTIONS"))[-1]["result"] == ["btcusdt@trade", "nosuchusdt@trade"]
            await ask(ws, "UNSUBSCRIBE", ["btcusdt@trade"])
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(ws.recv(), 0.1)
            await asyncio.sleep(1.0)  # five messages a second are the most
            assert (await ask(ws, "GET_PROPERTY", ["combined"]))[-1]["result"] is False
            assert (await ask(ws, "SET_PROPERTY", ["combined", True]))[-1]["result"] is None
            await ask(ws, "SUBSCRIBE", ["ethusdt@trade"])
            assert (await take(ws, 1))[0]["stream"] == "ethusdt@trade"
        async with client(exchange, "/stream") as ws:
            assert (await ask(ws, "GET_PROPERTY", ["combined"]))[-1]["result"] is True
            await ask(ws, "SUBSCRIBE", ["btcusdt@trade"])
            assert (await take(ws, 1))[0]["stream"] == "btcusdt@trade"


async def test_a_second_client_gets_the_same_from_its_subscription_on():
    total = 30_000
    async with (
        running(RecordedMarket(made("BTCUSDT", total), speed=None)) as (exchange, _),
        client(exchange, "/ws/btcusdt@trade") as one,
        client(exchange, "/ws") as two,
    ):
        begin = await take(one, 100)
        ack, first = await take_subscribed(two)
        assert ack == {"result": None, "id": 9}
        left = total - first["t"]
        rest_of_one, rest_of_two = await asyncio.gather(take(one, total - 100), take(two, left))
        assert [frame["t"] for frame in begin + rest_of_one] == list(range(1, total + 1))
        assert left > 0
        assert [first, *rest_of_two] == (begin + rest_of_one)[-left - 1 :]


async def take_subscribed(ws: ClientConnection) -> list[Any]:
    await ws.send('{"method":"SUBSCRIBE","params":["btcusdt@trade"],"id":9}')
    return await take(ws, 2)


async def test_the_play_waits_for_readers_and_goes_on_where_it_was():
    async with running(RecordedMarket(made("BTCUSDT", 200_000), speed=None)) as (exchange, rest):
        assert await rest.last_id() == 0
        await asyncio.sleep(0.1)
        assert await rest.get("/api/v3/klines", symbol="BTCUSDT", interval="1m") == []
        async with client(exchange, "/ws/btcusdt@trade") as ws:
            await take(ws, 500)
            seen = await ask(ws, "UNSUBSCRIBE", ["btcusdt@trade"])
            # all that was played was sent, and nothing else is to be seen over REST
            last = seen[-2]["t"]
            assert await rest.last_id() == last
            await asyncio.sleep(0.1)
            assert await rest.last_id() == last
            assert await rest.get("/api/v3/historicalTrades", symbol="BTCUSDT", fromId=last + 1) == []
        async with client(exchange, "/ws/btcusdt@trade") as ws:
            assert (await take(ws, 1))[0]["t"] == last + 1
        # the client left in the middle: what it did not read is played, and REST has it
        await asyncio.sleep(0.1)
        played = await rest.last_id()
        lost = await rest.get("/api/v3/historicalTrades", symbol="BTCUSDT", fromId=last + 2, limit=10)
        assert [row["id"] for row in lost] == list(range(last + 2, last + 12))
        async with client(exchange, "/ws/btcusdt@trade") as ws:
            assert (await take(ws, 1))[0]["t"] == played + 1


@pytest.mark.slow
async def test_at_full_speed_the_slowest_reader_paces_the_play():
    async with (
        running(GeneratedMarket(["BTCUSDT"], speed=None, start_us=START_US)) as (exchange, rest),
        client(exchange, "/ws/btcusdt@trade", max_queue=4) as slow,
        client(exchange, "/ws/btcusdt@trade") as fast,
    ):

        async def read_on() -> None:
            while True:
                await fast.recv()

        reading = asyncio.create_task(read_on())
        halted = await rest.last_id()
        for _ in range(100):
            await asyncio.sleep(0.1)
            before, halted = halted, await rest.last_id()
            if before == halted:
                break
        assert before == halted
        await take(slow, 60_000)
        assert await rest.last_id() > halted
        reading.cancel()


async def test_a_rate_is_kept_and_the_clock_goes_on_without_readers():
    async with running(RecordedMarket(made("BTCUSDT", 100_000), rate=2_000)) as (exchange, rest):
        await asyncio.sleep(0.05)
        assert await rest.last_id() == 0
        began = time.perf_counter()  # before the clock of the market starts, which connecting does
        async with client(exchange, "/ws/btcusdt@trade") as ws:
            await take(ws, 1_000)
            assert 0.45 < time.perf_counter() - began < 60
        left = await rest.last_id()
        await asyncio.sleep(0.2)
        assert await rest.last_id() >= left + 300


async def test_frames_can_be_stamped_with_the_time_they_are_sent():
    for market in (
        RecordedMarket(made("BTCUSDT", 1_000), rate=5_000),
        GeneratedMarket(["BTCUSDT"], trades_per_second=200),
    ):
        async with (
            running(market, options=ExchangeOptions(now_times=True)) as (exchange, _),
            client(exchange, "/ws/btcusdt@trade?timeUnit=MICROSECOND") as ws,
        ):
            for _ in range(50):
                (frame,) = await take(ws, 1)
                assert frame["E"] == frame["T"]
                assert 0 <= time.time() - frame["T"] / 1e6 < 1


async def test_a_restarted_generated_market_goes_on_and_rest_has_what_was_missed():
    ids: list[int] = []
    for _ in range(2):
        async with running(GeneratedMarket(["BTCUSDT"], seed=8, trades_per_second=200)) as (exchange, rest):
            async with client(exchange, "/ws/btcusdt@trade") as ws:
                frames = await take(ws, 30)
            while ids and ids[-1] + 1 < frames[0]["t"]:
                missed = await rest.get("/api/v3/historicalTrades", symbol="BTCUSDT", fromId=ids[-1] + 1, limit=1000)
                ids += [row["id"] for row in missed if row["id"] < frames[0]["t"]]
            ids += [frame["t"] for frame in frames]
    assert ids == list(range(ids[0], ids[0] + len(ids)))


async def test_symbols_of_any_script():
    symbol = "币安人生USDT"
    async with running(RecordedMarket(made(symbol, 10), speed=None)) as (exchange, rest):
        async with client(exchange, f"/stream?streams={quote(symbol.lower())}@trade") as ws:
            frame = (await take(ws, 10))[-1]
            assert frame["stream"] == f"{symbol.lower()}@trade"
            assert frame["data"]["s"] == symbol
        assert await rest.last_id(symbol) == 10
        assert (await rest.get("/api/v3/exchangeInfo", symbol=symbol))["symbols"][0]["baseAsset"] == "币安人生"


# --- limits and faults of clients --------------------------------------------------------------------------------


async def test_malformed_messages_are_refused_and_the_connection_stays():
    async with running(GeneratedMarket(["BTCUSDT"])) as (exchange, _), client(exchange, "/ws") as ws:
        await ws.send('{"method":')
        assert (await take(ws, 1))[0]["code"] == 3
        await ws.send('{"method":"SUBSCRIBE","id":4}')
        error = (await take(ws, 1))[0]
        assert (error["id"], error["error"]["code"]) == (4, 2)
        await ws.send(b"\x00")
        assert (await take(ws, 1))[0]["code"] == 3
        assert await ask(ws, "LIST_SUBSCRIPTIONS") == [{"result": [], "id": 1}]


async def test_more_than_five_messages_a_second_end_the_connection():
    async with running(GeneratedMarket(["BTCUSDT"])) as (exchange, _), client(exchange, "/ws") as ws:
        for number in range(6):
            await ws.send(json.dumps({"method": "LIST_SUBSCRIPTIONS", "id": number}))
        with pytest.raises(ConnectionClosed) as closed:
            await take(ws, 6)
        assert closed.value.rcvd is not None
        assert (closed.value.rcvd.code, closed.value.rcvd.reason) == (1008, "Too many requests")


async def test_more_than_1024_streams_are_refused():
    names = [f"s{number}usdt@trade" for number in range(1_025)]
    async with running(GeneratedMarket(["BTCUSDT"])) as (exchange, _):
        async with client(exchange, "/stream?streams=" + "/".join(names[:1_024])) as ws:
            refused = await ask(ws, "SUBSCRIBE", names[1_024:], number=5)
            assert refused == [{"error": {"code": 4, "msg": "Too many subscriptions"}, "id": 5}]
            assert len((await ask(ws, "LIST_SUBSCRIPTIONS"))[-1]["result"]) == 1_024
        with pytest.raises(InvalidStatus):
            await client(exchange, "/stream?streams=" + "/".join(names))


async def test_pings_carry_the_time_and_must_be_answered():
    venue = replace(SPOT, pong_timeout_s=0.1)
    options = ExchangeOptions(ping_interval_s=0.05)
    async with (
        running(GeneratedMarket(["BTCUSDT"]), options=options, venue=venue) as (exchange, _),
        aiohttp.ClientSession() as session,
        session.ws_connect(exchange.ws_url + "/ws", autoping=False) as ws,
    ):
        message = await ws.receive(timeout=5)
        assert message.type is aiohttp.WSMsgType.PING
        assert abs(int(message.data) / 1e3 - time.time()) < 5
        while message.type is aiohttp.WSMsgType.PING:
            message = await ws.receive(timeout=5)
        assert (message.type, message.data) == (aiohttp.WSMsgType.CLOSE, 1008)


@pytest.mark.slow
async def test_a_client_that_is_gone_no_longer_paces_the_play():
    venue = replace(SPOT, pong_timeout_s=3.0)  # longer than a reader on a busy machine takes
    options = ExchangeOptions(ping_interval_s=0.5)
    market = GeneratedMarket(["BTCUSDT"], speed=None, start_us=START_US)
    async with (
        running(market, options=options, venue=venue) as (exchange, _),
        client(exchange, "/ws/btcusdt@trade") as reader,
    ):
        with socket_that_never_reads(exchange, "/ws/btcusdt@trade"):
            await take(reader, 100_000)  # the dead client holds it up until its pong is overdue, and no longer


async def test_a_client_that_left_leaves_nothing_behind(monkeypatch):
    monkeypatch.setattr(connection, "_LINGER_S", 1.0)

    def read_to_the_end(raw: socket.socket) -> int:
        return sum(iter(lambda: len(raw.recv(1 << 16)), 0))

    async with running(GeneratedMarket(["BTCUSDT"], speed=None, start_us=START_US)) as (exchange, rest):
        before = await rest.last_id()
        with socket_that_never_reads(exchange, "/ws/btcusdt@trade") as raw:
            await asyncio.sleep(0.3)  # until nothing more can be sent to it
            raw.sendall(bytes([0x88, 0x80, 0, 0, 0, 0]))  # a masked close
            await asyncio.sleep(0.1)
            last = await rest.last_id()
            assert await asyncio.to_thread(read_to_the_end, raw) > (last - before) * 100
        await asyncio.sleep(1.1)
        assert await rest.last_id() == last


async def test_compression_is_not_granted():
    async with (
        running(GeneratedMarket(["BTCUSDT"])) as (exchange, _),
        client(exchange, "/ws/btcusdt@trade", compression="deflate") as ws,
    ):
        assert ws.protocol.extensions == []
        await take(ws, 1)


async def test_a_taken_port_is_told():
    async with running(GeneratedMarket(["BTCUSDT"])) as (exchange, _):
        port = int(exchange.ws_url.rsplit(":", 1)[1])
        with pytest.raises(InputError, match=str(port)):
            await SimulatedExchange(GeneratedMarket(["BTCUSDT"]), port=port).start()


# --- REST --------------------------------------------------------------------------------------------------------


async def test_exchange_information():
    async with running(GeneratedMarket(["BTCUSDT", "ETHUSDT", "ETHBTC"])) as (_, rest):
        assert await rest.get("/api/v3/ping") == {}
        assert await rest.weight("/api/v3/exchangeInfo", "/api/v3/time") == 20
        info = await rest.get("/api/v3/exchangeInfo")
        assert [entry["symbol"] for entry in info["symbols"]] == ["BTCUSDT", "ETHUSDT", "ETHBTC"]
        assert {entry["status"] for entry in info["symbols"]} == {"TRADING"}
        assert info["symbols"][2]["quoteAsset"] == "BTC"
        assert info["symbols"][0]["filters"][0]["tickSize"] == "0.01000000"
        chosen = await rest.get("/api/v3/exchangeInfo", symbols='["ETHBTC","BTCUSDT"]')
        assert [entry["symbol"] for entry in chosen["symbols"]] == ["ETHBTC", "BTCUSDT"]
        server_time = (await rest.get("/api/v3/time"))["serverTime"]
        assert abs(server_time / 1e3 - time.time()) < 5
        assert (await rest.get("/api/v3/time", micros=True))["serverTime"] > 10**15


@pytest.mark.parametrize(
    ("path", "params", "code"),
    [
        ("trades", {"symbol": "NOSUCH"}, -1121),
        ("trades", {}, -1102),
        ("trades", {"symbol": "btcusdt"}, -1100),
        ("trades", {"symbol": "BTCUSDT", "limit": "many"}, -1100),
        ("trades", {"symbol": "BTCUSDT", "limit": 0}, -1130),
        ("historicalTrades", {"symbol": "BTCUSDT", "fromId": -4}, -1100),
        ("aggTrades", {"symbol": "BTCUSDT", "fromId": 4, "startTime": 5}, -1128),
        ("klines", {"symbol": "BTCUSDT"}, -1102),
        ("klines", {"symbol": "BTCUSDT", "interval": "7m"}, -1120),
        ("klines", {"symbol": "BTCUSDT", "interval": "1M"}, -1127),
        ("exchangeInfo", {"symbol": "NOSUCH"}, -1121),
        ("exchangeInfo", {"symbols": '["BTCUSDT","NOSUCH"]'}, -1121),
        ("exchangeInfo", {"symbols": "BTCUSDT"}, -1100),
        ("exchangeInfo", {"symbols": '["BTCUSDT"]', "symbol": "BTCUSDT"}, -1128),
    ],
)
async def test_wrong_requests_get_the_exchanges_errors(path, params, code):
    async with running(GeneratedMarket(["BTCUSDT"])) as (_, rest):
        body = await rest.get(f"/api/v3/{path}", **params)
        assert (rest.status, body["code"]) == (400, code)
        assert body["msg"]
        assert int(rest.headers["X-MBX-USED-WEIGHT-1M"]) > 0


async def test_an_invalid_symbol_is_told_in_the_exchanges_words():
    async with running(GeneratedMarket(["BTCUSDT"])) as (_, rest):
        assert await rest.get("/api/v3/exchangeInfo", symbol="NOSUCH") == {"code": -1121, "msg": "Invalid symbol."}


async def test_history_of_a_generated_market_by_id_and_time():
    async with running(GeneratedMarket(["BTCUSDT"], seed=2)) as (_, rest):
        start_ms = START_US // 1_000
        minute = await rest.get(
            "/api/v3/aggTrades", symbol="BTCUSDT", startTime=start_ms, endTime=start_ms + 29_999, limit=1000
        )
        assert minute
        assert all(start_ms <= row["T"] < start_ms + 30_000 for row in minute)
        ids = [row["a"] for row in minute]
        assert ids == list(range(ids[0], ids[0] + len(ids)))
        same = await rest.get("/api/v3/historicalTrades", symbol="BTCUSDT", fromId=ids[0], limit=len(ids), micros=True)
        assert [(row["id"], row["price"], row["qty"], row["time"] // 1_000) for row in same] == [
            (row["a"], row["p"], row["q"], row["T"]) for row in minute
        ]
        klines_ = await rest.get(
            "/api/v3/klines", symbol="BTCUSDT", interval="1m", startTime=start_ms, endTime=start_ms + 240_000
        )
        assert [row[0] for row in klines_] == [start_ms + 60_000 * number for number in range(5)]
        assert {row[8] for row in klines_} == {1_200}
        assert klines_[0][1] == minute[0]["p"]
        latest = await rest.get("/api/v3/trades", symbol="BTCUSDT")
        assert len(latest) == 500
        assert 0 <= time.time() - latest[-1]["time"] / 1e3 < 5
        recent = await rest.get("/api/v3/klines", symbol="BTCUSDT", interval="5m", limit=2)
        after = await rest.get("/api/v3/trades", symbol="BTCUSDT", limit=1)
        assert [row[0] for row in recent] == [recent[1][0] - 300_000, recent[1][0]]
        assert recent[1][0] <= after[0]["time"]
        assert latest[-1]["time"] <= recent[1][6]


async def test_klines_are_of_the_trades_played_so_far_only(archive):
    async with running(RecordedMarket(archive, speed=None)) as (exchange, rest):
        async with client(exchange, "/ws/btcusdt@trade") as ws:
            await take(ws, 700)
            await ask(ws, "UNSUBSCRIBE", ["btcusdt@trade"])
        rows = await rest.get("/api/v3/klines", symbol="BTCUSDT", interval="1m", limit=1000)
        last_id = await rest.last_id()
        played = archive.filter(pl.col("trade_id") <= last_id)
        assert played.height >= 700
        assert sum(row[8] for row in rows) == played.height
        expected = klines.bars([RecordedMarket(played).trades("BTCUSDT", 0, 2**62)], "1m")
        by_open = {row[0]: row for row in rows}
        for bar in expected.with_columns(open_ms=pl.col("open_time").dt.timestamp("ms")).iter_rows(named=True):
            row = by_open[bar["open_ms"]]
            assert [float(row[place]) for place in range(1, 5)] == [
                bar[name] for name in ("open", "high", "low", "close")
            ]
            assert row[5] == str(bar["volume"])
            assert row[10] == str(bar["buy_quote_volume"])
        assert rows[-1][4] == f"{played['price'][-1]:.8f}"
        server_time = (await rest.get("/api/v3/time"))["serverTime"]
        assert server_time == played["ts_event"].dt.timestamp("ms")[-1]


async def test_stopping_closes_the_clients():
    exchange = SimulatedExchange(GeneratedMarket(["BTCUSDT"], trades_per_second=100), port=0)
    await exchange.start()
    async with client(exchange, "/ws/btcusdt@trade") as ws:
        await take(ws, 3)
        await exchange.stop()
        with pytest.raises(ConnectionClosed) as closed:
            await take(ws, 1_000)
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 1001
