"""Sending the trades of one flush: refused lines are looked for by halves until each is alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import wait
from dataclasses import dataclass, field
from functools import partial
from itertools import chain, cycle
from typing import Final

import polars as pl

from raven.sinks.influx.lines import Lines, encode_lines
from raven.sinks.influx.responses import Action, Answer, Verdict, classify
from raven.sinks.store import Refusal, StoreRefusedError, StoreUnavailableError
from raven.tasks import OneThread

MOST_REFUSED_ROWS: Final = 100
AT_ONCE: Final = 2
TOO_OLD: Final = "older than what the bucket keeps"

Write = Callable[[memoryview], Answer]


@dataclass(slots=True)
class Delivery:
    """What became of the rows: those `refused`, and those `too_old`, counted; all others are stored."""

    refused: list[Refusal] = field(default_factory=list)
    too_old: int = 0


def deliver(trades: pl.DataFrame, write: Write, *, request_rows: int, request_bytes: int) -> Delivery:
    """Write all `trades` (columns of TRADES, none unwritable); what was acknowledged before an error may come again.

    Raises StoreUnavailableError, and StoreRefusedError also when the server refuses so many rows that the fault is
    not theirs.
    """

    def part(first: int) -> Delivery:
        lines = encode_lines(trades[first : first + request_rows])
        return _deliver(lines, first, write, request_bytes)

    firsts = range(0, trades.height, request_rows)
    done = Delivery()
    # the first goes alone: a server that takes nothing from us is to say so once
    for each in chain(map(part, firsts[:1]), _at_once(part, firsts[1:])):
        done.refused += each.refused
        done.too_old += each.too_old
        _check_refused(len(done.refused), done.refused[-1].reason if done.refused else "")
    return done


def _at_once(part: Callable[[int], Delivery], firsts: Sequence[int]) -> Iterator[Delivery]:
    """The server parses a request on one core: while it does, the next is encoded, packed and sent."""
    threads = [OneThread("influx") for _ in firsts[:AT_ONCE]]
    asked = [thread.submit(partial(part, first)) for thread, first in zip(cycle(threads), firsts, strict=False)]
    try:
        for future in asked:
            yield future.result()
    finally:
        wait([future for future in asked if not future.cancel()])
        for thread in threads:
            thread.stop()


def _deliver(lines: Lines, first: int, write: Write, request_bytes: int) -> Delivery:
    """Write `lines`, the rows from `first` on; one request, unless it is too large or refused."""
    done = Delivery()
    waiting = lines.cut(request_bytes)[::-1]
    while waiting:
        span = waiting.pop()
        verdict = classify(write(lines.take(span)))
        if verdict.action is Action.ACCEPTED:
            continue
        check(verdict)
        if verdict.action is Action.TOO_OLD and (verdict.dropped is not None or len(span) == 1):
            done.too_old += 1 if verdict.dropped is None else verdict.dropped
        elif len(span) == 1:
            done.refused.append(Refusal(first + span.start, verdict.reason))
        else:
            middle = len(span) // 2
            waiting += [span[middle:], span[:middle]]
        said = verdict.dropped if verdict.action is Action.SPLIT and verdict.dropped is not None else 0
        _check_refused(max(len(done.refused), said), verdict.reason)  # the server's own count spares the search
    return done


def check(verdict: Verdict) -> None:
    """Raises what is no fault of the lines: StoreUnavailableError or StoreRefusedError."""
    if verdict.action is Action.RETRY:
        raise StoreUnavailableError(
            f"InfluxDB takes no write: {verdict.reason}", hint=verdict.hint, retry_after_s=verdict.retry_after_s
        )
    if verdict.action is Action.MEND:
        raise StoreRefusedError(f"InfluxDB refuses: {verdict.reason}", hint=verdict.hint)


def _check_refused(rows: int, reason: str) -> None:
    """So many bad rows are none: their fault is the bucket's."""
    if rows > MOST_REFUSED_ROWS:
        raise StoreRefusedError(
            f"InfluxDB refuses more than {MOST_REFUSED_ROWS} rows of one flush: {reason}",
            hint="mend the bucket, or set influx.bucket to a fresh one; nothing goes on before",
        )
