"""What of wanted.json cannot be served is set aside, told, and kept; the rest is collected."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import pytest
from websockets.asyncio.server import ServerConnection

from raven.batches.instrument import Instrument
from raven.control.handler import ControlService
from raven.control.source_component import SourceComponent
from raven.control.wanted import ASIDE_FILE, MAX_PATTERNS, WantedFile
from raven.errors import InputError, SettingsError
from raven.rpc.pb import control_pb2
from raven.telemetry import Telemetry
from tests.unit.collecting import collecting, serving, until

BTC = Instrument("BINANCE_SPOT", "BTCUSDT")
GOOD = {"venue": "BINANCE_SPOT", "symbol": "BTCUSDT", "wanted_by": ["user"], "ids_before": {"BTCUSDT": None}}

BAD = {
    "no entry": (7, "damaged, or of another version"),
    "a symbol that is a number": ({**GOOD, "symbol": 1}, "damaged, or of another version"),
    "of another version": ({"instrument": "BTCUSDT", "wanted_by": ["user"]}, "another version.*venue"),
    "no name": ({**GOOD, "symbol": ""}, "no symbol given"),
    "too long": ({**GOOD, "symbol": "*" * 1_000}, "64 letters at most"),
    "control characters": ({**GOOD, "symbol": "A\x1b[2J"}, "control characters"),
    "collects what is too long": ({**GOOD, "symbol": "*A", "ids_before": {"A" * 65: None}}, "64 letters at most"),
    "collects a pattern": ({**GOOD, "symbol": "*A", "ids_before": {"*": None}}, "pattern"),
    "an id beyond int64": ({**GOOD, "symbol": "ETHUSDT", "ids_before": {"ETHUSDT": 2**63}}, "damaged"),
    "a place beyond int64": (
        {**GOOD, "symbol": "ETHUSDT", "session_start": {"journal_id": "j", "sequence": 2**70}}, "session begins at"
    ),
    "of another venue": ({**GOOD, "venue": "NASDAQ", "symbol": "AAPL"}, "source has no symbols of NASDAQ"),
    "ending at another venue": ({**GOOD, "venue": "NASDAQ", "wanted_by": [], "ending": ["x"]}, "of NASDAQ"),
}  # fmt: skip


async def quiet(socket: ServerConnection) -> None:
    await socket.wait_closed()


def control(source, wanted: WantedFile) -> ControlService:
    return ControlService(
        "source", SourceComponent(source, wanted), wanted, Telemetry("test"), hub=source._hub, simulated=False
    )


@pytest.mark.parametrize(("bad", "why"), BAD.values(), ids=BAD)
async def test_an_entry_that_cannot_be_served_keeps_no_other_from_being_collected(
    tmp_path: Path, bad: object, why: str, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "wanted.json"
    file.write_text(json.dumps([bad, GOOD]))
    wanted = WantedFile(file, Telemetry("test"))
    async with serving(quiet) as url, collecting(tmp_path / "j", url) as source:
        handler = control(source, wanted)
        await handler.restore()
        await until(lambda: source.acknowledged == {"BTCUSDT"})
        status = handler.status()
    assert list(wanted.entries) == [BTC]
    told = [record.getMessage() for record in caplog.records if record.raven_event == "wanted_set_aside"]
    assert len(told) == 1
    for text in (told[0], *status.problems):
        assert matches(why, text)
    assert not status.healthy
    assert [entry["symbol"] for entry in json.loads(file.read_text())] == ["BTCUSDT"]
    [kept] = json.loads((tmp_path / ASIDE_FILE).read_text())
    assert kept["entry"] == (bad if not isinstance(bad, dict) else {**kept["entry"], **bad})

    again = WantedFile(file, Telemetry("test"))  # it is told until what keeps it is removed
    assert matches(why, again.aside)
    (tmp_path / ASIDE_FILE).unlink()
    assert again.aside == ""
    assert list(again.entries) == [BTC]


def matches(pattern: str, text: str) -> bool:
    return re.search(pattern, text, re.DOTALL) is not None


@pytest.mark.parametrize("content", [b"", b"[{", b"\xff\xfe", b'{"format": 2}', b"null"])
def test_a_damaged_file_is_set_aside_whole(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "wanted.json"
    file.write_bytes(content)
    assert WantedFile(file).entries == {}  # whoever only reads changes nothing
    assert file.read_bytes() == content
    wanted = WantedFile(file, Telemetry("test"))
    assert "the file is damaged" in wanted.aside
    assert json.loads(file.read_text()) == []
    assert json.loads((tmp_path / ASIDE_FILE).read_text())[0]["entry"] == content.decode(errors="replace")


@pytest.mark.timeout(20)
@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir], ids=["pipe", "folder"])
def test_what_is_no_file_is_an_error_and_never_hangs(tmp_path: Path, make) -> None:
    make(tmp_path / "wanted.json")
    with pytest.raises(SettingsError, match=r"wanted.json cannot be read: it is a (pipe|folder).*start the symbols"):
        WantedFile(tmp_path / "wanted.json", Telemetry("test"))


async def test_nothing_is_saved_before_it_was_applied(tmp_path: Path) -> None:
    file = tmp_path / "wanted.json"
    wanted = WantedFile(file, Telemetry("test"))
    async with serving(quiet) as url, collecting(tmp_path / "j", url) as source:
        handler = control(source, wanted)
        await handler.start(control_pb2.StartRequest(symbols=["BTCUSDT"]))
        seen = []
        add = handler._component.add

        async def adding(entries, *, restored):
            wanted.save()  # as what comes about by itself does at any time
            seen.extend(entry.symbol for entry in WantedFile(file).entries.values())
            return await add(entries, restored=restored)

        handler._component.add = adding
        await handler.start(control_pb2.StartRequest(symbols=["ETHUSDT"]))
        assert seen == ["BTCUSDT"]
        assert [one.symbol for one in WantedFile(file).entries] == ["BTCUSDT", "ETHUSDT"]


async def test_what_was_ending_stays_in_the_file_while_it_is_tried_again(tmp_path: Path) -> None:
    wanted = WantedFile(tmp_path / "wanted.json")
    wanted.add(BTC, "user", joining=["x"])
    wanted.end(BTC, ["x"])
    with wanted.change(trying=[BTC]):
        wanted.add(BTC, "user", joining=["x"])
    assert list(WantedFile(tmp_path / "wanted.json").ending) == [BTC]
    wanted.settle()
    there = WantedFile(tmp_path / "wanted.json")
    assert (list(there.entries), list(there.ending)) == ([BTC], [])


async def test_patterns_are_bounded_in_length_and_number(tmp_path: Path) -> None:
    wanted = WantedFile(tmp_path / "wanted.json")
    async with serving(quiet) as url, collecting(tmp_path / "j", url) as source:
        handler = control(source, wanted)
        with pytest.raises(InputError, match="64 letters at most"):
            await handler.start(control_pb2.StartRequest(symbols=["*" * 65]))
        many = [f"*{number}" for number in range(MAX_PATTERNS + 1)]
        with pytest.raises(InputError, match="257 patterns; a service collects by 256 at most"):
            await handler.start(control_pb2.StartRequest(symbols=many))
        assert not wanted.entries


def test_a_file_that_nests_without_end_is_set_aside(tmp_path: Path) -> None:
    (tmp_path / "wanted.json").write_bytes(b"[" * 100_000)
    wanted = WantedFile(tmp_path / "wanted.json", Telemetry("test"))
    assert not wanted.entries
    assert "the file is damaged" in wanted.aside
