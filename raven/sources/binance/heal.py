"""Healing: fetches trades that did not come over WebSocket, by their ids over REST.

What is missing is told by the hold; here it is cut into requests, several of them under way at a time, the nearest
gaps of all symbols first. A request is repeated until it is answered or nobody misses its ids any more.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import chain, zip_longest
from operator import attrgetter
from typing import Final, NamedTuple

import numpy as np
import polars as pl

from raven.batches.gate import Refusal, count
from raven.batches.released import Missing
from raven.batches.schema import ORIGIN_REST
from raven.clock import Backoff, monotonic_ns, now_us
from raven.errors import ExchangeError
from raven.sources.binance.frames import UNREADABLE
from raven.sources.binance.protocol import VenueProtocol
from raven.sources.binance.replies import read_list
from raven.sources.binance.rest import REQUESTS_AT_ONCE, BinanceRest
from raven.sources.binance.venue_clock import UNKNOWN_US
from raven.telemetry import Telemetry

CONCURRENT_REQUESTS: Final = REQUESTS_AT_ONCE
MOST_PAGES_AHEAD: Final = 16
AGAIN_S: Final = 0.25


class Page(NamedTuple):
    """The ids of one request: first_id <= id < stop_id."""

    symbol: str
    first_id: int
    stop_id: int

    def meets(self, after_id: int, before_id: int) -> bool:
        """Whether any id lies between `after_id` and `before_id`, both excluded."""
        return self.first_id < before_id and after_id + 1 < self.stop_id

    def rows(self, limit: int) -> int:
        """How many trades to ask for: one beyond shows that none is missing before it."""
        return min(limit, self.stop_id - self.first_id + 1)


class Answer(NamedTuple):
    """What a request for a page gave: its trades, and the ids that the venue passes over.

    `next_id` is where to go on: behind the last id that was answered for. `newest_id` is the venue's newest trade,
    where the answer tells: it had room for more. `refused` are its entries that are no trades.
    """

    trades: pl.DataFrame
    absent: tuple[Page, ...]
    next_id: int
    newest_id: int | None
    refused: Sequence[Refusal] = ()


def pages(missing: Sequence[Missing], limit: int, reach: Mapping[str, int]) -> Iterator[Page]:
    """The requests that fetch what is missing: the first page of each gap in turn, then the second of each, …

    No page but the first of a gap begins beyond the `reach` of its symbol: the venue may not have come to its end.
    """

    def cut(gap: Missing) -> Iterator[Page]:
        stop = min(gap.before_id, max(gap.after_id + 1, reach.get(gap.symbol, -1)) + 1)
        starts = range(gap.after_id + 1, stop, limit)[:MOST_PAGES_AHEAD]
        return (Page(gap.symbol, start, min(start + limit, gap.before_id)) for start in starts)

    turns = zip_longest(*map(cut, missing))
    return (page for page in chain.from_iterable(turns) if page is not None)


def read_answer(body: bytes, page: Page, protocol: VenueProtocol, *, recv_us: int) -> Answer:
    """The reply to a request for `page`. Raises ExchangeError when it is no list of trades."""
    try:
        rows = read_list(body, protocol.event, page.symbol, recv_us=recv_us, origin=ORIGIN_REST, latest_us=UNKNOWN_US)
    except UNREADABLE as error:
        raise ExchangeError(f"{protocol.trades_path} answered something else than trades: {error}") from error
    trades = rows.trades.sort("trade_id")
    ids = trades.get_column("trade_id")
    newest_id = None
    if rows.trades.height + len(rows.refused) < page.rows(protocol.trades_limit):
        newest_id = int(ids[-1]) if ids.len() else page.first_id - 1
    known_stop = min(page.stop_id, int(ids[-1]) + 1) if ids.len() else page.first_id
    trades = trades.filter(ids.is_between(page.first_id, page.stop_id, closed="left"))
    edges = np.concatenate(([page.first_id - 1], trades.get_column("trade_id").to_numpy(), [known_stop]))
    jumps = np.flatnonzero(np.diff(edges) > 1)
    absent = (Page(page.symbol, first + 1, stop) for first, stop in zip(edges[jumps], edges[jumps + 1], strict=True))
    return Answer(
        trades, tuple(Page(symbol, int(first), int(stop)) for symbol, first, stop in absent), known_stop, newest_id,
        rows.refused,
    )  # fmt: skip


def tell_refused(telemetry: Telemetry, page: Page, refused: Sequence[Refusal]) -> None:
    """Count and tell the entries of an answer that are no trades."""
    for reason, rows in count(refused).items():
        telemetry.add("dead_frames", rows, reason=reason)
    if refused:
        telemetry.warning(
            "dead_frames", f"trades of {page.symbol} came over REST that are none: {refused[0]}", frames=len(refused)
        )


class Healer:
    """Fetches over `rest` what `ask` is told to be missing.

    `fetched` is given the trades of each answer, `absent` the ids that the venue passed over twice. `told` hears of the
    newest trade of a symbol at the venue, and when that was asked (a monotonic clock's microseconds).
    """

    def __init__(
        self,
        rest: BinanceRest,
        protocol: VenueProtocol,
        *,
        fetched: Callable[[pl.DataFrame], None],
        absent: Callable[[str, int, int], None],
        told: Callable[[str, int, int], None],
        telemetry: Telemetry,
    ) -> None:
        self._rest = rest
        self._protocol = protocol
        self._fetched = fetched
        self._absent = absent
        self._told = told
        self._reach: dict[str, int] = {}
        self._telemetry = telemetry
        self._requests: dict[Page, asyncio.Task[None]] = {}
        self._group: asyncio.TaskGroup | None = None
        self._is_failing = False

    async def run(self) -> None:
        """Work until cancelled."""
        async with asyncio.TaskGroup() as group:
            self._group = group
            try:
                await asyncio.Event().wait()
            finally:
                self._group = None  # what is published from now on, at the source's end, asks for nothing

    def ask(self, missing: Sequence[Missing]) -> None:
        """Fetch exactly these ids: requests for others end, as many as may be are begun."""
        self._requests = {page: task for page, task in self._requests.items() if not task.done()}
        by_symbol: dict[str, list[Missing]] = {}
        for gap in missing:
            by_symbol.setdefault(gap.symbol, []).append(gap)
        for page, task in self._requests.items():
            if not any(page.meets(gap.after_id, gap.before_id) for gap in by_symbol.get(page.symbol, ())):
                task.cancel()
        if self._group is None or len(self._requests) >= CONCURRENT_REQUESTS:
            return
        longest_first = sorted(missing, key=attrgetter("since_us"))
        self._reach = {symbol: newest for symbol, newest in self._reach.items() if symbol in by_symbol}
        for page in pages(longest_first, self._protocol.trades_limit, self._reach):
            asked = (other for other in self._requests if other.symbol == page.symbol)
            if not any(other.meets(page.first_id - 1, page.stop_id) for other in asked):
                self._requests[page] = self._group.create_task(self._fetch(page))
                if len(self._requests) >= CONCURRENT_REQUESTS:
                    return

    async def _fetch(self, page: Page) -> None:
        """Fetch the ids of a page, all of them, however often it has to be asked for."""
        backoff = Backoff(AGAIN_S, 5.0)
        doubted: tuple[Page, ...] = ()
        while page.first_id < page.stop_id:
            asked_us = monotonic_ns() // 1_000
            try:
                answer = await self._ask_for(page)
            except ExchangeError as error:
                if not self._is_failing:
                    self._telemetry.warning("heal_failed", f"missing trades cannot be fetched yet: {error}")
                self._is_failing = True
                await asyncio.sleep(backoff.next_s())
                continue
            self._is_failing = False
            tell_refused(self._telemetry, page, answer.refused)
            self._learn(page, answer, asked_us)
            if answer.trades.height:
                self._fetched(answer.trades)
            if answer.absent and answer.absent != doubted:
                doubted, page = answer.absent, page._replace(first_id=answer.absent[0].first_id)
                await asyncio.sleep(AGAIN_S)  # the exchange is asked twice before ids are given up
                continue
            for gap in answer.absent:
                self._absent(*gap)
            if answer.next_id < page.stop_id and answer.newest_id is not None:
                await asyncio.sleep(backoff.next_s())  # its REST lags behind its stream, or it has not come to that
            page = page._replace(first_id=answer.next_id)

    def _learn(self, page: Page, answer: Answer, asked_us: int) -> None:
        """How far the venue has come: there may be more behind an answer that is full."""
        if answer.newest_id is not None:
            self._reach[page.symbol] = answer.newest_id
            self._told(page.symbol, answer.newest_id, asked_us)
        else:
            ahead = MOST_PAGES_AHEAD * self._protocol.trades_limit
            self._reach[page.symbol] = max(answer.next_id + ahead, self._reach.get(page.symbol, -1))

    async def _ask_for(self, page: Page) -> Answer:
        body = await self._rest.get(
            self._protocol.trades_path, weight=self._protocol.trades_weight, symbol=page.symbol,
            fromId=str(page.first_id), limit=str(page.rows(self._protocol.trades_limit)),
        )  # fmt: skip
        return read_answer(body, page, self._protocol, recv_us=now_us())
