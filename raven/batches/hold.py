"""Trades in the order of their ids: a symbol whose ids jump waits, and no other, until the ids between have come.

What waits goes out in order once they came, in whatever order and however often; or without them, with a recorded
gap, once it has waited too long. No clock is read: time comes in as `now_us` of any monotonic clock.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final, NamedTuple

import numpy as np
import polars as pl

from raven.batches.batch import Gap
from raven.batches.id_queue import Array, IdQueue
from raven.batches.schema import ORIGIN_LIVE, TRADE_DTYPES
from raven.batches.sequence import check_sequence

FAR_BACK_IDS: Final = 10_000
"""How far below the last id of its symbol a live trade has to lie to be worth asking whether ids began anew."""

_HELD_DTYPES: Final = {**TRADE_DTYPES, "held_us": pl.Int64()}


class GivenUp(StrEnum):
    """Why ids were not waited for any longer: a closed set, fit for a metric's label."""

    NOT_RECEIVED = "not received"
    """They did not come in time."""
    NO_ROOM = "no room"
    """Too many rows were waiting."""
    ABSENT = "absent"
    """The venue does not have them."""
    STOPPED = "stopped"
    """The session of the symbol ended."""


class Missing(NamedTuple):
    """Ids waited for: all of `after_id` < id < `before_id`, since `since_us` of the clock given."""

    symbol: str
    after_id: int
    before_id: int
    since_us: int

    @property
    def missing_ids(self) -> int:
        """How many ids are waited for."""
        return self.before_id - self.after_id - 1


class Fallen(NamedTuple):
    """A trade whose id lies far below the last one of its symbol; `time_us` is its ts_event."""

    symbol: str
    trade_id: int
    time_us: int


@dataclass(frozen=True, slots=True)
class Released:
    """What may be published now.

    `rows`: of each symbol in the order of their ids, every id once. `gaps`: the ids given up before some of them.
    `duplicates`: rows dropped because their id had been there. `fallen`: of those, the first of each symbol whose id
    lay far back.
    """

    rows: pl.DataFrame
    duplicates: int = 0
    gaps: tuple[Gap, ...] = ()
    fallen: tuple[Fallen, ...] = ()


def joined(parts: Sequence[Released]) -> Released:
    """All of `parts`, one after the other; there is at least one."""
    return Released(
        pl.concat([part.rows for part in parts]),
        sum(part.duplicates for part in parts),
        tuple(gap for part in parts for gap in part.gaps),
        tuple(entry for part in parts for entry in part.fallen),
    )


@dataclass(slots=True)
class Hold:
    """Puts trades in order; `last_ids` is the last id released of each symbol.

    A row waits `max_us` at most, and `max_rows` rows of all symbols wait at a time; beyond, those of the symbol with
    the most go first. `missing`: the ids waited for. `held`: the symbols that wait.
    """

    last_ids: dict[str, int]
    max_us: int
    max_rows: int
    missing: tuple[Missing, ...] = ()
    held: tuple[str, ...] = ()
    _rows: pl.DataFrame = field(default_factory=lambda: pl.DataFrame(schema=_HELD_DTYPES))
    _before_session: dict[str, int | None] = field(default_factory=dict)
    _absent: dict[str, list[tuple[int, int]]] = field(default_factory=dict)
    _due_us: float = math.inf  # when the first of the waiting rows has waited too long

    @property
    def held_rows(self) -> int:
        """How many rows wait."""
        return self._rows.height

    def begin(self, symbols: Mapping[str, int | None]) -> None:
        """A session of these symbols begins; no id is missed between the one given and the first that comes."""
        self._before_session.update(symbols)

    def end(self, symbols: Iterable[str], now_us: int) -> Released:
        """The session of these symbols ends: what waits of them goes, without what is missing before it."""
        ended = set(symbols).intersection(self.held)
        if not ended:
            return Released(self._rows.drop("held_us").clear())
        rows, gaps = self._settle(self._rows, now_us, ended)
        return Released(rows, 0, gaps)

    def last_id(self, symbol: str) -> int | None:
        """The highest id of `symbol` that came, what waits included."""
        if symbol in self.held:
            return int(self._rows.filter(pl.col("symbol") == symbol).get_column("trade_id")[-1])
        return self.last_ids.get(symbol)

    def last_in_session(self, symbol: str) -> int | None:
        """As `last_id`, but None while no trade of the running session came: none is missed then."""
        last = self.last_id(symbol)
        return None if last == self._before_session.get(symbol) else last

    def absent(self, symbol: str, first_id: int, stop_id: int) -> None:
        """The venue does not have first_id <= id < stop_id: they are not waited for."""
        self._absent.setdefault(symbol, []).append((first_id, stop_id))
        self._due_us = -math.inf

    def begin_epoch(self, symbol: str, first_id: int) -> bool:
        """The ids of `symbol` began anew at `first_id`; refused (False) while older rows of it wait."""
        if symbol in self.held:
            return False
        self.last_ids[symbol] = first_id - 1
        return True

    def take(self, trades: pl.DataFrame, now_us: int) -> Released:
        """Take trades as they came (columns of TRADE_SCHEMA; fetched ones too, and none to let time pass)."""
        if trades.is_empty() and now_us < self._due_us:
            return Released(trades)
        checked = check_sequence(trades, self.last_ids)
        before = self.last_ids
        fallen = _fallen(trades, before) if checked.duplicates else ()
        if not checked.gaps and self._rows.is_empty():
            self.last_ids = checked.last_ids
            return Released(checked.accepted, checked.duplicates, (), fallen)
        self._begin_sessions(trades, checked.gaps)
        waiting = self._rows.height
        apart = {gap.symbol for gap in checked.gaps}  # not who waits and got what comes next: that is in order
        is_apart = pl.col("symbol").is_in(list(apart))
        through = checked.accepted.filter(~is_apart)
        new = trades.filter(is_apart).select(*TRADE_DTYPES, held_us=pl.lit(now_us, pl.Int64))
        self.last_ids = {**checked.last_ids, **{symbol: before[symbol] for symbol in apart}}
        ordered, gaps = self._settle(pl.concat([self._rows, new]), now_us)
        rows = pl.concat([through, ordered]) if ordered.height else through
        duplicates = waiting + trades.height - rows.height - self._rows.height
        return Released(rows, duplicates, gaps, fallen)

    def _begin_sessions(self, trades: pl.DataFrame, gaps: Iterable[Gap]) -> None:
        """Ids start at the first that came where none is known, or the known one was before the session."""
        unseen = []
        for gap in gaps:
            last = self.last_ids.get(gap.symbol)
            if last is None:
                unseen.append(gap.symbol)
            elif gap.after_id == last == self._before_session.get(gap.symbol):
                self.last_ids[gap.symbol] = gap.before_id - 1
        if unseen:
            firsts = trades.filter(pl.col("symbol").is_in(unseen)).group_by("symbol").agg(pl.col("trade_id").first())
            self.last_ids.update((symbol, first - 1) for symbol, first in firsts.iter_rows())

    def _settle(
        self, rows: pl.DataFrame, now_us: int, ended: Collection[str] = ()
    ) -> tuple[pl.DataFrame, tuple[Gap, ...]]:
        """Release of `rows` (the waiting ones first) what may go, all of the `ended` symbols; keep the others."""
        queue = IdQueue.of(rows, self.last_ids)
        time_limit = queue.limits(queue.rows.get_column("held_us").to_numpy() <= now_us - self.max_us)
        limit = np.maximum(time_limit, queue.limits(np.isin(queue.owner, queue.places(ended))))
        self._pass_absent(queue, limit)
        queue.make_room(limit, self.max_rows)
        goes = queue.behind <= limit[queue.owner]
        gaps = []
        missing = []
        since = queue.rows.get_column("held_us").to_numpy()
        for row in queue.jumps.tolist():
            symbol, (after_id, before_id) = queue.symbol(row), queue.ids_around(row)
            if goes[row]:
                if self._is_absent(symbol, after_id, before_id):
                    reason = GivenUp.ABSENT
                elif symbol in ended:
                    reason = GivenUp.STOPPED
                else:
                    is_late = queue.behind[row] <= time_limit[queue.owner[row]]
                    reason = GivenUp.NOT_RECEIVED if is_late else GivenUp.NO_ROOM
                gaps.append(Gap(symbol, after_id, before_id, final=True, reason=reason))
            else:
                missing.append(Missing(symbol, after_id, before_id, int(since[row])))
        self.missing = tuple(missing)
        self.held = tuple(dict.fromkeys(item.symbol for item in missing))
        self.last_ids.update(queue.last_ids(goes))
        self._rows = queue.rows.filter(~pl.Series(goes))
        self._due_us = int(since[~goes].min()) + self.max_us if self._rows.height else math.inf
        self._forget_absent()
        return queue.rows.filter(pl.Series(goes)).drop("held_us"), tuple(gaps)

    def _is_absent(self, symbol: str, after_id: int, before_id: int) -> bool:
        return any(first - 1 <= after_id and before_id <= stop for first, stop in self._absent.get(symbol, ()))

    def _pass_absent(self, queue: IdQueue, limit: Array) -> None:
        """Raise the limits over ids the venue does not have, as far as nothing else is missing before them."""
        if not self._absent:
            return
        stuck: set[int] = set()
        for row in queue.jumps.tolist():
            owner = int(queue.owner[row])
            if owner in stuck or queue.behind[row] <= limit[owner]:
                continue
            if self._is_absent(queue.symbol(row), *queue.ids_around(row)):
                limit[owner] = queue.behind[row]
            else:
                stuck.add(owner)

    def _forget_absent(self) -> None:
        for symbol, ranges in list(self._absent.items()):
            self._absent[symbol] = [(first, stop) for first, stop in ranges if stop > self.last_ids.get(symbol, -1)]
            if not self._absent[symbol]:
                del self._absent[symbol]


def _fallen(trades: pl.DataFrame, last_ids: Mapping[str, int]) -> tuple[Fallen, ...]:
    """The first live trade of each symbol whose id lies far below its last one."""
    if not last_ids:
        return ()
    last = trades.get_column("symbol").replace_strict(last_ids, default=None, return_dtype=pl.Int64)
    found = (
        trades.filter((pl.col("trade_id") < last - FAR_BACK_IDS) & (pl.col("origin") == ORIGIN_LIVE))
        .group_by("symbol", maintain_order=True)
        .agg(pl.col("trade_id").first(), pl.col("ts_event").first().dt.epoch("us"))
    )
    return tuple(Fallen(*row) for row in found.iter_rows())
