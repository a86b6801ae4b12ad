"""The venues there are, and how people call them."""

from __future__ import annotations

from typing import Final

from raven.errors import InputError
from raven.sources.binance import BINANCE_FUTURES, BINANCE_SPOT

VENUES: Final = (BINANCE_SPOT, BINANCE_FUTURES)


def known_venue(name: str) -> str:
    """The venue that is called `name`, `BINANCE_SPOT` or `spot`, in any case; `name` itself where there is none."""
    wanted = name.strip().upper()
    return next((venue for venue in VENUES if wanted in (venue, venue.removeprefix("BINANCE_"))), name)


def resolve_venue(name: str) -> str:
    """As `known_venue`; raises InputError where there is none."""
    venue = known_venue(name)
    if venue not in VENUES:
        raise InputError(f"there is no venue {name}", hint=f"venues: {', '.join(VENUES)}")
    return venue
