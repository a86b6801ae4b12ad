"""A schedule of faults at work on one venue: each strikes when it is due and has a victim, and is logged once."""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections import Counter
from collections.abc import Sequence
from typing import Any, Final

from aiohttp import WSCloseCode

from raven.sources.simulated.connection import Connection
from raven.sources.simulated.damage import Damage
from raven.sources.simulated.fault_kinds import Target
from raven.sources.simulated.faults import Fault
from raven.sources.simulated.player import Player
from raven.sources.simulated.rest_faults import RestFaults
from raven.sources.simulated.symbols import Symbols

_LOG: Final = logging.getLogger("raven.simulated")


class Misbehaviour:
    """Makes `faults` happen to the clients of one venue.

    A fault that is due but finds nobody to strike (no subscribed connection, no request) waits for its victim.
    """

    def __init__(
        self, faults: Sequence[Fault], venue: str, player: Player, symbols: Symbols, rest_faults: RestFaults
    ) -> None:
        self._faults = faults
        self._venue = venue
        self._player = player
        self._symbols = symbols
        self._rest_faults = rest_faults
        self._happened: list[dict[str, Any]] = []
        self._began_s = 0.0

    def report(self) -> dict[str, Any]:
        """What happened so far, in order; how often each kind did; and how many faults are still to come."""
        kinds = Counter(entry["kind"] for entry in self._happened)
        return {
            "venue": self._venue,
            "happened": list(self._happened),
            "counts": dict(kinds),
            "to_come": len(self._faults) - len(self._happened),
        }

    async def run(self) -> None:
        """Every fault at its time, from the beginning of the play on."""
        if not self._faults:
            return
        await self._player.began.wait()
        self._began_s = time.monotonic()
        async with asyncio.TaskGroup() as group:
            for fault in self._faults:
                group.create_task(self._strike(fault))

    async def _strike(self, fault: Fault) -> None:
        await asyncio.sleep(self._began_s + fault.at_s - time.monotonic())
        match fault.target:
            case Target.REST:
                await self._rest_faults.strike(fault)
                self._note(fault, "REST")
            case Target.SYMBOL:
                self._note(fault, fault.symbol)
                await self._change(fault)
            case Target.FRAMES:
                victim = await self._victim(fault)
                while not await victim.damage(Damage(fault)):
                    victim = await self._victim(fault)
                self._note(fault, victim.name)
            case Target.CONNECTION:
                victim = await self._victim(fault)
                self._note(fault, victim.name)
                await _break(victim, fault)

    async def _victim(self, fault: Fault) -> Connection:
        while not (readers := [one for one in self._player.readers() if one.reads(fault.symbol)]):
            await self._player.next_change()
        return readers[int(fault.share * len(readers))]

    async def _change(self, fault: Fault) -> None:
        raw_id = self._player.raw_id(fault.symbol)
        match fault.kind:
            case "list":
                self._symbols.trade(fault.symbol, raw_id)
            case "delist":
                self._symbols.delist(fault.symbol, raw_id)
            case _:
                self._symbols.halt(fault.symbol, raw_id)
                if math.isfinite(fault.seconds):
                    await asyncio.sleep(fault.seconds)
                    if self._symbols.status(fault.symbol) is not None:  # not delisted meanwhile
                        self._symbols.trade(fault.symbol, self._player.raw_id(fault.symbol))

    def _note(self, fault: Fault, victim: str) -> None:
        happened_s = round(time.monotonic() - self._began_s, 3)
        entry = {"kind": fault.kind, "at_s": fault.at_s, "happened_s": happened_s, "victim": victim}
        self._happened.append(entry)
        _LOG.warning("fault %s at %.3f s on %s of %s", fault.kind, happened_s, victim, self._venue)


async def _break(victim: Connection, fault: Fault) -> None:
    match fault.kind, fault.way:
        case "drop", "close":
            await victim.close(WSCloseCode.GOING_AWAY, "dropped")
        case "drop", _:
            victim.abort()
        case "shutdown", _:
            await victim.announce_shutdown(fault.seconds)
        case _, way:
            await victim.stall(fault.seconds, is_cut=way == "cut")
