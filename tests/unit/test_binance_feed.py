"""Connections against real WebSocket servers on loopback: spreading, rates, overlap, loss, refusal, flow control."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import replace
from http import HTTPStatus

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raven.settings import BinanceFuturesSettings
from raven.sources.binance import connection
from raven.sources.binance.feed import spread
from raven.sources.binance.messages import ControlReply
from raven.sources.binance.protocol import FUTURES, SPOT
from tests.unit.exchanges import Exchange, Taker, spot, until

SYMBOLS = [f"S{number:04d}USDT" for number in range(2_500)]


@given(
    st.integers(1, 5),
    st.lists(st.tuples(st.booleans(), st.sets(st.integers(0, 30))), max_size=20),
)
def test_symbols_stay_where_they_are_and_no_lane_is_too_full_or_needless(
    most: int, steps: list[tuple[bool, set[int]]]
) -> None:
    lanes: dict[int, set[str]] = {}
    for is_wanted, numbers in steps:
        names = {f"S{number}" for number in numbers}
        if not is_wanted:
            lanes = {number: rest for number, lane in lanes.items() if (rest := lane - names)}
            continue
        after = spread(lanes, names, most)
        assert all(lane <= after[number] for number, lane in lanes.items())
        assert set().union(*after.values()) == set().union(names, *lanes.values())
        assert sum(map(len, after.values())) == len(set().union(*after.values()))
        assert all(0 < len(lane) <= most for lane in after.values())
        needed = -(-sum(map(len, after.values())) // most)
        assert len(after) == max(len(lanes), needed)
        lanes = after


def test_many_symbols_are_spread_evenly() -> None:
    assert {len(lane) for lane in spread({}, SYMBOLS, 256).values()} == {250}


async def test_thousands_of_symbols_take_several_connections_and_a_drop_disturbs_its_own_alone() -> None:
    async with Exchange().running() as exchange:
        exchange.trading = False
        taker = Taker(spot(exchange.url))
        async with taker.running(SYMBOLS):
            await until(lambda: len(taker.feed.acknowledged) == 2_500)
            assert [len(streams) for streams in exchange.streams()] == [250] * 10
            assert set().union(*exchange.streams()) == {f"{symbol.lower()}@trade" for symbol in SYMBOLS}
            links = taker.feed.links()
            assert [link.name for link in links] == ["exchange", *[f"exchange-{number}" for number in range(2, 11)]]
            assert all(link.connected and link.target == exchange.url for link in links)
            assert taker.feed.connections_opened == 1

            dropped = exchange.clients[3]
            others = [client for client in exchange.clients if client is not dropped]
            await exchange.drop(dropped)
            await until(lambda: len(taker.feed.acknowledged) < 2_500)
            assert len(taker.feed.acknowledged) == 2_250
            assert sum(not link.connected for link in taker.feed.links()) == 1
            assert "closed the connection" in taker.feed.error
            await until(lambda: len(taker.feed.acknowledged) == 2_500)
            assert taker.feed.error == ""
            assert taker.feed.connections_opened == 2
            assert exchange.clients[:9] == others, "the other nine were left alone"
            assert exchange.clients[9].streams == dropped.streams

            taker.feed.leave(SYMBOLS[100:])
            await until(lambda: sum(map(len, exchange.streams())) == 100)
            taker.feed.leave(SYMBOLS)
            await until(lambda: not exchange.clients)
            assert not taker.feed.connected
            assert [link.name for link in taker.feed.links()] == ["exchange"]


async def test_a_connection_that_carries_nothing_more_is_closed_and_opened_again_when_needed() -> None:
    async with Exchange().running() as exchange:
        taker = Taker(spot(exchange.url, streams_per_connection=1))
        async with taker.running(["AUSDT", "BUSDT"]):
            await until(lambda: taker.feed.acknowledged == {"AUSDT", "BUSDT"})
            taker.feed.leave(["AUSDT"])
            await until(lambda: exchange.streams() == [{"busdt@trade"}])
            taker.feed.want(["CUSDT"])
            await until(lambda: taker.feed.acknowledged == {"BUSDT", "CUSDT"})
            assert [link.name for link in taker.feed.links()] == ["exchange", "exchange-2"]
            await until(lambda: len(taker.ids.get("CUSDT", [])) > 10)
            assert not taker.missing("BUSDT"), "what others join or leave does not touch it"
            assert taker.feed.connections_opened == 1


@pytest.mark.slow
async def test_control_messages_keep_to_the_rate_and_leave_room_for_pongs() -> None:
    async with Exchange().running() as exchange:
        exchange.trading = False
        taker = Taker(spot(exchange.url, streams_per_connection=1024))
        async with taker.running(SYMBOLS[:1_000]):
            for first in range(1_000, 1_010):
                taker.feed.want([SYMBOLS[first]])
                await until(lambda first=first: SYMBOLS[first] in taker.feed.acknowledged)
            times = exchange.clients[0].message_times
            assert len(times) == 15, "200 streams a message, then one for each symbol that joined"
            for begin, end in zip(times, times[SPOT.max_messages_per_s - 1 :], strict=False):
                assert end - begin > 1.0, "at most three or four a second, and the exchange takes five"


@pytest.mark.parametrize("bare_errors", [False, True])
@pytest.mark.slow
async def test_refused_streams_do_not_take_the_others_with_them(
    bare_errors: bool, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(connection, "REFUSED_RETRY_S", 0.5)
    async with Exchange().running() as exchange:
        exchange.refused, exchange.bare_errors = {"s0003usdt@trade", "s0017usdt@trade"}, bare_errors
        taker = Taker(spot(exchange.url))
        async with taker.running(SYMBOLS[:20]):
            await until(lambda: len(taker.feed.acknowledged) == 18 and len(taker.feed.refused) == 2, 30)
            assert set(taker.feed.refused) == {"S0003USDT", "S0017USDT"}
            assert "no such stream" in taker.feed.refused["S0003USDT"]
            assert taker.feed.connected
            exchange.refused = {"s0017usdt@trade"}
            await until(lambda: "S0003USDT" in taker.feed.acknowledged)
            assert set(taker.feed.refused) == {"S0017USDT"}
            taker.feed.leave(["S0017USDT"])
            await until(lambda: not taker.feed.refused)
        assert caplog.text.count("refuses the stream") == 2, "no other stream was refused, and each was told of once"
        assert taker.telemetry.totals.get("reconnects", 0) == 0


async def test_a_request_without_an_answer_breaks_the_connection_and_foreign_answers_are_none() -> None:
    async with Exchange().running() as exchange:
        exchange.acknowledge_after_s = 3
        taker = Taker(spot(exchange.url, connect_timeout_s=0.5))
        async with taker.running(["BTCUSDT"]):
            await until(lambda: exchange.clients and exchange.clients[0].message_times)
            taker.feed.answered(ControlReply("result", 1), 99)
            taker.feed.answered(ControlReply("result", 77), 1)
            await until(lambda: taker.feed.error)
            assert "did not answer a control message in 0.5 s" in taker.feed.error
            assert taker.feed.acknowledged == set()
            exchange.acknowledge_after_s = 0
            await until(lambda: taker.feed.acknowledged == {"BTCUSDT"})


@pytest.mark.slow
async def test_a_connection_is_replaced_before_its_end_and_nothing_is_missed() -> None:
    async with Exchange().running() as exchange:
        exchange.acknowledge_after_s = 1.4  # longer than both deliver after it
        taker = Taker(spot(exchange.url, connection_max_age_s=2.0, streams_per_connection=2))
        async with taker.running(["AUSDT", "BUSDT", "CUSDT"]):
            await until(lambda: taker.telemetry.totals.get("replaced_connections", 0) >= 4, 40)
            assert taker.feed.acknowledged == {"AUSDT", "BUSDT", "CUSDT"}
            assert taker.feed.connected
        for symbol in ("AUSDT", "BUSDT", "CUSDT"):
            assert not taker.missing(symbol)
            assert len(taker.ids[symbol]) > len(set(taker.ids[symbol])), "both delivered for a while"
        assert taker.feed.connections_opened == 1
        assert taker.telemetry.totals.get("reconnects", 0) == 0
        assert len(exchange.seen) >= 6


async def test_connections_that_are_shut_down_together_are_replaced_one_after_the_other() -> None:
    async with Exchange().running() as exchange:
        exchange.trading = False
        taker = Taker(spot(exchange.url, streams_per_connection=1))
        async with taker.running(SYMBOLS[:8]):
            await until(lambda: len(taker.feed.acknowledged) == 8)
            old, first = list(exchange.clients), len(exchange.handshakes)
            exchange.trading = True
            await until(lambda: len(taker.ids) == 8)
            await exchange.shut_down(old)
            await until(lambda: len(exchange.seen) == 16 and not set(old) & set(exchange.clients))
            begun = exchange.handshakes[first:]
            for begin, end in zip(begun, begun[2:], strict=False):
                assert end - begin > 0.5, "two a second"
            assert taker.feed.connections_opened == 1
        assert not any(taker.missing(symbol) for symbol in SYMBOLS[:8])
        assert exchange.most_open < 16


async def test_the_old_connection_stays_while_no_other_can_be_opened() -> None:
    async with Exchange().running() as exchange:
        taker = Taker(spot(exchange.url, connection_max_age_s=0.5))
        async with taker.running(["BTCUSDT"]):
            await until(lambda: taker.ids)
            exchange.status = HTTPStatus.SERVICE_UNAVAILABLE
            await until(lambda: len(exchange.handshakes) >= 3)
            assert len(exchange.clients) == 1
            assert taker.feed.connected
            assert taker.feed.error == ""
            assert taker.feed.acknowledged == {"BTCUSDT"}
            await exchange.drop(exchange.clients[0])  # now it is lost, before there is another
            await until(lambda: taker.feed.error)
            assert not taker.feed.connected
            last_id = max(taker.ids["BTCUSDT"])
            exchange.status = None
            await until(lambda: taker.feed.acknowledged == {"BTCUSDT"}, 40)
            assert taker.feed.connections_opened == 2
            await until(lambda: max(taker.ids["BTCUSDT"]) > last_id)
        assert taker.missing("BTCUSDT")


async def test_a_silent_connection_is_opened_anew_only_when_trades_are_missing() -> None:
    asked: list[Sequence[str]] = []
    is_missing = False

    async def is_behind(symbols: Sequence[str]) -> bool:
        asked.append(symbols)
        return is_missing and list(symbols) == ["AUSDT"]

    async with Exchange().running() as exchange:
        exchange.trading = False
        taker = Taker(spot(exchange.url, stale_s=0.4, streams_per_connection=1), is_behind=is_behind)
        async with taker.running(["AUSDT", "BUSDT"]):
            await until(lambda: len(asked) >= 4)
            assert len(exchange.seen) == 2
            is_missing = True
            await until(lambda: len(exchange.seen) == 3)
            is_missing = False
            assert exchange.seen[0] not in exchange.clients or exchange.seen[1] not in exchange.clients
            await until(lambda: taker.feed.acknowledged == {"AUSDT", "BUSDT"})
            assert exchange.seen[2].streams == {"ausdt@trade"}


async def test_what_nobody_foresaw_ends_the_feed_instead_of_going_round() -> None:
    async def is_behind(_: Sequence[str]) -> bool:
        raise RuntimeError("a bug")

    async with Exchange().running() as exchange:
        exchange.trading = False
        taker = Taker(spot(exchange.url, stale_s=0.4), is_behind=is_behind)
        taker.feed.want(["BTCUSDT"])
        drain = asyncio.ensure_future(taker.take())
        try:
            with pytest.raises(ExceptionGroup) as raised:
                await asyncio.wait_for(taker.feed.run(), 10)
        finally:
            drain.cancel()
            await asyncio.gather(drain, return_exceptions=True)
        assert raised.group_contains(RuntimeError, match="a bug")
        assert len(exchange.handshakes) == 1


async def test_receivers_of_all_connections_pause_while_too_much_is_pending(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "MAX_PENDING_FRAMES", 300)
    monkeypatch.setattr(connection, "YIELD_EVERY_FRAMES", 10)
    async with Exchange().running() as exchange:
        taker = Taker(spot(exchange.url, streams_per_connection=1))
        async with taker.running(["AUSDT", "BUSDT"]):
            await until(lambda: len(taker.ids) == 2)
            taker.paused = True
            await until(lambda: taker.frames.rows >= 300)
            before = exchange.last_id
            await until(lambda: exchange.last_id > before + 100)
            assert taker.frames.rows <= 330
            taker.paused = False
            await until(lambda: min(max(ids) for ids in taker.ids.values()) > before + 200)
        assert not taker.missing("AUSDT")
        assert not taker.missing("BUSDT")


async def test_attempts_are_limited_over_all_connections(caplog: pytest.LogCaptureFixture) -> None:
    async with Exchange().running() as exchange:
        exchange.status = HTTPStatus.SERVICE_UNAVAILABLE
        taker = Taker(spot(exchange.url, streams_per_connection=1), replace(SPOT, max_attempts_per_5min=5))
        with caplog.at_level(logging.WARNING):
            async with taker.running(SYMBOLS[:8]):
                await until(lambda: "4 connections were tried in 5 minutes" in caplog.text)
                await asyncio.sleep(1.5)  # nothing more may come
                assert len(exchange.handshakes) == 4
                assert "answers 503" in taker.feed.error
        assert caplog.text.count("answers 503") == 1, "said once, not by every connection"


async def test_a_lost_connection_is_tried_again_with_growing_pauses() -> None:
    async with Exchange().running() as exchange:
        exchange.status = HTTPStatus.SERVICE_UNAVAILABLE
        taker = Taker(spot(exchange.url))
        async with taker.running(["BTCUSDT"]):
            await until(lambda: len(exchange.handshakes) == 4)
            pauses = [end - begin for begin, end in zip(exchange.handshakes, exchange.handshakes[1:], strict=False)]
            assert min(pauses) > 0.9


async def test_the_exchange_says_when_to_come_again() -> None:
    async with Exchange().running() as exchange:
        exchange.status, exchange.headers = HTTPStatus.TOO_MANY_REQUESTS, {"Retry-After": "3"}
        taker = Taker(spot(exchange.url))
        async with taker.running(["BTCUSDT"]):
            await until(lambda: len(exchange.handshakes) == 1)
            exchange.status = None
            await until(lambda: taker.feed.connected)
            assert exchange.handshakes[1] - exchange.handshakes[0] > 2.9


async def test_futures_streams_are_asked_for_at_their_path() -> None:
    async with Exchange().running() as exchange:
        taker = Taker(BinanceFuturesSettings(websocket_url=f"{exchange.url}/market"), FUTURES)
        async with taker.running(["BTCUSDT"]):
            await until(lambda: taker.ids)
            assert exchange.paths == ["/market/stream"]
            assert exchange.streams() == [{"btcusdt@aggTrade"}]
