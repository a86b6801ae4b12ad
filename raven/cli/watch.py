"""What `raven up` knows of its services: asks how they are, listens to their bars, reckons rates."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import defaultdict, deque
from collections.abc import Mapping
from typing import Any, Final

from raven.batches.instrument import Instrument
from raven.batches.ipc import decode
from raven.batches.schema import to_frame
from raven.control.plan import SERVICES
from raven.errors import UpstreamError
from raven.rpc.client import Client
from raven.rpc.pb import control_pb2

REFRESH_S: Final = 0.5
ASKING_SHARE: Final = 0.1  # asking about very many symbols takes at most so much of the time
RATE_WINDOW_S: Final = 10.0
BARS_KEPT: Final = 6
AGGREGATORS: Final = ("raven_timebar", "raven_tibs")


class Watch:
    """Watches the services behind `clients`; `status` has the answers of those that answer now.

    `bars` are the newest ones of each aggregator as plain rows, `bar_counts` how many came, revisions included.
    """

    def __init__(self, clients: Mapping[str, Client]) -> None:
        self.status: dict[str, control_pb2.StatusResponse] = {}
        self.bars: dict[str, deque[dict[str, Any]]] = defaultdict(lambda: deque(maxlen=BARS_KEPT))
        self.bar_counts: dict[str, int] = defaultdict(int)
        self._clients = clients
        self._rows: dict[Instrument, deque[tuple[float, int]]] = defaultdict(deque)

    async def run(self) -> None:
        """Keep asking and listening until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._ask())
            for name in AGGREGATORS:
                if name in self._clients:
                    group.create_task(self._listen(name))

    async def _ask(self) -> None:
        while True:
            began = time.monotonic()
            await asyncio.gather(*(self._ask_one(name) for name in self._clients))
            for entry in self.collections():
                self._note_rows(Instrument(entry.venue, entry.symbol), entry.rows)
            took_s = time.monotonic() - began
            await asyncio.sleep(max(REFRESH_S, took_s * (1 / ASKING_SHARE - 1)))

    async def _ask_one(self, name: str) -> None:
        try:
            self.status[name] = await self._clients[name].status(timeout_s=2.0)
        except UpstreamError:
            self.status.pop(name, None)

    def _note_rows(self, instrument: Instrument, rows: int) -> None:
        window = self._rows[instrument]
        if window and rows < window[-1][1]:
            window.clear()  # the service was started again
        window.append((time.monotonic(), rows))
        while window[0][0] < time.monotonic() - RATE_WINDOW_S:
            window.popleft()

    async def _listen(self, name: str) -> None:
        while True:
            stream = self._clients[name].subscribe("latest")
            with contextlib.suppress(UpstreamError):
                async with contextlib.aclosing(stream):
                    async for _, payload in stream:
                        if payload is not None:
                            bars = to_frame(decode(payload)[0])
                            self.bar_counts[name] += bars.height
                            for bar in bars.tail(BARS_KEPT).iter_rows(named=True):
                                self._keep_bar(name, bar)
            await asyncio.sleep(1.0)

    def _keep_bar(self, name: str, bar: dict[str, Any]) -> None:
        identity = ("venue", "symbol", "spec", "open_time", "first_trade_id" if name == "raven_tibs" else "close_time")
        for old in list(self.bars[name]):
            if all(old[column] == bar[column] for column in identity):
                self.bars[name].remove(old)
        self.bars[name].append(bar)

    def collections(self) -> list[control_pb2.Subscription]:
        """Each symbol that is collected: as its source sees it, or the nearest to a source of the services watched."""
        sources = [name for name in self._clients if SERVICES[name].venue]
        names = sources or [name for name in self._clients if name in self.status][:1]
        every = [entry for name in names if name in self.status for entry in self.status[name].subscriptions]
        found = {Instrument(entry.venue, entry.symbol): entry for entry in reversed(every)}  # two patterns may match it
        return [entry for one, entry in reversed(found.items()) if not one.is_pattern]

    def rate(self, entry: control_pb2.Subscription) -> float:
        """Trades a second of one symbol, over the last seconds."""
        window = self._rows[Instrument(entry.venue, entry.symbol)]
        if len(window) < 2 or window[-1][0] == window[0][0]:
            return 0.0
        return (window[-1][1] - window[0][1]) / (window[-1][0] - window[0][0])

    def stored_rows(self) -> int:
        """Rows that the sinks have committed since they began."""
        return sum(answer.counters.get("stored_rows", 0) for answer in self.status.values())
