"""What a follower wants of its upstream, instrument by instrument, from the first request to the last row. No I/O.

wanted ──granted──▶ (joining ──rewound──▶) streaming ──stopped──▶ leaving ──upstream told──▶ ending ──taken──▶ gone
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from enum import Enum, auto
from typing import Final

from raven.batches.batch import Cursor
from raven.batches.instrument import Instrument

NOWHERE: Final = Cursor("", 0)


class Phase(Enum):
    """How far an instrument is."""

    WANTED = auto()
    LEAVING = auto()  # wanted no more; the upstream is not told yet
    ENDING = auto()  # the upstream is told; rows up to where the session ended are still taken


@dataclass(slots=True)
class Wish:
    """One instrument.

    - `joining`: the consumer's position does not cover it yet; its rows are taken from where its session began.
    - `granted`: the upstream collects it for us. `refusal`: why it does not; empty when it does, or was not asked.
    - `start`, `end`: where its session began and ended in the upstream's journal; None: not known.
    """

    phase: Phase = Phase.WANTED
    joining: bool = False
    granted: bool = False
    refusal: str = ""
    start: Cursor | None = None
    end: Cursor | None = None

    def is_over(self, here: Cursor | None) -> bool:
        """Whether a consumer that is `here` has taken all of it."""
        if self.phase is not Phase.ENDING or self.end is None:
            return False
        if self.end.sequence == 0:
            return True
        if self.joining:
            return self.start is None  # it never began
        return here is not None and here.journal_id == self.end.journal_id and here.sequence >= self.end.sequence


class Wishes:
    """All instruments that a follower has to do with."""

    def __init__(self) -> None:
        self._of: dict[Instrument, Wish] = {}

    def __bool__(self) -> bool:
        return bool(self._of)

    def _in(self, *phases: Phase) -> list[Instrument]:
        return sorted(instrument for instrument, wish in self._of.items() if wish.phase in phases)

    @property
    def wanted(self) -> list[Instrument]:
        """Those that are wanted."""
        return self._in(Phase.WANTED)

    @property
    def not_granted(self) -> list[Instrument]:
        """Those wanted that the upstream does not collect for us, as far as is known."""
        return [instrument for instrument in self.wanted if not self._of[instrument].granted]

    @property
    def leaving(self) -> list[Instrument]:
        """Those of which the upstream is not told yet that they are wanted no more."""
        return self._in(Phase.LEAVING)

    @property
    def ending(self) -> list[Instrument]:
        """Those of which rows are still to be taken."""
        return self._in(Phase.ENDING)

    @property
    def refusals(self) -> dict[Instrument, str]:
        """Those wanted that the upstream refuses, and why."""
        return {
            instrument: wish.refusal
            for instrument, wish in self._of.items()
            if wish.refusal and wish.phase is Phase.WANTED
        }

    def want(self, instruments: Iterable[Instrument], *, joining: bool) -> None:
        """Want these; one that was about to end goes on where it is."""
        for instrument in instruments:
            wish = self._of.setdefault(instrument, Wish())
            wish.phase, wish.end = Phase.WANTED, None
            wish.joining |= joining

    def leave(self, instruments: Iterable[Instrument]) -> set[Instrument]:
        """Want these no more; those of them that were wanted."""
        left = set(self.wanted) & set(instruments)
        for instrument in left:
            wish = self._of[instrument]
            wish.phase, wish.granted, wish.refusal = Phase.LEAVING, False, ""
        return left

    def resume_joining(self, instruments: Iterable[Instrument]) -> None:
        """These were stopped before without having joined; where they began then, after a restart, is forgotten."""
        for instrument in instruments:
            wish = self._of.setdefault(instrument, Wish())
            wish.joining = True
            wish.start = wish.start or NOWHERE

    def resume_leaving(self, instruments: Iterable[Instrument], *, joining: Collection[Instrument]) -> None:
        """These were stopped before a restart; where those `joining` began is forgotten."""
        for instrument in instruments:
            is_joining = instrument in joining
            self._of[instrument] = Wish(Phase.LEAVING, is_joining, start=NOWHERE if is_joining else None)

    def grant(self, instrument: Instrument, start: Cursor) -> None:
        """The upstream collects it, in a session that began at `start`; one before may still have to join."""
        wish = self._of.get(instrument)
        if wish is None:
            return
        wish.granted, wish.refusal = wish.phase is Phase.WANTED, ""
        if wish.joining and wish.start is not None and wish.start.journal_id in (NOWHERE.journal_id, start.journal_id):
            start = Cursor(start.journal_id, min(wish.start.sequence, start.sequence))
        wish.start = start

    def refuse(self, instrument: Instrument, why: str) -> bool:
        """The upstream does not collect it; whether that is news."""
        wish = self._of.get(instrument)
        if wish is None or wish.refusal == why:
            return False
        wish.refusal = why
        return True

    def drop_refused(self, instruments: Iterable[Instrument]) -> None:
        """Those of `instruments` that are refused are not wanted here."""
        for instrument in self.refusals.keys() & set(instruments):
            del self._of[instrument]

    def ask_again(self) -> None:
        """The upstream may have forgotten what it granted."""
        for wish in self._of.values():
            wish.granted = False

    def told(self, ends: dict[Instrument, Cursor]) -> None:
        """The upstream knows that these leave, and where their sessions ended; some may be wanted again meanwhile."""
        for instrument, end in ends.items():
            wish = self._of.get(instrument)
            if wish is not None and wish.phase is Phase.LEAVING:
                wish.phase, wish.end = Phase.ENDING, end
                if wish.start == NOWHERE:
                    wish.start = Cursor(end.journal_id, 0)

    def journal_changed(self) -> None:
        """Where sessions ended is to be asked again."""
        for instrument in self.ending:
            self._of[instrument].phase = Phase.LEAVING

    def take_over(self, here: Cursor | None) -> list[Instrument]:
        """Those of which a consumer that is `here` has taken all; they are gone."""
        over = [instrument for instrument in self.ending if self._of[instrument].is_over(here)]
        for instrument in over:
            del self._of[instrument]
        return over

    def rewind(self) -> tuple[list[Instrument], Cursor, bool] | None:
        """Those that can join now, where the first of them began, and whether there are no others; None: none can.

        They count as covered from now on.
        """
        joining = {
            instrument: wish.start
            for instrument, wish in self._of.items()
            if wish.joining and wish.start is not None and (wish.granted or wish.phase is Phase.ENDING)
        }
        if not joining:
            return None
        is_all = all(wish.joining for wish in self._of.values())
        for instrument in joining:
            self._of[instrument].joining = False
        return sorted(joining), min(joining.values(), key=lambda cursor: cursor.sequence), is_all
