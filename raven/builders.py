"""Bars of a user's own frames, step by step: the kernels of the services behind a small object."""

from __future__ import annotations

import warnings
from collections import Counter
from datetime import timedelta
from typing import Final, Self

import msgspec
import polars as pl

from raven.bars.kernel import Kernel
from raven.bars.sized import SizedBarKernel
from raven.bars.state import restore, snapshot
from raven.bars.tick_imbalance import TickImbalanceKernel
from raven.bars.time_bars import TimeBarKernel, parse_every
from raven.batches.batch import TradeBatch
from raven.batches.gate import BadReason, count
from raven.batches.repeats import conflict, settle, told_twice
from raven.batches.schema import TRADE_DTYPES, polars_schema
from raven.batches.sequence import check_sequence
from raven.errors import InputError, StateError, argument
from raven.tabular import OnBad, Table, Trades, admitted, in_order, tables_of

SNAPSHOT_FORMAT: Final = 1


class DroppedRowsWarning(UserWarning):
    """Rows that were given are not in the bars."""


class _Saved(msgspec.Struct):
    format: int
    states: dict[str, bytes]
    last_ids: dict[str, dict[str, int]]


class BarBuilder:
    """Carries one kernel's state over frames. Use a class of one bar type, such as `TimeBars`."""

    def __init__(self, kernel: Kernel, *, venue: str, symbol: str, on_bad: OnBad) -> None:
        self._kernel = kernel
        self._venue = venue
        self._symbol = symbol
        self._on_bad: OnBad = on_bad
        self._states: dict[str, pl.DataFrame] = {}
        self._last_ids: dict[str, dict[str, int]] = {}
        self.duplicates = 0
        self.conflicts = 0
        self.refused: Counter[BadReason] = Counter()

    def update(self, trades: Table, *, sort: bool = False) -> pl.DataFrame:
        """Take the next trades; the bars they closed, one a row.

        `trades`: a frame of Polars, pandas or pyarrow, or anything with the Arrow PyCapsule interface, with

        - ts_event: datetimes (naive ones are UTC), Unix time in s, ms, us or ns, or ISO text;
        - price, quantity: finite numbers above 0, as numbers, decimals or text;
        - side: 1 and -1, or buy and sell; or is_buyer_maker: true (the aggressor sold) and false;
        - where present symbol, venue and trade_id (whole numbers).

        Rows of one symbol must come in order; `sort` puts those of this call in order, by trade_id or else by
        ts_event. A repeated trade_id is dropped and counted in `duplicates`; another trade under an id that this call
        holds already raises InputError, or is counted in `conflicts`, too. Raises InputError when a column is missing
        or of a type that does not fit, and for the first row that is no trade; with `on_bad="skip"` such rows are left
        out and counted in `refused`, by reason.
        """
        given = admitted(trades, venue=self._venue, symbol=self._symbol, on_bad=self._on_bad)
        self.refused.update(count(given.refused))
        frame = in_order(given.trades) if sort else given.trades
        parts = [self._step(venue, part) for (venue,), part in frame.partition_by("venue", as_dict=True).items()]
        return pl.concat(parts) if parts else self._empty()

    def _step(self, venue: str, trades: pl.DataFrame) -> pl.DataFrame:
        if trades.get_column("trade_id").null_count() == 0:
            checked = check_sequence(trades, self._last_ids.get(venue, {}))
            self._last_ids[venue] = checked.last_ids
            self.duplicates += checked.duplicates
            if checked.duplicates:
                self._compare(trades)
            trades = checked.accepted
        state = self._states.get(venue)
        batch = TradeBatch(venue, trades.select(*TRADE_DTYPES))
        self._states[venue], bars = self._kernel.step(self._kernel.initial() if state is None else state, batch)
        return bars

    def _compare(self, trades: pl.DataFrame) -> None:
        """Count, or refuse, what is another trade under an id that is taken."""
        settled = settle(trades.filter(told_twice(trades)).with_columns(_file=0))
        self.conflicts += settled.conflicts.height
        if settled.conflicts.height and self._on_bad == "raise":
            first = conflict(settled.conflicts.row(0, named=True), "", "")
            raise InputError(f"a conflict: {first}", hint=f"{argument('on_bad', 'skip')} keeps one of the two")

    def open_bars(self) -> pl.DataFrame:
        """The bars still open, as they stand: never complete."""
        parts = [self._kernel.open_bars(state, venue) for venue, state in self._states.items()]
        return pl.concat(parts) if parts else self._empty()

    def _empty(self) -> pl.DataFrame:
        return pl.DataFrame(schema=polars_schema(self._kernel.schema))

    def snapshot(self) -> bytes:
        """The whole state as bytes; `restore` goes on from it."""
        states = {venue: snapshot(self._kernel, state) for venue, state in self._states.items()}
        return msgspec.msgpack.encode(_Saved(SNAPSHOT_FORMAT, states, self._last_ids))

    def restore(self, data: bytes) -> Self:
        """Go on from a snapshot of bars with the same parameters; raises StateError for any other."""
        try:
            saved = msgspec.msgpack.decode(data, type=_Saved)
        except msgspec.MsgspecError as error:
            raise StateError(f"the snapshot is damaged: {error}") from error
        if saved.format != SNAPSHOT_FORMAT:
            raise StateError(f"the snapshot has format {saved.format}, not {SNAPSHOT_FORMAT}")
        self._states = {venue: restore(self._kernel, state) for venue, state in saved.states.items()}
        self._last_ids = saved.last_ids
        return self


class TimeBars(BarBuilder):
    """Time bars of `every` (`"1m"`, `"5m"`, `"1h"`, a timedelta, or seconds), aligned to the epoch, UTC.

    `venue` and `symbol` name the trades of frames without such columns.
    """

    def __init__(
        self, every: str | int | timedelta = "1m", *, venue: str = "", symbol: str = "", on_bad: OnBad = "raise"
    ) -> None:
        super().__init__(TimeBarKernel(parse_every(every)), venue=venue, symbol=symbol, on_bad=on_bad)


class TickImbalanceBars(BarBuilder):
    """Tick imbalance bars (López de Prado, Advances in Financial Machine Learning, 2018, ch. 2) with Raven's update.

    The parameters are those of `raven_tibs`: expected size and share of buys at the start, the weight of the newest
    bar in both averages, the bounds of the expected size; `min_imbalance` bounds the expected imbalance from below,
    `max_ticks` the size of a bar (0: off). Raises InputError when one is out of range.
    """

    def __init__(
        self,
        *,
        initial_size: float = 100.0,
        initial_p_buy: float = 0.7,
        alpha_size: float = 0.1,
        alpha_imbl: float = 0.1,
        size_min: float = 50.0,
        size_max: float = 1000.0,
        min_imbalance: float = 0.0,
        max_ticks: int = 0,
        venue: str = "",
        symbol: str = "",
        on_bad: OnBad = "raise",
    ) -> None:
        kernel = TickImbalanceKernel(
            initial_size=initial_size,
            initial_p_buy=initial_p_buy,
            alpha_size=alpha_size,
            alpha_imbl=alpha_imbl,
            size_min=size_min,
            size_max=size_max,
            min_imbalance=min_imbalance,
            max_ticks=max_ticks,
        )
        super().__init__(kernel, venue=venue, symbol=symbol, on_bad=on_bad)


class TickBars(BarBuilder):
    """Bars of `ticks` trades each. Raises InputError when `ticks` is no whole number above 0."""

    def __init__(self, ticks: int, *, venue: str = "", symbol: str = "", on_bad: OnBad = "raise") -> None:
        super().__init__(SizedBarKernel("tick", ticks), venue=venue, symbol=symbol, on_bad=on_bad)


class VolumeBars(BarBuilder):
    """Bars that close with the trade with which they hold `volume` base units or more.

    A trade is never split, so a bar may be larger. Raises InputError when `volume` is not above 0.
    """

    def __init__(self, volume: float, *, venue: str = "", symbol: str = "", on_bad: OnBad = "raise") -> None:
        super().__init__(SizedBarKernel("volume", volume), venue=venue, symbol=symbol, on_bad=on_bad)


class DollarBars(BarBuilder):
    """Bars that close with the trade with which `dollars` quote units or more have changed hands.

    Quote units are those of the symbol, whatever the currency. A trade is never split. Raises InputError when `dollars`
    is not above 0.
    """

    def __init__(self, dollars: float, *, venue: str = "", symbol: str = "", on_bad: OnBad = "raise") -> None:
        super().__init__(SizedBarKernel("dollar", dollars), venue=venue, symbol=symbol, on_bad=on_bad)


def build(builder: BarBuilder, trades: Trades, *, partial: bool) -> pl.DataFrame:
    """All bars of `trades`; `partial` adds the open ones."""
    tables, is_single = tables_of(trades)
    parts = [builder.update(table, sort=is_single) for table in tables]
    repeats = "repeats of trades that are there" if is_single else "their trade_id was not above those before it"
    left_out = {
        repeats: builder.duplicates - builder.conflicts,
        "conflicts, another trade has their trade_id": builder.conflicts,
        ", ".join(f"{rows} {reason}" for reason, rows in builder.refused.most_common()): builder.refused.total(),
    }
    for why, rows in left_out.items():
        if rows:
            warnings.warn(f"{_rows(rows)} left out: {why}", DroppedRowsWarning, stacklevel=3)
    if partial or not parts:
        parts.append(builder.open_bars())
    return pl.concat(parts).sort("venue", "symbol", "open_time", "first_trade_id", maintain_order=True)


def _rows(count: int) -> str:
    return "1 row was" if count == 1 else f"{count} rows were"
