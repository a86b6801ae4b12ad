"""What was there when a symbol was stopped is stored, also when the store was down then, and the sink restarted."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import polars as pl
import pytest

from raven.batches.batch import BatchMeta
from raven.batches.instrument import Instrument
from raven.batches.schema import TRADE_SCHEMA, stream_schema, to_record_batch
from raven.control.consumer_component import ConsumerComponent
from raven.control.handler import ControlService
from raven.control.wanted import WantedFile
from raven.journal import Journal
from raven.rpc import follower as follower_module
from raven.rpc.access import Access
from raven.rpc.follower import Follower
from raven.rpc.hub import Hub
from raven.rpc.pb import control_pb2
from raven.rpc.server import Server
from raven.rpc.subscriptions import SubscriptionTable
from raven.services import persistence
from raven.services.runtime import Environment, Service
from raven.settings import Settings
from raven.sinks import sink as sinks
from raven.sinks.dead_letters import DeadLetters
from raven.sinks.sink import FlushLimits
from raven.sinks.store import StoreUnavailableError
from raven.sinks.trade_sink import TradeSink
from raven.telemetry import Telemetry
from tests.unit.samples import trades
from tests.unit.test_follower import SlowUpstream, until, upstreams
from tests.unit.test_sink import FlakyStore, stored

UPSTREAM, VENUE = "binance_spot", "BINANCE_SPOT"
BTC = Instrument(VENUE, "BTCUSDT")


class Upstream(SlowUpstream):
    """A session begins where the journal ends when it is asked for, and goes on until it is stopped."""

    def __init__(self, hub: Hub) -> None:
        super().__init__(hub)
        self.is_collecting = False

    async def start(self, request: control_pb2.StartRequest) -> control_pb2.StartResponse:
        if not self.is_collecting:
            self.session_after, self.is_collecting = self._hub.place.sequence, True
        return await super().start(request)

    async def stop(self, request: control_pb2.StopRequest) -> control_pb2.StopResponse:
        self.is_collecting = False
        return await super().stop(request)


@pytest.fixture(autouse=True)
def _short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(follower_module, "LEAVE_S", 0.3)
    monkeypatch.setattr(sinks, "CLOSE_S", 0.3)


@asynccontextmanager
async def upstream(folder: Path, venue: str = VENUE) -> AsyncIterator[tuple[Hub, str]]:
    with Journal.open(folder / f"up-{venue}", stream_schema(TRADE_SCHEMA, kind="trades", venue=venue)) as journal:
        hub = Hub(journal)
        server = Server("127.0.0.1", 0, Upstream(hub), hub, access=Access())
        await server.start()
        try:
            yield hub, f"127.0.0.1:{server.port}"
        finally:
            await server.stop()


@asynccontextmanager
async def service(
    folder: Path, target: str, *, down: str
) -> AsyncIterator[tuple[ControlService, FlakyStore, WantedFile]]:
    """A sink with its control; its store cannot be opened, or not written, while it is `down`."""
    store, wanted = FlakyStore(folder / "delta"), WantedFile(folder / "wanted.json")
    store.error = StoreUnavailableError("the server is away")
    store.failing_opens = 10**6 if down == "opening" else 0
    store.failures = 10**6 if down == "writing" else 0
    telemetry = Telemetry("test")
    sink = TradeSink(
        store, FlushLimits(10_000, 0.05), venues={UPSTREAM: VENUE}, facts=(facts := sinks.SubscriptionTable()),
        dead_letters=DeadLetters(folder / "dead"),
        telemetry=telemetry, joined=wanted.joined, left=wanted.left,
    )  # fmt: skip
    follower = Follower(UPSTREAM, target, Access(), venue=VENUE, requester="sink-1", consumer=sink, telemetry=telemetry)

    async def acknowledge(_: str, cursor: sinks.Cursor | None) -> None:
        await follower.acknowledge(cursor)

    sink.acknowledge = acknowledge
    component = ConsumerComponent([follower], facts, venues=[VENUE])
    control = ControlService("sink", component, wanted, telemetry, hub=None, simulated=False)
    runs = [asyncio.ensure_future(run()) for run in (sink.run, follower.run)]
    await control.restore()
    try:
        yield control, store, wanted
    finally:
        for run in runs:
            run.cancel()
        await asyncio.gather(*runs, return_exceptions=True)
        await sink.close()
        await follower.close()


async def publish(hub: Hub, ids: range, symbol: str = "BTCUSDT") -> None:
    for first in ids[::10]:
        await hub.publish(to_record_batch(trades(range(first, first + 10), symbol), TRADE_SCHEMA), BatchMeta())


async def start(control: ControlService) -> None:
    await control.start(control_pb2.StartRequest(symbols=["BTCUSDT"], venue=VENUE))


async def stop(control: ControlService) -> control_pb2.SymbolResult:
    [result] = (await control.stop(control_pb2.StopRequest(symbols=["BTCUSDT"], venue=VENUE))).results
    return result


def bring_back(store: FlakyStore) -> None:
    store.failing_opens = store.failures = 0


def ids_stored(folder: Path) -> list[int]:
    return stored(folder) if (folder / "delta" / "trades" / "_delta_log").exists() else []


@pytest.mark.parametrize("down", ["opening", "writing"])
@pytest.mark.parametrize("restarts", [False, True])
async def test_stopped_while_the_store_was_down(tmp_path: Path, down: str, restarts: bool) -> None:
    async with upstream(tmp_path) as (hub, target):
        async with service(tmp_path, target, down=down) as (control, store, wanted):
            await publish(hub, range(100))
            await start(control)
            await publish(hub, range(100, 200))
            await asyncio.sleep(0.3)
            result = await stop(control)
            assert result.state == control_pb2.SYMBOL_STATE_STOPPED
            assert result.message == "not all of it is stored yet: delta/trades: the server is away"
            await publish(hub, range(200, 300))
            assert (list(wanted.entries), list(wanted.ending)) == ([], [BTC])
            assert ids_stored(tmp_path) == []
            if not restarts:
                bring_back(store)
                await until(lambda: not wanted.ending)
        if restarts:
            async with service(tmp_path, target, down="") as (_, _, wanted):
                await until(lambda: not wanted.ending)
        found = ids_stored(tmp_path)
        beyond = range(200, 300) if restarts else range(0)
        assert set(found) >= set(range(100, 200))
        assert set(found) <= {*range(100), *range(100, 200), *beyond}
        assert len(found) == len(set(found))
        assert WantedFile(tmp_path / "wanted.json").ending == {}


async def test_wanted_again_before_it_ended(tmp_path: Path) -> None:
    async with upstream(tmp_path) as (hub, target):
        async with service(tmp_path, target, down="") as (control, store, wanted):
            await start(control)
            await publish(hub, range(100))
            await until(lambda: ids_stored(tmp_path) == list(range(100)))
            store.failures = 10**6
            await publish(hub, range(100, 200))
            await stop(control)
            await start(control)
            assert (list(wanted.entries), list(wanted.ending)) == ([BTC], [])
            await publish(hub, range(200, 300))
        async with service(tmp_path, target, down=""):
            await until(lambda: len(ids_stored(tmp_path)) == 300)
    assert pl.Series(ids_stored(tmp_path)).sort().to_list() == list(range(300))


async def test_wanted_again_and_refused_then(tmp_path: Path) -> None:
    async with upstream(tmp_path) as (hub, target):
        async with service(tmp_path, target, down="") as (control, store, wanted):
            await start(control)
            await publish(hub, range(100))
            await until(lambda: ids_stored(tmp_path) == list(range(100)))
            store.failures = 10**6
            await publish(hub, range(100, 200))
            await asyncio.sleep(0.3)
            await stop(control)
            upstreams[-1]._refuses = frozenset({"BTCUSDT"})
            [result] = (await control.start(control_pb2.StartRequest(symbols=["BTCUSDT"], venue=VENUE))).results
            assert result.state == control_pb2.SYMBOL_STATE_REFUSED
            assert (list(wanted.entries), list(wanted.ending)) == ([], [BTC])
        async with service(tmp_path, target, down="") as (_, _, wanted):
            await until(lambda: not wanted.ending)
    assert sorted(ids_stored(tmp_path)) == list(range(200))


async def test_what_was_stored_leaves_at_once(tmp_path: Path) -> None:
    async with upstream(tmp_path) as (hub, target), service(tmp_path, target, down="") as (control, _, wanted):
        await start(control)
        await publish(hub, range(100))
        await until(lambda: ids_stored(tmp_path) == list(range(100)))
        assert (await stop(control)).message == ""
        await until(lambda: (wanted.entries, wanted.ending) == ({}, {}))  # the flush may be told of later than seen


async def test_sinks_are_closed_at_once(tmp_path: Path) -> None:
    """One after the other, two that hang would take twice the time."""
    together = asyncio.Barrier(2)

    class Closing(TradeSink):
        async def close(self) -> None:
            await together.wait()
            await super().close()

    facts, telemetry = SubscriptionTable(), Telemetry("test")
    made = [
        Closing(
            FlakyStore(tmp_path / name), FlushLimits(1, 1.0), venues={}, dead_letters=DeadLetters(tmp_path / "dead"),
            facts=facts, telemetry=telemetry, joined=lambda *_: None,
        )
        for name in ("one", "two")
    ]  # fmt: skip
    environment = SimpleNamespace(telemetry=telemetry, settings=Settings())
    service = persistence.build(cast("Environment", environment), made, facts)
    async with asyncio.timeout(5):
        for close in service.closes:
            await close()


@pytest.mark.parametrize("restarts", [False, True])
@pytest.mark.parametrize("down", ["opening", "writing"])
async def test_stopped_and_started_again_before_it_ever_joined(tmp_path: Path, down: str, restarts: bool) -> None:
    async with upstream(tmp_path) as (hub, target):
        async with service(tmp_path, target, down=down) as (control, store, _):
            await start(control)
            await publish(hub, range(100))
            await asyncio.sleep(0.2)
            await stop(control)
            if not restarts:
                await start(control)
                await publish(hub, range(100, 200))
                await stop(control)
                bring_back(store)
                await until(lambda: 199 in ids_stored(tmp_path))
        if restarts:
            async with service(tmp_path, target, down=down) as (control, _, _):
                await start(control)
                await publish(hub, range(100, 200))
            async with service(tmp_path, target, down=""):
                await until(lambda: 199 in ids_stored(tmp_path))
    assert sorted(ids_stored(tmp_path)) == list(range(200))


async def test_the_upstream_keeps_what_was_taken_and_is_not_stored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(follower_module, "FREE_AFTER_S", 0.1)
    async with (
        upstream(tmp_path) as (hub, target),
        service(tmp_path, target, down="writing") as (control, store, wanted),
    ):
        await start(control)
        await publish(hub, range(100))
        await asyncio.sleep(0.3)
        await stop(control)
        await asyncio.sleep(0.5)
        assert [one.name for one in hub.journal.consumers()] == ["sink-1"]
        bring_back(store)
        await until(lambda: not wanted.ending)
        await until(lambda: not hub.journal.consumers())
    assert sorted(ids_stored(tmp_path)) == list(range(100))


FUTURES, FUTURES_VENUE = "binance_futures", "BINANCE_FUTURES"


@asynccontextmanager
async def two_venues(folder: Path, **targets: str) -> AsyncIterator[tuple[ControlService, FlakyStore, Service]]:
    """A sink of both venues as it is wired for real; it wants what it wanted before."""
    facts, telemetry, wanted = SubscriptionTable(), Telemetry("test"), WantedFile(folder / "wanted.json")
    venues, store = {UPSTREAM: VENUE, FUTURES: FUTURES_VENUE}, FlakyStore(folder / "delta")
    sink = TradeSink(
        store, FlushLimits(10_000, 0.05), venues=venues, facts=facts, telemetry=telemetry, joined=wanted.joined,
        dead_letters=DeadLetters(folder / "dead"), left=wanted.left,
    )  # fmt: skip

    def follow(name: str, consumer: TradeSink, *, store: str, key: str) -> Follower:  # noqa: ARG001
        return Follower(
            name, targets[name], Access(), venue=venues[name], requester="sink-1", key=key, consumer=consumer,
            telemetry=telemetry,
        )  # fmt: skip

    environment = SimpleNamespace(telemetry=telemetry, follow=follow, settings=Settings())
    service = persistence.build(cast("Environment", environment), [sink], facts)
    control = ControlService("sink", service.component, wanted, telemetry, hub=None, simulated=False)
    runs = [asyncio.ensure_future(run()) for run in service.runs]
    runs.append(asyncio.ensure_future(control.restore()))
    try:
        yield control, store, service
    finally:
        for run in runs:
            run.cancel()
        await asyncio.gather(*runs, return_exceptions=True)
        for close in service.closes:
            await close()


async def test_an_upstream_of_which_nothing_is_wanted_holds_nothing_and_is_no_backlog(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(follower_module, "FREE_AFTER_S", 0.1)
    monkeypatch.setattr(persistence, "TELL_EVERY_S", 0.05)
    async with (
        upstream(tmp_path) as (spot, spot_target),
        upstream(tmp_path, FUTURES_VENUE) as (futures, futures_target),
        two_venues(tmp_path, binance_spot=spot_target, binance_futures=futures_target) as (control, store, service),
    ):
        store.failures = 10**6
        await start(control)
        await publish(futures, range(500))
        await publish(spot, range(100))
        await until(lambda: [one.name for one in spot.journal.consumers()] == ["sink-1"])
        await until(lambda: service.component.stores()[0].backlog_rows == 100)
        await asyncio.sleep(0.5)
        assert service.component.stores()[0].backlog_rows == 100
        assert futures.journal.consumers() == []


@contextmanager
def says_nothing() -> Iterator[str]:
    """The address of a server that takes connections and answers nothing."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        yield f"127.0.0.1:{listening.getsockname()[1]}"


@pytest.mark.slow
async def test_an_upstream_that_hangs_ends_nothing_at_the_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(follower_module, "FREE_AFTER_S", 0.2)
    with says_nothing() as hanging:
        async with upstream(tmp_path, FUTURES_VENUE) as (futures, futures_target):
            async with upstream(tmp_path) as (_, spot_target):
                targets = {UPSTREAM: spot_target, FUTURES: futures_target}
                async with two_venues(tmp_path, **targets) as (control, *_):
                    for venue in (VENUE, FUTURES_VENUE):
                        await control.start(control_pb2.StartRequest(symbols=["BTCUSDT"], venue=venue))
                    await publish(futures, range(100))
                    await until(lambda: ids_stored(tmp_path) == list(range(100)))
            async with two_venues(tmp_path, binance_spot=hanging, binance_futures=futures_target):
                await asyncio.sleep(1.0)
                assert [one.name for one in futures.journal.consumers()] == ["sink-1"]
                await publish(futures, range(100, 200))
                await until(lambda: sorted(ids_stored(tmp_path)) == list(range(200)))
