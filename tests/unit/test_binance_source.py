"""The source against real WebSocket servers on loopback: the simulated exchange, and ones that misbehave."""

from __future__ import annotations

import asyncio
import json
import resource
from datetime import UTC, datetime
from pathlib import Path

import pytest
from websockets.asyncio.server import ServerConnection, serve

from raven.batches.batch import Gap
from raven.errors import JournalError
from raven.journal import Journal
from raven.rpc.hub import Hub
from raven.sources.binance.protocol import SPOT
from raven.sources.binance.source import BinanceSource
from raven.sources.binance.watermark import Watermark
from raven.sources.simulated.build import build_market
from raven.sources.simulated.exchange import SimulatedExchange
from raven.sources.simulated.faults import given_faults
from raven.sources.simulated.served import ExchangeOptions
from raven.telemetry import Telemetry
from tests.unit.collecting import SPOT_STREAM, begin, collecting, recorded, rows_of, serving, settings, total, until


def trade(number: int, symbol: str = "BTCUSDT", *, time_us: int = 1_760_000_000_000_000) -> str:
    data = {
        "e": "trade",
        "E": time_us,
        "s": symbol,
        "t": number,
        "p": "100.5",
        "q": "0.25",
        "T": time_us + number,
        "m": number % 2 == 0,
    }
    return json.dumps({"stream": f"{symbol.lower()}@trade", "data": data})


async def test_nothing_is_collected_until_asked_for_and_only_that(tmp_path: Path) -> None:
    exchange = SimulatedExchange(build_market(symbols=["BTCUSDT", "ETHUSDT"], rate=200.0), port=0)
    await exchange.start()
    try:
        async with collecting(tmp_path, exchange.ws_url, exchange.rest_url) as source:
            await asyncio.sleep(0.3)
            assert not source.feed.connected
            assert rows_of(source) == 0
            begin(source, "BTCUSDT")
            await until(lambda: rows_of(source) > 50)
            begin(source, "ETHUSDT")
            await until(lambda: source.facts.of("BINANCE_SPOT", "ETHUSDT").rows > 50)
            await source.leave(["BTCUSDT"])
            await until(lambda: source.feed.acknowledged == {"ETHUSDT"})
            await asyncio.sleep(0.2)
            stopped_at = source.facts.of("BINANCE_SPOT", "BTCUSDT").rows
            await asyncio.sleep(0.5)
            assert source.facts.of("BINANCE_SPOT", "BTCUSDT").rows == stopped_at
    finally:
        await exchange.stop()
    trades, metas = recorded(tmp_path)
    for part in trades.partition_by("symbol"):
        ids = part.get_column("trade_id")
        assert (ids.diff().drop_nulls() == 1).all()
    assert not any(meta.gaps for meta in metas)


async def test_misspelt_symbols_are_refused_with_the_nearest_names(tmp_path: Path) -> None:
    exchange = SimulatedExchange(build_market(symbols=["BTCUSDT", "ETHUSDT"]), port=0)
    await exchange.start()
    try:
        async with collecting(tmp_path, exchange.ws_url, exchange.rest_url) as source:
            refused = await source.check(["BTCUSDT", "BTCUSTD"])
            assert list(refused) == ["BTCUSTD"]
            assert "did you mean BTCUSDT" in refused["BTCUSTD"]
    finally:
        await exchange.stop()


async def test_a_lost_connection_is_a_recorded_gap_and_repeats_are_dropped(tmp_path: Path) -> None:
    connections = iter([range(1, 11), range(8, 13), range(20, 25)])

    async def script(socket: ServerConnection) -> None:
        for number in next(connections, []):
            await socket.send(trade(number))
        await asyncio.sleep(0.1)
        await socket.close()

    async with serving(script) as url, collecting(tmp_path, url) as source:
        begin(source, "BTCUSDT")
        await until(lambda: rows_of(source) == 17)
        facts = source.facts.of("BINANCE_SPOT", "BTCUSDT")
        assert (facts.gaps, facts.missing_ids) == (1, 7)
        assert source._telemetry.totals["duplicate_rows"] == 3
    trades, metas = recorded(tmp_path)
    assert trades.get_column("trade_id").to_list() == [*range(1, 13), *range(20, 25)]
    assert [gap for meta in metas for gap in meta.gaps] == [Gap("BTCUSDT", 12, 20, final=True, reason="not received")]


async def test_ids_between_two_sessions_are_no_gap_but_a_later_jump_is(tmp_path: Path) -> None:
    sessions = iter([[*range(1, 6)], [50, 51, 60]])

    async def script(socket: ServerConnection) -> None:
        for number in next(sessions, []):
            await socket.send(trade(number))
        await socket.wait_closed()

    async with serving(script) as url, collecting(tmp_path, url) as source:
        begin(source, "BTCUSDT")
        await until(lambda: rows_of(source) == 5)
        await source.leave(["BTCUSDT"])
        await until(lambda: not source.feed.connected)
        begin(source, "BTCUSDT")
        await until(lambda: rows_of(source) == 8)
    _, metas = recorded(tmp_path)
    assert [(gap.after_id, gap.before_id) for meta in metas for gap in meta.gaps] == [(51, 60)]


async def test_a_restart_goes_on_where_it_was_and_records_what_it_missed(tmp_path: Path) -> None:
    sessions = iter([range(1, 6), range(5, 6), range(9, 11)])

    async def script(socket: ServerConnection) -> None:
        for number in next(sessions, []):
            await socket.send(trade(number))
        await socket.wait_closed()

    async with serving(script) as url:
        async with collecting(tmp_path, url) as source:
            begin(source, "BTCUSDT")
            await until(lambda: rows_of(source) == 5)
        async with collecting(tmp_path, url) as source:
            source.want({"BTCUSDT": None})
            await until(lambda: source._telemetry.totals.get("duplicate_rows", 0) == 1)
        async with collecting(tmp_path, url) as source:
            source.want({"BTCUSDT": None})
            await until(lambda: rows_of(source) == 2)
    trades, metas = recorded(tmp_path)
    assert trades.get_column("trade_id").to_list() == [1, 2, 3, 4, 5, 9, 10]
    assert [(gap.after_id, gap.before_id) for meta in metas for gap in meta.gaps] == [(5, 9)]


async def test_bad_frames_cost_themselves_alone(tmp_path: Path) -> None:
    bad = ["{", '{"stream":"btcusdt@trade","data":{"e":"trade"}}', trade(3).replace("100.5", "nan")]

    async def script(socket: ServerConnection) -> None:
        for frame in [trade(1), *bad, trade(2), json.dumps({"e": "depthUpdate", "s": "BTCUSDT"}), trade(3)]:
            await socket.send(frame)
        await socket.wait_closed()

    async with serving(script) as url, collecting(tmp_path, url) as source:
        begin(source, "BTCUSDT")
        await until(lambda: rows_of(source) == 3)
        totals = dict(source._telemetry.totals)
    assert (totals["dead_frames"], totals["ignored_frames"]) == (3, 1)
    letters = [json.loads(line) for line in (tmp_path / "dead_letters.jsonl").read_text().splitlines()]
    assert [letter["frame"] for letter in letters] == bad
    assert all(letter["reason"] for letter in letters)


async def test_a_silent_connection_is_stale_and_opened_again(tmp_path: Path) -> None:
    opened = 0

    async def script(socket: ServerConnection) -> None:
        nonlocal opened
        opened += 1
        await socket.send(trade(opened))
        await socket.wait_closed()

    async with serving(script) as url, collecting(tmp_path, url, stale_s=0.6) as source:
        begin(source, "BTCUSDT")
        await until(lambda: opened >= 2)
        assert source._telemetry.totals["reconnects"] >= 1


async def test_an_idle_feed_goes_on_telling_the_time_while_connected(tmp_path: Path) -> None:
    async def script(socket: ServerConnection) -> None:
        await socket.send(trade(1))
        await socket.wait_closed()

    async with serving(script) as url, collecting(tmp_path, url) as source:
        begin(source, "BTCUSDT")
        await until(lambda: source._hub.last_sequence >= 3)
    _, metas = recorded(tmp_path)
    watermarks = [meta.watermark_us for meta in metas if meta.watermark_us is not None]
    assert watermarks[0] >= 1_760_000_000_000_001
    assert 0.8e6 < watermarks[2] - watermarks[1] < 1.5e6


async def test_a_session_that_had_no_trade_yet_is_still_new_after_a_restart(tmp_path: Path) -> None:
    sessions = iter([range(1, 6), range(500, 502)])

    async def script(socket: ServerConnection) -> None:
        for number in next(sessions, []):
            await socket.send(trade(number))
        await socket.wait_closed()

    async with serving(script) as url:
        async with collecting(tmp_path, url) as source:
            begin(source, "BTCUSDT")
            await until(lambda: rows_of(source) == 5)
            before_session = source.last_id("BTCUSDT")
            assert before_session == 5
        async with collecting(tmp_path, url) as source:
            source.want({"BTCUSDT": before_session})  # as remembered from before the restart
            await until(lambda: rows_of(source) == 2)
    _, metas = recorded(tmp_path)
    assert not any(meta.gaps for meta in metas)


async def test_a_quiet_market_is_no_stale_connection(tmp_path: Path) -> None:
    exchange = SimulatedExchange(build_market(symbols=["BTCUSDT"], rate=0.02), port=0)
    await exchange.start()
    try:
        async with collecting(tmp_path, exchange.ws_url, exchange.rest_url, stale_s=0.4) as source:
            source._hold.last_ids["BTCUSDT"] = 2**62  # everything the exchange has traded was seen
            begin(source, "BTCUSDT")
            await until(lambda: source.feed.acknowledged == {"BTCUSDT"})
            await asyncio.sleep(1.5)
            assert source.feed.connections_opened == 1
            source._hold.last_ids["BTCUSDT"] = 0  # now something is missing
            await until(lambda: source.feed.connections_opened == 2)
    finally:
        await exchange.stop()


async def test_a_stream_the_exchange_refuses_is_not_acknowledged(tmp_path: Path) -> None:
    async def handle(socket: ServerConnection) -> None:
        request = json.loads(await socket.recv())
        await socket.send(json.dumps({"error": {"code": 4, "msg": "Too many subscriptions"}, "id": request["id"]}))
        await socket.wait_closed()

    async with serve(handle, "127.0.0.1", 0) as server:
        url = f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        async with collecting(tmp_path, url) as source:
            begin(source, "BTCUSDT")
            await until(lambda: bool(source.feed.refused))
            assert "Too many subscriptions" in source.feed.refused["BTCUSDT"]
            assert source.feed.acknowledged == set()
            assert source.feed.connected


async def test_the_watermark_leaves_out_the_time_without_a_connection() -> None:
    watermark = Watermark()
    watermark.advance(datetime(2026, 1, 1, tzinfo=UTC), 1_000_000)
    first = watermark.at(1_500_000)
    watermark.go_on(60_000_000)
    again = watermark.at(60_200_000)
    assert first is not None
    assert again is not None
    assert again - first == -300_000, "0.2 s after the reconnect, not a minute later"


async def test_a_full_disk_stops_the_source_and_leaves_no_hole(tmp_path: Path) -> None:
    most, step = 200_000, 100
    telemetry = Telemetry("test")

    async def script(socket: ServerConnection) -> None:
        for number in range(1, 20_001):
            await socket.send(trade(number))
            while number % step == 0 and telemetry.totals.get("rows", 0) < number:  # no batch as large as the disk
                if socket.close_code is not None:
                    return
                await asyncio.sleep(0.001)
        await socket.wait_closed()

    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    async with serving(script) as url:
        resource.setrlimit(resource.RLIMIT_FSIZE, (most, before[1]))  # no file may grow beyond it: a real refusal
        try:
            with Journal.open(tmp_path, SPOT_STREAM) as journal:
                source = BinanceSource(
                    Hub(journal), settings(url, batch_max_age_ms=30), SPOT, folder=tmp_path, telemetry=telemetry
                )
                begin(source, "BTCUSDT")
                with pytest.raises(ExceptionGroup) as raised:
                    await asyncio.wait_for(source.run(), 20)
                assert raised.group_contains(JournalError)
                last_id = source.last_id("BTCUSDT")
                assert last_id is not None
                came_meanwhile = trade(last_id + 1).encode()  # a batch so small that it would fit
                source._frames.add((came_meanwhile, 1_760_000_000_000_000_000, 1), 0)
                await source.close()
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
    written = max(file.stat().st_size for file in tmp_path.rglob("*") if file.is_file())
    trades, _ = recorded(tmp_path)
    assert most - 20_000 < written <= most, "filled up before it stopped"
    assert trades.get_column("trade_id").to_list() == list(range(1, trades.height + 1))


@pytest.mark.slow
async def test_connections_that_are_replaced_lose_and_disturb_nothing(tmp_path: Path) -> None:
    options = ExchangeOptions(faults=given_faults(["shutdown@2:3s", "shutdown@2.5:3s"]))
    symbols = ["ADAUSDT", "BNBUSDT", "BTCUSDT", "ETHUSDT"]
    exchange = SimulatedExchange(build_market(symbols=symbols, rate=400.0), port=0, options=options)
    await exchange.start()
    try:
        ages = {"streams_per_connection": 2, "connection_max_age_s": 5.0, "hold_max_s": 0.0}
        async with collecting(tmp_path, exchange.ws_url, exchange.rest_url, **ages) as source:
            for symbol in symbols:
                begin(source, symbol)
            await until(lambda: total(source, "replaced_connections") >= 4, 40)
            assert len(source.feed.links()) == 2
            assert source.feed.connections_opened == 1
            assert total(source, "reconnects") == 0
            assert total(source, "duplicate_rows") > 0
    finally:
        await exchange.stop()
    trades, metas = recorded(tmp_path)
    for part in trades.partition_by("symbol"):
        assert (part.get_column("trade_id").diff().drop_nulls() == 1).all()
    assert not any(meta.gaps for meta in metas)
    watermarks = [meta.watermark_us for meta in metas if meta.watermark_us is not None]
    assert watermarks == sorted(watermarks)
