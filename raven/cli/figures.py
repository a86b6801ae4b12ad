"""Prices, volumes and bars as text: every digit of a price, and a bar in the words of the tables and lines."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from typing import Any, Final

from rich.markup import escape

from raven.cli import output

MOST_DECIMALS: Final = 10
TIB: Final = "tib"


def price(number: float) -> str:
    """A price with all its digits, and at least as many decimals as its size deserves."""
    return f"{number:,.{decimals(number)}f}"


def decimals(number: float) -> int:
    """How many decimals a price is shown with: those that the exchange sent, or more where it is low."""
    if not math.isfinite(number):
        return 0
    exponent = Decimal(repr(number)).as_tuple().exponent
    assert isinstance(exponent, int)
    least = next((places for size, places in ((10, 2), (1, 4), (0.001, 6)) if abs(number) >= size), 8)
    return min(MOST_DECIMALS, max(least, -exponent))


def volume(number: float) -> str:
    """A quantity with about as many digits as tell something."""
    places = next((places for size, places in ((1e6, 0), (100, 2), (0.01, 4)) if abs(number) >= size), 8)
    return f"{number:,.{places}f}"


def short_specs(specs: Iterable[str]) -> dict[str, str]:
    """Each spec as it is shown: of tick imbalance bars without their parameters, where only one kind is among them."""
    found = dict.fromkeys(specs)
    imbalance = [spec for spec in found if spec.startswith(f"{TIB}-")]
    return {spec: TIB if imbalance == [spec] else spec for spec in found}


def bar_cells(bar: Mapping[str, Any]) -> list[str]:
    """A bar from its symbol to what closed it; its prices have the same decimals."""
    places = max(decimals(bar[column]) for column in ("open", "high", "low", "close"))
    return [
        escape(bar["symbol"]),
        bar["spec"],
        f"{bar['open_time']:%H:%M:%S}",
        f"{bar['close_time']:%H:%M:%S}",
        *(f"{bar[column]:,.{places}f}" for column in ("open", "high", "low", "close", "vwap")),
        volume(bar["volume"]),
        output.count(bar["total_ticks"]),
        theta_or_buys(bar),
    ]


def theta_or_buys(bar: Mapping[str, Any]) -> str:
    """The imbalance of a bar that a trade closed, and what it closed at; how many of a time bar's ticks were buys."""
    if "theta" in bar:
        # a size has no sign
        threshold = f"{bar['threshold']:,g}" if bar["expected_size"] is None else f"{bar['threshold']:+.1f}"
        return f"{bar['theta']:+.0f} / {threshold}"
    return f"{bar['buy_ticks'] / bar['total_ticks']:.0%}"


def bar_line(bar: Mapping[str, Any]) -> str:
    """A bar as one line."""
    symbol, spec, begin, end, opened, high, low, close, vwap, traded, ticks, figure = bar_cells(bar)
    return (
        f"{bar['venue']} {symbol} {spec} {begin}–{end} open {opened} high {high} low {low} close {close} vwap {vwap} "  # noqa: RUF001
        f"volume {traded} ticks {ticks} {'theta' if 'theta' in bar else 'buys'} {figure}"
        f"{'' if bar['complete'] else ' incomplete'}"
    )


def shared(wants: Sequence[int], leasts: Sequence[int], room: int) -> list[int]:
    """How many of `room` lines each gets: its least, then one more in turn until it has what it wants."""
    given = [min(want, least) for want, least in zip(wants, leasts, strict=True)]
    while sum(given) < room and given != list(wants):
        for at, want in enumerate(wants):
            if given[at] < want and sum(given) < room:
                given[at] += 1
    return given
