"""Whose trades a file holds: what its data, its name and its caller say, and what follows where they differ. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Literal, NamedTuple

from raven.errors import InputError, argument
from raven.sources.binance import BINANCE_FUTURES, BINANCE_SPOT

VENUES: Final = (BINANCE_SPOT, BINANCE_FUTURES)
COIN_M: Final = "COIN-M futures"
READABLE: Final = "Raven reads trades of Binance spot and of USD-M futures"


class Told(NamedTuple):
    """What something (`by`: "its columns", "its name") tells of a file; a guess yields to what the caller says.

    A venue that is told may be one that Raven does not read: then the file is refused by that name.
    """

    value: str
    by: str
    is_guess: bool = False


def settle(what: Literal["venue", "symbol"], name: str, told: Sequence[Told], given: str | None) -> str | None:
    """The venue or symbol of the file `name`: as the caller gave it, else as told (data first); None: nobody knows.

    Raises InputError where what is certain contradicts the caller, where what is told contradicts itself and the
    caller did not decide, and for a venue that is none of Raven's.
    """
    certain = [one for one in told if not one.is_guess]
    for one in certain:
        if given not in (None, one.value):
            raise InputError(f"{name} is of {what} {one.value} by {one.by}, not {given}", hint=_foreign_hint(what, one))
    if given is not None:
        return given
    for one in told[1:]:
        if one.value != told[0].value:
            raise InputError(
                f"{name} is of {what} {told[0].value} by {told[0].by}, but {one.value} by {one.by}",
                hint="" if one in certain else f"pass {argument(what)}",
            )
    if not told:
        return None
    if hint := _foreign_hint(what, told[0]):
        if told[0].is_guess:
            hint += f"; if it is of one of these, pass {argument(what)}"
        raise InputError(f"{name} is of {told[0].value} by {told[0].by}{_why(told[0])}", hint=hint)
    return told[0].value


def _foreign_hint(what: str, told: Told) -> str:
    return READABLE if what == "venue" and told.value not in VENUES else ""


def _why(told: Told) -> str:
    return ", whose quantities are contracts" if told.value == COIN_M else ""
