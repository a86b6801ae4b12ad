"""Rows that wait for ids before them, and what is missing where. Vectorised over all symbols."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, TypeAlias

import numpy as np
import polars as pl
from numpy.typing import NDArray

Array: TypeAlias = NDArray[Any]


class IdQueue:
    """Rows of several symbols ordered by symbol and id, each id once and above the last released.

    `owner`: each row's place of its symbol. `behind`: how many ids are missing before it, back to the last released:
    it rises along the rows of a symbol, so that a limit per symbol says what goes. `jumps`: the rows with ids missing
    just before them.
    """

    def __init__(self, rows: pl.DataFrame, symbols: list[str], owner: Array, base: Array) -> None:
        self.rows = rows
        self._symbols = symbols
        self.owner = owner
        self._base = base
        self._ids = rows.get_column("trade_id").to_numpy()
        is_first = np.append(True, owner[1:] != owner[:-1])[: len(owner)]
        places = np.arange(len(owner))
        rank = places - np.maximum.accumulate(np.where(is_first, places, 0))
        self.behind = self._ids - base - 1 - rank
        self._before = np.where(is_first, base, np.roll(self._ids, 1))
        self.jumps = np.flatnonzero(self._ids - self._before > 1)

    @classmethod
    def of(cls, rows: pl.DataFrame, last_ids: Mapping[str, int]) -> IdQueue:
        """The queue of `rows`, of those with one id the first."""
        rows = rows.sort("symbol", "trade_id", maintain_order=True)
        runs = rows.get_column("symbol").rle().struct.unnest()
        symbols = runs.get_column("value").to_list()
        owner = np.repeat(np.arange(len(symbols)), runs.get_column("len").to_numpy())
        base = np.array([last_ids[symbol] for symbol in symbols], dtype=np.int64)[owner]
        ids = rows.get_column("trade_id").to_numpy()
        is_new = ids > base
        is_new[1:] &= (ids[1:] != ids[:-1]) | (owner[1:] != owner[:-1])
        return cls(rows.filter(pl.Series(is_new)), symbols, owner[is_new], base[is_new])

    def symbol(self, row: int) -> str:
        """Whose a row is."""
        return self._symbols[int(self.owner[row])]

    def ids_around(self, row: int) -> tuple[int, int]:
        """The id before a row, of its symbol, and its own."""
        return int(self._before[row]), int(self._ids[row])

    def run(self, row: int) -> tuple[slice, slice]:
        """Of a row with ids missing before it: itself and those that follow without a jump; and its symbol's before."""
        first, stop = np.searchsorted(self.owner, [self.owner[row], self.owner[row] + 1]).tolist()
        later = self.jumps[np.searchsorted(self.jumps, row, side="right") :]
        if len(later):
            stop = min(stop, int(later[0]))
        return slice(row, stop), slice(first, row)

    def last_id(self, row: int) -> int:
        """The last id released of the symbol a row is of."""
        return int(self._base[row])

    def places(self, symbols: Iterable[str]) -> list[int]:
        """The places of those of `symbols` that are here."""
        wanted = set(symbols)
        return [place for place, symbol in enumerate(self._symbols) if symbol in wanted]

    def limits(self, go: Array) -> Array:
        """Per symbol how many missing ids are to be passed over for every row of `go` to go."""
        limit = np.zeros(len(self._symbols), dtype=np.int64)
        np.maximum.at(limit, self.owner[go], self.behind[go])
        return limit

    def make_room(self, limit: Array, max_rows: int) -> None:
        """Raise the limits until at most `max_rows` rows wait; the symbol with the most goes first."""
        waits = self.behind > limit[self.owner]
        excess = int(waits.sum()) - max_rows
        if excess <= 0:
            return
        counts = np.bincount(self.owner[waits], minlength=len(limit))
        while excess > 0:
            most = int(counts.argmax())
            own = self.behind[waits & (self.owner == most)]
            limit[most] = own[min(excess, len(own)) - 1]
            gone = int((own <= limit[most]).sum())
            waits &= (self.owner != most) | (self.behind > limit[most])
            counts[most] -= gone
            excess -= gone

    def last_ids(self, goes: Array) -> dict[str, int]:
        """The highest id of each symbol among the rows that go."""
        owner, ids = self.owner[goes], self._ids[goes]
        ends = np.flatnonzero(np.append(owner[1:] != owner[:-1], True)[: len(owner)])
        return {self._symbols[owner[end]]: int(ids[end]) for end in ends.tolist()}
