"""What a service is wanted to collect, by whom, kept over restarts in one small JSON file.

A symbol is wanted by users and by downstream services. It is collected while anyone wants it, so stopping the last
consumer ends what was only started for it, and not what a user started.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import msgspec

from raven.batches.batch import Cursor
from raven.errors import SettingsError
from raven.files import write_atomically

USER: Final = "user"


class Wanted(msgspec.Struct):
    """One symbol: who wants it, where its session began in the own journal, and which upstreams' durable
    positions do not cover it yet. `id_before`, of sources: the last trade id before the session, if any.
    """

    symbol: str
    wanted_by: list[str]
    session_start: Cursor | None = None
    joining: list[str] = []
    id_before: int | None = None


class WantedFile:
    """The wanted symbols of one service, saved atomically at every change."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.symbols: dict[str, Wanted] = {}
        if path.exists():
            try:
                entries = msgspec.json.decode(path.read_bytes(), type=list[Wanted])
            except msgspec.MsgspecError as error:
                raise SettingsError(
                    f"{path} is damaged: {error}", hint="remove it and start the symbols again"
                ) from error
            self.symbols = {entry.symbol: entry for entry in entries}

    def add(
        self, symbol: str, requester: str, *, session_start: Cursor | None = None, joining: Sequence[str] = ()
    ) -> Wanted:
        """Note that `requester` wants `symbol`; a new symbol begins its session and has to join its upstreams."""
        entry = self.symbols.get(symbol)
        if entry is None:
            entry = self.symbols[symbol] = Wanted(symbol, [requester], session_start, list(joining))
        elif requester not in entry.wanted_by:
            entry.wanted_by.append(requester)
        return entry

    def remove(self, symbol: str, requester: str) -> list[str]:
        """Note that `requester` wants it no more; who still does. The symbol goes when nobody does."""
        entry = self.symbols[symbol]
        entry.wanted_by = [name for name in entry.wanted_by if name != requester]
        if not entry.wanted_by:
            del self.symbols[symbol]
        return entry.wanted_by

    def joined(self, upstream: str, symbols: Sequence[str]) -> None:
        """The service's durable position on `upstream` covers these symbols now."""
        for symbol in symbols:
            entry = self.symbols.get(symbol)
            if entry is not None and upstream in entry.joining:
                entry.joining.remove(upstream)
        self.save()

    def save(self) -> None:
        """Write the file; a crash leaves the old or the new one whole."""
        write_atomically(self._path, msgspec.json.format(msgspec.json.encode(list(self.symbols.values()))))
