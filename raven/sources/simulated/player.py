"""The play: one clock for all clients, which sends each trade when it is due and knows what has been sent."""

from __future__ import annotations

import asyncio
from typing import Final

import numpy as np
import polars as pl

from raven.clock import now_us
from raven.sources.simulated.connection import Connection
from raven.sources.simulated.frames import BlockFrames
from raven.sources.simulated.market import Block, Ints, Market
from raven.sources.simulated.symbols import Symbols
from raven.sources.simulated.venue import Venue

_CHUNK_ROWS: Final = 256
_TIMED_CHUNK_ROWS: Final = 4_096
_TICK_S: Final = 0.001  # what falls due within it is sent together: waking costs more than sending


class Player:
    """Plays a market once to all connections.

    Between two waits it sends the same trades to every connection and then counts them as played, so a REST reply
    holds a trade exactly when its frame has been written. `now_times` stamps frames with the time they are sent.
    Of symbols that do not trade nothing is sent or counted.
    """

    def __init__(self, market: Market, venue: Venue, symbols: Symbols, *, now_times: bool) -> None:
        self.connections: dict[Connection, None] = {}
        self.began = asyncio.Event()
        self._symbols = symbols
        self._market = market
        self._venue = venue
        self._now_times = now_times
        self._has_readers = asyncio.Event()
        self._change = asyncio.Event()
        self._codes = {symbol: code for code, symbol in enumerate(market.listings)}
        self._began_us: int | None = None
        now = now_us()
        history = market.begin(now)
        self._last_ids: Ints = history.last_ids.copy()
        self._last_time_us = history.time_us
        symbols.begin(self.raw_id)
        if not market.waits_for_reader:
            self._began_us = now
            self.began.set()

    def raw_id(self, symbol: str) -> int:
        """The market's own id of the last trade it has come to, sent or not; 0 when there is none."""
        return int(self._last_ids[self._codes[symbol]])

    def last_id(self, symbol: str) -> int:
        """The id of the last trade played of `symbol`; 0 when there is none."""
        return self._symbols.last_id(symbol, self.raw_id(symbol))

    def readers(self) -> list[Connection]:
        """The connections that are subscribed to a played stream, in the order they were opened."""
        return [connection for connection in self.connections if connection.is_reader]

    async def next_change(self) -> None:
        """Wait until a connection's subscriptions change."""
        await self._change.wait()

    def time_us(self) -> int:
        """The market's own time."""
        elapsed = 0 if self._began_us is None else now_us() - self._began_us
        time = self._market.time_us(elapsed)
        return self._last_time_us if time is None else time

    def server_time_us(self) -> int:
        """The time the exchange tells its clients."""
        return now_us() if self._now_times else self.time_us()

    def readers_changed(self) -> None:
        """To be called when a connection's subscriptions have changed."""
        self._change.set()
        self._change = asyncio.Event()
        if any(connection.is_reader for connection in self.connections):
            self._has_readers.set()
        else:
            self._has_readers.clear()

    async def run(self) -> None:
        """Play to the end; a generated market has none."""
        if self._began_us is None:
            await self._has_readers.wait()
            self._began_us = now_us()
            self.began.set()
        for block in self._market.blocks():
            await self._play(block, self._began_us)
        for connection in self.connections:
            connection.release()

    async def _play(self, block: Block, began_us: int) -> None:
        frames, version = self._frames(block.trades), self._symbols.version
        start, rows = 0, block.trades.height
        while start < rows:
            if version != self._symbols.version:
                frames, version = self._frames(block.trades), self._symbols.version
            if block.due_us is None:
                await self._has_readers.wait()
                stop = min(start + _CHUNK_ROWS, rows)
            else:
                elapsed_us = now_us() - began_us
                stop = min(int(np.searchsorted(block.due_us, elapsed_us, side="right")), start + _TIMED_CHUNK_ROWS)
                if stop <= start:
                    await asyncio.sleep(max((int(block.due_us[start]) - elapsed_us) / 1e6, _TICK_S))
                    continue
            self._send(block, frames, start, stop)
            await self._pace(is_timed=block.due_us is not None)
            start = stop

    def _send(self, block: Block, frames: BlockFrames, start: int, stop: int) -> None:
        """Without a wait in it: all connections get these rows, and then they are played."""
        readers = self.readers()
        if self._now_times and readers:
            stamped = block.trades[start:stop].with_columns(time_us=pl.lit(now_us(), dtype=pl.Int64))
            fresh = self._frames(stamped)
            for connection in readers:
                connection.deliver(fresh, 0, stop - start)
        else:
            for connection in readers:
                connection.deliver(frames, start, stop)
        # of the several rows of a symbol the last one counts
        self._last_ids[block.codes[start:stop]] = block.trades.get_column("trade_id")[start:stop].to_numpy()
        self._last_time_us = int(block.trades.get_column("time_us")[stop - 1])

    def _frames(self, trades: pl.DataFrame) -> BlockFrames:
        return BlockFrames(self._symbols.seen(trades.with_row_index("row")), self._venue.streams)

    async def _pace(self, *, is_timed: bool) -> None:
        """As fast as it is read, the slowest reader paces all; on a clock, a slow reader harms only itself."""
        for connection in list(self.connections):
            if is_timed:
                connection.cut_off_if_slow()
            else:
                await connection.drained()
        await asyncio.sleep(0)
