"""Who may call a service: the token, the loopback rule, and how many subscriptions a peer may hold."""

from __future__ import annotations

import hmac
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from functools import partial
from typing import Any, Final, NoReturn, TypeAlias

import grpc
from grpc_health.v1 import health

from raven.rpc.access import Access, is_local_peer, peer_host
from raven.rpc.pb import control_pb2, market_data_pb2

CONTROL: Final = control_pb2.DESCRIPTOR.services_by_name["Control"].full_name
MARKET_DATA: Final = market_data_pb2.DESCRIPTOR.services_by_name["MarketData"].full_name
HEALTH: Final = health.SERVICE_NAME

Context = grpc.aio.ServicerContext[Any, Any]
Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"


class Guard(grpc.aio.ServerInterceptor):
    """Stands before every call of one server.

    With a token every call but health has to bring it. Without one, what changes or shows the service's state
    (Control, acknowledgements, the subscription of a durable consumer) is for callers on loopback. `refused` is told
    of every call that is refused: for want of the `token`, of `loopback`, or for too many `subscriptions`.
    """

    def __init__(self, access: Access, refused: Callable[[str], None]) -> None:
        self._access = access
        self._refused = refused
        self._expected = access.token.encode()
        self._subscriptions: Counter[str] = Counter()

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Handler | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Handler | None:
        """The handler of the call, or one that refuses it."""
        handler = await continuation(handler_call_details)
        service, _, method = handler_call_details.method.lstrip("/").partition("/")
        if handler is None or service == HEALTH:
            return handler
        if self._expected:
            why = self._token_problem(handler_call_details.invocation_metadata or ())
            if why:
                self._refused("token")
            return _refusing(handler, why) if why else handler
        if service == CONTROL or (service, method) == (MARKET_DATA, "Acknowledge"):
            return self._local_only(handler, f"{service.rpartition('.')[2]}.{method}")
        return handler

    def _token_problem(self, metadata: Iterable[tuple[str, str | bytes]]) -> str:
        """What is wrong with the token of a call; empty when it is right."""
        given = [value for key, value in metadata if key == "authorization" and isinstance(value, str)]
        if not given:
            return "a token is needed, and none was sent"
        scheme, _, token = given[0].partition(" ")
        right = hmac.compare_digest(token.strip().encode(), self._expected)
        return "" if right and scheme.lower() == "bearer" and len(given) == 1 else "the token is wrong"

    def _local_only(self, handler: Handler, what: str) -> Handler:
        behaviour: Any = handler.unary_unary  # the types know of no asyncio here

        async def call(request: Any, context: Any) -> Any:
            await self._require_local(what, context)
            return await behaviour(request, context)

        return grpc.unary_unary_rpc_method_handler(call, handler.request_deserializer, handler.response_serializer)

    async def _require_local(self, what: str, context: Context) -> None:
        peer = context.peer()
        if not is_local_peer(peer):
            self._refused("loopback")
            await context.abort(
                grpc.StatusCode.PERMISSION_DENIED,
                f"no token is set there, so {what} answers only its own machine, not {peer_host(peer)}",
            )

    async def subscribe(self, consumer: str, context: Context) -> None:
        """Let a subscription begin, durable when `consumer` is named; it counts until its call is done."""
        if consumer and not self._expected:
            await self._require_local("the subscription of a durable consumer", context)
        peer, most = peer_host(context.peer()), self._access.max_subscriptions_per_peer
        if self._subscriptions[peer] >= most:
            self._refused("subscriptions")
            await context.abort(
                grpc.StatusCode.RESOURCE_EXHAUSTED,
                f"{peer} holds {most} subscriptions, the most one address may (security.max_subscriptions_per_peer)",
            )
        self._subscriptions[peer] += 1
        context.add_done_callback(partial(self._leave, peer))  # type: ignore[arg-type] # the stub is of the client's

    def _leave(self, peer: str, _: Any) -> None:
        self._subscriptions[peer] -= 1
        if not self._subscriptions[peer]:
            del self._subscriptions[peer]


def _refusing(handler: Handler, why: str) -> Handler:
    """A handler of the same kind that answers UNAUTHENTICATED."""

    async def refuse(_: Any, context: Context) -> NoReturn:
        await context.abort(grpc.StatusCode.UNAUTHENTICATED, why)

    async def refuse_stream(_: Any, context: Context) -> AsyncIterator[Any]:
        await context.abort(grpc.StatusCode.UNAUTHENTICATED, why)
        yield  # makes it a stream

    if handler.response_streaming:
        make = (
            grpc.stream_stream_rpc_method_handler if handler.request_streaming else grpc.unary_stream_rpc_method_handler
        )
        return make(refuse_stream, handler.request_deserializer, handler.response_serializer)
    return grpc.unary_unary_rpc_method_handler(refuse, handler.request_deserializer, handler.response_serializer)
