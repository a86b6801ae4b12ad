"""Server and client over real gRPC on loopback."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from raven.batches.batch import BatchMeta, Cursor
from raven.batches.ipc import decode
from raven.batches.schema import TRADE_SCHEMA, stream_schema, to_frame, to_record_batch
from raven.errors import InputError, RavenError, UpstreamError
from raven.journal import Journal
from raven.journal.journal import MAX_CONSUMERS
from raven.rpc import server
from raven.rpc.access import Access
from raven.rpc.client import Begin, Client, UnknownJournalError
from raven.rpc.generate import ROOT, generate
from raven.rpc.hub import Hub
from raven.rpc.pb import control_pb2, market_data_pb2
from raven.rpc.server import Server
from tests.unit.samples import trades

SCHEMA = stream_schema(TRADE_SCHEMA, kind="trades", venue="BINANCE_SPOT")


class Handler:
    """A control handler that answers every start with the symbols it was asked for."""

    async def start(self, request: control_pb2.StartRequest) -> control_pb2.StartResponse:
        if "" in request.symbols:
            raise InputError("no symbol given")
        results = [control_pb2.SymbolResult(symbol=name) for name in request.symbols]
        return control_pb2.StartResponse(results=results)

    async def stop(self, request: control_pb2.StopRequest) -> control_pb2.StopResponse:
        return control_pb2.StopResponse(results=[control_pb2.SymbolResult(symbol=name) for name in request.symbols])

    async def stop_all(self, *, force: bool) -> control_pb2.StopResponse:  # noqa: ARG002
        return control_pb2.StopResponse()

    def list(self) -> control_pb2.ListResponse:
        return control_pb2.ListResponse(subscriptions=[control_pb2.Subscription(symbol="BTCUSDT")])

    def status(self) -> control_pb2.StatusResponse:
        return control_pb2.StatusResponse(service="test", healthy=True)

    async def forget(self, consumer: str) -> bool:
        return consumer == "known"


@asynccontextmanager
async def serving(folder: Path) -> AsyncIterator[tuple[Hub, Client]]:
    with Journal.open(folder / "journal", SCHEMA) as journal:
        hub = Hub(journal)
        server = Server("127.0.0.1", 0, Handler(), hub, access=Access())
        await server.start()
        try:
            async with Client(f"127.0.0.1:{server.port}", Access()) as client:
                yield hub, client
        finally:
            await server.stop()


async def publish(hub: Hub, *symbols: str) -> None:
    for symbol in symbols:
        await hub.publish(to_record_batch(trades([1], symbol), SCHEMA), BatchMeta())


async def take(
    client: Client, begin: Begin, count: int, *, consumer: str = "", symbols: tuple[str, ...] = ()
) -> list[int]:
    """Sequences of the first `count` batches."""
    sequences: list[int] = []
    async with asyncio.timeout(10), aclosing(client.subscribe(begin, consumer=consumer, symbols=symbols)) as stream:
        async for cursor, payload in stream:
            if payload is not None:
                sequences.append(cursor.sequence)
                assert decode(payload)[1].sequence == cursor.sequence
                if len(sequences) == count:
                    break
    return sequences


async def test_subscribe_from_every_beginning(tmp_path: Path) -> None:
    async with serving(tmp_path) as (hub, client):
        await publish(hub, *["BTCUSDT"] * 5)
        third = next(entry for entry in hub.journal.read(2))
        assert await take(client, "earliest", 5) == [1, 2, 3, 4, 5]
        assert await take(client, Cursor(hub.journal.id, 3), 2) == [4, 5]
        assert await take(client, third.meta.appended_us, 3) == [3, 4, 5]
        latest = asyncio.ensure_future(take(client, "latest", 1))
        await asyncio.sleep(0.2)
        await publish(hub, "BTCUSDT")
        assert await latest == [6]


async def test_filtered_subscription_gets_rows_of_its_symbols_and_the_cursor(tmp_path: Path) -> None:
    async with serving(tmp_path) as (hub, client):
        await publish(hub, "BTCUSDT", "ETHUSDT", "BTCUSDT", "LTCUSDT")
        seen: list[tuple[int, list[str] | None]] = []
        async with asyncio.timeout(10), aclosing(client.subscribe("earliest", symbols=["ETHUSDT"])) as stream:
            async for cursor, payload in stream:
                rows = None if payload is None else to_frame(decode(payload)[0]).get_column("symbol").to_list()
                seen.append((cursor.sequence, rows))
                if cursor.sequence == 4:
                    break
        assert seen == [(0, None), (1, None), (2, ["ETHUSDT"]), (3, None), (4, None)]


async def test_idle_subscription_gets_the_cursor_every_second(tmp_path: Path) -> None:
    async with serving(tmp_path) as (hub, client):
        await publish(hub, "BTCUSDT")
        cursors = []
        async with asyncio.timeout(5), aclosing(client.subscribe("latest")) as stream:
            async for cursor, payload in stream:
                assert payload is None
                cursors.append(cursor)
                if len(cursors) == 3:
                    break
        assert cursors == [Cursor(hub.journal.id, 1)] * 3


async def test_a_subscriber_that_leaves_while_the_server_waits_for_the_next_batch_is_no_error(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    async with serving(tmp_path) as (hub, client):
        for _ in range(5):
            async with asyncio.timeout(5), aclosing(client.subscribe("latest")) as stream:
                assert await anext(stream) == (Cursor(hub.journal.id, hub.last_sequence), None)
                await asyncio.sleep(0.05)
            await asyncio.sleep(0.05)  # the server hears of it
    assert [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR] == []
    assert "Traceback" not in capfd.readouterr().err


async def test_a_subscription_that_is_dropped_between_two_answers_ends_its_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As when the server stops: then nobody takes what the call had just answered."""
    monkeypatch.setattr(server, "CURSOR_EVERY_S", 0.05)
    context = cast("server.Context", SimpleNamespace(peer=lambda: "ipv4:127.0.0.1:1", add_done_callback=lambda _: None))
    request = market_data_pb2.SubscribeRequest(latest=market_data_pb2.Latest())
    with Journal.open(tmp_path, SCHEMA) as journal:
        servicer = server.MarketDataServicer(Hub(journal), server.Guard(Access(), lambda _: None))
        answers = servicer.Subscribe(request, context)
        for _ in range(3):
            assert (await anext(answers)).WhichOneof("item") == "cursor"
        await answers.aclose()
        assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_cursor_of_another_journal_is_refused(tmp_path: Path) -> None:
    async with serving(tmp_path) as (_, client):
        with pytest.raises(UnknownJournalError, match="the cursor is of journal other"):
            await take(client, Cursor("other", 1), 1)


async def test_named_consumer_holds_the_journal_until_it_acknowledges(tmp_path: Path) -> None:
    async with serving(tmp_path) as (hub, client):
        await publish(hub, *["BTCUSDT"] * 3)
        await take(client, "earliest", 3, consumer="raven_tibs-1")
        await client.acknowledge("raven_tibs-1", Cursor(hub.journal.id, 2))
        assert [(entry.name, entry.sequence) for entry in hub.journal.consumers()] == [("raven_tibs-1", 2)]


async def test_control_calls_and_errors(tmp_path: Path) -> None:
    async with serving(tmp_path) as (_, client):
        assert [result.symbol for result in await client.start(["BTCUSDT", "ETHUSDT"])] == ["BTCUSDT", "ETHUSDT"]
        assert [entry.symbol for entry in await client.list()] == ["BTCUSDT"]
        assert (await client.status()).service == "test"
        assert await client.forget("known")
        assert not await client.forget("unknown")
        with pytest.raises(UpstreamError, match="no symbol given"):
            await client.start([""])
        with pytest.raises(UpstreamError, match="5000 symbols; at most 4096 a request"):
            await client.start([f"S{number}" for number in range(5000)])


async def test_nobody_there() -> None:
    async with Client("127.0.0.1:1", Access()) as client:
        with pytest.raises(UpstreamError, match=r"no service answers at 127.0.0.1:1"):
            await client.list()


async def test_port_taken() -> None:
    first = Server("127.0.0.1", 0, Handler(), access=Access())
    await first.start()
    try:
        with pytest.raises(RavenError, match=f"cannot listen on 127.0.0.1:{first.port}.*--port"):
            await Server("127.0.0.1", first.port, Handler(), access=Access()).start()
    finally:
        await first.stop()


async def test_health_and_reflection(tmp_path: Path) -> None:
    async with serving(tmp_path) as (_, client), grpc.aio.insecure_channel(client.target) as channel:
        answer = await health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest())
        assert answer.status == health_pb2.HealthCheckResponse.SERVING
        stub = reflection_pb2_grpc.ServerReflectionStub(channel)
        asked = [reflection_pb2.ServerReflectionRequest(list_services="")]
        async for reply in stub.ServerReflectionInfo(iter(asked)):
            names = {service.name for service in reply.list_services_response.service}
        assert {"raven.v1.Control", "raven.v1.MarketData", "grpc.health.v1.Health"} <= names


def test_generated_code_is_fresh(tmp_path: Path) -> None:
    generate(tmp_path)
    committed = ROOT / "raven" / "rpc" / "pb"
    fresh = {path.name: path.read_text() for path in tmp_path.iterdir()}
    assert len(fresh) == 6
    for name, text in fresh.items():
        assert (committed / name).read_text() == text, f"{name} is stale: run `make proto`"


async def test_an_acknowledgement_is_answered_with_what_is_left(tmp_path: Path) -> None:
    async with serving(tmp_path) as (hub, client):
        await publish(hub, *["BTCUSDT"] * 5)
        nothing = await client.acknowledge("sink", None)
        assert nothing.behind_rows == 5
        assert [(one.name, one.sequence) for one in hub.journal.consumers()] == [("sink", 0)]
        third = await client.acknowledge("sink", Cursor(hub.journal.id, 3))
        assert third.behind_rows == 2
        assert third.behind_since_us == next(hub.journal.read(3)).meta.appended_us
        assert (await client.acknowledge("sink", Cursor("another journal", 5))).behind_rows == 2
        assert (await client.acknowledge("sink", Cursor(hub.journal.id, 5))).behind_rows == 0


async def test_consumers_are_bounded_in_name_and_number(tmp_path: Path) -> None:
    async with serving(tmp_path) as (hub, client):
        await publish(hub, "BTCUSDT")
        for name in ("x" * 129, "a b", "../x", "\x1b[2J", "a\nb"):
            with pytest.raises(UpstreamError, match="is no name of a consumer"):
                await take(client, "earliest", 1, consumer=name)
            with pytest.raises(UpstreamError, match="is no name of a consumer"):
                await client.acknowledge(name, None)
            with pytest.raises(UpstreamError, match="is no name of a consumer"):
                await client.start(["BTCUSDT"], requester=name)
        for number in range(MAX_CONSUMERS):
            hub.journal.acknowledge(f"c{number}", 1)
        with pytest.raises(UpstreamError, match=r"256 consumers, and takes no more.*forget"):
            await client.acknowledge("another", None)
        with pytest.raises(UpstreamError):
            await take(client, "earliest", 1, consumer="another")
        assert await take(client, "earliest", 1, consumer="c7") == [1]
        assert await take(client, "earliest", 1) == [1]
        hub.journal.forget("c8")
        assert await take(client, "earliest", 1, consumer="another") == [1]
