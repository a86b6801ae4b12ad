"""What goes wrong on the simulated exchange, and when: a schedule, given or made of a seed. Pure.

A fault is written `KIND@SECONDS[:PARAMETER,…]`: `drop@12.5`, `stall@30:2s,cut`, `skip@5:10,BTCUSDT`. SECONDS count
from the beginning of the play. What a kind takes stands in `fault_kinds`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from raven.errors import InputError
from raven.sources.simulated.fault_kinds import KINDS, MOST_KINDS, Kind, Target
from raven.sources.simulated.market import is_legal

_SPEC: Final = re.compile(r"(?P<kind>\w+)@(?P<at>\d+(\.\d+)?)(:(?P<parameters>.*))?")
_DURATION: Final = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h)")
_UNIT_S: Final = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3_600.0}
_HINT: Final = "faults look like drop@12.5, stall@30:2s, skip@5:10,BTCUSDT"


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault. `share`, in [0, 1), picks its victim among those there are; `symbol` is empty for any."""

    at_s: float
    kind: str
    seconds: float = 0.0
    count: int = 0
    symbol: str = ""
    way: str = ""
    share: float = 0.0

    @property
    def target(self) -> Target:
        """What it strikes."""
        return KINDS[self.kind].target


def parse_fault(spec: str) -> Fault:
    """The fault a text describes; raises InputError when it does not."""
    found = _SPEC.fullmatch(spec)
    if found is None:
        raise InputError(f"{spec!r} is not a fault", hint=_HINT)
    kind = _kind(found["kind"])
    fault = Fault(float(found["at"]), found["kind"], seconds=kind.seconds or 0.0, count=kind.count or 0)
    for parameter in filter(None, (found["parameters"] or "").split(",")):
        fault = _with(fault, kind, parameter, spec)
    if kind.target is Target.SYMBOL and not fault.symbol:
        raise InputError(f"{spec!r} names no symbol", hint=f"{spec}:BTCUSDT would")
    return fault


def given_faults(specs: Sequence[str], *, seed: int = 0) -> tuple[Fault, ...]:
    """A schedule out of texts, in the order of time; `seed` picks the victims. Raises InputError for a bad text."""
    shares = np.random.default_rng(seed).random(len(specs))
    faults = (replace(parse_fault(spec), share=float(share)) for spec, share in zip(specs, shares, strict=True))
    return tuple(sorted(faults, key=lambda fault: fault.at_s))


def generated_faults(
    count: int, *, seed: int = 0, span_s: float = 300.0, kinds: Sequence[str] = MOST_KINDS
) -> tuple[Fault, ...]:
    """`count` faults within `span_s` seconds, each kind as often as the others: a pure function of its arguments.

    Raises InputError for an unknown kind, one that needs a symbol, or a number that is not above zero.
    """
    if count < 1 or not 0 < span_s < math.inf:
        raise InputError(f"{count} faults in {span_s} s are no schedule", hint="both must be above zero")
    for name in kinds:
        if _kind(name).target is Target.SYMBOL:
            raise InputError(f"{name} needs a symbol", hint=f"give it by itself, as {name}@10:BTCUSDT")
    random = np.random.default_rng(seed)
    times = np.sort(random.uniform(0.02 * span_s, 0.98 * span_s, count)).round(3)
    chosen = np.concatenate([random.permutation(len(kinds)) for _ in range(-(-count // len(kinds)))])[:count]
    return tuple(
        replace(parse_fault(f"{kinds[place]}@{at:.3f}"), share=float(share))
        for at, place, share in zip(times, chosen, random.random(count), strict=True)
    )


def _kind(name: str) -> Kind:
    if name not in KINDS:
        raise InputError(f"{name} is no kind of fault", hint=f"one of {', '.join(KINDS)}")
    return KINDS[name]


def _with(fault: Fault, kind: Kind, parameter: str, spec: str) -> Fault:
    duration = _DURATION.fullmatch(parameter)
    if duration is not None and kind.seconds is not None:
        return replace(fault, seconds=float(duration[1]) * _UNIT_S[duration[2]])
    if parameter.isdecimal() and kind.count is not None and int(parameter) > 0:
        return replace(fault, count=int(parameter))
    if parameter in kind.ways:
        return replace(fault, way=parameter)
    if kind.takes_symbol and is_legal(parameter) and not parameter.isdecimal():
        return replace(fault, symbol=parameter)
    raise InputError(f"{fault.kind} takes no {parameter!r}, as in {spec!r}", hint=f"{fault.kind}: {kind.does}")
