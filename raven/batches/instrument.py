"""An instrument names one symbol of a venue, or a pattern of them. It needs no Polars, so that ravenctl starts fast."""

from __future__ import annotations

import re
from collections.abc import Iterable
from fnmatch import fnmatchcase
from typing import Final, NamedTuple

WILDCARDS: Final = "*?"
MAX_SYMBOL_LETTERS: Final = 64


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
        return symbol == self.symbol or (self.is_pattern and _fits(self.symbol, symbol))

    def __str__(self) -> str:
        return f"{self.symbol} of {self.venue}"


def by_venue(instruments: Iterable[Instrument]) -> dict[str, list[str]]:
    """The symbols and patterns of each venue."""
    symbols: dict[str, list[str]] = {}
    for instrument in instruments:
        symbols.setdefault(instrument.venue, []).append(instrument.symbol)
    return symbols


def symbol_problem(symbol: str) -> str:
    """Why no symbol or pattern can be spelt like this; empty when one can."""
    if not symbol:
        return "no symbol given"
    if len(symbol) > MAX_SYMBOL_LETTERS:
        return f"{symbol[:MAX_SYMBOL_LETTERS]!r}… is no symbol: one has {MAX_SYMBOL_LETTERS} letters at most"
    if not symbol.isprintable() or any(letter.isspace() or letter == "\\" for letter in symbol):
        return f"{symbol!r} is no symbol: one has no blanks, control characters or backslashes"
    return ""


def _fits(pattern: str, symbol: str) -> bool:
    """Fnmatch never goes back behind the letters that a star was followed by: no pattern takes exponential time."""
    return fnmatchcase(symbol, pattern.replace("[", "[[]"))


def regex(pattern: str) -> str:
    """`pattern` as an anchored regular expression of the kind that Polars takes, which matches in linear time."""
    parts = {"*": ".*", "?": "."}
    short = re.sub(r"\*+", "*", pattern)
    return "^" + "".join(parts.get(letter, re.escape(letter)) for letter in short) + "$"
