"""How far the ids of an exchange can have gone: whether a row whose id is far ahead is believed. Pure.

Nobody knows which ids an exchange has given out, so a jump is judged by what speaks for it and against it: the time
there was for it, what the exchange itself names as its newest trade, and whether its stream goes on behind the jump or
before it. A row that is refused moves no last id. If it was true after all its id is missing, and is fetched as such;
one that is believed and was false would make repeats of all true ones after it.

Time comes in as microseconds of any monotonic clock.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Final, NamedTuple

from raven.batches.gate import MOST_ID

MOST_AHEAD_IDS: Final = MOST_ID
"""No id lies as far beyond the last one of its symbol, or beyond 0 when there is none: a hundred times what the oldest
symbols have come to in all their years. It is refused unasked."""

IDS_PER_S: Final = 20_000
BURST_IDS: Final = 100_000
"""Beyond so many, and so many more for each second since the last trade, only the exchange is believed."""

FAR_IDS: Final = 1_000
"""Who was away and has so much to catch up trades often: within seconds others follow the first one that comes."""
FOLLOWERS: Final = 2

LAG_US: Final = 5_000_000
"""How far the exchange's REST may lie behind its stream."""
GOES_ON_US: Final = 10_000_000
"""A stream that brings lower ids so long after a higher one has not come to that yet, whatever was swapped on its way.

Shorter, and what an overlapping connection brings late would speak against the true ones of the other.
"""


class Jump(NamedTuple):
    """Rows of one symbol, `trade_id` and those that follow it closely, that wait since `since_us` for ids before them.

    `last_id`: of the rows that wait for none. `followers`: how many live rows follow. `before_us`: when the last live
    row before it came that waits too (-1: none does).
    """

    symbol: str
    last_id: int
    trade_id: int
    since_us: int
    followers: int
    before_us: int = -1


class _Doubted(NamedTuple):
    trade_id: int
    rows: int
    at_us: int


class Reach:
    """What is known of how far each symbol has gone."""

    def __init__(self) -> None:
        self._moved_us: dict[str, int] = {}
        self._newest: dict[str, tuple[int, int]] = {}
        self._doubted: dict[str, _Doubted] = {}

    def moved(self, symbols: Iterable[str], now_us: int) -> None:
        """Live rows of these came that follow the ones before."""
        self._moved_us.update(dict.fromkeys(symbols, now_us))

    def moved_at(self, times_us: Mapping[str, int]) -> None:
        """The same, of rows that had to wait; each with when it came."""
        for symbol, time_us in times_us.items():
            self._moved_us[symbol] = max(time_us, self._moved_us.get(symbol, time_us))

    def told(self, symbol: str, newest_id: int, asked_us: int) -> None:
        """The exchange, asked at `asked_us`, names this as the newest id of `symbol`."""
        self._newest[symbol] = (newest_id, asked_us)

    def forget(self, symbol: str) -> None:
        """The ids of `symbol` begin anew."""
        self._moved_us.pop(symbol, None)
        self._newest.pop(symbol, None)
        self._doubted.pop(symbol, None)

    def settle(self, held: Collection[str]) -> None:
        """Only these symbols wait now: what was told of others is old the next time."""
        self._newest = {symbol: told for symbol, told in self._newest.items() if symbol in held}

    def is_refuted(self, jump: Jump) -> bool:
        """Whether it is known already that a far jump is none."""
        return jump.trade_id - jump.last_id > FAR_IDS and self._has_not(jump)

    def is_doubtful(self, jump: Jump, now_us: int) -> bool:
        """Whether a jump that has waited its time is not believed."""
        if self._has(jump):
            return False
        ahead = jump.trade_id - jump.last_id
        moved_us = max(self._moved_us.get(jump.symbol, -1), jump.before_us)
        if self._has_not(jump) or moved_us > jump.since_us + GOES_ON_US or ahead > self._possible(jump):
            return True
        return ahead > FAR_IDS and not self._is_followed(jump, now_us)

    def _has(self, jump: Jump) -> bool:
        newest = self._newest.get(jump.symbol)
        return newest is not None and newest[0] >= jump.trade_id

    def _has_not(self, jump: Jump) -> bool:
        newest = self._newest.get(jump.symbol)
        return newest is not None and newest[0] < jump.trade_id and newest[1] >= jump.since_us + LAG_US

    def _possible(self, jump: Jump) -> int:
        moved_us = self._moved_us.get(jump.symbol)
        if moved_us is None:  # a restart, after nobody knows how long
            return MOST_AHEAD_IDS
        return BURST_IDS + IDS_PER_S * max(0, jump.since_us - moved_us) // 1_000_000

    def _is_followed(self, jump: Jump, now_us: int) -> bool:
        """Whether others follow it; those refused before count too: a symbol may be slow, and REST be gone."""
        rows = 1 + jump.followers
        before = self._doubted.get(jump.symbol)
        if (
            before is not None
            and 0 < jump.trade_id - before.trade_id <= FAR_IDS
            and self._moved_us.get(jump.symbol, -1) < before.at_us
        ):
            rows += before.rows
        if rows > FOLLOWERS:
            self._doubted.pop(jump.symbol, None)
            return True
        self._doubted[jump.symbol] = _Doubted(jump.trade_id + jump.followers, rows, now_us)
        return False
