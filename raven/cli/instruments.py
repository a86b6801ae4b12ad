"""What a user asks `raven up` to collect, and what was being collected before."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

from raven.batches.instrument import Instrument, symbol_problem
from raven.control.plan import VENUES, port_of, resolve_venue
from raven.control.wanted import WantedFile
from raven.errors import InputError
from raven.settings import Settings
from raven.sources.simulated.market import is_legal

DEFAULT_VENUE: Final = next(iter(VENUES))
DEFAULTS: Final = tuple(Instrument(DEFAULT_VENUE, symbol) for symbol in ("BTCUSDT", "ETHUSDT"))
SHOWN: Final = 8


def parse_instruments(entries: Iterable[str], venue: str = "") -> list[Instrument]:
    """Symbols or patterns separated by commas, each with its venue before a colon unless it is of `venue` (or spot).

    Raises InputError for what cannot be a symbol and for an unknown venue.
    """
    default = resolve_venue(venue) if venue else DEFAULT_VENUE
    found = []
    for entry in (part.strip() for text in entries for part in text.split(",")):
        named, colon, symbol = entry.rpartition(":")
        instrument = Instrument(resolve_venue(named) if colon else default, symbol.strip().upper())
        plain = instrument.symbol.replace("*", "").replace("?", "") if instrument.is_pattern else instrument.symbol
        if symbol_problem(instrument.symbol) or not (is_legal(plain) or (instrument.is_pattern and not plain)):
            raise InputError(f"{entry!r} is not a symbol", hint="symbols look like BTCUSDT, futures:BTCUSDT or '*USDT'")
        found.append(instrument)
    return list(dict.fromkeys(found))


def remembered(settings: Settings, data: Path, services: Iterable[str]) -> list[Instrument]:
    """What the services collected when they last ran with the data folder `data`."""
    files = (data / f"{name}-{port_of(settings, name)}" / "wanted.json" for name in services)
    return list(dict.fromkeys(instrument for path in files for instrument in WantedFile(path).entries))


def shown(instruments: Sequence[Instrument]) -> str:
    """The first few in words."""
    more = f" and {len(instruments) - SHOWN} more" if len(instruments) > SHOWN else ""
    return ", ".join(str(instrument) for instrument in instruments[:SHOWN]) + more
