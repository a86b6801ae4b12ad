"""The simulated exchange: one local port that speaks WebSocket and REST of one venue, or of both."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from typing import Final

from aiohttp import web

from raven.errors import InputError
from raven.sources.simulated.market import Market
from raven.sources.simulated.served import ExchangeOptions, ServedVenue
from raven.sources.simulated.venue import SPOT, Venue

_LOG: Final = logging.getLogger("raven.simulated")

DEFAULT_PORT: Final = 9443
_LONGEST_URL_BYTES: Final = 1 << 16  # 1,024 streams fit into one


class SimulatedExchange:
    """`market`, served as `venue` on `host`:`port` (0: any free port), and the markets of other venues `beside` it.

    Clients that know the venue can use it: `ws_url` and `rest_url` stand in for its endpoints. Venues share the port,
    for their paths differ; where they do not (what the futures' old root was is spot's), the first venue has it.
    """

    def __init__(
        self,
        market: Market,
        host: str = "127.0.0.1",
        port: int = DEFAULT_PORT,
        options: ExchangeOptions | None = None,
        *,
        venue: Venue = SPOT,
        beside: Sequence[tuple[Venue, Market]] = (),
    ) -> None:
        self._markets = ((venue, market), *beside)
        self._host = host
        self._port = port
        self._options = options or ExchangeOptions()
        self._served: list[ServedVenue] = []
        self._plays: list[asyncio.Task[None]] = []
        self._misbehaving: list[asyncio.Task[None]] = []
        self._runner: web.AppRunner | None = None

    @property
    def venues(self) -> list[str]:
        """The names of the venues it serves."""
        return [venue.name for venue, _ in self._markets]

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
        served = [ServedVenue(venue, market, self._options) for venue, market in self._markets]
        app = web.Application()
        routes: dict[str, web.RouteDef] = {}
        for route in (route for one in served for route in one.routes()):
            routes.setdefault(route.path, route)
        app.add_routes([*routes.values(), web.get("/simulated/faults", self._faults)])
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0, max_line_size=_LONGEST_URL_BYTES)
        await runner.setup()
        try:
            await web.TCPSite(runner, self._host, self._port).start()
        except (OSError, OverflowError) as error:
            await runner.cleanup()
            why = error.strerror if isinstance(error, OSError) else error
            raise InputError(
                f"the simulated exchange cannot listen on {self._host}:{self._port}: {why}",
                hint="give it another port",
            ) from error
        self._port = runner.addresses[0][1]
        self._runner, self._served = runner, served
        self._plays = [asyncio.create_task(one.player.run()) for one in served]
        self._misbehaving = [asyncio.create_task(one.misbehaviour.run()) for one in served]
        for task in (*self._plays, *self._misbehaving):
            task.add_done_callback(_report)

    async def finished(self) -> None:
        """Wait until the recording has been played to its end; a generated market has none.

        The exchange goes on serving what was played. Raises what broke the play, should something have.
        """
        assert self._plays, "start() first"
        await asyncio.gather(*(asyncio.shield(play) for play in self._plays))

    async def stop(self) -> None:
        """Close all connections and stop listening."""
        if self._runner is None:
            return
        tasks = [*self._plays, *self._misbehaving]
        for task in tasks:
            task.cancel()
        await asyncio.gather(asyncio.wait(tasks), *(one.close() for one in self._served))
        await self._runner.cleanup()

    async def _faults(self, _: web.Request) -> web.Response:
        """What went wrong so far, of each venue; no exchange has this path."""
        return web.json_response([one.misbehaviour.report() for one in self._served])

    @property
    def _address(self) -> str:
        return f"[{self._host}]:{self._port}" if ":" in self._host else f"{self._host}:{self._port}"


def _report(task: asyncio.Task[None]) -> None:
    error = None if task.cancelled() else task.exception()
    if error is not None:
        _LOG.error("the play or its faults broke off: %r", error, exc_info=error)
