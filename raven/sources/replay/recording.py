"""What a recording is to a replay: its batches one after the other, each with its place and when it is due."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple, Protocol

import polars as pl
import pyarrow as pa

from raven.batches.batch import BatchMeta, Cursor, Gap
from raven.errors import InputError
from raven.journal import Hole
from raven.sources.ordering import LeftOut

SHOWN: Final = 10
"""So many of a recording's symbols are named."""


@dataclass(frozen=True, slots=True)
class Choice:
    """What of a recording is replayed: rows of `symbols` (none: all) with `start_us` <= ts_event < `end_us`, in UTC."""

    symbols: frozenset[str] = frozenset()
    start_us: int | None = None
    end_us: int | None = None

    def holds(self, symbol: str) -> bool:
        """Whether rows of `symbol` are wanted."""
        return not self.symbols or symbol in self.symbols

    def among(self, known: Iterable[str]) -> list[str]:
        """The chosen symbols, sorted; raises InputError for one that is not among the `known` ones."""
        found = sorted(known)
        for symbol in sorted(self.symbols):
            if symbol not in found:
                raise InputError(not_recorded(symbol, found))
        return [symbol for symbol in found if self.holds(symbol)]

    def covers(self, time_us: int) -> bool:
        """Whether a time lies within."""
        return (self.start_us is None or time_us >= self.start_us) and (self.end_us is None or time_us < self.end_us)

    def rows(self, trades: pl.DataFrame) -> pl.DataFrame:
        """The chosen rows of `trades` (TRADE_SCHEMA)."""
        return self.of_symbols(self.of_time(trades))

    def of_symbols(self, trades: pl.DataFrame) -> pl.DataFrame:
        """The rows of the chosen symbols, whenever they are."""
        return trades.filter(pl.col("symbol").is_in(list(self.symbols))) if self.symbols else trades

    def of_time(self, trades: pl.DataFrame) -> pl.DataFrame:
        """The rows of the chosen time, whatever their symbol; of bars (they have an open_time) by that."""
        if self.start_us is None and self.end_us is None:
            return trades
        time_us = pl.col("ts_event" if "ts_event" in trades.columns else "open_time").dt.epoch("us")
        if self.start_us is not None:
            trades = trades.filter(time_us >= self.start_us)
        return trades if self.end_us is None else trades.filter(time_us < self.end_us)

    def gaps(self, gaps: Sequence[Gap]) -> tuple[Gap, ...]:
        """The gaps of the chosen symbols."""
        return tuple(gap for gap in gaps if self.holds(gap.symbol))


def not_recorded(symbol: str, known: Sequence[str]) -> str:
    """Why there is nothing of a symbol, with the nearest names."""
    close = difflib.get_close_matches(symbol, known, n=3)
    listed = f"did you mean {', '.join(close)}?" if close else f"there are {', '.join(known[:SHOWN])}"
    return f"{symbol} is not in the recording; {listed}"


class Recorded(NamedTuple):
    """One batch as it is to be published.

    - `meta`: watermark, held and gaps of the batch; its `input` is the place in the recording just after it.
    - `due_us`: when it was recorded (UTC, microseconds), which sets the pace; it never goes back.
    - `duplicates`: rows left out because their ids were there before. `hole`: batches before it are gone.
    """

    batch: pa.RecordBatch
    meta: BatchMeta
    due_us: int
    duplicates: int = 0
    hole: Hole | None = None


class Recording(Protocol):
    """One or more recordings of one venue: journals one after the other, files put in order.

    - `name`: for people. `identity`: what is replayed of what, in words; a replay is only gone on with under the same.
    - `symbols`: the chosen ones, sorted. `first_us`, `last_us`: from when to when it was recorded.
    - `left_out`: rows that will not come, and why.
    """

    venue: str
    name: str
    identity: str
    symbols: Sequence[str]
    first_us: int
    last_us: int
    left_out: LeftOut

    def batches(self, after: Cursor | None, last_ids: Mapping[str, int]) -> Iterator[Recorded]:
        """The batches after the place `after` (None: all); blocking.

        `last_ids`: the last id of each symbol up to there. Raises InputError or JournalError where a recording
        cannot be read on.
        """
