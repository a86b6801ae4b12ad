"""The simulated exchange: one local port that speaks a venue's WebSocket and REST."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from aiohttp import WSCloseCode, web

from raven.errors import InputError
from raven.sources.simulated.connection import Connection
from raven.sources.simulated.frames import Style
from raven.sources.simulated.market import Market
from raven.sources.simulated.player import Player
from raven.sources.simulated.rest import Rest
from raven.sources.simulated.venue import SPOT, Venue

_LOG: Final = logging.getLogger("raven.simulated")

DEFAULT_PORT: Final = 9443
_LONGEST_URL_BYTES: Final = 1 << 16  # 1,024 streams fit into one


@dataclass(frozen=True, slots=True)
class ExchangeOptions:
    """How the exchange behaves beside its market.

    `now_times` stamps every frame with the wall-clock time it is sent at, so that latency can be measured (REST keeps
    the market's own times). `ping_interval_s` replaces the venue's.
    """

    now_times: bool = False
    ping_interval_s: float | None = None


class SimulatedExchange:
    """`market`, served as `venue` on `host`:`port` (0: any free port).

    Clients that know the venue can use it: `ws_url` and `rest_url` stand in for its endpoints.
    """

    def __init__(
        self,
        market: Market,
        host: str = "127.0.0.1",
        port: int = DEFAULT_PORT,
        options: ExchangeOptions | None = None,
        *,
        venue: Venue = SPOT,
    ) -> None:
        self._market = market
        self._host = host
        self._port = port
        self._options = options or ExchangeOptions()
        self._venue = venue
        self._streams = {
            f"{symbol.lower()}@{kind}": (kind, symbol) for symbol in market.listings for kind in venue.streams
        }
        self._player: Player | None = None
        self._play: asyncio.Task[None] | None = None
        self._runner: web.AppRunner | None = None

    @property
    def ws_url(self) -> str:
        """Where WebSocket clients connect, without a path."""
        return f"ws://{self._address}"

    @property
    def rest_url(self) -> str:
        """Where REST clients connect, without a path."""
        return f"http://{self._address}"

    async def start(self) -> None:
        """Listen, and begin the play; raises InputError when the port cannot be had."""
        player = Player(self._market, self._venue, now_times=self._options.now_times)
        app = web.Application()
        app.add_routes(Rest(self._venue, self._market, player).routes())
        raw, combined = self._venue.raw_path, self._venue.combined_path
        app.add_routes(
            [web.get(raw, self._raw), web.get(f"{raw}/{{streams:.*}}", self._raw), web.get(combined, self._combined)]
        )
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0, max_line_size=_LONGEST_URL_BYTES)
        await runner.setup()
        try:
            await web.TCPSite(runner, self._host, self._port).start()
        except OSError as error:
            await runner.cleanup()
            raise InputError(
                f"the simulated exchange cannot listen on {self._host}:{self._port}: {error.strerror}",
                hint="give it another port",
            ) from error
        self._port = runner.addresses[0][1]
        self._runner, self._player = runner, player
        self._play = asyncio.create_task(player.run())
        self._play.add_done_callback(_report)

    async def finished(self) -> None:
        """Wait until the recording has been played to its end; a generated market has none.

        The exchange goes on serving what was played. Raises what broke the play, should something have.
        """
        assert self._play is not None, "start() first"
        await asyncio.shield(self._play)

    async def stop(self) -> None:
        """Close all connections and stop listening."""
        if self._play is None or self._player is None or self._runner is None:
            return
        self._play.cancel()
        await asyncio.gather(
            asyncio.wait([self._play]),
            *(c.close(WSCloseCode.GOING_AWAY, "the exchange stops") for c in list(self._player.connections)),
        )
        await self._runner.cleanup()

    @property
    def _address(self) -> str:
        return f"[{self._host}]:{self._port}" if ":" in self._host else f"{self._host}:{self._port}"

    async def _raw(self, request: web.Request) -> web.StreamResponse:
        return await self._serve(request, request.match_info.get("streams", "").split("/"), combined=False)

    async def _combined(self, request: web.Request) -> web.StreamResponse:
        return await self._serve(request, request.query.get("streams", "").split("/"), combined=True)

    async def _serve(self, request: web.Request, names: Sequence[str], *, combined: bool) -> web.StreamResponse:
        assert self._player is not None
        player = self._player
        streams = [name for name in dict.fromkeys(names) if name]
        if len(streams) > self._venue.max_streams:
            return web.Response(status=400, text=f"more than {self._venue.max_streams} streams")
        ping_interval_s = self._options.ping_interval_s
        connection = Connection(
            self._venue,
            self._streams,
            Style(combined=combined, micros=request.query.get("timeUnit", "").upper() == "MICROSECOND"),
            ping_interval_s=self._venue.ping_interval_s if ping_interval_s is None else ping_interval_s,
            on_change=player.readers_changed,
        )
        player.connections.add(connection)
        try:
            return await connection.serve(request, streams)
        finally:
            player.connections.discard(connection)
            player.readers_changed()


def _report(play: asyncio.Task[None]) -> None:
    error = None if play.cancelled() else play.exception()
    if error is not None:
        _LOG.error("the play broke off, nothing more is sent: %r", error, exc_info=error)
