"""What a service is wanted to collect, by whom, kept over restarts in one small JSON file.

An instrument is wanted by users and by downstream services. It is collected while anyone wants it, so stopping the
last consumer ends what was only started for it, and not what a user started.

Where the file cannot be written, a change that was asked for is undone and refused; one that came about by itself, such
as a position that now covers a symbol, holds in memory and is written later. Without it a restart does work again that
was done, and loses nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeAlias

import msgspec

from raven.batches.batch import Cursor
from raven.batches.instrument import Instrument
from raven.errors import RavenError, SettingsError
from raven.files import write_atomically

if TYPE_CHECKING:  # the command line only reads the file
    from raven.telemetry import Telemetry

USER: Final = "user"


class Wanted(msgspec.Struct):
    """One symbol or pattern: who wants it, where its session began in the own journal, and which followings' durable
    positions do not cover it yet.

    - `ending`: nobody wants it any more, but these followings have not made durable all that was there when it was
      stopped.
    - `earlier`: those of `joining` that a session of it before this one has not joined either.
    - `ids_before`, of sources: for each symbol collected by it, the last trade id before its session (None: never any).
    """

    venue: str
    symbol: str
    wanted_by: list[str]
    session_start: Cursor | None = None
    joining: list[str] = []
    ids_before: dict[str, int | None] = {}
    ending: list[str] = []
    earlier: list[str] = []

    @property
    def instrument(self) -> Instrument:
        """What is wanted."""
        return Instrument(self.venue, self.symbol)


Kept: TypeAlias = tuple[dict[Instrument, Wanted], dict[Instrument, Wanted], list[tuple[Wanted, list[str], list[str]]]]
"""All that a change that was asked for can change."""


class WantedFile:
    """The wanted instruments of one service, and those that end, saved atomically at every change.

    `problem`: why the file is not as memory is; empty when it is. `telemetry` is told; who only reads gives none.
    """

    def __init__(self, path: Path, telemetry: Telemetry | None = None) -> None:
        self._path = path
        self._telemetry = telemetry
        self.problem = ""
        self.entries: dict[Instrument, Wanted] = {}
        self.ending: dict[Instrument, Wanted] = {}
        if path.exists():
            try:
                entries = msgspec.json.decode(path.read_bytes(), type=list[Wanted])
            except (OSError, msgspec.MsgspecError) as error:
                raise SettingsError(
                    f"{path} is damaged: {error}", hint="remove it and start the symbols again"
                ) from error
            self.entries = {entry.instrument: entry for entry in entries if entry.wanted_by}
            self.ending = {entry.instrument: entry for entry in entries if not entry.wanted_by}

    def add(
        self,
        instrument: Instrument,
        requester: str,
        *,
        session_start: Cursor | None = None,
        joining: Sequence[str] = (),
    ) -> Wanted:
        """Note that `requester` wants `instrument`; a new one begins its session and has to join its upstreams.

        One that was ending goes on where it is.
        """
        entry = self.entries.get(instrument)
        ended = self.ending.pop(instrument, None)
        earlier: list[str] = []
        if ended is not None:
            joining = [key for key in joining if key in ended.joining or key not in ended.ending]
            earlier = [key for key in joining if key in ended.joining]
        if entry is None:
            entry = Wanted(*instrument, [requester], session_start, list(joining), earlier=earlier)
            self.entries[instrument] = entry
        elif requester not in entry.wanted_by:
            entry.wanted_by = [*entry.wanted_by, requester]
        return entry

    def remove(self, instrument: Instrument, requester: str, ending: Sequence[str] = ()) -> list[str]:
        """Note that `requester` wants it no more; who still does. If nobody: it ends, with the followings `ending`."""
        entry = self.entries[instrument]
        entry.wanted_by = [name for name in entry.wanted_by if name != requester]
        if not entry.wanted_by:
            self.end(instrument, ending)
        return entry.wanted_by

    def end(self, instrument: Instrument, ending: Sequence[str]) -> None:
        """Nobody wants it any more; the followings `ending` still have to make durable what there is of it."""
        entry = self.entries.pop(instrument)
        if ending:
            entry.wanted_by, entry.ending = [], list(ending)
            self.ending[instrument] = entry

    def joined(self, following: str, instruments: Sequence[Instrument]) -> None:
        """The durable position of `following` covers these now."""
        for instrument in instruments:
            entry = self.entries.get(instrument) or self.ending.get(instrument)
            if entry is not None and following in entry.joining:
                entry.joining.remove(following)
                entry.earlier = [key for key in entry.earlier if key != following]
        self.save()

    def left(self, following: str, instruments: Sequence[Instrument]) -> None:
        """All that there was of these is durable at `following`."""
        for instrument in instruments:
            entry = self.ending.get(instrument)
            if entry is not None and following in entry.ending:
                entry.ending.remove(following)
                if not entry.ending:
                    del self.ending[instrument]
        self.save()

    @contextmanager
    def change(self) -> Iterator[None]:
        """Save what is added, removed and ended within, if that changes anything; nothing may be awaited there.

        Raises RavenError when the file cannot be written: then nothing has changed.
        """
        before = self._kept()
        try:
            yield
            if self._kept() != before:
                self._write()
        except BaseException:
            self._undo(before)
            raise

    def _kept(self) -> Kept:
        every = [*self.entries.values(), *self.ending.values()]
        return dict(self.entries), dict(self.ending), [(entry, entry.wanted_by, entry.ending) for entry in every]

    def _undo(self, before: Kept) -> None:
        """In the same entries: others hold them."""
        self.entries, self.ending, lists = before
        for entry, wanted_by, ending in lists:
            entry.wanted_by, entry.ending = wanted_by, ending

    def save(self) -> None:
        """Write what came about by itself; when that fails, `problem` says so until a later save succeeds."""
        with suppress(RavenError):
            self._write()

    def _write(self) -> None:
        """A crash leaves the old or the new file whole."""
        entries = [*self.entries.values(), *self.ending.values()]
        try:
            write_atomically(self._path, msgspec.json.format(msgspec.json.encode(entries)))
        except OSError as error:
            self.problem = f"{self._path} cannot be written: {error.strerror or error}"
            if self._telemetry is not None:
                self._telemetry.warning("wanted_unsaved", self.problem)
            raise RavenError(
                self.problem, hint="nothing has changed; make room on its disk, or its folder writable, and ask again"
            ) from error
        if self.problem and self._telemetry is not None:
            self._telemetry.info("wanted_saved", f"{self._path} is written again")
        self.problem = ""
