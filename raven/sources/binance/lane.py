"""A lane: some of the wanted symbols, and the connection that carries them, kept open.

It reconnects after a loss and replaces the connection, with overlap, before the exchange ends it.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Iterable
from typing import Final

from raven.clock import Backoff
from raven.sources.binance.connection import Connection, Shared, take_turn
from raven.sources.binance.failures import Kind

ATTEMPT_INTERVAL_S: Final = 1.0
OVERLAP_S: Final = 1.0  # both deliver: what the old one still has under way arrives
EARLIEST: Final = 0.95  # of the greatest age: connections opened together are not replaced together


class Lane:
    """`symbols` on one connection, on two while one replaces the other.

    - `has_flowed`: whether streams were ever acknowledged.
    - `on_flow`: called when a connection begins to deliver while no other of the lane does.
    """

    def __init__(self, shared: Shared, symbols: Iterable[str], on_flow: Callable[[Lane], None]) -> None:
        self.symbols = set(symbols)
        self.connections: list[Connection] = []
        self.has_flowed = False
        self.task: asyncio.Task[None] | None = None
        self._shared = shared
        self._on_flow = on_flow
        self._failure = ""

    @property
    def is_connected(self) -> bool:
        """Whether a connection is open."""
        return any(connection.is_open for connection in self.connections)

    @property
    def error(self) -> str:
        """Why no connection is open; empty while one is, and before the first try ended."""
        return "" if self.is_connected else self._failure

    @property
    def acknowledged(self) -> set[str]:
        """Symbols whose streams the exchange sends."""
        return self.symbols & set().union(*(each.acknowledged for each in self.connections))

    @property
    def is_whole(self) -> bool:
        """Whether a connection carries all its symbols."""
        return any(each.acknowledged >= self.symbols for each in self.connections)

    @property
    def refused(self) -> dict[str, str]:
        """Symbols whose streams the exchange refuses, each with why."""
        waiting = self.symbols - self.acknowledged
        found = [(symbol, why) for each in self.connections for symbol, why in each.refused.items()]
        return {symbol: why for symbol, why in found if symbol in waiting}

    def want(self, symbols: Iterable[str]) -> None:
        """Carry exactly these symbols."""
        self.symbols = set(symbols)
        for connection in self.connections:
            connection.want(self.symbols)

    async def run(self) -> None:
        """Keep a connection open until cancelled."""
        backoff = Backoff(first_s=0.5, most_s=30.0)
        try:
            while True:
                began = time.monotonic()
                connection = await self._renew()
                if connection.ready.is_set():
                    backoff.reset()
                    await self._until_due(connection)
                if connection.task.done():
                    connection.task.result()  # what nobody foresaw ends the service
                failure = connection.failure
                if failure is None or (failure.kind is Kind.BLOCKED and connection.url != self._shared.endpoint.url):
                    continue  # due, or there is another address to try
                rest_s = ATTEMPT_INTERVAL_S - (time.monotonic() - began)
                await self._pause(max(backoff.next_s(), rest_s, failure.retry_after_s or 0.0))
        finally:
            await asyncio.gather(*(connection.close() for connection in self.connections))

    async def _renew(self) -> Connection:
        """A new connection, when it has failed or taken the place of the one before.

        The one before stays until the exchange has answered for all streams of the new one, and some time longer.
        """
        if self.connections:
            await take_turn(self._shared.replacements)
        await self._attempt()
        self._shared.telemetry.add("connection_attempts")
        new = Connection(self._shared, self.symbols, self._acknowledged)
        new.task.add_done_callback(lambda _: self._ended(new))
        before = list(self.connections)
        self.connections.append(new)
        await _first({new.task}, new.ready)
        if before and not new.task.done():
            await asyncio.wait({new.task}, timeout=OVERLAP_S)
        if not new.task.done():
            for old in before:
                await old.close()
            self._shared.telemetry.add("replaced_connections", len(before))
        return new

    async def _attempt(self) -> None:
        """Wait until a connection may be tried."""
        attempts = self._shared.attempts
        if attempts.wait_s(time.monotonic()) > ATTEMPT_INTERVAL_S:
            minutes = f"{attempts.period_s / 60:g} minutes"
            self._shared.telemetry.warning(
                "attempts_limited", f"{attempts.most} connections were tried in {minutes}: the others wait"
            )
        await take_turn(attempts)

    async def _until_due(self, connection: Connection) -> None:
        """Until the connection broke or is to be replaced: by age, or because the exchange says that it will end it."""
        age_s = self._shared.settings.connection_max_age_s * random.uniform(EARLIEST, 1.0)  # noqa: S311 - no secret
        await _first({connection.task}, connection.ending, timeout_s=age_s)

    async def _pause(self, seconds: float) -> None:
        """Wait before the next try; no longer when the connection that was to be replaced ends meanwhile."""
        living = {connection.task for connection in self.connections}
        await (asyncio.wait(living, timeout=seconds) if living else asyncio.sleep(seconds))

    def _acknowledged(self, connection: Connection) -> None:
        if not any(each.acknowledged for each in self.connections if each is not connection):
            self._on_flow(self)
            self.has_flowed = True

    def _ended(self, connection: Connection) -> None:
        """Account for a connection that is over, at once, whatever the lane is waiting for."""
        self.connections.remove(connection)
        if connection.task.cancelled():
            return
        connection.task.result()
        failure, endpoint, telemetry = connection.failure, self._shared.endpoint, self._shared.telemetry
        assert failure is not None
        telemetry.add("reconnects", peer="exchange")
        is_first = connection.url == endpoint.url
        if failure.kind is Kind.BLOCKED and (other := endpoint.replace(connection.url)):
            if is_first:
                reason = endpoint.describe(failure, connection.url)
                telemetry.warning("region_blocked", f"{reason}; going on with {other}")
            return
        reason = endpoint.explain(failure, connection.url)
        if self.is_connected:
            telemetry.warning("replacement_failed", f"{reason}; the connection before it stays")
        elif connection.was_open:
            telemetry.warning("exchange_lost", reason, connection=connection.number, symbols=len(self.symbols))
        else:
            telemetry.warning("exchange_unreachable", reason)
        self._failure = reason


async def _first(tasks: set[asyncio.Task[None]], event: asyncio.Event, *, timeout_s: float | None = None) -> None:
    """Wait until one of the tasks is done or the event is set."""
    waiter = asyncio.ensure_future(event.wait())
    try:
        await asyncio.wait({*tasks, waiter}, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
    finally:
        waiter.cancel()
