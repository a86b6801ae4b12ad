"""One venue of the simulated exchange: its market played to its clients, and its paths."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from aiohttp import WSCloseCode, web

from raven.sources.simulated.connection import Connection
from raven.sources.simulated.frames import Style
from raven.sources.simulated.market import Market
from raven.sources.simulated.player import Player
from raven.sources.simulated.rest import Rest
from raven.sources.simulated.venue import Venue


@dataclass(frozen=True, slots=True)
class ExchangeOptions:
    """How the exchange behaves beside its market.

    `now_times` stamps every frame with the wall-clock time it is sent at, so that latency can be measured (REST keeps
    the market's own times). `ping_interval_s` replaces the venue's.
    """

    now_times: bool = False
    ping_interval_s: float | None = None


class ServedVenue:
    """`market`, as clients of `venue` meet it."""

    def __init__(self, venue: Venue, market: Market, options: ExchangeOptions) -> None:
        self.venue = venue
        self.player = Player(market, venue, now_times=options.now_times)
        self._rest = Rest(venue, market, self.player)
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
            return await self._serve(request, names, streams, combined=combined)

        return handle

    async def _serve(
        self, request: web.Request, names: Sequence[str], streams: dict[str, tuple[str, str]], *, combined: bool
    ) -> web.StreamResponse:
        if len(names) > self.venue.max_streams:
            return web.Response(status=400, text=f"more than {self.venue.max_streams} streams")
        micros = self.venue.has_micros and request.query.get("timeUnit", "").upper() == "MICROSECOND"
        connection = Connection(
            self.venue,
            streams,
            Style(combined=combined, micros=micros),
            ping_interval_s=self._ping_interval_s,
            on_change=self.player.readers_changed,
        )
        self.player.connections.add(connection)
        try:
            return await connection.serve(request, names)
        finally:
            self.player.connections.discard(connection)
            self.player.readers_changed()
