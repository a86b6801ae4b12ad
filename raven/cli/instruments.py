"""What a user asks `raven up` to collect, and what was being collected before."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

from raven.batches.instrument import Instrument, symbol_problem
from raven.control.folders import WANTED, folder_of, take_along
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
    files = (folder_of(data, name, port_of(settings, name)) / WANTED for name in services)
    return list(dict.fromkeys(instrument for path in files for instrument in WantedFile(path).entries))


def left_out(before: Iterable[Instrument], asked: Sequence[Instrument]) -> list[Instrument]:
    """What was collected before and is not among what is asked for now, nor matched by a pattern of it."""
    return [one for one in before if not any(new.venue == one.venue and new.matches(one.symbol) for new in asked)]


def spelt(instruments: Sequence[Instrument]) -> str:
    """As `raven up --symbols` takes them, in a shell."""
    names = {DEFAULT_VENUE: ""} | {
        venue: f"{venue.removeprefix('BINANCE_').lower()}:" for venue in VENUES if venue != DEFAULT_VENUE
    }
    text = ",".join(f"{names[one.venue]}{one.symbol}" for one in instruments)
    return shlex.quote(text)


def take_folders(settings: Settings, data: Path, services: Iterable[str]) -> list[str]:
    """Let the services whose ports were changed take their folders along; a line for each that does."""
    lines = []
    for name in services:
        folder = folder_of(data, name, port_of(settings, name))
        before = take_along(folder)
        if before is not None:
            lines.append(f"The port of {name} was changed: its folder {before.name} is {folder.name} now")
    return lines


def shown(instruments: Sequence[Instrument]) -> str:
    """The first few in words."""
    more = f" and {len(instruments) - SHOWN} more" if len(instruments) > SHOWN else ""
    return ", ".join(str(instrument) for instrument in instruments[:SHOWN]) + more
