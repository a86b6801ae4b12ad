"""Control messages of a market-data WebSocket: what a client asks, and how it is told that it asked wrongly. Pure."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

RequestId: TypeAlias = int | str | None

METHODS: Final = ("SUBSCRIBE", "UNSUBSCRIBE", "LIST_SUBSCRIPTIONS", "SET_PROPERTY", "GET_PROPERTY")
_LEGAL_ID: Final = re.compile(r"[A-Za-z0-9_-]{1,36}")


@dataclass(frozen=True, slots=True)
class Request:
    """A well-formed control message."""

    method: str
    params: tuple[Any, ...]
    id: RequestId


class ControlError(Exception):
    """A control message the exchange refuses, with its code; `id` is the request's where it could be read."""

    def __init__(self, code: int, message: str, request_id: RequestId = None) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.id = request_id

    def reply(self) -> str:
        """The refusal as it is sent: bare when the request could not be told, else with its id."""
        body = {"code": self.code, "msg": self.message}
        return _dump(body if self.id is None else {"error": body, "id": self.id})


def result(value: object, request_id: RequestId) -> str:
    """The answer to a request."""
    return _dump({"result": value, "id": request_id})


def parse(text: str) -> Request:
    """A control message; raises ControlError when it is not one."""
    try:
        message = json.loads(text)
    except json.JSONDecodeError as error:
        where = f"line {error.lineno} column {error.colno}"
        raise ControlError(3, f"Invalid JSON: expected value at {where}") from error
    end = f"line {text.count(chr(10)) + 1} column {len(text.rsplit(chr(10), 1)[-1])}"
    if not isinstance(message, dict):
        raise ControlError(2, f"Invalid request: invalid type, expected struct Request at {end}")
    request_id = _request_id(message.get("id"))
    method = message.get("method")
    if method is None:
        raise ControlError(2, f"Invalid request: missing field `method` at {end}", request_id)
    if method not in METHODS:
        expected = ", ".join(f"`{name}`" for name in METHODS)
        raise ControlError(
            2, f"Invalid request: unknown variant `{method}`, expected one of {expected} at {end}", request_id
        )
    if method == "LIST_SUBSCRIPTIONS":
        return Request(method, (), request_id)
    params = message.get("params")
    if not isinstance(params, list):
        raise ControlError(2, f"Invalid request: missing field `params` at {end}", request_id)
    _check_params(method, params, request_id)
    return Request(method, tuple(params), request_id)


def _check_params(method: str, params: list[Any], request_id: RequestId) -> None:
    if method in ("SUBSCRIBE", "UNSUBSCRIBE"):
        if not all(isinstance(stream, str) for stream in params):
            raise ControlError(2, "Invalid request: stream name must be a string", request_id)
        return
    wanted = 2 if method == "SET_PROPERTY" else 1
    if len(params) > wanted:
        raise ControlError(2, "Invalid request: too many parameters", request_id)
    if len(params) < wanted:
        raise ControlError(2, "Invalid request: too few parameters", request_id)
    if not isinstance(params[0], str):
        raise ControlError(2, "Invalid request: property name must be a string", request_id)
    if params[0] != "combined":
        raise ControlError(0, "Unknown property", request_id)
    if method == "SET_PROPERTY" and not isinstance(params[1], bool):
        raise ControlError(1, "Invalid value type: expected Boolean", request_id)


def _request_id(value: object) -> RequestId:
    is_number = isinstance(value, int) and not isinstance(value, bool) and -(2**63) <= value < 2**63
    if value is None or is_number or (isinstance(value, str) and _LEGAL_ID.fullmatch(value)):
        return value  # type: ignore[return-value]  # mypy does not follow `is_number`
    raise ControlError(2, "Invalid request: request ID must be an unsigned integer")


def _dump(value: object) -> str:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)
