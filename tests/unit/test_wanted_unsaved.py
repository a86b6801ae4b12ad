"""The file of what is wanted cannot be written: a full disk, or something in its way."""

from __future__ import annotations

import asyncio
import json
import logging
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from websockets.asyncio.server import ServerConnection

from raven.batches.batch import BatchMeta, Cursor
from raven.batches.instrument import Instrument
from raven.batches.schema import TRADE_SCHEMA, to_record_batch
from raven.control.handler import ControlService
from raven.control.source_component import SourceComponent
from raven.control.wanted import USER, WantedFile
from raven.errors import RavenError, UpstreamError
from raven.rpc.access import Access
from raven.rpc.client import Client
from raven.rpc.pb import control_pb2
from raven.rpc.server import Server
from raven.rpc.subscriptions import SubscriptionTable
from raven.services import upkeep
from raven.services.upkeep import keep_wanted
from raven.sinks.dead_letters import DeadLetters
from raven.sinks.delta import DeltaTradeStore
from raven.sinks.sink import FlushLimits
from raven.sinks.trade_sink import TradeSink
from raven.telemetry import Telemetry
from tests.unit.collecting import collecting, serving, until
from tests.unit.samples import spot, trades
from tests.unit.test_journal_crash import can_mount
from tests.unit.test_sink import stored

VENUE = "BINANCE_SPOT"
BTC, ETH = Instrument(VENUE, "BTCUSDT"), Instrument(VENUE, "ETHUSDT")


class Disk:
    """Holds `file`, and refuses to have it written from `fill` until `relieve`."""

    def __init__(self, folder: Path, *, is_mount: bool) -> None:
        self.file = folder / "wanted.json"
        self._in_the_way = self.file.with_name("ballast" if is_mount else "wanted.json.new")
        self._is_mount = is_mount

    def fill(self) -> None:
        if self._is_mount:
            with suppress(OSError), self._in_the_way.open("wb", buffering=0) as file:
                while True:
                    file.write(bytes(4096))
        else:
            self._in_the_way.mkdir()

    def relieve(self) -> None:
        if self._is_mount:
            self._in_the_way.unlink()
        else:
            shutil.rmtree(self._in_the_way)


@pytest.fixture(params=["in the way", *(["full disk"] if can_mount() else [])])
def disk(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Disk]:
    folder, is_mount = tmp_path / "small", request.param == "full disk"
    folder.mkdir()
    if is_mount:
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", folder], check=True)
    try:
        yield Disk(folder, is_mount=is_mount)
    finally:
        if is_mount:
            subprocess.run(["umount", folder], check=True)


async def quiet(socket: ServerConnection) -> None:
    """Acknowledges whatever else is subscribed, and sends no trades."""
    async for request in socket:
        await socket.send(json.dumps({"result": None, "id": json.loads(request)["id"]}))


def control(source, wanted: WantedFile) -> ControlService:
    return ControlService(
        "source", SourceComponent(source, wanted), wanted, Telemetry("test"), hub=source._hub, simulated=False
    )


def agree(wanted: WantedFile, disk: Disk) -> bool:
    there = WantedFile(disk.file)
    return (there.entries, there.ending) == (wanted.entries, wanted.ending)


async def test_a_start_that_cannot_be_saved_says_so_and_leaves_nothing_behind(tmp_path: Path, disk: Disk) -> None:
    wanted = WantedFile(disk.file)
    async with serving(quiet) as url, collecting(tmp_path / "j", url) as source:
        handler = control(source, wanted)
        server = Server("127.0.0.1", 0, handler, access=Access())
        await server.start()
        try:
            async with Client(f"127.0.0.1:{server.port}", Access()) as client:
                await client.start(["ETHUSDT"])
                disk.fill()
                with pytest.raises(UpstreamError, match=r"wanted\.json cannot be written: .*nothing has changed.*room"):
                    await client.start(["ETHUSDT", "BTCUSDT"], requester="bars-1")
                assert list(wanted.entries) == [ETH]
                assert wanted.entries[ETH].wanted_by == [USER]
                [again] = await client.start(["ETHUSDT"])  # what changes nothing needs no disk
                assert again.state != control_pb2.SYMBOL_STATE_REFUSED
                assert wanted.problem in handler.status().problems
                disk.relieve()
                await client.start(["BTCUSDT"])
                await until(lambda: source.acknowledged == {"BTCUSDT", "ETHUSDT"})
                assert wanted.problem == ""
                assert agree(wanted, disk)
        finally:
            await server.stop()


@pytest.mark.parametrize("stops", ["one", "all", "forget"])
async def test_a_stop_that_cannot_be_saved_changes_nothing(tmp_path: Path, disk: Disk, stops: str) -> None:
    wanted = WantedFile(disk.file)
    requester = "bars-1" if stops == "forget" else USER
    async with serving(quiet) as url, collecting(tmp_path / "j", url) as source:
        handler = control(source, wanted)
        source._hub.journal.register("bars-1", 0)

        async def stop() -> object:
            match stops:
                case "one":
                    return await handler.stop(control_pb2.StopRequest(symbols=["BTCUSDT"]))
                case "all":
                    return await handler.stop_all(force=True)
            return await handler.forget("bars-1")

        await handler.start(control_pb2.StartRequest(symbols=["BTCUSDT"], requester=requester))
        await until(lambda: source.acknowledged == {"BTCUSDT"})
        disk.fill()
        with pytest.raises(RavenError, match="cannot be written"):
            await stop()
        assert wanted.entries[BTC].wanted_by == [requester]
        assert source.acknowledged == {"BTCUSDT"}
        assert [one.name for one in source._hub.journal.consumers()] == ([] if stops == "forget" else ["bars-1"])
        disk.relieve()
        await stop()
        await until(lambda: not source.acknowledged)
        assert (wanted.entries, wanted.ending) == ({}, {})
        assert agree(wanted, disk)


async def test_a_stop_that_cannot_be_saved_leaves_what_was_ending_as_it_was(disk: Disk) -> None:
    wanted = WantedFile(disk.file)
    with wanted.change():
        wanted.add(BTC, USER, joining=["spot"])
        wanted.add(ETH, USER)
        wanted.end(ETH, ["spot"])
    disk.fill()

    def turn() -> None:
        with wanted.change():
            wanted.remove(BTC, USER, ["spot"])
            wanted.add(ETH, USER)

    with pytest.raises(RavenError, match="cannot be written"):
        turn()
    assert agree(wanted, disk)
    assert (list(wanted.entries), list(wanted.ending)) == ([BTC], [ETH])
    disk.relieve()


async def test_a_flush_goes_on_when_what_joined_cannot_be_saved(
    tmp_path: Path, disk: Disk, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(upkeep, "SAVE_EVERY_S", 0.05)
    caplog.set_level(logging.INFO)
    wanted = WantedFile(disk.file, Telemetry("test"))
    with wanted.change():
        wanted.add(BTC, USER, joining=["binance_spot"])
        wanted.add(ETH, USER)
        wanted.end(ETH, ["binance_spot"])
    sink = TradeSink(
        DeltaTradeStore(tmp_path / "delta"), FlushLimits(100, 0.05), venues={"binance_spot": VENUE}, facts=SubscriptionTable(),
        dead_letters=DeadLetters(tmp_path / "dead"), telemetry=Telemetry("test"), joined=wanted.joined, left=wanted.left,
    )  # fmt: skip
    runs = [asyncio.ensure_future(run) for run in (sink.run(), keep_wanted(wanted))]
    try:
        await sink.ready.wait()
        disk.fill()
        await sink.rewind("binance_spot", Cursor("j", 0), spot("BTCUSDT"))
        for sequence in (1, 2):
            batch = to_record_batch(trades(range(10 * sequence, 10 * sequence + 10), "BTCUSDT"), TRADE_SCHEMA)
            await sink.take("binance_spot", batch, BatchMeta(journal_id="j", sequence=sequence))
            await until(lambda: sink.is_durable("binance_spot"))
            await sink.leave("binance_spot", [ETH])
        await until(lambda: not wanted.ending)
        assert not any(run.done() for run in runs)
        assert wanted.entries[BTC].joining == []
        assert not agree(wanted, disk), "a restart joins again"
        disk.relieve()
        await until(lambda: not wanted.problem)
        assert agree(wanted, disk)
        events = [record.raven_event for record in caplog.records if hasattr(record, "raven_event")]
        assert [event for event in events if event.startswith("wanted_")] == ["wanted_unsaved", "wanted_saved"]
    finally:
        for run in runs:
            run.cancel()
        await asyncio.gather(*runs, return_exceptions=True)
        await sink.close()
    assert stored(tmp_path) == list(range(10, 30))


async def test_what_a_source_restores_and_matches_needs_no_disk(tmp_path: Path, disk: Disk) -> None:
    wanted = WantedFile(disk.file)
    wanted.add(BTC, USER)
    wanted.save()
    disk.fill()
    async with serving(quiet) as url, collecting(tmp_path / "j", url) as source:
        await control(source, wanted).restore()
        await until(lambda: source.acknowledged == {"BTCUSDT"})
        assert "cannot be written" in wanted.problem
    disk.relieve()
    wanted.save()
    assert agree(wanted, disk)
