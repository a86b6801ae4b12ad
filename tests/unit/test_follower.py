"""A follower over real gRPC: joining while others stream, refusals, an upstream that comes and goes."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import polars as pl
import pytest

from raven.aggregators.aggregator import Aggregator
from raven.bars.time_bars import TimeBarKernel
from raven.batches.batch import BatchMeta, Cursor
from raven.batches.ipc import decode
from raven.batches.schema import TIME_BAR_SCHEMA, TRADE_SCHEMA, stream_schema, to_frame, to_record_batch
from raven.control.consumer_component import ConsumerComponent
from raven.control.handler import ControlService
from raven.control.wanted import WantedFile
from raven.errors import InputError
from raven.journal import Journal
from raven.rpc import follower as follower_module
from raven.rpc.access import Access
from raven.rpc.cursors import to_message
from raven.rpc.follower import Follower
from raven.rpc.hub import Hub
from raven.rpc.pb import control_pb2
from raven.rpc.server import Server
from raven.telemetry import Telemetry
from tests.unit.samples import trades
from tests.unit.test_rpc import Handler

TRADES = stream_schema(TRADE_SCHEMA, kind="trades", venue="BINANCE_SPOT")
BARS = stream_schema(TIME_BAR_SCHEMA, kind="time_bars", venue="")
OPEN = Access()


upstreams: list[SlowUpstream] = []


class SlowUpstream(Handler):
    """Answers a start late, with a session that began with the journal; `refuses` are not known to it."""

    def __init__(self, hub: Hub, *, answer_s: float = 0.0, refuses: frozenset[str] = frozenset()) -> None:
        self._hub = hub
        self.session_after = 0
        upstreams.append(self)
        self._answer_s = answer_s
        self._refuses = refuses

    async def start(self, request: control_pb2.StartRequest) -> control_pb2.StartResponse:
        await asyncio.sleep(self._answer_s)
        start = control_pb2.SymbolResult(state=control_pb2.SYMBOL_STATE_WAITING, message="no trade yet")
        start.session_start.CopyFrom(to_message(Cursor(self._hub.journal.id, self.session_after)))
        results = []
        for symbol in request.symbols:
            result = control_pb2.SymbolResult()
            result.CopyFrom(start)
            result.venue, result.symbol = request.venue or "BINANCE_SPOT", symbol
            if symbol in self._refuses:
                result.state, result.message = control_pb2.SYMBOL_STATE_REFUSED, f"{symbol} is not a symbol"
            results.append(result)
        return control_pb2.StartResponse(results=results)

    async def forget(self, consumer: str) -> bool:
        return self._hub.journal.forget(consumer)

    async def stop(self, request: control_pb2.StopRequest) -> control_pb2.StopResponse:
        end = to_message(self._hub.place)
        return control_pb2.StopResponse(
            results=[
                control_pb2.SymbolResult(venue=request.venue, symbol=symbol, session_end=end)
                for symbol in request.symbols
            ]
        )


@asynccontextmanager
async def chain(
    folder: Path, *, answer_s: float = 0.0, refuses: frozenset[str] = frozenset(),
    there: Access = OPEN, here: Access = OPEN, consumer_name: str = "",
) -> AsyncIterator[tuple[Hub, ControlService, Journal, Server]]:  # fmt: skip
    """An upstream of trades, and an aggregator of 1 s bars with its control."""
    with Journal.open(folder / "trades", TRADES) as upstream, Journal.open(folder / "bars", BARS) as downstream:
        hub, telemetry = Hub(upstream), Telemetry("test")
        server = Server("127.0.0.1", 0, SlowUpstream(hub, answer_s=answer_s, refuses=refuses), hub, access=there)
        await server.start()
        wanted = WantedFile(folder / "wanted.json")
        aggregator = Aggregator(
            [TimeBarKernel(1_000_000)], Hub(downstream), folder / "checkpoint.arrow",
            venues={"binance_spot": "BINANCE_SPOT"}, schema=BARS, telemetry=telemetry, joined=wanted.joined,
        )  # fmt: skip
        follower = Follower(
            "binance_spot", f"127.0.0.1:{server.port}", here, venue="BINANCE_SPOT", requester="bars-1",
            consumer_name=consumer_name, consumer=aggregator, telemetry=telemetry,
        )  # fmt: skip
        component = ConsumerComponent([follower], aggregator.facts, venues=["BINANCE_SPOT"])
        control = ControlService("bars", component, wanted, telemetry, hub=None, simulated=False)
        run = asyncio.ensure_future(follower.run())
        try:
            yield hub, control, downstream, server
        finally:
            run.cancel()
            await asyncio.gather(run, return_exceptions=True)
            await follower.close()
            await server.stop()


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(15):
        while not condition():
            await asyncio.sleep(0.01)


async def publish(hub: Hub, numbers: range) -> None:
    """Ten trades of both symbols a batch."""
    for number in numbers:
        rows = pl.concat([trades(range(10 * number, 10 * number + 10), symbol) for symbol in ("BTCUSDT", "ETHUSDT")])
        await hub.publish(to_record_batch(rows, TRADES), BatchMeta())
        await asyncio.sleep(0.005)


async def test_a_symbol_joins_while_others_stream_and_misses_nothing(tmp_path: Path) -> None:
    async with chain(tmp_path, answer_s=0.1) as (hub, control, bars, _):
        await control.start(control_pb2.StartRequest(symbols=["BTCUSDT"]))
        publishing = asyncio.ensure_future(publish(hub, range(80)))
        await asyncio.sleep(0.2)
        await control.start(control_pb2.StartRequest(symbols=["ETHUSDT"]))
        await publishing
        await until(lambda: all(entry.last_trade_id == 799 for entry in control.list().subscriptions))
    rows = pl.concat([to_frame(decode(entry.payload)[0]) for entry in bars.read()])
    last = rows.sort("revision").unique(["symbol", "open_time"], keep="last").sort("symbol", "open_time")
    for symbol in ("BTCUSDT", "ETHUSDT"):
        own = last.filter(pl.col("symbol") == symbol)
        assert own["first_trade_id"].to_list() == list(range(0, 796, 4))
        assert own["total_ticks"].to_list() == [4] * own.height
        assert own["complete"].to_list() == [False, *[True] * (own.height - 1)]


async def test_a_symbol_refused_at_once_is_not_wanted(tmp_path: Path) -> None:
    async with chain(tmp_path, refuses=frozenset({"BTCUSTD"})) as (_, control, _, _):
        answer = await control.start(control_pb2.StartRequest(symbols=["BTCUSTD"]))
        assert answer.results[0].state == control_pb2.SYMBOL_STATE_REFUSED
        assert answer.results[0].message == "BTCUSTD is not a symbol"
        assert not control.list().subscriptions
        assert control.status().healthy


async def test_a_symbol_refused_after_the_upstream_came_back_is_shown(tmp_path: Path) -> None:
    async with chain(tmp_path, refuses=frozenset({"BTCUSTD"})) as (hub, control, _, server):
        await server.stop()
        answer = await control.start(control_pb2.StartRequest(symbols=["BTCUSTD"]))
        assert answer.results[0].state == control_pb2.SYMBOL_STATE_CONNECTING
        again = Server(
            "127.0.0.1", server.port, SlowUpstream(hub, refuses=frozenset({"BTCUSTD"})), hub, access=Access()
        )
        await again.start()
        try:
            await until(lambda: control.list().subscriptions[0].state == control_pb2.SYMBOL_STATE_REFUSED)
            assert control.list().subscriptions[0].message == "BTCUSTD is not a symbol"
            assert control.status().problems == ["BTCUSTD of BINANCE_SPOT is refused: BTCUSTD is not a symbol"]
        finally:
            await again.stop()


async def test_an_upstream_that_may_be_starting_too_is_no_problem_yet(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with chain(tmp_path) as (hub, control, _, server):
        await server.stop()
        await control.start(control_pb2.StartRequest(symbols=["BTCUSDT"]))
        await until(lambda: "no service answers" in control.status().links[0].error)
        assert control.status().healthy
        again = Server("127.0.0.1", server.port, SlowUpstream(hub), hub, access=Access())
        await again.start()
        await until(lambda: control.status().links[0].connected)
        await again.stop()
        # it was there: now it is missed at once
        await until(lambda: not control.status().healthy)
        assert "binance_spot: no service answers" in control.status().problems[0]
    monkeypatch.setattr(follower_module, "START_S", 0.0)
    async with chain(tmp_path / "later") as (_, control, _, server):
        await server.stop()
        await control.start(control_pb2.StartRequest(symbols=["BTCUSDT"]))
        assert not control.status().healthy, "it had its time"


async def test_stop_all_keeps_what_a_consumer_wants_unless_forced_and_forget_ends_its_wishes(tmp_path: Path) -> None:
    async with chain(tmp_path) as (_, control, _, _):
        await control.start(control_pb2.StartRequest(symbols=["BTCUSDT"], requester="bar_persistence-1"))
        await control.start(control_pb2.StartRequest(symbols=["BTCUSDT", "ETHUSDT"]))
        kept = {result.symbol: result.state for result in (await control.stop_all(force=False)).results}
        assert kept == {"BTCUSDT": control_pb2.SYMBOL_STATE_KEPT, "ETHUSDT": control_pb2.SYMBOL_STATE_STOPPED}
        assert await control.forget("bar_persistence-1")
        assert not control.list().subscriptions
        assert not await control.forget("bar_persistence-1")
        await control.start(control_pb2.StartRequest(symbols=["BTCUSDT"], requester="bar_persistence-1"))
        await control.stop_all(force=True)
        assert not control.list().subscriptions


async def test_a_pattern_takes_every_symbol_it_matches_and_shows_each(tmp_path: Path) -> None:
    async with chain(tmp_path) as (hub, control, bars, _):
        started = asyncio.ensure_future(control.start(control_pb2.StartRequest(symbols=["*USDT"], wait_s=10)))
        await publish(hub, range(10))
        [result] = (await started).results
        streaming = control_pb2.SYMBOL_STATE_STREAMING
        assert (result.symbol, result.state, result.message) == ("*USDT", streaming, "2 symbols")
        await until(lambda: len(control.list().subscriptions) == 3)
        own, *matched = control.list().subscriptions
        assert (own.symbol, own.matches, own.message) == ("*USDT", 2, "2 symbols")
        assert [(entry.symbol, entry.pattern) for entry in matched] == [("BTCUSDT", "*USDT"), ("ETHUSDT", "*USDT")]
        kept = (await control.stop(control_pb2.StopRequest(symbols=["BTCUSDT"]))).results[0]
        assert (kept.state, kept.message) == (
            control_pb2.SYMBOL_STATE_KEPT,
            "collected by the pattern *USDT: stop that",
        )
        await control.stop(control_pb2.StopRequest(symbols=["*USDT"]))
        assert not control.list().subscriptions
        before = bars.last_sequence
        await publish(hub, range(10, 12))
        assert bars.last_sequence == before


async def test_stop_with_a_pattern_ends_the_symbols_it_matches(tmp_path: Path) -> None:
    async with chain(tmp_path) as (_, control, _, _):
        await control.start(control_pb2.StartRequest(symbols=["BTCUSDT", "ETHUSDT", "ETHBTC"]))
        answer = await control.stop(control_pb2.StopRequest(symbols=["ETH*"]))
        assert [result.symbol for result in answer.results] == ["ETHUSDT", "ETHBTC"]
        assert [entry.symbol for entry in control.list().subscriptions] == ["BTCUSDT"]


async def test_a_venue_the_service_has_not_is_refused(tmp_path: Path) -> None:
    async with chain(tmp_path) as (_, control, _, _):
        with pytest.raises(InputError, match=r"bars has no symbols of BINANCE_FUTURES.*BINANCE_SPOT"):
            await control.start(control_pb2.StartRequest(symbols=["BTCUSDT"], venue="BINANCE_FUTURES"))


@pytest.mark.parametrize("symbol", ["", "BTC USDT", "BTC\nUSDT", "BTC\x00"])
async def test_what_cannot_be_a_symbol_is_refused(tmp_path: Path, symbol: str) -> None:
    async with chain(tmp_path) as (_, control, _, _):
        with pytest.raises(InputError, match="symbol"):
            await control.start(control_pb2.StartRequest(symbols=[symbol]))


async def test_stop_takes_what_was_there_before_it_lets_go(tmp_path: Path) -> None:
    async with chain(tmp_path) as (hub, control, bars, _):
        await control.start(control_pb2.StartRequest(symbols=["BTCUSDT"]))
        await publish(hub, range(1))
        await until(lambda: control.list().subscriptions[0].rows == 10)
        for number in range(1, 40):  # faster than they are taken
            await hub.publish(to_record_batch(trades(range(10 * number, 10 * number + 10)), TRADES), BatchMeta())
        await control.stop(control_pb2.StopRequest(symbols=["BTCUSDT"]))
    rows = pl.concat([to_frame(decode(entry.payload)[0]) for entry in bars.read()])
    last = rows.sort("revision").unique("open_time", keep="last").sort("open_time")
    assert last["total_ticks"].sum() == 400
    assert last["last_trade_id"][-1] == 399


async def test_a_refused_token_is_logged_once_shown_and_healed_by_itself(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    ours, theirs = Access(token="ours"), Access(token="theirs")
    with caplog.at_level(logging.WARNING, logger="raven"):
        async with chain(tmp_path, there=theirs, here=ours) as (hub, control, _, server):
            answer = await control.start(control_pb2.StartRequest(symbols=["BTCUSDT"]))
            assert answer.results[0].state == control_pb2.SYMBOL_STATE_CONNECTING
            assert "the token is wrong" in answer.results[0].message
            await asyncio.sleep(2)  # several tries
            refused = [record.getMessage() for record in caplog.records]
            assert len(refused) == 1, refused
            assert f"127.0.0.1:{server.port} refuses the call: the token is wrong (set security.token" in refused[0]
            assert not control.status().healthy
            assert "the token is wrong" in control.status().links[0].error
            await server.stop()
            again = Server("127.0.0.1", server.port, SlowUpstream(hub), hub, access=ours)
            await again.start()
            try:
                await until(lambda: control.status().healthy)
                assert control.status().links[0].connected
                assert not control.status().links[0].error
            finally:
                await again.stop()
    assert "theirs" not in caplog.text


async def test_what_is_wanted_no_more_is_not_held_upstream(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(follower_module, "FREE_AFTER_S", 0.2)
    async with chain(tmp_path) as (hub, control, _, _):
        await control.start(control_pb2.StartRequest(symbols=["BTCUSDT"]))
        await publish(hub, range(3))
        await until(lambda: [entry.name for entry in hub.journal.consumers()] == ["bars-1"])
        await control.stop(control_pb2.StopRequest(symbols=["BTCUSDT"]))
        await until(lambda: hub.journal.consumers() == [])


async def test_who_comes_back_after_a_pause_does_not_read_what_came_meanwhile(tmp_path: Path) -> None:
    async with chain(tmp_path) as (hub, control, bars, _):
        await control.start(control_pb2.StartRequest(symbols=["BTCUSDT"]))
        await publish(hub, range(3))
        await until(lambda: control.list().subscriptions[0].rows == 30)
        await control.stop(control_pb2.StopRequest(symbols=["BTCUSDT"]))
        await publish(hub, range(3, 30))
        place = hub.last_sequence
        upstreams[-1].session_after = place
        await control.start(control_pb2.StartRequest(symbols=["ETHUSDT"]))
        await publish(hub, range(30, 33))
        await until(lambda: bool(control.list().subscriptions[0].rows))
        links = control.status().links
        assert links[0].cursor.sequence > place
        rows = pl.concat([to_frame(decode(entry.payload)[0]) for entry in bars.read()])
        assert rows.filter(pl.col("symbol") == "ETHUSDT")["first_trade_id"].min() >= 300


async def test_a_symbol_stopped_while_another_waits_for_it_answers_stopped(tmp_path: Path) -> None:
    async with chain(tmp_path) as (_, control, _, _):
        await control.start(control_pb2.StartRequest(symbols=["BTCUSDT"]))
        waiting = asyncio.ensure_future(control.start(control_pb2.StartRequest(symbols=["BTCUSDT"], wait_s=10)))
        await asyncio.sleep(0.1)
        await control.stop(control_pb2.StopRequest(symbols=["BTCUSDT"]))
        answer = (await asyncio.wait_for(waiting, 8)).results[0]
        assert (answer.state, answer.message) == (control_pb2.SYMBOL_STATE_STOPPED, "stopped meanwhile")


async def test_a_start_waits_for_what_frees_the_hold_and_is_not_undone_by_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(follower_module, "FREE_AFTER_S", 0.1)
    async with chain(tmp_path, consumer_name="bars-1-store") as (_, control, _, _):
        upstream, happened, asked = upstreams[-1], list[str](), asyncio.Event()
        start = upstream.start

        async def collect(request: control_pb2.StartRequest) -> control_pb2.StartResponse:
            happened.append("start")
            return await start(request)

        async def forget(_: str) -> bool:
            asked.set()
            await asyncio.sleep(0.3)
            happened.append("forget")
            return True

        monkeypatch.setattr(upstream, "start", collect)
        monkeypatch.setattr(upstream, "forget", forget)
        await asyncio.wait_for(asked.wait(), 5)
        await control.start(control_pb2.StartRequest(symbols=["BTCUSDT"]))
        await asyncio.sleep(0.8)
        assert happened[:2] == ["forget", "start"]
        assert happened.count("forget") == 1, "the other name is not forgotten any more"


async def test_more_symbols_than_a_request_may_have_are_asked_for_in_several(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(follower_module, "MAX_SYMBOLS_PER_REQUEST", 40)
    names = [f"S{number}USDT" for number in range(100)]
    async with chain(tmp_path) as (_, control, _, _):
        asked: list[int] = []
        start = upstreams[-1].start

        async def count(request: control_pb2.StartRequest) -> control_pb2.StartResponse:
            asked.append(len(request.symbols))
            return await start(request)

        monkeypatch.setattr(upstreams[-1], "start", count)
        results = (await control.start(control_pb2.StartRequest(symbols=names))).results
        assert [result.symbol for result in results] == names
        assert asked == [40, 40, 20]


@pytest.mark.parametrize("damaged", [b"no Arrow at all", b""])
async def test_a_batch_that_cannot_be_read_stops_nobody(tmp_path: Path, damaged: bytes) -> None:
    async with chain(tmp_path) as (hub, control, bars, _):
        await publish(hub, range(6))
        hub._tail[2] = replace(hub._tail[2], payload=damaged)
        await control.start(control_pb2.StartRequest(symbols=["BTCUSDT"]))
        await until(lambda: [entry.last_trade_id for entry in control.list().subscriptions] == [59])
    rows = pl.concat([to_frame(decode(entry.payload)[0]) for entry in bars.read()])
    last = rows.sort("revision").unique("open_time", keep="last")
    assert last["total_ticks"].sum() + 10 >= 50 > last["total_ticks"].sum() - 10
    assert last.filter(pl.col("first_trade_id") < 30, pl.col("last_trade_id") > 19)["complete"].any() is False
