"""What a service is wanted to collect, by whom, kept over restarts in one small JSON file.

An instrument is wanted by users and by downstream services. It is collected while anyone wants it, so stopping the
last consumer ends what was only started for it, and not what a user started.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import msgspec

from raven.batches.batch import Cursor
from raven.batches.instrument import Instrument
from raven.errors import SettingsError
from raven.files import write_atomically

USER: Final = "user"


class Wanted(msgspec.Struct):
    """One symbol or pattern: who wants it, where its session began in the own journal, and which upstreams' durable
    positions do not cover it yet.

    `ids_before`, of sources: for each symbol collected by it, the last trade id before its session (None: never any).
    """

    venue: str
    symbol: str
    wanted_by: list[str]
    session_start: Cursor | None = None
    joining: list[str] = []
    ids_before: dict[str, int | None] = {}

    @property
    def instrument(self) -> Instrument:
        """What is wanted."""
        return Instrument(self.venue, self.symbol)


class WantedFile:
    """The wanted instruments of one service, saved atomically at every change."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.entries: dict[Instrument, Wanted] = {}
        if path.exists():
            try:
                entries = msgspec.json.decode(path.read_bytes(), type=list[Wanted])
            except (OSError, msgspec.MsgspecError) as error:
                raise SettingsError(
                    f"{path} is damaged: {error}", hint="remove it and start the symbols again"
                ) from error
            self.entries = {entry.instrument: entry for entry in entries}

    def add(
        self,
        instrument: Instrument,
        requester: str,
        *,
        session_start: Cursor | None = None,
        joining: Sequence[str] = (),
    ) -> Wanted:
        """Note that `requester` wants `instrument`; a new one begins its session and has to join its upstreams."""
        entry = self.entries.get(instrument)
        if entry is None:
            entry = self.entries[instrument] = Wanted(*instrument, [requester], session_start, list(joining))
        elif requester not in entry.wanted_by:
            entry.wanted_by.append(requester)
        return entry

    def remove(self, instrument: Instrument, requester: str) -> list[str]:
        """Note that `requester` wants it no more; who still does. It goes when nobody does."""
        entry = self.entries[instrument]
        entry.wanted_by = [name for name in entry.wanted_by if name != requester]
        if not entry.wanted_by:
            del self.entries[instrument]
        return entry.wanted_by

    def joined(self, upstream: str, instruments: Sequence[Instrument]) -> None:
        """The service's durable position on `upstream` covers these now."""
        for instrument in instruments:
            entry = self.entries.get(instrument)
            if entry is not None and upstream in entry.joining:
                entry.joining.remove(upstream)
        self.save()

    def save(self) -> None:
        """Write the file; a crash leaves the old or the new one whole."""
        write_atomically(self._path, msgspec.json.format(msgspec.json.encode(list(self.entries.values()))))
