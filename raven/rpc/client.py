"""The client of one other service: its Control and MarketData calls, with Raven's errors."""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, Sequence
from types import TracebackType
from typing import Any, Final, Literal, Self

import grpc

from raven.batches.batch import Cursor
from raven.errors import AccessError, TooLateError, UnknownHostError, UpstreamError
from raven.rpc.access import Access
from raven.rpc.cursors import from_message, to_message
from raven.rpc.limits import MAX_MESSAGE_BYTES
from raven.rpc.pb import control_pb2, control_pb2_grpc, market_data_pb2, market_data_pb2_grpc

OPTIONS = [
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.keepalive_time_ms", 20_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.initial_reconnect_backoff_ms", 200),
    ("grpc.max_reconnect_backoff_ms", 3_000),
]

REFUSED_REMEDY: Final = "set security.token (or RAVEN__SECURITY__TOKEN) to that service's token"
LOOPBACK_REMEDY: Final = "set security.token to the same token there and here; `raven token` makes one"
HANDSHAKE_FAILURES: Final = (
    ("certificate has expired", "has an expired certificate", "renew it: security.tls_certificate there"),
    (
        "CERTIFICATE_VERIFY_FAILED",
        "has a certificate that no authority trusted here has signed",
        "set security.tls_ca to the authority of that service's certificate",
    ),
    (
        "Hostname Verification Check failed",
        "has a certificate of another name",
        "name the host and address in the certificate (subjectAltName)",
    ),
    ("WRONG_VERSION_NUMBER", "speaks no TLS", "set security.tls_certificate and tls_key there, or no TLS here"),
    (
        "failed to connect.*(Socket closed|reset by peer)",
        "ends the connection at once",
        (
            "it wants TLS (set security.tls_ca) or a client certificate (tls_certificate, tls_key) signed by its "
            "tls_ca, or has all the connections it may have"
        ),
    ),
)
"""What gRPC says of a connection that could not be made: a pattern of its words, what it means, what to do."""

UNKNOWN_HOST: Final = re.compile("resolv|resolution|lookup", re.IGNORECASE)
"""What gRPC says of a host that has no address."""

Begin = Cursor | Literal["earliest", "latest"] | int
"""Where a subscription begins: after a cursor, at either end, or at an append time (UTC, microseconds)."""


class UnknownJournalError(UpstreamError):
    """The upstream's journal is not the one the cursor is of."""


class Client:
    """A channel to the service at `target` (`host:port`), with the token and certificates of `access`.

    Use as an async context manager, or `close` it. Every call raises UpstreamError, or AccessError when the service
    refuses the caller or cannot be trusted.
    """

    def __init__(self, target: str, access: Access) -> None:
        self.target = target
        self._access = access
        self._channel = access.channel(target, OPTIONS)
        self._control = control_pb2_grpc.ControlStub(self._channel)
        self._market_data = market_data_pb2_grpc.MarketDataStub(self._channel)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the channel."""
        await self._channel.close()

    async def start(
        self,
        symbols: Sequence[str],
        *,
        venue: str = "",
        requester: str = "",
        wait_s: float = 0.0,
        timeout_s: float = 30.0,
    ) -> list[control_pb2.SymbolResult]:
        """Ask the service to collect `symbols` of `venue` (empty: the service's own or first)."""
        request = control_pb2.StartRequest(symbols=symbols, venue=venue, requester=requester, wait_s=wait_s)
        response = await self._call(self._control.Start, request, timeout_s)
        return list(response.results)

    async def stop(
        self, symbols: Sequence[str], *, venue: str = "", requester: str = "", timeout_s: float = 10.0
    ) -> list[control_pb2.SymbolResult]:
        """Ask the service to stop collecting `symbols` of `venue` (empty: of every venue)."""
        request = control_pb2.StopRequest(symbols=symbols, venue=venue, requester=requester)
        response = await self._call(self._control.Stop, request, timeout_s)
        return list(response.results)

    async def stop_all(self, *, force: bool = False, timeout_s: float = 10.0) -> list[control_pb2.SymbolResult]:
        """Ask the service to stop what users asked for; with `force` anything."""
        response = await self._call(self._control.StopAll, control_pb2.StopAllRequest(force=force), timeout_s)
        return list(response.results)

    async def list(self, *, timeout_s: float = 5.0) -> list[control_pb2.Subscription]:
        """What the service collects."""
        response = await self._call(self._control.List, control_pb2.ListRequest(), timeout_s)
        return list(response.subscriptions)

    async def status(self, *, timeout_s: float = 5.0) -> control_pb2.StatusResponse:
        """How the service is."""
        response: control_pb2.StatusResponse = await self._call(
            self._control.Status, control_pb2.StatusRequest(), timeout_s
        )
        return response

    async def forget(self, consumer: str, *, timeout_s: float = 5.0) -> bool:
        """Free a dead consumer's hold on the service's journal; whether it was known."""
        response = await self._call(self._control.Forget, control_pb2.ForgetRequest(consumer=consumer), timeout_s)
        return bool(response.known)

    async def acknowledge(
        self, consumer: str, cursor: Cursor | None, *, timeout_s: float = 5.0
    ) -> market_data_pb2.AcknowledgeResponse:
        """Tell the service what `consumer` will not ask for again (None: nothing); how far behind it is."""
        request = market_data_pb2.AcknowledgeRequest(
            consumer=consumer,
            cursor=to_message(cursor),
        )
        response: market_data_pb2.AcknowledgeResponse = await self._call(
            self._market_data.Acknowledge, request, timeout_s
        )
        return response

    async def subscribe(
        self, begin: Begin, *, consumer: str = "", symbols: Sequence[str] = ()
    ) -> AsyncGenerator[tuple[Cursor, bytes | None]]:
        """Batches after `begin` with their cursors, without end; a payload of None is a bare cursor.

        Raises UnknownJournalError, or UpstreamError when the connection is refused or lost.
        """
        request = market_data_pb2.SubscribeRequest(consumer=consumer, symbols=symbols)
        if isinstance(begin, Cursor):
            request.cursor.journal_id, request.cursor.sequence = begin.journal_id, begin.sequence
        elif isinstance(begin, int):
            request.append_time_us = begin
        elif begin == "earliest":
            request.earliest.SetInParent()
        else:
            request.latest.SetInParent()
        call = self._market_data.Subscribe(request, metadata=self._access.metadata)
        try:
            async for response in call:
                if response.WhichOneof("item") == "batch":
                    yield from_message(response.batch.cursor), response.batch.arrow_ipc
                else:
                    yield from_message(response.cursor), None
        except grpc.aio.AioRpcError as error:
            if error.code() is grpc.StatusCode.FAILED_PRECONDITION:
                raise UnknownJournalError(f"{self.target}: {error.details()}") from error
            raise self._explain(error) from error
        finally:
            call.cancel()

    async def _call(self, method: Any, request: Any, timeout_s: float) -> Any:
        try:
            return await method(request, timeout=timeout_s, metadata=self._access.metadata)
        except grpc.aio.AioRpcError as error:
            raise self._explain(error) from error

    def _explain(self, error: grpc.aio.AioRpcError) -> UpstreamError:
        details = error.details() or error.code().name
        match error.code():
            case grpc.StatusCode.UNAUTHENTICATED:
                return AccessError(f"{self.target} refuses the call: {details}", hint=REFUSED_REMEDY)
            case grpc.StatusCode.PERMISSION_DENIED:
                return AccessError(f"{self.target} refuses the call: {details}", hint=LOOPBACK_REMEDY)
            case grpc.StatusCode.UNAVAILABLE:
                return self._why_unavailable(details)
            case grpc.StatusCode.DEADLINE_EXCEEDED:
                return TooLateError(f"{self.target} did not answer in time")
        return UpstreamError(f"{self.target}: {details}")

    def _why_unavailable(self, details: str) -> UpstreamError:
        for sign, why, hint in HANDSHAKE_FAILURES:
            if re.search(sign, details):
                return AccessError(f"{self.target} {why}", hint=hint)
        if UNKNOWN_HOST.search(details):
            host = self.target.rpartition(":")[0]
            return UnknownHostError(f"there is no host {host}", hint="check --host, or [upstream] in the settings")
        return UpstreamError(f"no service answers at {self.target}", hint="is it running? check host and port")
