"""Sending the trades of one flush: refused lines are looked for by halves until each is alone."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import wait
from dataclasses import dataclass, field
from functools import partial
from itertools import chain, cycle
from typing import Final

import polars as pl

from raven.sinks.influx.lines import POINT_NS, encode_lines
from raven.sinks.influx.responses import Action, Answer, Verdict, classify
from raven.sinks.store import Refusal, Report, StoreRefusedError, StoreUnavailableError, unheard
from raven.tasks import OneThread

MOST_REFUSED_ROWS: Final = 100
AT_ONCE: Final = 2
FEW_REQUESTS: Final = 5
"""What takes more is a search: it is told of, and what it has settled is saved."""
TELL_EVERY_S: Final = 5.0
TOO_OLD: Final = "older than what the bucket keeps"

Write = Callable[[memoryview], Answer]


@dataclass(slots=True)
class Delivery:
    """What became of rows, of which `rows` were given: those `refused`, and those `too_old`, counted; all others are
    stored. `requests` is how many it took.
    """

    rows: int = 0
    refused: list[Refusal] = field(default_factory=list)
    too_old: int = 0
    requests: int = 0

    @property
    def is_search(self) -> bool:
        """Whether it took more than a few requests."""
        return self.requests > FEW_REQUESTS

    def add(self, other: Delivery) -> None:
        """Count what became of other rows, too."""
        self.rows += other.rows
        self.refused += other.refused
        self.too_old += other.too_old
        self.requests += other.requests


def deliver(
    trades: pl.DataFrame, write: Write, *, request_rows: int, request_bytes: int, report: Report = unheard
) -> Iterator[Delivery]:
    """Write all `trades` (columns of TRADES, none unwritable), `request_rows` at a time: what became of each part.

    What was acknowledged before an error may come again. Raises StoreUnavailableError, and StoreRefusedError also when
    the server refuses so many rows that the fault is not theirs. A search is told to `report`.
    """

    def part(first: int) -> Delivery:
        return _Part(trades[first : first + request_rows], first, write, report).deliver(request_bytes)

    firsts = range(0, trades.height, request_rows)
    refused = 0
    # the first goes alone: a server that takes nothing from us is to say so once
    for each in chain(map(part, firsts[:1]), _at_once(part, firsts[1:])):
        refused += len(each.refused)
        _check_refused(refused, each.refused[-1].reason if each.refused else "")
        yield each


def oldest(trades: pl.DataFrame, count: int) -> list[int]:
    """The numbers of the `count` rows whose points are oldest: those a bucket does not keep, if it kept the others."""
    times = trades.select(POINT_NS.alias("time")).with_row_index("row")
    return times.sort("time").head(count).get_column("row").to_list()


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


class _Part:
    """Rows that are meant for one request, from row `first` of a flush on."""

    def __init__(self, trades: pl.DataFrame, first: int, write: Write, report: Report) -> None:
        self._trades = trades
        self._first = first
        self._write = write
        self._report = report
        self._told_s = 0.0
        self._done = Delivery(trades.height)

    def deliver(self, request_bytes: int) -> Delivery:
        """Write them; one request, unless it is too large or refused."""
        done, lines = self._done, encode_lines(self._trades)
        waiting = lines.cut(request_bytes)[::-1]
        while waiting:
            span = waiting.pop()
            verdict = self._send(lines.take(span), settled=span.start)
            if verdict.action is Action.ACCEPTED:
                continue
            check(verdict)
            is_old = verdict.action is Action.TOO_OLD
            too_old = verdict.dropped if verdict.dropped is not None or not is_old else self._find_too_old(span)
            if is_old and too_old is not None:
                done.too_old += min(too_old, len(span))
            elif len(span) == 1:
                done.refused.append(Refusal(self._first + span.start, verdict.reason))
            else:
                middle = len(span) // 2
                waiting += [span[middle:], span[:middle]]
            said = verdict.dropped if verdict.action is Action.SPLIT and verdict.dropped is not None else 0
            _check_refused(max(len(done.refused), said), verdict.reason)  # the server's own count spares the search
        return done

    def _find_too_old(self, span: range) -> int | None:
        """How many of the rows in `span` are beyond the retention, where the server does not say.

        Time alone decides, so the place where it begins to keep them is found by halves. The others are written once
        more, since who does not count may not have kept them. None: not even then, so it is not time alone.
        """
        rows = self._trades[span.start : span.stop].sort(POINT_NS)
        old, kept = 0, rows.height
        while old < kept:
            middle = (old + kept) // 2
            lines = encode_lines(rows[middle : middle + 1])
            verdict = self._send(lines.data, settled=span.start)
            if verdict.action is Action.TOO_OLD:
                old = middle + 1
            else:
                if verdict.action is not Action.ACCEPTED:
                    check(verdict)
                kept = middle
        if old == rows.height:
            return old
        verdict = self._send(encode_lines(rows[old:]).data, settled=span.start)
        return old if verdict.action is Action.ACCEPTED else None

    def _send(self, lines: memoryview, *, settled: int) -> Verdict:
        done = self._done
        verdict = classify(self._write(lines))
        done.requests += 1
        now_s = time.monotonic()
        if done.is_search and now_s - self._told_s >= TELL_EVERY_S:
            self._told_s = now_s
            doing = "looking for the rows that InfluxDB does not take"
            self._report(doing, settled=settled, of=self._trades.height, requests=done.requests)
        return verdict


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
