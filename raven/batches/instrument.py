"""An instrument names one symbol of a venue, or a pattern of them. It needs no Polars, so that ravenctl starts fast."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final, NamedTuple

WILDCARDS: Final = "*?"


class Instrument(NamedTuple):
    """A symbol of a venue; with `*` or `?` in it a pattern, which stands for all symbols of the venue it matches."""

    venue: str
    symbol: str

    @property
    def is_pattern(self) -> bool:
        """Whether it stands for several symbols."""
        return any(wildcard in self.symbol for wildcard in WILDCARDS)

    def matches(self, symbol: str) -> bool:
        """Whether it is, or stands for, `symbol`."""
        return symbol == self.symbol or (self.is_pattern and re.match(regex(self.symbol), symbol) is not None)

    def __str__(self) -> str:
        return f"{self.symbol} of {self.venue}"


def by_venue(instruments: Iterable[Instrument]) -> dict[str, list[str]]:
    """The symbols and patterns of each venue."""
    symbols: dict[str, list[str]] = {}
    for instrument in instruments:
        symbols.setdefault(instrument.venue, []).append(instrument.symbol)
    return symbols


def regex(pattern: str) -> str:
    """`pattern` as an anchored regular expression of the kind that Polars takes."""
    parts = {"*": ".*", "?": "."}
    return "^" + "".join(parts.get(letter, re.escape(letter)) for letter in pattern) + "$"
