"""A source under Control while the exchange's REST cannot be reached, after crashes, and asked by many."""

from __future__ import annotations

from pathlib import Path

import pytest
from websockets.asyncio.server import ServerConnection

from raven.batches.selection import Instrument
from raven.control.handler import ControlService
from raven.control.source_component import SourceComponent
from raven.control.wanted import USER, WantedFile
from raven.errors import InputError
from raven.rpc.pb import control_pb2
from raven.telemetry import Telemetry
from tests.unit.collecting import collecting, serving, until

PATTERN, BTC = Instrument("BINANCE_SPOT", "*USDT"), Instrument("BINANCE_SPOT", "BTCUSDT")


async def quiet(socket: ServerConnection) -> None:
    await socket.wait_closed()


def control(source, wanted: WantedFile) -> ControlService:
    return ControlService(
        "source", SourceComponent(source, wanted), wanted, Telemetry("test"), hub=source._hub, simulated=False
    )


async def test_a_pattern_goes_on_after_a_restart_without_rest(tmp_path: Path) -> None:
    wanted = WantedFile(tmp_path / "wanted.json")
    wanted.add(PATTERN, USER).ids_before = {"BTCUSDT": None}
    async with serving(quiet) as url, collecting(tmp_path / "j", url) as source:
        await control(source, wanted).restore()
        await until(lambda: source.acknowledged == {"BTCUSDT"})


async def test_a_symbol_whose_start_was_cut_short_is_collected_after_the_restart(tmp_path: Path) -> None:
    wanted = WantedFile(tmp_path / "wanted.json")
    wanted.add(BTC, USER)  # saved, and the service ended before its session began
    async with serving(quiet) as url, collecting(tmp_path / "j", url) as source:
        await control(source, wanted).restore()
        await until(lambda: source.acknowledged == {"BTCUSDT"})
        assert wanted.entries[BTC].ids_before == {"BTCUSDT": None}


async def test_a_pattern_without_rest_is_kept_and_says_what_it_waits_for(tmp_path: Path) -> None:
    wanted = WantedFile(tmp_path / "wanted.json")
    async with serving(quiet) as url, collecting(tmp_path / "j", url) as source:
        answer = await control(source, wanted).start(control_pb2.StartRequest(symbols=["*USDT"]))
        assert answer.results[0].state == control_pb2.SYMBOL_STATE_CONNECTING
        assert PATTERN in wanted.entries


@pytest.mark.parametrize("symbols", [1_000])
async def test_facts_of_a_thousand_symbols_are_told_without_holding_up_the_loop(tmp_path: Path, symbols: int) -> None:
    names = [f"S{number:04}USDT" for number in range(symbols)]
    wanted = WantedFile(tmp_path / "wanted.json")
    async with serving(quiet) as url, collecting(tmp_path / "j", url, streams_per_connection=256) as source:
        component = SourceComponent(source, wanted)
        for name in names:
            entry = wanted.add(Instrument("BINANCE_SPOT", name), USER)
            entry.ids_before = {name: None}
        source.want(dict.fromkeys(names))
        asked = []
        acknowledged = type(source.feed).acknowledged

        def counting(feed):
            asked.append(1)
            return acknowledged.fget(feed)

        type(source.feed).acknowledged = property(counting)
        try:
            assert len(component.subscriptions(wanted.entries)) == symbols
        finally:
            type(source.feed).acknowledged = acknowledged
        assert len(asked) == 1, "once for all symbols"


@pytest.mark.parametrize("symbol", ["A\\B", "\\", "A B", "A\nB", "A\x00B", "A\u2028B"])
async def test_what_no_store_can_keep_is_refused_at_start(tmp_path: Path, symbol: str) -> None:
    wanted = WantedFile(tmp_path / "wanted.json")
    async with serving(quiet) as url, collecting(tmp_path / "j", url) as source:
        with pytest.raises(InputError, match="no blanks, control characters or backslashes"):
            await control(source, wanted).start(control_pb2.StartRequest(symbols=["BTCUSDT", symbol]))
        assert not wanted.entries
