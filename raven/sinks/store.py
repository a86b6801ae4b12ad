"""What every store is to the loop that feeds it: open, write a flush exactly once, say where to go on.

A store is synchronous and belongs to one thread. What `write` has returned for is durable: rows, last ids
and positions become visible together or not at all, so a flush that has not returned may be written again.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal, Protocol, TypeAlias

import polars as pl
import pyarrow as pa

from raven.batches.batch import Cursor
from raven.batches.schema import TIB_SCHEMA, TIME_BAR_SCHEMA
from raven.errors import StoreError


class Report(Protocol):
    """Told how far a call is that takes long: what it does, in words that stay the same, and numbers beside them."""

    def __call__(self, doing: str, /, **numbers: int) -> None:
        """May be called from any thread."""


def unheard(doing: str, /, **numbers: int) -> None:
    """Nobody listens."""


Rows: TypeAlias = pl.DataFrame | pa.RecordBatch
BarKind = Literal["time_bars", "tick_imbalance_bars"]

BAR_SCHEMAS: Final[Mapping[BarKind, pa.Schema]] = {
    "time_bars": TIME_BAR_SCHEMA,
    "tick_imbalance_bars": TIB_SCHEMA,
}
"""The Arrow schema of the bars of each kind."""

BAR_KEYS: Final[Mapping[BarKind, str]] = {"time_bars": "open_time", "tick_imbalance_bars": "first_trade_id"}
"""What, with venue, symbol and spec, identifies a bar of each kind."""


class StoreUnavailableError(StoreError):
    """The store could not take a write now. Nothing of it was lost: write the same flush again later.

    `retry_after_s`: how long the store asks to be left alone.
    """

    def __init__(self, message: str, *, hint: str = "", retry_after_s: float = 0.0) -> None:
        super().__init__(message, hint=hint)
        self.retry_after_s = retry_after_s


class StoreRefusedError(StoreUnavailableError):
    """The store will not take a write until somebody mends something: a password, a bucket, a missing table.

    The hint says what. The flush is tried again, slowly, and goes on by itself once that is done.
    """


@dataclass(frozen=True, slots=True)
class Refusal:
    """A row that a store will never take: its `row` number in what was written, and the store's `reason`."""

    row: int
    reason: str


@dataclass(frozen=True, slots=True)
class TradeFlush:
    """Trades to be stored and where the upstreams stand after them.

    `trades`: (venue, rows of TRADE_SCHEMA), oldest first; venues and symbols may alternate.
    `positions`: the new cursor of each upstream that moved, also of one that brought no rows.
    """

    trades: Sequence[tuple[str, Rows]] = ()
    positions: Mapping[str, Cursor] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class BarFlush:
    """Bars of one kind to be stored (rows of BAR_SCHEMAS[kind]), and where the upstreams stand after them."""

    bars: Sequence[Rows] = ()
    positions: Mapping[str, Cursor] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class WriteResult:
    """What became of the rows of a flush; `rows + duplicates + dead + dropped` is their number.

    - `rows`: rows stored, those that replaced an older revision of their bar included.
    - `replaced`: how many of them replaced one.
    - `duplicates`: rows not stored. A trade: its id is at or below the last id stored of its symbol, or came
      twice in the flush. A bar: the store, or the flush itself, holds the same or a higher revision.
    - `dead`: rows that the store refuses for what they hold; they lie in the dead letters, with its reason.
    - `dropped`: rows older than what the store keeps.
    """

    rows: int = 0
    duplicates: int = 0
    replaced: int = 0
    dead: int = 0
    dropped: int = 0


class Store(Protocol):
    """What stores of trades and of bars share.

    `name` is the backend's, `table` where the rows are. `report` is whoever wants to be told of calls that take long.
    `unreadable`: why what is written cannot be read back with these settings, as `open` found; empty: it can.
    """

    name: str
    table: str
    report: Report
    unreadable: str

    @property
    def cut(self) -> tuple[str, ...]:
        """What `open` found torn by a crash and set aside; it was never reported as stored."""

    def open(self) -> None:
        """Take hold of the table, making it where there is none. Opening twice does no harm.

        Raises StoreError when it is held by another process, or is not a table of this kind;
        StoreUnavailableError when it cannot be reached now, StoreRefusedError when it first needs mending: `open`
        is called again then.
        """

    def position(self, upstream: str) -> Cursor | None:
        """The cursor stored with the last flush of `upstream`; None: never any."""

    def rows(self) -> int:
        """How many rows the table holds, as known without reading them; may be called from any thread."""

    def maintain(self) -> Mapping[str, int]:
        """Do what keeps the table quick to read and small. Returns what was done, by name; empty: nothing.

        Raises StoreUnavailableError when it should be tried again.
        """

    def resend(self, rows: pl.DataFrame) -> Sequence[Refusal]:
        """Write rows that were dead letters, in the columns of their table; those still refused are returned.

        It heeds no last id, moves no position and needs no `open`. A database may be held by a service meanwhile.
        Raises StoreError when it cannot be done now.
        """

    def close(self) -> None:
        """Let go of the table. Closing twice does no harm."""


class TradeStore(Store, Protocol):
    """A store of trades, exactly once by id."""

    def last_ids(self, venue: str, symbols: Iterable[str]) -> dict[str, int]:
        """The highest trade id stored of each of `symbols`; those never stored are left out."""

    def write(self, flush: TradeFlush) -> WriteResult:
        """Store rows above the last id of their symbol, the new last ids and the positions, atomically.

        Raises InputError when rows do not fit, StoreUnavailableError when the flush should be tried again.
        """


class BarStore(Store, Protocol):
    """A store of bars of one kind: one row per identity, of the highest revision ever written."""

    kind: BarKind

    def write(self, flush: BarFlush) -> WriteResult:
        """Insert new bars, replace lower revisions, leave the others, and move the positions, atomically.

        Raises InputError when rows do not fit, StoreUnavailableError when the flush should be tried again.
        """
