"""What an answer to a write means, and so what is done about it. Pure.

InfluxDB 2 answers a partly stored request with 422 (its first versions with 500), InfluxDB 1.x with 400, be it for
a field of another type or for points beyond the retention: what the message says tells them apart. From 2.7.12 on
it is long: it holds the series of two points before it comes to how many were dropped. So all of it is read.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from enum import Enum, auto
from http import HTTPStatus
from typing import Final

NO_CONTENT: Final = HTTPStatus.NO_CONTENT
MOST_REASON_CHARACTERS: Final = 500
MOST_RETRY_AFTER_S: Final = 3600.0

_DROPPED: Final = re.compile(r"\bdropped=(\d+)")
_TOO_OLD: Final = re.compile(r"\b(?:beyond|outside) retention policy", re.IGNORECASE)
"""Not the name alone, which newer versions also put at the end of what they say of other faults."""
_HINTS: Final[Mapping[int, str]] = {
    HTTPStatus.UNAUTHORIZED: "set influx.token to a valid token",
    HTTPStatus.FORBIDDEN: "give the token in influx.token the right to write to the bucket",
    HTTPStatus.NOT_FOUND: "make the bucket, or mend influx.url, influx.org or influx.bucket",
    HTTPStatus.PROXY_AUTHENTICATION_REQUIRED: "the proxy before InfluxDB wants a password",
}
_TRY_AGAIN: Final = frozenset({HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_EARLY, HTTPStatus.TOO_MANY_REQUESTS})


class Action(Enum):
    """What is done after an answer."""

    ACCEPTED = auto()
    RETRY = auto()  # later, by itself
    MEND = auto()  # somebody has to
    SPLIT = auto()  # a line is refused: find it
    HALVE = auto()  # the request is too large
    TOO_OLD = auto()  # lines are beyond the retention; the others are stored


@dataclass(frozen=True, slots=True)
class Answer:
    """A server's answer; `status` None: there was none, and `body` says what came of it instead."""

    status: int | None
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Verdict:
    """`action`, why, and what a human should do.

    `dropped`: how many lines the server says it left out; None: it does not say.
    `retry_after_s`: how long it asks to be left alone.
    """

    action: Action
    reason: str = ""
    hint: str = ""
    dropped: int | None = None
    retry_after_s: float = 0.0


def classify(answer: Answer, *, now: datetime | None = None) -> Verdict:
    """What to do about the answer to a write; `now` serves to read a Retry-After that is a date."""
    status, text = answer.status, _said(answer)
    if status == NO_CONTENT:
        return Verdict(Action.ACCEPTED)
    if status is None:
        return _unreached(message(answer))
    reason = f"{message(answer)} (HTTP {status})"
    if status == HTTPStatus.REQUEST_ENTITY_TOO_LARGE:
        return Verdict(Action.HALVE, reason)
    if _is_about_lines(status, text):
        dropped = _DROPPED.findall(text)
        action = Action.TOO_OLD if _TOO_OLD.search(text) else Action.SPLIT
        return Verdict(action, reason, dropped=int(dropped[-1]) if dropped else None)  # before it stand names of others
    if status in _TRY_AGAIN or status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        full = "no space left" in text.lower()
        hint = "free some space on the disk of InfluxDB; what was not stored waits in the journals" if full else ""
        return Verdict(Action.RETRY, reason, hint, retry_after_s=_retry_after_s(answer, now))
    return Verdict(Action.MEND, reason, _HINTS.get(status, _NOT_INFLUX))


def message(answer: Answer) -> str:
    """What the server says, in one line fit for people."""
    return _said(answer)[:MOST_REASON_CHARACTERS]


def _said(answer: Answer) -> str:
    """All that the server says, in one line: as InfluxDB 2 and 1.x and the proxies before them put it."""
    text = answer.body.decode(errors="replace").strip()
    try:
        document = json.loads(text)
    except ValueError:
        document = None
    if isinstance(document, dict):
        text = str(document.get("message") or document.get("error") or text)
    elif not text or text.startswith("<"):
        text = answer.headers.get("X-Influxdb-Error") or _phrase(answer.status)
    return " ".join(text.split())


_NOT_INFLUX: Final = "is influx.url the address of an InfluxDB, with the right scheme and port?"


def _is_about_lines(status: int, text: str) -> bool:
    if status in (HTTPStatus.BAD_REQUEST, HTTPStatus.UNPROCESSABLE_ENTITY):
        return "HTTPS" not in text  # plain HTTP was spoken to a TLS port
    return status == HTTPStatus.INTERNAL_SERVER_ERROR and "partial write" in text


def _unreached(text: str) -> Verdict:
    lower = text.lower()
    if "certificate" in lower:
        return Verdict(Action.MEND, text, "set influx.tls_ca to the authority that signed it, or influx.verify_tls")
    if "wrong version number" in lower or "record layer" in lower:  # TLS was spoken to a plain HTTP port
        return Verdict(Action.MEND, text, _NOT_INFLUX)
    return Verdict(Action.RETRY, text, "is it running, is influx.url right?")


def _phrase(status: int | None) -> str:
    try:
        return HTTPStatus(status or 0).phrase
    except ValueError:
        return "an answer without a reason"


def _retry_after_s(answer: Answer, now: datetime | None) -> float:
    """Seconds until the time that Retry-After names, as a number or a date; 0.0 without one."""
    text = answer.headers.get("Retry-After", "")
    try:
        wait_s = float(text)
    except ValueError:
        try:
            wait_s = (parsedate_to_datetime(text) - (now or datetime.now(UTC))).total_seconds()
        except (ValueError, TypeError):
            return 0.0
    return min(max(wait_s, 0.0), MOST_RETRY_AFTER_S) if math.isfinite(wait_s) else 0.0
