"""What a service is wanted to collect, by whom, kept over restarts in one small JSON file.

An instrument is wanted by users and by downstream services. It is collected while anyone wants it, so stopping the
last consumer ends what was only started for it, and not what a user started.

Where the file cannot be written, a change that was asked for is undone and refused; one that came about by itself, such
as a position that now covers a symbol, holds in memory and is written later. Without it a restart does work again that
was done, and loses nothing.

An entry that cannot be served (damaged, of another version, no symbol) keeps none of the others from being collected:
it is set aside, in a file beside this one, and shown until somebody removes that.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final, TypeAlias

import msgspec

from raven.batches.batch import Cursor
from raven.batches.instrument import Instrument, symbol_problem
from raven.errors import RavenError, SettingsError
from raven.files import read_file, write_atomically

if TYPE_CHECKING:  # the command line only reads the file
    from raven.telemetry import Telemetry

USER: Final = "user"
ASIDE_FILE: Final = "wanted.aside.json"
MAX_PATTERNS: Final = 256
MAX_REQUESTERS: Final = 256
SHOWN_ASIDE: Final = 3
_MOST_INT64: Final = 2**63 - 1
_UNREADABLE: Final = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)

TradeId: TypeAlias = Annotated[int, msgspec.Meta(ge=0, le=_MOST_INT64)]


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
    ids_before: dict[str, TradeId | None] = {}
    ending: list[str] = []
    earlier: list[str] = []

    @property
    def instrument(self) -> Instrument:
        """What is wanted."""
        return Instrument(self.venue, self.symbol)

    @property
    def defect(self) -> str:
        """Why it cannot be served, whatever the service; empty when it can."""
        for symbol in (self.symbol, *self.ids_before):
            if problem := symbol_problem(symbol):
                return problem
        if any(Instrument(self.venue, symbol).is_pattern for symbol in self.ids_before):
            return "it collects a pattern as if that were a symbol"
        if self.session_start is not None and not 0 <= self.session_start.sequence <= _MOST_INT64:
            return f"its session begins at {self.session_start.sequence}"
        return ""


class Aside(msgspec.Struct):
    """An entry that cannot be served, as it was read, and why not."""

    why: str
    entry: msgspec.Raw


Kept: TypeAlias = tuple[dict[Instrument, Wanted], dict[Instrument, Wanted], list[tuple[Wanted, list[str], list[str]]]]
"""All that a change that was asked for can change."""


class WantedFile:
    """The wanted instruments of one service, and those that end, saved atomically at every change.

    `problem`: why the file is not as memory is; empty when it is. `telemetry` is told; who only reads gives none.
    """

    def __init__(self, path: Path, telemetry: Telemetry | None = None) -> None:
        """Raises SettingsError when the file cannot be read."""
        self._path = path
        self._aside_path = path.with_name(ASIDE_FILE)
        self._telemetry = telemetry
        self._tried: dict[Instrument, Wanted | None] = {}
        self._aside = _kept_aside(self._aside_path)
        self._is_aside_kept = True
        self.problem = ""
        self.entries: dict[Instrument, Wanted] = {}
        self.ending: dict[Instrument, Wanted] = {}
        if path.exists():
            self._read()

    def _read(self) -> None:
        """Take the entries that can be served; whoever only reads leaves the others where they are."""
        try:
            content = read_file(self._path)
        except OSError as error:
            raise SettingsError(
                f"{self._path} cannot be read: {error.strerror or error}",
                hint="mend that, or move it away and start the symbols again",
            ) from error
        served, aside = _entries(content)
        for entry in served:
            (self.entries if entry.wanted_by else self.ending)[entry.instrument] = entry
        if aside and self._telemetry is not None:
            self._put_aside(aside)

    def _put_aside(self, entries: Sequence[Aside]) -> None:
        for one in entries:
            if self._telemetry is not None:
                self._telemetry.error("wanted_set_aside", f"an entry of {self._path} is not collected: {one.why}")
        self._aside += entries
        self._is_aside_kept = False
        self.save()

    def set_aside(self, instruments: Iterable[Instrument], why: str) -> None:
        """These cannot be served by this service: want them no more, but keep what was known of them."""
        gone = [self.entries.pop(one, None) or self.ending.pop(one, None) for one in instruments]
        self._put_aside([
            Aside(f"{entry.instrument}: {why}", msgspec.Raw(msgspec.json.encode(entry)))
            for entry in gone if entry is not None
        ])  # fmt: skip

    @property
    def aside(self) -> str:
        """What of the file cannot be served, and why, until what keeps it is removed; empty when all can."""
        if not self._aside or (self._is_aside_kept and not self._aside_path.exists()):
            return ""
        whys = [one.why for one in self._aside]
        more = f"; and {len(whys) - SHOWN_ASIDE} more" if len(whys) > SHOWN_ASIDE else ""
        return (
            f"not collected, and set aside in {self._aside_path}: {'; '.join(whys[:SHOWN_ASIDE])}{more} "
            "(start again what is still wanted, then remove that file)"
        )

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
    def change(self, *, trying: Iterable[Instrument] = ()) -> Iterator[None]:
        """Save what is added, removed and ended within, if that changes anything; nothing may be awaited there.

        `trying`: these new ones stay out of the file until `settle`, and what is ending of them stays in it: what
        brings a service down before it was applied is forgotten with it.

        Raises RavenError when the file cannot be written: then nothing has changed.
        """
        before = self._kept()
        self._tried = {one: self.ending.get(one) for one in trying}
        try:
            yield
            if self._kept() != before:
                self._write()
        except BaseException:
            self._undo(before)
            self._tried = {}
            raise

    def settle(self) -> None:
        """What was tried is applied: save it, now or as `save` does."""
        self._tried = {}
        self.save()

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
        entries = [entry for one, entry in self.entries.items() if one not in self._tried]
        entries += [*self.ending.values(), *filter(None, self._tried.values())]
        try:
            if not self._is_aside_kept:  # first: what is in neither file would be lost
                write_atomically(self._aside_path, msgspec.json.format(msgspec.json.encode(self._aside)))
                self._is_aside_kept = True
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


def _entries(content: bytes) -> tuple[list[Wanted], list[Aside]]:
    """The entries of a file that can be served, and the others."""
    try:
        found = msgspec.json.decode(content, type=list[msgspec.Raw])
    except _UNREADABLE as error:
        text = msgspec.Raw(msgspec.json.encode(content.decode(errors="replace")))
        return [], [Aside(f"the file is damaged: {error}", text)]
    served, aside = [], []
    for raw in found:
        try:
            entry = msgspec.json.decode(raw, type=Wanted)
            why = entry.defect
        except _UNREADABLE as error:
            why = f"it is damaged, or of another version: {error}"
        if why:
            aside.append(Aside(why, msgspec.Raw(raw)))
        else:
            served.append(entry)
    return served, aside


def _kept_aside(path: Path) -> list[Aside]:
    """What was set aside before."""
    if not path.exists():
        return []
    try:
        return msgspec.json.decode(read_file(path), type=list[Aside])
    except (OSError, *_UNREADABLE) as error:
        return [Aside(f"{path.name} cannot be read: {error}", msgspec.Raw(b"null"))]
