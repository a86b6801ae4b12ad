"""Trades in the order of their ids: a symbol whose ids jump waits, and no other, until the ids between have come.

What waits goes out in order once they came, in whatever order and however often; or without them, with a recorded
gap, once it has waited too long. Rows whose ids the exchange cannot have come to are refused (`reach`). No clock is
read: time comes in as `now_us` of any monotonic clock.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

import numpy as np
import polars as pl

from raven.batches.batch import Gap
from raven.batches.id_queue import Array, IdQueue
from raven.batches.reach import MOST_AHEAD_IDS, Jump, Reach
from raven.batches.released import NO_TRADES, Fallen, GivenUp, Missing, Released
from raven.batches.schema import ORIGIN_LIVE, TRADE_DTYPES
from raven.batches.sequence import check_sequence

FAR_BACK_IDS: Final = 10_000
"""How far below the last id of its symbol a live trade has to lie to be worth asking whether ids began anew."""

_HELD_DTYPES: Final = {**TRADE_DTYPES, "held_us": pl.Int64()}


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
    _reach: Reach = field(default_factory=Reach)

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
        rows, gaps, refused = self._settle(self._rows, now_us, ended)
        return Released(rows, 0, gaps, refused=refused)

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

    def told(self, symbol: str, newest_id: int, asked_us: int) -> None:
        """The venue, asked at `asked_us`, names `newest_id` as the newest of `symbol`."""
        self._reach.told(symbol, newest_id, asked_us)
        if symbol in self.held:
            self._due_us = -math.inf

    def begin_epoch(self, symbol: str, first_id: int) -> bool:
        """The ids of `symbol` began anew at `first_id`; refused (False) while older rows of it wait."""
        if symbol in self.held:
            return False
        self.last_ids[symbol] = first_id - 1
        self._reach.forget(symbol)
        return True

    def take(self, trades: pl.DataFrame, now_us: int) -> Released:
        """Take trades as they came (columns of TRADE_SCHEMA; fetched ones too, and none to let time pass)."""
        if trades.is_empty() and now_us < self._due_us:
            return Released(trades)
        trades, hopeless = self._without_hopeless(trades)
        checked = check_sequence(trades, self.last_ids)
        before = self.last_ids
        fallen = _fallen(trades, before) if checked.duplicates else ()
        if not checked.gaps and self._rows.is_empty():
            self.last_ids = checked.last_ids
            self._reach.moved(checked.symbols, now_us)
            return Released(checked.accepted, checked.duplicates, (), fallen, hopeless)
        self._begin_sessions(trades, checked.gaps)
        waiting = self._rows.height
        apart = {gap.symbol for gap in checked.gaps}  # not who waits and got what comes next: that is in order
        is_apart = pl.col("symbol").is_in(list(apart))
        through = checked.accepted.filter(~is_apart)
        new = trades.filter(is_apart).select(*TRADE_DTYPES, held_us=pl.lit(now_us, pl.Int64))
        self.last_ids = {**checked.last_ids, **{symbol: before[symbol] for symbol in apart}}
        is_live = pl.col("origin") == ORIGIN_LIVE
        self._reach.moved(through.filter(is_live).get_column("symbol").unique(), now_us)
        ordered, gaps, refused = self._settle(pl.concat([self._rows, new]), now_us)
        rows = pl.concat([through, ordered]) if ordered.height else through
        duplicates = waiting + trades.height - rows.height - self._rows.height - refused.height
        return Released(rows, duplicates, gaps, fallen, pl.concat([hopeless, refused]))

    def _without_hopeless(self, trades: pl.DataFrame) -> tuple[pl.DataFrame, pl.DataFrame]:
        """`trades`, and apart those whose ids are beyond anything."""
        ids = trades.get_column("trade_id")
        if not trades.height or ids.max() <= MOST_AHEAD_IDS:  # type: ignore[operator]  # ids are whole numbers
            return trades, NO_TRADES
        last = trades.get_column("symbol").replace_strict({"": 0, **self.last_ids}, default=0, return_dtype=pl.Int64)
        is_hopeless = ids - last > MOST_AHEAD_IDS
        return trades.filter(~is_hopeless), trades.filter(is_hopeless)

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
    ) -> tuple[pl.DataFrame, tuple[Gap, ...], pl.DataFrame]:
        """Release of `rows` (the waiting ones first) what may go, all of the `ended` symbols; keep the others.

        Also the gaps before them, and the rows that are refused.
        """
        queue, parted = IdQueue.of(rows, self.last_ids), []
        while True:
            waited = queue.rows.get_column("held_us").to_numpy() <= now_us - self.max_us
            ends = np.isin(queue.owner, queue.places(ended))
            time_limit = queue.limits(waited)
            limit = np.maximum(time_limit, queue.limits(ends))
            self._pass_absent(queue, limit)
            in_time = queue.behind > limit[queue.owner]
            queue.make_room(limit, self.max_rows)
            goes = queue.behind <= limit[queue.owner]
            refused = pl.Series(self._refused(queue, waited | ends | (in_time & goes), now_us))
            if not refused.any():
                break
            parted.append(queue.rows.filter(refused))
            queue = IdQueue.of(queue.rows.filter(~refused), self.last_ids)
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
        released = queue.rows.filter(pl.Series(goes))
        self._rows = queue.rows.filter(~pl.Series(goes))
        self._due_us = int(since[~goes].min()) + self.max_us if self._rows.height else math.inf
        self._forget_absent()
        self._note_moved(released)
        return released.drop("held_us"), tuple(gaps), pl.concat([NO_TRADES, *(part.drop("held_us") for part in parted)])

    def _refused(self, queue: IdQueue, due: Array, now_us: int) -> Array:
        """Which rows wait for ids that the exchange cannot have come to; those that are `due` are judged for good."""
        refused = np.zeros(len(due), dtype=bool)
        is_live = queue.rows.get_column("origin").to_numpy() == ORIGIN_LIVE
        since = queue.rows.get_column("held_us").to_numpy()
        believed: set[str] = set()
        for row in queue.jumps[::-1].tolist():  # who believes a higher id believes the lower ones
            symbol = queue.symbol(row)
            if symbol in believed or self._is_absent(symbol, *queue.ids_around(row)):
                continue
            run, before = queue.run(row)
            before_us = int(since[before].max(initial=-1, where=is_live[before]))
            followers = int(is_live[run].sum()) - 1
            jump = Jump(symbol, queue.last_id(row), queue.ids_around(row)[1], int(since[row]), followers, before_us)
            if self._reach.is_refuted(jump) or (due[row] and self._reach.is_doubtful(jump, now_us)):
                refused[run] = True
            elif due[row]:
                believed.add(symbol)
        return refused

    def _note_moved(self, released: pl.DataFrame) -> None:
        if released.height:
            live = released.filter(pl.col("origin") == ORIGIN_LIVE).group_by("symbol").agg(pl.col("held_us").max())
            self._reach.moved_at(dict(live.iter_rows()))
        self._reach.settle(self.held)

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
