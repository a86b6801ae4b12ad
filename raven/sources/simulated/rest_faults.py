"""Faults of REST: refusals, failures, slowness, a blocked region. They strike with the next request."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from raven.sources.simulated.faults import Fault

BLOCKED_STATUS: Final = 451


@dataclass(slots=True)
class _Waiting:
    fault: Fault
    left: int
    struck: asyncio.Event = field(default_factory=asyncio.Event)


class RestFaults:
    """The faults that are due; `refuse` is how requests are refused for a while (status, seconds, now, for ever)."""

    def __init__(self, refuse: Callable[[int, float, float, bool], None]) -> None:
        self._refuse = refuse
        self._waiting: list[_Waiting] = []
        self._blocked_until_s = 0.0

    async def strike(self, fault: Fault) -> None:
        """Have the next request meet `fault`; returns when one has."""
        waiting = _Waiting(fault, max(1, fault.count))
        self._waiting.append(waiting)
        await waiting.struck.wait()

    def is_blocked(self, now_s: float) -> bool:
        """Whether the region of a request or a new connection is blocked now."""
        for waiting in self._take("451"):
            self._blocked_until_s = now_s + waiting.fault.seconds
        return now_s < self._blocked_until_s

    def meet_refusals(self, now_s: float) -> None:
        """Begin the refusals that are due."""
        for kind in ("429", "418"):
            for waiting in self._take(kind):
                self._refuse(int(kind), waiting.fault.seconds, now_s, waiting.fault.way == "forever")

    def fails(self) -> bool:
        """Whether this request fails."""
        return bool(self._take("500"))

    def delay_s(self) -> float:
        """How much longer this request takes."""
        return sum(waiting.fault.seconds for waiting in self._take("slow"))

    def _take(self, kind: str) -> list[_Waiting]:
        """The faults of a kind that this request meets."""
        if not self._waiting:
            return []
        met = [waiting for waiting in self._waiting if waiting.fault.kind == kind]
        for waiting in met:
            waiting.left -= 1
            waiting.struck.set()
        self._waiting = [waiting for waiting in self._waiting if waiting.left]
        return met
