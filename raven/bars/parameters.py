"""Parameters of bar types: checked by the name that the caller gave them by, and written short in a label."""

from __future__ import annotations

import math
from types import MappingProxyType
from typing import Final

from raven.errors import InputError, argument

_OPTIONS: Final = MappingProxyType({"ticks": "tick_bars", "volume": "volume_bars", "dollars": "dollar_bars"})
"""How commands call the parameters that they call otherwise than Python."""


def number(name: str, value: float) -> float:
    """`value` as a float; raises InputError naming the parameter when it is no finite number."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise out_of_range(name, value, "a finite number")
    return float(value)


def out_of_range(name: str, value: object, allowed: str) -> InputError:
    """The error that says what the parameter `name` may be."""
    return InputError(f"{spelt(name)} must be {allowed}, got {value!r}")


def spelt(name: str) -> str:
    """A parameter as the caller knows it: `alpha_size`, or of a command `--alpha-size`."""
    given = argument(name).removesuffix("=")
    return given if given == name else argument(_OPTIONS.get(name, name))


def plain(value: float) -> str:
    """The shortest text that reads back as `value`, without a trailing `.0`."""
    return repr(value).removesuffix(".0")
