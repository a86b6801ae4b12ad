"""Trades that cannot be, over real sockets: they stop nobody, move nothing, and lie in the dead letters."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from pathlib import Path

import polars as pl
import pytest
from websockets.asyncio.server import ServerConnection

from raven.batches import reach
from raven.clock import monotonic_ns, now_us
from raven.sources.binance import venue_clock
from tests.unit.collecting import NOWHERE, begin, collecting, recorded, serving, total, until
from tests.unit.exchanges import trade
from tests.unit.test_epochs import frame, listing

FIRST, COUNT = 1_000, 120
LARGEST = 2**63 - 1
IN_2099 = 4_090_000_000_000_000


def dead(folder: Path) -> list[tuple[str, int]]:
    """Reason and trade id of the dead letters."""
    lines = (folder / "dead_letters.jsonl").read_text().splitlines()
    return [(entry["reason"], entry["trade"]["trade_id"]) for entry in map(json.loads, lines)]


def far(number: int) -> str:
    """A trade whose id alone is wrong."""
    return frame(number, time_us=1_760_000_000_000_000 + FIRST + 20)


async def play(socket: ServerConnection, between: Sequence[str], *, count: int = COUNT, pause_s: float = 0.005) -> None:
    """So many true trades, and after the first twenty what is between."""
    for number in range(FIRST, FIRST + count):
        await socket.send(frame(number))
        if number == FIRST + 20:
            for text in between:
                await socket.send(text)
        await asyncio.sleep(pause_s)
    await socket.wait_closed()


@pytest.mark.parametrize("bogus", [LARGEST, FIRST + 1_000_000, FIRST + 5_000], ids=["largest", "million", "thousands"])
@pytest.mark.parametrize("is_answered", [False, True], ids=["silent", "answered"])
async def test_an_id_far_too_high_costs_itself_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bogus: int, is_answered: bool
) -> None:
    monkeypatch.setattr(reach, "LAG_US", 300_000)
    async with (
        listing(FIRST + COUNT - 1) as listed,
        serving(lambda socket: play(socket, [far(bogus)])) as url,
        collecting(tmp_path, url, listed if is_answered else NOWHERE, hold_max_s=60 if is_answered else 1) as source,
    ):
        begin(source, "BTCUSDT")
        await until(lambda: total(source, "dead_frames") == 1 and source.last_id("BTCUSDT") == FIRST + COUNT - 1)
        assert (total(source, "gaps"), source._hold.held_rows) == (0, 0)
        assert source.facts.of("BINANCE_SPOT", "BTCUSDT").last_id == FIRST + COUNT - 1
    trades, metas = recorded(tmp_path)
    assert trades.get_column("trade_id").to_list() == list(range(FIRST, FIRST + COUNT))
    assert not any(meta.gaps for meta in metas)
    assert dead(tmp_path) == [("id_ahead", bogus)]


async def test_a_restart_knows_nothing_of_what_was_refused(tmp_path: Path) -> None:
    async with serving(lambda socket: play(socket, [far(LARGEST), far(FIRST + 10**6)], count=30)) as url:
        async with collecting(tmp_path, url) as source:
            begin(source, "BTCUSDT")
            await until(lambda: total(source, "dead_frames") == 2 and source.last_id("BTCUSDT") == FIRST + 29)
        async with collecting(tmp_path, url) as source:
            assert source.last_id("BTCUSDT") == FIRST + 29


@pytest.mark.parametrize("ahead_us", [IN_2099 - now_us(), 300_000_000], ids=["in 2099", "five minutes"])
@pytest.mark.parametrize("is_answered", [False, True], ids=["silent", "answered"])
async def test_a_time_that_has_not_come_costs_itself_alone(tmp_path: Path, ahead_us: int, is_answered: bool) -> None:
    """The id of such a trade is missing then; what the exchange says of it over REST is taken."""
    bogus = FIRST + COUNT // 2

    async def script(socket: ServerConnection) -> None:
        for number in range(FIRST, FIRST + COUNT):
            await socket.send(frame(number, time_us=now_us() + (ahead_us if number == bogus else 0)))
            await asyncio.sleep(0.005)
        await socket.wait_closed()

    async with (
        listing(FIRST + COUNT - 1) as listed,
        serving(script) as url,
        collecting(tmp_path, url, listed if is_answered else NOWHERE, hold_max_s=60 if is_answered else 1) as source,
    ):
        begin(source, "BTCUSDT")
        await until(lambda: source._hold.last_ids.get("BTCUSDT") == FIRST + COUNT - 1)
        assert total(source, "dead_frames") == 1
        assert total(source, "gaps") == (0 if is_answered else 1)
    trades, metas = recorded(tmp_path)
    wanted = [number for number in range(FIRST, FIRST + COUNT) if is_answered or number != bogus]
    assert trades.get_column("trade_id").to_list() == wanted
    assert trades.get_column("ts_event").dt.epoch("us").max() < now_us()
    assert max(meta.watermark_us or 0 for meta in metas) < now_us() + 10_000_000
    assert dead(tmp_path) == [("time_ahead", bogus)]


async def test_times_that_have_not_come_are_found_among_the_very_first_trades(tmp_path: Path) -> None:
    """Nothing is known of the exchange's clock yet, and nobody can be asked."""

    async def script(socket: ServerConnection) -> None:
        for number in range(FIRST, FIRST + 10):
            if number in (FIRST, FIRST + 4):
                await socket.send(frame(number, time_us=now_us() + 300_000_000))
            await socket.send(frame(number, time_us=now_us()))
        await socket.wait_closed()

    async with serving(script) as url, collecting(tmp_path, url, batch_max_age_ms=1_000) as source:
        begin(source, "BTCUSDT")
        await until(lambda: source.last_id("BTCUSDT") == FIRST + 9)
    assert recorded(tmp_path)[0].get_column("trade_id").to_list() == list(range(FIRST, FIRST + 10))
    assert dead(tmp_path) == [("time_ahead", FIRST), ("time_ahead", FIRST + 4)]


@pytest.mark.parametrize("is_told", [False, True])
async def test_a_clock_of_ours_that_is_wrong_costs_no_trade(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_told: bool
) -> None:
    wrong_us = 10 * 3_600_000_000
    monkeypatch.setattr(venue_clock, "now_us", lambda: now_us() - wrong_us)

    async def script(socket: ServerConnection) -> None:
        for number in range(FIRST, FIRST + 50):
            await socket.send(frame(number, time_us=now_us()))
            await asyncio.sleep(0.005)
        await socket.wait_closed()

    async with serving(script) as url, collecting(tmp_path, url) as source:
        if is_told:
            source._clock.clock.told(wrong_us, now_us() - wrong_us, monotonic_ns() // 1_000)
        begin(source, "BTCUSDT")
        await until(lambda: source.last_id("BTCUSDT") == FIRST + 49)
        assert total(source, "dead_frames") == 0
    assert recorded(tmp_path)[0].height == 50


async def test_trades_of_symbols_nobody_asked_for_are_left_out_and_counted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Those that can be no symbols at all are dead letters."""
    names = [f"../X{number}" if number % 2 else f"X{number}\\u001b[31m\\n" for number in range(20_000)]

    async def script(socket: ServerConnection) -> None:
        strange = trade("btcusdt@trade", 7)
        for number, name in enumerate(names):
            await socket.send(strange.replace("BTCUSDT", name))
            if number % 1_000 == 0:
                await socket.send(frame(FIRST + number // 1_000))
        await socket.send(frame(FIRST + 20))
        await socket.wait_closed()

    async with serving(script) as url, collecting(tmp_path, url) as source:
        begin(source, "BTCUSDT")
        await until(lambda: source.last_id("BTCUSDT") == FIRST + 20, 60)
        found = source._telemetry.snapshot()
        assert found['raven_unwanted_rows_total{reason="not_asked_for"}'] == len(names) / 2
        assert found['raven_dead_frames_total{reason="bad_symbol"}'] == len(names) / 2
        assert source.facts.symbols("BINANCE_SPOT") == ["BTCUSDT"]
        assert set(source._hold.last_ids) == {"BTCUSDT"}
    assert recorded(tmp_path)[0].get_column("trade_id").to_list() == list(range(FIRST, FIRST + 21))
    assert caplog.text.count("nobody asked for") == 1
    assert "X1" not in caplog.text


async def test_no_trade_is_lost_of_a_symbol_that_is_stopped_and_wanted_again(tmp_path: Path) -> None:
    """What comes of it in between is left out; from the moment it is wanted all is taken, acknowledged or not."""
    go_on = asyncio.Event()

    async def script(socket: ServerConnection) -> None:
        for number in range(3):
            await socket.send(frame(FIRST + number))
            await socket.send(frame(FIRST + number).replace("BTCUSDT", "ETHUSDT"))
        await go_on.wait()
        await socket.send(frame(FIRST + 50))
        await socket.send(frame(FIRST + 3).replace("BTCUSDT", "ETHUSDT"))
        await until(lambda: total(source, "unwanted_rows") == 1)
        source.want({"BTCUSDT": source.last_id("BTCUSDT")})
        await socket.send(frame(FIRST + 60))
        await socket.wait_closed()

    async with serving(script) as url, collecting(tmp_path, url) as source:
        source.want({"BTCUSDT": None, "ETHUSDT": None})
        await until(lambda: total(source, "rows") == 6)
        await source.leave(["BTCUSDT"])
        go_on.set()
        await until(lambda: source.last_id("BTCUSDT") == FIRST + 60)
        assert source._telemetry.snapshot()['raven_unwanted_rows_total{reason="stopped"}'] == 1
    trades = recorded(tmp_path)[0]
    own = trades.filter(pl.col("symbol") == "BTCUSDT").get_column("trade_id").to_list()
    assert own == [FIRST, FIRST + 1, FIRST + 2, FIRST + 60]
    assert trades.height == 8


async def test_a_source_that_ends_while_it_heals_publishes_what_it_has_received(tmp_path: Path) -> None:
    async def script(socket: ServerConnection) -> None:
        for number in [*range(5), *range(20, 40)]:
            await socket.send(frame(FIRST + number))
            await socket.send(frame(FIRST + number - (15 if number > 15 else 0)).replace("BTCUSDT", "ETHUSDT"))
        await socket.wait_closed()

    slow = 5_000  # REST has less: what is missing is asked for again and again
    async with listing(FIRST - slow) as rest_url, serving(script) as url:
        async with collecting(tmp_path, url, rest_url, hold_max_s=600, batch_max_age_ms=2_000) as source:
            source.want({"BTCUSDT": None, "ETHUSDT": None})
            await until(lambda: total(source, "rest_requests") > 0 and source._hold.held == ("BTCUSDT",))
            source._frames.add((frame(FIRST + 25).replace("BTCUSDT", "ETHUSDT").encode(), now_us() * 1_000, 1), 0)
        assert source._frames.rows == 0
    trades = recorded(tmp_path)[0]
    assert trades.filter(pl.col("symbol") == "ETHUSDT").get_column("trade_id").max() == FIRST + 25
