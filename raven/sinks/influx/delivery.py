"""Sending the lines of one flush: refused ones are looked for by halves until each is alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from raven.sinks.influx.lines import Lines
from raven.sinks.influx.responses import Action, Answer, Verdict, classify
from raven.sinks.store import Refusal, StoreRefusedError, StoreUnavailableError

MOST_REFUSED_ROWS: Final = 100
TOO_OLD: Final = "older than what the bucket keeps"

Write = Callable[[memoryview], Answer]


@dataclass(slots=True)
class Delivery:
    """What became of the lines: those `refused`, and those `too_old`, counted; all others are stored."""

    refused: list[Refusal] = field(default_factory=list)
    too_old: int = 0


def deliver(lines: Lines, write: Write, *, request_rows: int, request_bytes: int) -> Delivery:
    """Write all `lines`; those that were acknowledged before an error may be written again.

    Raises StoreUnavailableError, and StoreRefusedError also when the server refuses so many rows that the fault is
    not theirs.
    """
    done = Delivery()
    waiting = lines.cut(request_rows=request_rows, request_bytes=request_bytes)[::-1]
    while waiting:
        span = waiting.pop()
        verdict = classify(write(lines.take(span)))
        if verdict.action is Action.ACCEPTED:
            continue
        check(verdict)
        if verdict.action is Action.TOO_OLD and (verdict.dropped is not None or len(span) == 1):
            done.too_old += 1 if verdict.dropped is None else verdict.dropped
        elif len(span) == 1:
            done.refused.append(Refusal(span.start, verdict.reason))
        else:
            middle = len(span) // 2
            waiting += [span[middle:], span[:middle]]
        _check_refused(done, verdict)
    return done


def check(verdict: Verdict) -> None:
    """Raises what is no fault of the lines: StoreUnavailableError or StoreRefusedError."""
    if verdict.action is Action.RETRY:
        raise StoreUnavailableError(
            f"InfluxDB takes no write: {verdict.reason}", hint=verdict.hint, retry_after_s=verdict.retry_after_s
        )
    if verdict.action is Action.MEND:
        raise StoreRefusedError(f"InfluxDB refuses: {verdict.reason}", hint=verdict.hint)


def _check_refused(done: Delivery, verdict: Verdict) -> None:
    """So many bad rows are none: their fault is the bucket's. The server's own count spares the search."""
    said = verdict.dropped if verdict.action is Action.SPLIT and verdict.dropped is not None else 0
    if max(len(done.refused), said) > MOST_REFUSED_ROWS:
        raise StoreRefusedError(
            f"InfluxDB refuses more than {MOST_REFUSED_ROWS} rows of one flush: {verdict.reason}",
            hint="mend the bucket, or set influx.bucket to a fresh one; nothing goes on before",
        )
