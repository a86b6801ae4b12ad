"""Ids that begin anew: told from old trades that come once more, by asking the exchange.

A repeated or reordered frame carries an old id too, so an id alone proves nothing. New ids are believed when a live
trade lies far below the last id of its symbol, is newer than every trade seen of it, and the exchange itself says
that its newest trade lies as far below. Until it has said so, such rows are duplicates; what they held is fetched.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import Final

from raven.batches.hold import FAR_BACK_IDS, Hold
from raven.batches.released import Fallen
from raven.errors import ExchangeError
from raven.sources.binance.frames import UNREADABLE
from raven.sources.binance.protocol import VenueProtocol
from raven.sources.binance.replies import decode_list
from raven.sources.binance.rest import BinanceRest
from raven.telemetry import Telemetry

LOOK_EVERY_S: Final = 5.0


async def newest_trade_id(rest: BinanceRest, protocol: VenueProtocol, symbol: str) -> int | None:
    """The id of the symbol's newest trade at the exchange; None when it never traded. Raises ExchangeError."""
    body = await rest.get(protocol.trades_path, weight=protocol.trades_weight, symbol=symbol, limit="1")
    try:
        newest = decode_list(body, protocol.event)
    except UNREADABLE as error:
        raise ExchangeError(f"{protocol.trades_path} answered something else than trades: {error}") from error
    return newest[-1].trade_id if newest else None


class Epochs:
    """Looks into trades whose ids lie far back, and lets the ids of a symbol begin anew where they did."""

    def __init__(self, rest: BinanceRest, protocol: VenueProtocol, *, telemetry: Telemetry) -> None:
        self._rest = rest
        self._protocol = protocol
        self._telemetry = telemetry
        self._fallen: dict[str, Fallen] = {}
        self._told = asyncio.Event()

    def consider(self, fallen: Iterable[Fallen], newest_us: Callable[[str], int]) -> None:
        """Look into these, unless they are older than the newest trade of their symbol (`newest_us`: 0: not known)."""
        for entry in fallen:
            if entry.time_us > newest_us(entry.symbol):
                self._fallen.setdefault(entry.symbol, entry)
                self._told.set()

    async def run(self, hold: Hold) -> None:
        """Work until cancelled."""
        while True:
            await self._told.wait()
            self._told.clear()
            fallen, self._fallen = self._fallen, {}
            for entry in fallen.values():
                await self._look_into(entry, hold)
            await asyncio.sleep(LOOK_EVERY_S)

    async def _look_into(self, entry: Fallen, hold: Hold) -> None:
        try:
            newest = await newest_trade_id(self._rest, self._protocol, entry.symbol)
        except ExchangeError as error:
            self._telemetry.warning("epoch_unchecked", f"{entry.symbol}: ids fell back, unexplained: {error}")
            return
        last = hold.last_ids.get(entry.symbol)
        if newest is None or last is None or not entry.trade_id <= newest < last - FAR_BACK_IDS:
            return
        if hold.begin_epoch(entry.symbol, entry.trade_id):
            self._telemetry.error(
                "id_epoch", f"{entry.symbol}: the exchange numbers its trades anew, from {last} back to {newest}",
                symbol=entry.symbol, last_id=last, first_id=entry.trade_id,
            )  # fmt: skip
