"""The gRPC server every service runs: Control, health, reflection, and MarketData where there is a journal."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine
from contextlib import aclosing
from typing import Any, Final, Protocol, TypeVar

import grpc
import polars as pl
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from raven.batches.batch import Cursor
from raven.batches.ipc import decode, encode
from raven.batches.schema import to_frame, to_record_batch
from raven.errors import RavenError
from raven.journal import Entry
from raven.rpc.access import Access, address
from raven.rpc.connections import Connections, most_connections, raise_file_limit, server_options
from raven.rpc.cursors import to_message
from raven.rpc.guard import CONTROL, MARKET_DATA, Context, Guard
from raven.rpc.hub import Hub
from raven.rpc.limits import MAX_MESSAGE_BYTES, MAX_REQUEST_BYTES, MAX_SYMBOLS_PER_REQUEST, name_problem
from raven.rpc.pb import control_pb2, control_pb2_grpc, market_data_pb2, market_data_pb2_grpc
from raven.tasks import finish

T = TypeVar("T")
CURSOR_EVERY_S: Final = 1.0
OPTIONS: Final = [
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_receive_message_length", MAX_REQUEST_BYTES),
    ("grpc.so_reuseport", 0),
]


class ControlHandler(Protocol):
    """What a service does when it is asked to start, stop or report."""

    async def start(self, request: control_pb2.StartRequest) -> control_pb2.StartResponse:
        """Begin collecting symbols."""

    async def stop(self, request: control_pb2.StopRequest) -> control_pb2.StopResponse:
        """Stop collecting symbols."""

    async def stop_all(self, *, force: bool) -> control_pb2.StopResponse:
        """Stop collecting what users asked for; with `force` anything."""

    def list(self) -> control_pb2.ListResponse:
        """What is being collected."""

    def status(self) -> control_pb2.StatusResponse:
        """How the service is."""

    async def forget(self, consumer: str) -> bool:
        """Free a dead consumer's hold and end its wishes; whether it was known."""


class ControlServicer(control_pb2_grpc.ControlServicer):
    """Maps the RPCs to a handler, and Raven's errors to gRPC statuses."""

    def __init__(self, handler: ControlHandler) -> None:
        self._handler = handler

    async def Start(self, request: control_pb2.StartRequest, context: Context) -> control_pb2.StartResponse:  # noqa: N802
        """Begin collecting symbols."""
        await _bounded(request.symbols, context)
        await _named(request.requester, context)
        return await _finish(self._handler.start(request), context)

    async def Stop(self, request: control_pb2.StopRequest, context: Context) -> control_pb2.StopResponse:  # noqa: N802
        """Stop collecting symbols."""
        await _bounded(request.symbols, context)
        return await _finish(self._handler.stop(request), context)

    async def StopAll(self, request: control_pb2.StopAllRequest, context: Context) -> control_pb2.StopResponse:  # noqa: N802
        """Stop collecting anything."""
        return await _finish(self._handler.stop_all(force=request.force), context)

    async def List(self, request: control_pb2.ListRequest, context: Context) -> control_pb2.ListResponse:  # noqa: N802, ARG002
        """What is being collected."""
        return self._handler.list()

    async def Status(self, request: control_pb2.StatusRequest, context: Context) -> control_pb2.StatusResponse:  # noqa: N802, ARG002
        """How the service is."""
        return self._handler.status()

    async def Forget(self, request: control_pb2.ForgetRequest, context: Context) -> control_pb2.ForgetResponse:  # noqa: N802
        """Free a consumer's hold on the journal."""
        return control_pb2.ForgetResponse(known=await _finish(self._handler.forget(request.consumer), context))


class MarketDataServicer(market_data_pb2_grpc.MarketDataServicer):
    """Serves one hub to those whom `guard` lets in."""

    def __init__(self, hub: Hub, guard: Guard) -> None:
        self._hub = hub
        self._guard = guard

    async def Subscribe(  # noqa: N802
        self, request: market_data_pb2.SubscribeRequest, context: Context
    ) -> AsyncGenerator[market_data_pb2.SubscribeResponse]:
        """Batches from where the request says, then live."""
        await _bounded(request.symbols, context)
        await _named(request.consumer, context)
        await self._guard.subscribe(request.consumer, context)
        after = await self._begin(request, context)
        journal = self._hub.journal
        if request.consumer:
            try:
                journal.register(request.consumer, after)
            except RavenError as error:  # the disk refuses; the consumer comes again
                await context.abort(grpc.StatusCode.UNAVAILABLE, str(error))
        symbols = frozenset(request.symbols)
        async with (
            aclosing(self._hub.follow(after)) as entries,
            aclosing(self._responses(entries, after, symbols)) as responses,
        ):
            async for response in responses:
                yield response

    async def _responses(
        self, entries: AsyncIterator[Entry], after: int, symbols: frozenset[str]
    ) -> AsyncGenerator[market_data_pb2.SubscribeResponse]:
        """The batches of a subscription, and where it stands while there are none."""
        journal = self._hub.journal
        yield _cursor_response(Cursor(journal.id, after))
        while True:
            # asyncio.wait, unlike wait_for, leaves the pending read alone when the second is over
            read = asyncio.ensure_future(anext(entries))
            try:
                while not (await asyncio.wait({read}, timeout=CURSOR_EVERY_S))[0]:
                    yield _cursor_response(Cursor(journal.id, after))
                entry = read.result()
            finally:
                read.cancel()
                await asyncio.wait({read})  # a generator that is still being read cannot be closed
            after = entry.meta.sequence
            payload = select_symbols(entry, symbols) if symbols else entry.payload
            if payload is None:
                yield _cursor_response(entry.meta.cursor)
            else:
                yield market_data_pb2.SubscribeResponse(
                    batch=market_data_pb2.Batch(cursor=to_message(entry.meta.cursor), arrow_ipc=payload)
                )

    async def _begin(self, request: market_data_pb2.SubscribeRequest, context: Context) -> int:
        """The sequence after which the subscription begins."""
        journal = self._hub.journal
        match request.WhichOneof("from"):
            case "cursor":
                if request.cursor.journal_id != journal.id:
                    await context.abort(
                        grpc.StatusCode.FAILED_PRECONDITION,
                        f"the cursor is of journal {request.cursor.journal_id}, this is journal {journal.id}",
                    )
                return min(request.cursor.sequence, self._hub.last_sequence)
            case "earliest":
                return 0
            case "append_time_us":
                return await asyncio.to_thread(journal.sequence_before, request.append_time_us)
            case _:
                return self._hub.last_sequence

    async def Acknowledge(  # noqa: N802
        self, request: market_data_pb2.AcknowledgeRequest, context: Context
    ) -> market_data_pb2.AcknowledgeResponse:
        """Note what a durable consumer will not ask for again; the answer is how far behind it is."""
        if not request.consumer:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "an acknowledgement needs the consumer's name")
        await _named(request.consumer, context)
        journal = self._hub.journal
        try:
            if not request.HasField("cursor"):
                journal.take_up(request.consumer)
            elif request.cursor.journal_id == journal.id:
                journal.acknowledge(request.consumer, request.cursor.sequence)
        except RavenError as error:
            await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, str(error))
        backlog = await asyncio.to_thread(journal.backlog, request.consumer)
        return market_data_pb2.AcknowledgeResponse(behind_rows=backlog.rows, behind_since_us=backlog.since_us)


def select_symbols(entry: Entry, symbols: frozenset[str]) -> bytes | None:
    """The batch with only the rows of `symbols`, encoded; None when there are none."""
    batch, meta = decode(entry.payload)
    frame = to_frame(batch).filter(pl.col("symbol").is_in(list(symbols)))
    return None if frame.is_empty() else encode(to_record_batch(frame, batch.schema), meta)


async def _finish(work: Coroutine[Any, Any, T], context: Context) -> T:
    """What `work` answers, which goes to its end though the caller hangs up; its RavenError becomes the status."""
    try:
        return await finish(work)
    except RavenError as error:
        await context.abort(grpc.StatusCode.FAILED_PRECONDITION, str(error))


async def _bounded(symbols: Any, context: Context) -> None:
    if len(symbols) > MAX_SYMBOLS_PER_REQUEST:
        await context.abort(
            grpc.StatusCode.INVALID_ARGUMENT,
            f"{len(symbols)} symbols; at most {MAX_SYMBOLS_PER_REQUEST} a request",
        )


async def _named(name: str, context: Context) -> None:
    if name and (problem := name_problem(name)):
        await context.abort(grpc.StatusCode.INVALID_ARGUMENT, problem)


def _cursor_response(cursor: Cursor) -> market_data_pb2.SubscribeResponse:
    return market_data_pb2.SubscribeResponse(cursor=to_message(cursor))


class Server:
    """A gRPC server of one service on `host`:`port` (0: any free port; `port` tells which after `start`).

    `max_connections`: how many it takes at once; `file_limit`: how many files and connections the process may open.
    `access`: who may call; `refused` is told the reason of each call that is refused.
    """

    def __init__(
        self, host: str, port: int, handler: ControlHandler, hub: Hub | None = None, *,
        access: Access, refused: Callable[[str], None] = lambda _: None,
    ) -> None:  # fmt: skip
        self.host = host
        self.port = port
        self._access = access
        self.file_limit = raise_file_limit()
        self.max_connections = most_connections(access.max_connections, self.file_limit)
        guard = Guard(access, refused)
        self._server = grpc.aio.server(
            interceptors=[guard],
            options=[*OPTIONS, *server_options(self.max_connections)],
            maximum_concurrent_rpcs=access.max_concurrent_calls,
        )
        self._health = health.aio.HealthServicer()
        names = [health.SERVICE_NAME, reflection.SERVICE_NAME]
        control_pb2_grpc.add_ControlServicer_to_server(ControlServicer(handler), self._server)
        names.append(CONTROL)
        if hub is not None:
            market_data_pb2_grpc.add_MarketDataServicer_to_server(MarketDataServicer(hub, guard), self._server)
            names.append(MARKET_DATA)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        reflection.enable_server_reflection(names, self._server)

    async def start(self) -> None:
        """Bind and serve; raises RavenError when the port is taken, SettingsError without a certificate."""
        listens_on = address(self.host, self.port)
        try:
            self.port = self._access.add_port(self._server, listens_on)
        except RuntimeError as error:
            raise RavenError(
                f"cannot listen on {listens_on}",
                hint="is the host an address of this machine, and the port free? see --host and --port",
            ) from error
        await self._server.start()
        await self._health.set("", health_pb2.HealthCheckResponse.SERVING)

    def connections(self) -> Connections:
        """The connections it holds."""
        return Connections(self.port, self._access.max_connections_per_peer)

    async def stop(self) -> None:
        """Refuse new calls, end the running ones."""
        await self._health.enter_graceful_shutdown()
        await self._server.stop(grace=0.2)
