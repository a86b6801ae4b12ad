"""Parameters of bar types: checked by the name of their flag, and written short in a label."""

from __future__ import annotations

import math

from raven.errors import InputError


def number(name: str, value: float) -> float:
    """`value` as a float; raises InputError naming the flag of `name` when it is no finite number."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise out_of_range(name, value, "a finite number")
    return float(value)


def out_of_range(name: str, value: object, allowed: str) -> InputError:
    """The error that says what the flag of the parameter `name` may be."""
    return InputError(f"--{name.replace('_', '-')} must be {allowed}, got {value!r}")


def plain(value: float) -> str:
    """The shortest text that reads back as `value`, without a trailing `.0`."""
    return repr(value).removesuffix(".0")
