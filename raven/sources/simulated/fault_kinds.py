"""The kinds of faults of the simulated exchange, as a table that a command's help can read quickly."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import Enum
from typing import Final


class Target(Enum):
    """What a fault strikes."""

    CONNECTION = "one connection"
    FRAMES = "frames of one connection"
    REST = "REST requests"
    SYMBOL = "a symbol"


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of fault; `seconds` and `count` are the defaults of those it takes, `ways` the words it takes."""

    target: Target
    does: str
    seconds: float | None = None
    count: int | None = None
    ways: tuple[str, ...] = ()

    @property
    def takes_symbol(self) -> bool:
        """Whether it may name a symbol."""
        return self.target in (Target.FRAMES, Target.SYMBOL)


KINDS: Final = {
    "drop": Kind(Target.CONNECTION, "breaks off a connection, or closes it", ways=("close",)),
    "stall": Kind(Target.CONNECTION, "silences a connection, which then goes on, or is cut", 2.0, ways=("cut",)),
    "shutdown": Kind(Target.CONNECTION, "announces serverShutdown, so long before the connection closes", 5.0),
    "skip": Kind(Target.FRAMES, "leaves out frames of a connection", count=5),
    "repeat": Kind(Target.FRAMES, "sends frames twice", count=5),
    "reorder": Kind(Target.FRAMES, "swaps pairs of neighbouring frames", count=5),
    "garble": Kind(Target.FRAMES, "damages frames: no valid JSON", count=5),
    "leap": Kind(Target.FRAMES, "sends a frame once more, its id so far ahead", count=1_000_000),
    "future": Kind(Target.FRAMES, "sends a frame once more, before itself, its time so far ahead", 300.0),
    "strange": Kind(Target.FRAMES, "sends so many trades of symbols that nobody asked for", count=20_000),
    "429": Kind(Target.REST, "refuses requests for so long: too many, or as it says for ever", 3.0, ways=("forever",)),
    "418": Kind(Target.REST, "refuses requests for so long: banned, or as it says for ever", 5.0, ways=("forever",)),
    "500": Kind(Target.REST, "fails so many requests", count=3),
    "slow": Kind(Target.REST, "delays so many requests by so long", 2.0, 3),
    "451": Kind(Target.REST, "refuses requests and connections for so long: blocked region", 5.0),
    "halt": Kind(Target.SYMBOL, "halts a symbol for so long, or for good", math.inf),
    "delist": Kind(Target.SYMBOL, "takes a symbol off the list"),
    "list": Kind(Target.SYMBOL, "lists a symbol that was not there before"),
}

_BY_NAME_ONLY: Final = frozenset({"451", "leap", "future", "strange"})

MOST_KINDS: Final = tuple(
    name for name, kind in KINDS.items() if kind.target is not Target.SYMBOL and name not in _BY_NAME_ONLY
)
"""The kinds of a generated schedule, unless others are asked for."""


def usage() -> str:
    """Every kind with its effect, as it is written for second 5 with all it takes; numbers are the defaults."""
    return "; ".join(f"{_example(name, kind)} {kind.does}" for name, kind in KINDS.items())


def _example(name: str, kind: Kind) -> str:
    parameters = [
        *(() if kind.seconds is None else ("10s" if math.isinf(kind.seconds) else f"{kind.seconds:g}s",)),
        *(() if kind.count is None else (str(kind.count),)),
        *kind.ways,
        *(("BTCUSDT",) if kind.takes_symbol else ()),
    ]
    return f"{name}@5:{','.join(parameters)}" if parameters else f"{name}@5"
