"""The wanted symbols of one venue, spread over as many WebSocket connections as they need."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import Final

from raven.batches.accumulator import Accumulator
from raven.rpc.pb import control_pb2
from raven.settings import BinanceSettings
from raven.sources.binance.connection import Frame, Inbox, Shared
from raven.sources.binance.endpoints import Endpoint
from raven.sources.binance.lane import Lane
from raven.sources.binance.limits import HEADROOM, SlidingWindow
from raven.sources.binance.messages import ControlReply
from raven.sources.binance.protocol import VenueProtocol
from raven.telemetry import Telemetry

ATTEMPTS_PERIOD_S: Final = 300.0
REPLACEMENTS_PER_S: Final = 2  # connections to be replaced at once are replaced one after the other


class Feed:
    """Keeps the streams of the wanted symbols open and puts their raw frames into `frames`.

    `is_behind` is asked, with the symbols of a silent connection, whether the exchange has trades of them that did
    not come. `carried_again` hears of the symbols that a connection carries after none did. `connections_opened` grows
    when trades flow again after none or not all did: the first connection, and each that replaced a lost one. One that
    takes over with overlap does not count.
    """

    def __init__(
        self, settings: BinanceSettings, protocol: VenueProtocol, *, frames: Accumulator[Frame], telemetry: Telemetry,
        is_behind: Callable[[Sequence[str]], Awaitable[bool]], carried_again: Callable[[AbstractSet[str]], None],
    ) -> None:  # fmt: skip
        self.connections_opened = 0
        self._carried_again = carried_again
        self._inbox = Inbox(frames)
        self._telemetry = telemetry
        self._most = min(settings.streams_per_connection, protocol.max_streams)
        self._shared = Shared(
            settings, protocol, Endpoint(settings, protocol, "websocket_url"), self._inbox, telemetry, is_behind,
            attempts=SlidingWindow(int(protocol.max_attempts_per_5min * HEADROOM), ATTEMPTS_PERIOD_S),
            replacements=SlidingWindow(REPLACEMENTS_PER_S, 1.0),
        )  # fmt: skip
        self._lanes: dict[int, Lane] = {}
        self._changed = asyncio.Event()

    @property
    def url(self) -> str:
        """Where it connects to; after a blocked region was found, the alternative."""
        return self._shared.endpoint.url

    @property
    def arrived(self) -> asyncio.Event:
        """Set whenever frames came."""
        return self._inbox.arrived

    @property
    def connected(self) -> bool:
        """Whether a connection is open."""
        return any(lane.is_connected for lane in self._lanes.values())

    @property
    def error(self) -> str:
        """Why a connection is not open; empty when all are."""
        return next((lane.error for lane in self._lanes.values() if lane.error), "")

    @property
    def acknowledged(self) -> set[str]:
        """Symbols whose streams the exchange sends now."""
        return set().union(*(lane.acknowledged for lane in self._lanes.values()))

    @property
    def unreached(self) -> set[str]:
        """Wanted symbols whose streams no connection carries now, refused ones left out."""
        waiting = (lane for lane in self._lanes.values() if not lane.is_whole)
        return set().union(*(lane.symbols - lane.acknowledged - lane.refused.keys() for lane in waiting))

    @property
    def refused(self) -> dict[str, str]:
        """Symbols whose streams the exchange refuses, each with why; they are asked for again."""
        return {symbol: why for lane in self._lanes.values() for symbol, why in lane.refused.items()}

    def want(self, symbols: Iterable[str]) -> None:
        """Open the streams of these symbols too."""
        before = {number: lane.symbols for number, lane in self._lanes.items()}
        for number, carried in spread(before, symbols, self._most).items():
            lane = self._lanes.get(number)
            if lane is None:
                self._lanes[number] = Lane(self._shared, carried, self._flows)
            elif carried != lane.symbols:
                lane.want(carried)
        self._changed.set()

    def leave(self, symbols: Iterable[str]) -> None:
        """Close the streams of these symbols, and connections that carry no other."""
        left = set(symbols)
        for number, lane in list(self._lanes.items()):
            if rest := lane.symbols - left:
                if rest != lane.symbols:
                    lane.want(rest)
                continue
            del self._lanes[number]
            if lane.task is not None:
                lane.task.cancel()

    def drained(self) -> None:
        """The frames were taken: paused receivers may go on."""
        self._inbox.drained()

    async def run(self) -> None:
        """Keep connections open for all wanted symbols, until cancelled."""
        async with asyncio.TaskGroup() as group:
            while True:
                self._changed.clear()
                for lane in self._lanes.values():
                    if lane.task is None:
                        lane.task = group.create_task(lane.run())
                await self._changed.wait()

    def answered(self, reply: ControlReply, connection: int) -> None:
        """What the exchange says about a connection, found among its frames."""
        if reply.kind == "shutdown":
            self._telemetry.warning(
                "exchange_shutdown", "the exchange will end a connection soon: it is replaced", connection=connection
            )
        for lane in self._lanes.values():
            for each in lane.connections:
                if each.number == connection:
                    each.answered(reply)

    def links(self) -> list[control_pb2.Link]:
        """The connections: `exchange`, `exchange-2` and so on."""
        links = []
        for number, lane in sorted(self._lanes.items()):
            name = "exchange" if number == 1 else f"exchange-{number}"
            links.append(
                control_pb2.Link(name=name, target=self.url, connected=lane.is_connected, error=lane.error, needed=True)
            )
        return links or [control_pb2.Link(name="exchange", target=self.url)]

    def _flows(self, lane: Lane) -> None:
        if lane.has_flowed or not any(each.acknowledged for each in self._lanes.values() if each is not lane):
            self.connections_opened += 1
        self._carried_again(lane.symbols)


def spread(lanes: Mapping[int, AbstractSet[str]], symbols: Iterable[str], most: int) -> dict[int, set[str]]:
    """The lanes, by number from 1, with `symbols` added: at most `most` a lane.

    What is carried stays where it is; new symbols go to the emptiest lane, and there are no more lanes than needed.
    """
    carried = {number: set(lane) for number, lane in lanes.items()}
    fresh = sorted(set(symbols).difference(*carried.values()))
    needed = -(-(sum(map(len, carried.values())) + len(fresh)) // most)
    number = 0
    while len(carried) < needed:
        number += 1
        carried.setdefault(number, set())
    for symbol in fresh:
        min(carried.values(), key=len).add(symbol)
    return carried
