"""One venue of the simulated exchange: its market played to its clients, and its paths."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from itertools import count

from aiohttp import WSCloseCode, web

from raven.errors import InputError
from raven.sources.simulated.connection import Connection
from raven.sources.simulated.faults import Fault
from raven.sources.simulated.frames import Style
from raven.sources.simulated.limits import AttemptLimit, WeightLimit
from raven.sources.simulated.market import Market
from raven.sources.simulated.misbehaviour import Misbehaviour
from raven.sources.simulated.player import Player
from raven.sources.simulated.rest import Rest, blocked
from raven.sources.simulated.rest_faults import RestFaults
from raven.sources.simulated.symbols import Symbols
from raven.sources.simulated.venue import Venue


@dataclass(frozen=True, slots=True)
class ExchangeOptions:
    """How the exchange behaves beside its market.

    `now_times` stamps every frame with the wall-clock time it is sent at, so that latency can be measured (REST keeps
    the market's own times). `ping_interval_s` and `weight_limit` (a minute) replace the venue's. `faults` happen at
    their times to the clients of each venue. `not_trading` are symbols that do not trade from the beginning on.
    """

    now_times: bool = False
    ping_interval_s: float | None = None
    weight_limit: int | None = None
    faults: Sequence[Fault] = ()
    not_trading: Sequence[str] = ()


class ServedVenue:
    """`market`, as clients of `venue` meet it; raises InputError when the options do not fit."""

    def __init__(self, venue: Venue, market: Market, options: ExchangeOptions) -> None:
        missing = {*options.not_trading, *(fault.symbol for fault in options.faults)} - {"", *market.listings}
        if missing:
            raise InputError(f"not in the market: {', '.join(sorted(missing))}", hint="give them as symbols too")
        weight = venue.weight_per_minute if options.weight_limit is None else options.weight_limit
        if weight < 1:
            raise InputError(f"a weight limit of {weight} serves no request", hint="one is the least")
        self.venue = venue
        symbols = Symbols(
            market,
            halted=venue.halted,
            not_trading=options.not_trading,
            not_listed=[fault.symbol for fault in options.faults if fault.kind == "list"],
        )
        self.player = Player(market, venue, symbols, now_times=options.now_times)
        self._limit = WeightLimit(weight)
        self._rest_faults = RestFaults(
            lambda status, seconds, now_s, forever: self._limit.refuse(status, seconds, now_s, says_forever=forever)
        )
        self._rest = Rest(venue, symbols, self.player, self._limit, self._rest_faults)
        self.misbehaviour = Misbehaviour(options.faults, venue.name, self.player, symbols, self._rest_faults)
        self._attempts = AttemptLimit(venue.max_attempts_per_5min)
        self._opened = count(1)
        self._ping_interval_s = venue.ping_interval_s if options.ping_interval_s is None else options.ping_interval_s
        self._streams = {
            f"{symbol.lower()}@{kind}": (kind, symbol) for symbol in market.listings for kind in venue.streams
        }

    def routes(self) -> list[web.RouteDef]:
        """REST and WebSocket paths; the same path may come again, the first of them counts."""
        routes = self._rest.routes()
        for root in (self.venue.root, *self.venue.silent_roots):
            streams = self._streams if root == self.venue.root else {}
            routes += [
                web.get(f"{root}/ws", self._handler(streams, combined=False)),
                web.get(f"{root}/ws/{{streams:.*}}", self._handler(streams, combined=False)),
                web.get(f"{root}/stream", self._handler(streams, combined=True)),
            ]
        return routes

    async def close(self) -> None:
        """Close all connections."""
        leaving = (c.close(WSCloseCode.GOING_AWAY, "the exchange stops") for c in list(self.player.connections))
        await asyncio.gather(*leaving)

    def _handler(
        self, streams: dict[str, tuple[str, str]], *, combined: bool
    ) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
        async def handle(request: web.Request) -> web.StreamResponse:
            sent = request.query.get("streams", "") if combined else request.match_info.get("streams", "")
            names = [name for name in dict.fromkeys(sent.split("/")) if name]
            return self._refused(len(names)) or await self._serve(request, names, streams, combined=combined)

        return handle

    def _refused(self, streams: int) -> web.Response | None:
        """The answer to a connection attempt that does not get one."""
        if self._rest_faults.is_blocked(time.time()):
            return blocked()
        if not self._attempts.admit(time.monotonic()):
            return web.Response(status=429, text="too many connection attempts", headers={"Retry-After": "300"})
        if streams > self.venue.max_streams:
            return web.Response(status=400, text=f"more than {self.venue.max_streams} streams")
        return None

    async def _serve(
        self, request: web.Request, names: Sequence[str], streams: dict[str, tuple[str, str]], *, combined: bool
    ) -> web.StreamResponse:
        micros = self.venue.has_micros and request.query.get("timeUnit", "").upper() == "MICROSECOND"
        connection = Connection(
            f"connection {next(self._opened)}",
            self.venue,
            streams,
            Style(combined=combined, micros=micros),
            ping_interval_s=self._ping_interval_s,
            on_change=self.player.readers_changed,
        )
        self.player.connections[connection] = None
        try:
            return await connection.serve(request, names)
        finally:
            del self.player.connections[connection]
            self.player.readers_changed()
