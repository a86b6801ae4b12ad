"""What a failed connection or request means: one pure function per boundary, no I/O."""

from __future__ import annotations

import re
import socket
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

import aiohttp
import aiohttp_socks
from websockets.exceptions import (
    ConnectionClosed,
    InvalidHandshake,
    InvalidProxy,
    InvalidProxyStatus,
    InvalidStatus,
    InvalidURI,
    ProxyError,
)

LIMITED_S: Final = 60.0
"""How long a rate limit is taken to last when the exchange does not say."""

LONGEST_S: Final = {429: 300.0, 418: 3 * 86_400.0}
"""The longest there is of each refusal, as the exchange documents them; one that says more says nothing."""


class Kind(StrEnum):
    """What can be done about a failure: a closed set, fit for a metric's label."""

    BLOCKED = "blocked"
    """The exchange answers that it does not serve this region: the network itself works."""
    UNREACHABLE = "unreachable"
    """Nothing of the exchange answers: no network, name, route or proxy."""
    LIMITED = "limited"
    """Too much was asked; `retry_after_s` says when to come again."""
    FAULT = "fault"
    """It was reached and failed; the same may work next time."""
    REFUSED = "refused"
    """It was reached and will not; the same will fail again."""


@dataclass(frozen=True, slots=True)
class Failure:
    """A failure, and its cause in words that go on after the name of an endpoint."""

    kind: Kind
    cause: str
    retry_after_s: float | None = None


def classify_status(status: int, *, retry_after: str | None = None, body: bytes = b"") -> Failure:
    """An HTTP answer that is not the one hoped for, of REST or of a WebSocket handshake."""
    cause = f"answers {status}"
    if status == 407:
        return Failure(Kind.UNREACHABLE, f"the proxy {cause}")
    if status in (403, 451):
        return Failure(Kind.BLOCKED, cause)
    if status in LONGEST_S:
        pause_s = _pause_s(status, retry_after)
        return Failure(Kind.LIMITED, f"{cause}: too many requests, come again in {pause_s:g} s", pause_s)
    if body:
        cause += f": {body[:200].decode(errors='replace')}"
    return Failure(Kind.FAULT if status >= 500 else Kind.REFUSED, cause)


def _pause_s(status: int, retry_after: str | None) -> float:
    """How long to send nothing: what the exchange says, where that can be."""
    if retry_after is None or not re.fullmatch(r"\d+(\.\d+)?", retry_after, re.ASCII):
        return LIMITED_S
    asked_s = float(retry_after)
    return asked_s if asked_s <= LONGEST_S[status] else LIMITED_S


def classify_websocket(error: Exception) -> Failure:
    """What broke a WebSocket connection, or kept it from opening."""
    kind = Kind.FAULT
    match error:
        case InvalidStatus():
            response = error.response
            return classify_status(response.status_code, retry_after=response.headers.get("Retry-After"))
        case InvalidProxyStatus():
            kind, cause = Kind.UNREACHABLE, f"the proxy answers {error.response.status_code}"
        case ProxyError() | InvalidProxy():
            kind, cause = Kind.UNREACHABLE, f"{error}{f': {error.__cause__}' if error.__cause__ else ''}"
        case InvalidURI():
            kind, cause = Kind.REFUSED, f"is no WebSocket address: {error}"
        case InvalidHandshake():
            kind, cause = Kind.REFUSED, f"did not open a WebSocket: {error}"
        case ConnectionClosed():
            cause = f"closed the connection: {error}"
        case OSError():
            kind, cause = Kind.UNREACHABLE, _cause(error)
        case _:
            cause = str(error) or type(error).__name__
    return Failure(kind, cause)


def classify_request(error: Exception) -> Failure:
    """What broke a REST request before there was an answer."""
    kind = Kind.UNREACHABLE
    match error:
        case aiohttp.ClientHttpProxyError():
            cause = f"the proxy answers {error.status}"
        case aiohttp.InvalidURL() | aiohttp.NonHttpUrlClientError():
            kind, cause = Kind.REFUSED, "is no address of a web server"
        case aiohttp.ClientConnectorError():
            cause = _cause(error.os_error)
        case aiohttp.ConnectionTimeoutError() | aiohttp_socks.ProxyTimeoutError():
            cause = "timed out"
        case aiohttp_socks.ProxyError() | aiohttp_socks.ProxyConnectionError():
            cause = f"the proxy: {error}"
        case TimeoutError():
            kind, cause = Kind.FAULT, "did not answer in time"
        case _:
            kind, cause = Kind.FAULT, f"broke off: {error or type(error).__name__}"
    return Failure(kind, cause)


def _cause(error: OSError) -> str:
    if isinstance(error, socket.gaierror):
        return f"its name cannot be resolved ({error.strerror})"
    if isinstance(error, ConnectionRefusedError):
        return "connection refused"
    if isinstance(error, TimeoutError):
        return "timed out"
    return error.strerror or str(error) or type(error).__name__
