"""Faults of the simulated exchange: their schedule, and how clients meet each of them."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

import aiohttp
import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from raven.errors import InputError
from raven.sources.simulated import FUTURES, SPOT, ExchangeOptions, GeneratedMarket, RecordedMarket, SimulatedExchange
from raven.sources.simulated.fault_kinds import KINDS, MOST_KINDS, Target
from raven.sources.simulated.faults import Fault, generated_faults, given_faults, parse_fault
from raven.sources.simulated.limits import AttemptLimit, WeightLimit
from raven.sources.simulated.venue import Venue
from tests.unit.simulated_clients import START_US, Rest, ask, client, made, running, take

SYMBOLS = ["BTCUSDT", "ETHUSDT"]


def market(rate: float = 200) -> GeneratedMarket:
    return GeneratedMarket(SYMBOLS, trades_per_second=rate)


def options(*specs: str, **other: Any) -> ExchangeOptions:
    return ExchangeOptions(faults=given_faults(specs), **other)


async def happened(rest: Rest, count: int) -> list[str]:
    """Wait until so many faults have happened; their kinds."""
    async with asyncio.timeout(20):
        while True:
            (report,) = await rest.get("/simulated/faults")
            if len(report["happened"]) >= count:
                return [entry["kind"] for entry in report["happened"]]
            await asyncio.sleep(0.02)


async def ids_until(ws: ClientConnection, last: int) -> list[int]:
    """The ids of `trade` frames up to the id `last`; frames that hold no JSON count as -1."""
    ids: list[int] = []
    async with asyncio.timeout(20):
        while not ids or ids[-1] < last:
            text = await ws.recv()
            try:
                ids.append(json.loads(text)["t"])
            except json.JSONDecodeError:
                ids.append(-1)
    return ids


# --- the schedule ------------------------------------------------------------------------------------------------


def test_faults_can_be_written_exactly():
    assert parse_fault("drop@12.5") == Fault(12.5, "drop")
    assert parse_fault("stall@30:1500ms,cut") == Fault(30, "stall", seconds=1.5, way="cut")
    assert parse_fault("skip@5:10,BTCUSDT") == Fault(5, "skip", count=10, symbol="BTCUSDT")
    assert parse_fault("slow@5:2s,7") == Fault(5, "slow", seconds=2, count=7)
    assert parse_fault("halt@1:币安人生USDT").symbol == "币安人生USDT"
    assert [fault.at_s for fault in given_faults(["drop@3", "drop@1"])] == [1, 3]


@pytest.mark.parametrize(
    "spec",
    [
        "",
        "drop",
        "drop@",
        "drop@-1",
        "boom@3",
        "stall@3:2x",
        "skip@3:0",
        "drop@3:5",
        "halt@3",
        "list@1:5s",
        "429@1:cut",
    ],
)
def test_what_is_no_fault_is_refused(spec: str):
    with pytest.raises(InputError) as raised:
        parse_fault(spec)
    assert raised.value.hint


def test_a_generated_schedule_depends_on_its_seed_alone_and_holds_every_kind():
    schedule = generated_faults(20, seed=7, span_s=300)
    assert schedule == generated_faults(20, seed=7, span_s=300)
    assert schedule != generated_faults(20, seed=8, span_s=300)
    assert {fault.kind for fault in schedule} == set(MOST_KINDS)
    times = [fault.at_s for fault in schedule]
    assert times == sorted(times)
    assert 0 < times[0] < times[-1] < 300
    assert len({fault.share for fault in schedule}) == 20
    with pytest.raises(InputError, match="halt"):
        generated_faults(3, kinds=["drop", "halt"])
    with pytest.raises(InputError):
        generated_faults(0)


def test_a_fault_of_an_unknown_symbol_is_refused():
    exchange = SimulatedExchange(market(), port=0, options=options("halt@1:NOSUCHUSDT"))
    with pytest.raises(InputError, match="NOSUCHUSDT"):
        asyncio.run(exchange.start())


# --- frames ------------------------------------------------------------------------------------------------------


def played(kind: str, count: int, **changes: Any) -> ExchangeOptions:
    return ExchangeOptions(faults=[Fault(0.0, kind, count=count, **changes)])


@pytest.mark.parametrize("kind", ["skip", "repeat", "reorder", "garble"])
async def test_frames_are_damaged_on_one_connection_and_whole_on_the_other_and_in_rest(kind: str):
    count, total = 7, 3_000
    async with (
        running(RecordedMarket(made("BTCUSDT", total), rate=1_500), options=played(kind, count)) as (exchange, rest),
        client(exchange, "/ws/btcusdt@trade") as one,
        client(exchange, "/ws/btcusdt@trade") as other,
    ):
        got = await asyncio.gather(ids_until(one, total), ids_until(other, total))
        assert await happened(rest, 1) == [kind]
        hurt = min(got, key=lambda ids: ids == list(range(ids[0], total + 1)))
        whole = got[1 - got.index(hurt)]
        assert whole == list(range(whole[0], total + 1))
        real = [number for number in hurt if number > 0]
        expected = list(range(real[0], total + 1))
        if kind == "skip":
            assert 0 < total - real[0] + 1 - len(real) <= count
        elif kind == "repeat":
            assert len(real) == total - real[0] + 1 + count
            assert sorted(set(real)) == expected
        elif kind == "reorder":
            assert sum(a > b for a, b in pairwise(real)) == count
            assert sorted(real) == list(range(min(real), total + 1))
        else:
            assert hurt.count(-1) == count
        rows = await rest.get("/api/v3/historicalTrades", symbol="BTCUSDT", fromId=1, limit=1_000)
        assert [row["id"] for row in rows] == list(range(1, 1_001))


@pytest.mark.parametrize("venue", [SPOT, FUTURES], ids=lambda venue: venue.name)
async def test_lies_join_the_frames_of_one_connection(venue: Venue):
    faults = [Fault(0.0, "leap", count=2**63), Fault(0.4, "future", seconds=7_200), Fault(0.8, "strange", count=3)]
    market = RecordedMarket(made("BTCUSDT", 2_000), rate=1_500)
    kind, name = ("trade", "t") if venue is SPOT else ("aggTrade", "a")
    exchange = SimulatedExchange(market, port=0, options=ExchangeOptions(faults=faults), venue=venue)
    await exchange.start()
    try:
        root = "/market" if venue is FUTURES else ""
        async with connect(f"{exchange.ws_url}{root}/ws/btcusdt@{kind}") as socket:
            frames = [json.loads(await socket.recv()) for _ in range(2_000 + 5)]
    finally:
        await exchange.stop()
    times = {frame[name]: frame["T"] for frame in frames}  # of the two with one id, the later
    leaping = [place for place, frame in enumerate(frames) if frame[name] == 2**63 - 1]
    ahead = [place for place, frame in enumerate(frames) if frame["T"] == times[frame[name]] + 7_200_000]
    strange = [frame for frame in frames if frame["s"] != "BTCUSDT"]
    assert (len(leaping), len(ahead), len(strange)) == (1, 1, 3)
    assert frames[ahead[0]][name] == frames[ahead[0] + 1][name], "the true one comes after it"
    assert frames[leaping[0]]["T"] == frames[leaping[0] - 1]["T"]
    assert len({frame["s"] for frame in strange}) == 3
    assert all(frame["s"].startswith("../") for frame in strange)
    assert ["\n" in frame["s"] and "\x1b" in frame["s"] for frame in strange] == [False, True, False]
    true = [
        frame[name] for place, frame in enumerate(frames) if place not in {*leaping, *ahead} and frame not in strange
    ]
    assert true == list(range(true[0], true[0] + 2_000))


async def test_damage_can_be_of_one_symbol():
    async with (
        running(market(), options=played("skip", 50, symbol="ETHUSDT")) as (exchange, rest),
        client(exchange, "/ws/btcusdt@trade"),
        client(exchange, "/ws/btcusdt@trade/ethusdt@trade") as ws,
    ):
        assert await happened(rest, 1) == ["skip"]
        seen: dict[str, list[int]] = {symbol: [] for symbol in SYMBOLS}
        while len(seen["ETHUSDT"]) < 10:
            (frame,) = await take(ws, 1)
            seen[frame["s"]].append(frame["t"])
        assert seen["BTCUSDT"] == list(range(seen["BTCUSDT"][0], seen["BTCUSDT"][-1] + 1))


async def test_garbled_frames_of_any_script_are_text_and_no_json():
    symbol = "币安人生USDT"
    async with (
        running(RecordedMarket(made(symbol, 200), rate=1_000), options=played("garble", 20)) as (exchange, _),
        client(exchange, "/stream?streams=" + symbol.lower() + "@trade") as ws,
    ):
        texts = [await asyncio.wait_for(ws.recv(), 10) for _ in range(200)]
    assert all(isinstance(text, str) for text in texts)
    assert sum(_is_json(text) for text in texts) == 180


def _is_json(text: Any) -> bool:
    try:
        json.loads(text)
    except json.JSONDecodeError:
        return False
    return True


# --- connections -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("way", "code"), [("", 1006), ("close", 1001)])
async def test_a_drop_ends_one_connection(way: str, code: int):
    spec = f"drop@0.3:{way}"
    async with (
        running(market(), options=options(spec)) as (exchange, rest),
        client(exchange, "/ws/btcusdt@trade") as one,
        client(exchange, "/ws/btcusdt@trade") as two,
    ):
        assert await happened(rest, 1) == ["drop"]
        ends = await asyncio.gather(read_to_the_end(one), read_to_the_end(two))
        assert sorted(ends, key=str) == sorted([code, None], key=str)


async def read_to_the_end(ws: ClientConnection, patience_s: float = 1.0) -> int | None:
    """The close code as a client sees it; None when the connection stays."""
    try:
        async with asyncio.timeout(patience_s):
            while True:
                await ws.recv()
    except ConnectionClosed as closed:
        return closed.rcvd.code if closed.rcvd is not None else 1006
    except TimeoutError:
        return None


async def test_a_stalled_connection_is_silent_and_then_goes_on_without_loss():
    async with (
        running(market(), options=options("stall@0.3:1s", ping_interval_s=0.4)) as (exchange, rest),
        client(exchange, "/ws/btcusdt@trade") as ws,
    ):
        frames, gaps, last = [], [], time.monotonic()
        while len(frames) < 500:
            frames += await take(ws, 1)
            gaps.append(time.monotonic() - last)
            last = time.monotonic()
        assert max(gaps) > 0.7
        ids = [frame["t"] for frame in frames]
        assert ids == list(range(ids[0], ids[0] + 500))
        assert await happened(rest, 1) == ["stall"]


async def test_what_a_client_asks_during_a_stall_is_answered_after_it():
    async with (
        running(market(), options=options("stall@0.2:1s")) as (exchange, rest),
        client(exchange, "/ws/btcusdt@trade") as ws,
    ):
        assert await happened(rest, 1) == ["stall"]
        asked = time.monotonic()
        pong = await ws.ping()
        assert (await ask(ws, "LIST_SUBSCRIPTIONS"))[-1]["result"] == ["btcusdt@trade"]
        await asyncio.wait_for(pong, 10)
        assert time.monotonic() - asked > 0.5


async def test_a_stalled_connection_can_be_cut():
    async with (
        running(market(), options=options("stall@0.2:300ms,cut")) as (exchange, _),
        client(exchange, "/ws/btcusdt@trade") as ws,
    ):
        assert await read_to_the_end(ws, 10) == 1006


@pytest.mark.parametrize("path", ["/ws/btcusdt@trade", "/stream?streams=btcusdt@trade"])
async def test_a_shutdown_is_announced_before_the_connection_closes(path: str):
    async with (
        running(market(), options=options("shutdown@0.2:500ms")) as (exchange, rest),
        client(exchange, path) as ws,
    ):
        frame: dict[str, Any] = {}
        while "serverShutdown" not in (frame.get("e"), frame.get("data", {}).get("e")):
            (frame,) = await take(ws, 1)
        assert frame.get("stream", "!serverShutdown") == "!serverShutdown"
        data = frame.get("data", frame)
        assert set(data) == {"e", "E"}
        assert abs(data["E"] / 1e3 - time.time()) < 5
        assert await take(ws, 1), "trades go on until it closes"
        assert await read_to_the_end(ws, 10) == 1001
        assert await happened(rest, 1) == ["shutdown"]


async def test_a_fault_waits_for_its_victim():
    async with running(market(), options=options("drop@0", "skip@0:1")) as (exchange, rest):
        await asyncio.sleep(0.2)
        (report,) = await rest.get("/simulated/faults")
        assert (report["happened"], report["to_come"]) == ([], 2)
        async with client(exchange, "/ws/btcusdt@trade") as ws:
            await read_to_the_end(ws, 10)
        async with client(exchange, "/ws/btcusdt@trade"):
            assert sorted(await happened(rest, 2)) == ["drop", "skip"]


# --- REST --------------------------------------------------------------------------------------------------------


async def answers(rest: Rest, count: int) -> Sequence[int]:
    statuses = []
    for _ in range(count):
        await rest.get("/api/v3/time")
        statuses.append(rest.status)
    return statuses


@pytest.mark.parametrize("status", [429, 418])
async def test_requests_are_refused_for_a_while(status: int):
    async with running(market(), options=options(f"{status}@0:1s")) as (_, rest):
        async with asyncio.timeout(10):
            while (await rest.get("/api/v3/time")).get("code") != -1003:
                pass
        assert rest.status == status
        assert rest.headers["Retry-After"] == "1"
        assert int(rest.headers["X-MBX-USED-WEIGHT-1M"]) > 0
        await asyncio.sleep(1.1)
        assert await answers(rest, 2) == [200, 200]
        assert await happened(rest, 1) == [str(status)]


async def test_a_refusal_may_say_that_it_is_for_ever():
    async with running(market(), options=options("429@0:1s,forever")) as (_, rest):
        async with asyncio.timeout(10):
            while (await rest.get("/api/v3/time")).get("code") != -1003:
                pass
        assert int(rest.headers["Retry-After"]) > 10**9
        await asyncio.sleep(1.1)
        assert await answers(rest, 2) == [200, 200]


async def test_requests_fail_and_are_slow():
    async with running(market(), options=options("500@0:2", "slow@0:400ms,1")) as (_, rest):
        await asyncio.sleep(0.1)
        began = time.monotonic()
        assert await answers(rest, 3) == [500, 500, 200]
        assert time.monotonic() - began > 0.4
        assert sorted(await happened(rest, 2)) == ["500", "slow"]


async def test_a_blocked_region():
    async with running(market(), options=options("451@0:1s")) as (exchange, rest):
        await asyncio.sleep(0.1)
        assert await answers(rest, 1) == [451]
        with pytest.raises(InvalidStatus) as refused:
            await client(exchange, "/ws/btcusdt@trade")
        assert refused.value.response.status_code == 451
        await asyncio.sleep(1.1)
        assert await answers(rest, 1) == [200]
        async with client(exchange, "/ws/btcusdt@trade") as ws:
            await take(ws, 1)


# --- symbols -----------------------------------------------------------------------------------------------------


async def statuses(rest: Rest) -> dict[str, str]:
    return {entry["symbol"]: entry["status"] for entry in (await rest.get("/api/v3/exchangeInfo"))["symbols"]}


async def test_a_halted_symbol_goes_on_with_the_next_id():
    async with (
        running(market(), options=options("halt@0.5:700ms,ETHUSDT")) as (exchange, rest),
        client(exchange, "/ws/btcusdt@trade/ethusdt@trade") as ws,
    ):
        assert await happened(rest, 1) == ["halt"]
        assert await statuses(rest) == {"BTCUSDT": "TRADING", "ETHUSDT": "BREAK"}
        last_id = await rest.last_id("ETHUSDT")
        seen: dict[str, list[int]] = {symbol: [] for symbol in SYMBOLS}
        while not seen["ETHUSDT"] or seen["ETHUSDT"][-1] < last_id + 20:
            (frame,) = await take(ws, 1)
            seen[frame["s"]].append(frame["t"])
        for ids in seen.values():
            assert ids == list(range(ids[0], ids[0] + len(ids)))
        assert await statuses(rest) == {"BTCUSDT": "TRADING", "ETHUSDT": "TRADING"}
        rows = await rest.get("/api/v3/historicalTrades", symbol="ETHUSDT", fromId=last_id - 5, limit=20)
        assert [row["id"] for row in rows] == list(range(last_id - 5, last_id + 15))
        jump_ms = rows[6]["time"] - rows[5]["time"]
        assert jump_ms > 400
        after = await rest.get("/api/v3/aggTrades", symbol="ETHUSDT", startTime=rows[5]["time"] + 1, limit=1)
        assert after[0]["a"] <= last_id + 1


async def test_a_delisted_symbol_is_gone_and_a_listed_one_begins():
    faults = options("delist@0.3:ETHUSDT", "list@0.3:NEWUSDT")
    new = GeneratedMarket([*SYMBOLS, "NEWUSDT"], trades_per_second=100)
    async with running(new, options=faults) as (exchange, rest):
        assert await statuses(rest) == {"BTCUSDT": "TRADING", "ETHUSDT": "TRADING"}
        assert (await rest.get("/api/v3/trades", symbol="NEWUSDT"))["code"] == -1121
        async with client(exchange, "/ws/newusdt@trade") as ws:
            frames = await take(ws, 20)
            assert [frame["t"] for frame in frames] == list(range(1, 21))
            assert list(await statuses(rest)) == ["BTCUSDT", "NEWUSDT"]
            assert (await rest.get("/api/v3/trades", symbol="ETHUSDT"))["code"] == -1121
            await ask(ws, "SUBSCRIBE", ["ethusdt@trade"])
            assert {frame["s"] for frame in await take(ws, 50)} == {"NEWUSDT"}
        rows = await rest.get("/api/v3/historicalTrades", symbol="NEWUSDT", fromId=0, limit=20)
        assert [(row["id"], row["price"]) for row in rows] == [(frame["t"], frame["p"]) for frame in frames]
        (bar,) = await rest.get("/api/v3/klines", symbol="NEWUSDT", interval="1d")
        assert bar[8] >= 20


async def test_a_symbol_can_be_halted_from_the_beginning_on_both_venues():
    asked = ExchangeOptions(not_trading=["ETHUSDT"])
    async with running(market(), options=asked, beside=[(FUTURES, market())]) as (exchange, rest):
        assert (await statuses(rest))["ETHUSDT"] == "BREAK"
        info = await rest.get("/fapi/v1/exchangeInfo")
        assert info["symbols"][1]["status"] == "SETTLING"
        history = await rest.get("/api/v3/trades", symbol="ETHUSDT", limit=3)
        async with client(exchange, "/ws/btcusdt@trade/ethusdt@trade") as ws:
            assert {frame["s"] for frame in await take(ws, 100)} == {"BTCUSDT"}
        assert await rest.get("/api/v3/trades", symbol="ETHUSDT", limit=3) == history


# --- limits ------------------------------------------------------------------------------------------------------


def test_weight_is_counted_by_the_minute_and_ignoring_a_refusal_is_banned():
    limit = WeightLimit(100)
    start = 1_800_000_000 // 60 * 60
    assert [limit.admit(40, start + second) is None for second in (1, 2)] == [True, True]
    refusal = limit.admit(40, start + 20)
    assert refusal is not None
    assert (refusal.status, refusal.retry_after_s) == (429, 40)
    assert limit.admit(40, start + 60) is None
    assert limit.used == 40
    limit.admit(80, start + 61)
    answers = [limit.admit(1, start + 62) for _ in range(6)]
    assert [answer.status for answer in answers if answer] == [429] * 5 + [418]
    assert answers[-1] is not None
    assert answers[-1].retry_after_s == 120
    assert limit.admit(1, start + 181) is not None
    assert limit.admit(1, start + 183) is None


async def test_the_weight_limit_over_http():
    async with running(market(), options=ExchangeOptions(weight_limit=60)) as (_, rest):
        assert (await rest.get("/api/v3/exchangeInfo"))["rateLimits"][0]["limit"] == 60
        async with asyncio.timeout(10):
            while rest.status == 200:
                await rest.get("/api/v3/exchangeInfo")
        assert rest.status == 429
        assert 1 <= int(rest.headers["Retry-After"]) <= 60


def test_connection_attempts_are_limited():
    limit = AttemptLimit(3)
    assert [limit.admit(second) for second in (0, 1, 2, 3, 299, 300, 300.5, 301)] == [
        True, True, True, False, False, True, False, True
    ]  # fmt: skip


async def test_more_connection_attempts_are_refused():
    venue = replace(SPOT, max_attempts_per_5min=2)
    async with running(market(), venue=venue) as (exchange, _):
        for _ in range(2):
            async with client(exchange, "/ws/btcusdt@trade"):
                pass
        with pytest.raises(InvalidStatus) as refused:
            await client(exchange, "/ws/btcusdt@trade")
        assert refused.value.response.status_code == 429
        assert refused.value.response.headers["Retry-After"] == "300"


# --- all of them -------------------------------------------------------------------------------------------------


async def test_twenty_faults_of_all_kinds_happen_and_rest_has_every_trade():
    schedule = generated_faults(20, seed=3, span_s=4)
    schedule = [fault if fault.seconds < 0.3 else Fault(fault.at_s, fault.kind, 0.3, fault.count) for fault in schedule]
    async with running(market(), options=ExchangeOptions(faults=schedule)) as (exchange, rest):

        async def keep_reading() -> None:
            while True:
                try:
                    async with client(exchange, "/ws/btcusdt@trade") as ws:
                        while True:
                            await ws.recv()
                except (ConnectionClosed, OSError):
                    pass

        async def keep_asking() -> None:
            async with aiohttp.ClientSession() as session:
                other = Rest(session, exchange.rest_url)
                while True:
                    await other.get("/api/v3/time")
                    await asyncio.sleep(0.02)

        busy = [asyncio.create_task(keep_reading()) for _ in range(3)] + [asyncio.create_task(keep_asking())]
        kinds = await happened(rest, 20)
        for task in busy:
            task.cancel()
        await asyncio.gather(*busy, return_exceptions=True)
        assert sorted(kinds) == sorted(fault.kind for fault in schedule)
        assert {KINDS[kind].target for kind in kinds} == {Target.CONNECTION, Target.FRAMES, Target.REST}


async def test_a_play_that_waits_for_its_reader_counts_its_faults_from_then_on():
    waiting = GeneratedMarket(["BTCUSDT"], start_us=START_US, trades_per_second=100)
    async with running(waiting, options=options("drop@0.2")) as (exchange, rest):
        await asyncio.sleep(0.4)
        async with client(exchange, "/ws/btcusdt@trade") as ws:
            assert await take(ws, 5)
            assert await read_to_the_end(ws, 10) == 1006
        (report,) = await rest.get("/simulated/faults")
        assert report["happened"][0]["victim"] == "connection 1"
