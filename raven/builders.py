"""Bars of a user's own frames, step by step: the kernels of the services behind a small object."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator
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
from raven.batches.schema import BUY, SELL, TRADE_DTYPES, polars_schema
from raven.batches.sequence import check_sequence
from raven.errors import InputError, StateError

Trades = pl.DataFrame | pl.LazyFrame | Iterable[pl.DataFrame]
"""Trades as the bar functions take them: one frame, eager or lazy, or several in order."""

SNAPSHOT_FORMAT: Final = 1
REQUIRED: Final = ("ts_event", "price", "quantity", "side")
_SIDES: Final = {"buy": BUY, "sell": SELL}


class DroppedRowsWarning(UserWarning):
    """Rows that were given are not in the bars."""


class _Saved(msgspec.Struct):
    format: int
    states: dict[str, bytes]
    last_ids: dict[str, dict[str, int]]


class BarBuilder:
    """Carries one kernel's state over frames. Use a class of one bar type, such as `TimeBars`."""

    def __init__(self, kernel: Kernel, *, venue: str, symbol: str) -> None:
        self._kernel = kernel
        self._venue = venue
        self._symbol = symbol
        self._states: dict[str, pl.DataFrame] = {}
        self._last_ids: dict[str, dict[str, int]] = {}
        self.duplicates = 0

    def update(self, trades: pl.DataFrame | pl.LazyFrame) -> pl.DataFrame:
        """Take the next trades; the bars they closed, one a row.

        `trades` needs ts_event, price, quantity and side (+1/-1 or buy/sell); symbol, venue and trade_id are used
        where present. Rows of one symbol must come in order. A repeated trade_id is dropped and counted in
        `duplicates`. Raises InputError when a column is missing or of a type that does not fit.
        """
        frame = normalised(trades, venue=self._venue, symbol=self._symbol)
        parts = [self._step(venue, part) for (venue,), part in frame.partition_by("venue", as_dict=True).items()]
        return pl.concat(parts) if parts else self._empty()

    def _step(self, venue: str, trades: pl.DataFrame) -> pl.DataFrame:
        if trades.get_column("trade_id").null_count() == 0:
            checked = check_sequence(trades, self._last_ids.get(venue, {}))
            self._last_ids[venue] = checked.last_ids
            self.duplicates += checked.duplicates
            trades = checked.accepted
        state = self._states.get(venue)
        batch = TradeBatch(venue, trades.select(*TRADE_DTYPES))
        self._states[venue], bars = self._kernel.step(self._kernel.initial() if state is None else state, batch)
        return bars

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

    def __init__(self, every: str | int | timedelta = "1m", *, venue: str = "", symbol: str = "") -> None:
        super().__init__(TimeBarKernel(parse_every(every)), venue=venue, symbol=symbol)


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
        super().__init__(kernel, venue=venue, symbol=symbol)


class TickBars(BarBuilder):
    """Bars of `ticks` trades each. Raises InputError when `ticks` is no whole number above 0."""

    def __init__(self, ticks: int, *, venue: str = "", symbol: str = "") -> None:
        super().__init__(SizedBarKernel("tick", ticks), venue=venue, symbol=symbol)


class VolumeBars(BarBuilder):
    """Bars that close with the trade with which they hold `volume` base units or more.

    A trade is never split, so a bar may be larger. Raises InputError when `volume` is not above 0.
    """

    def __init__(self, volume: float, *, venue: str = "", symbol: str = "") -> None:
        super().__init__(SizedBarKernel("volume", volume), venue=venue, symbol=symbol)


class DollarBars(BarBuilder):
    """Bars that close with the trade with which `dollars` quote units or more have changed hands.

    Quote units are those of the symbol, whatever the currency. A trade is never split. Raises InputError when `dollars`
    is not above 0.
    """

    def __init__(self, dollars: float, *, venue: str = "", symbol: str = "") -> None:
        super().__init__(SizedBarKernel("dollar", dollars), venue=venue, symbol=symbol)


def build(builder: BarBuilder, trades: Trades, *, partial: bool) -> pl.DataFrame:
    """All bars of `trades`; `partial` adds the open ones."""
    parts = [builder.update(frame) for frame in frames_of(trades)]
    if builder.duplicates:
        warnings.warn(
            f"{builder.duplicates} rows were left out: their trade_id was not above those before it",
            DroppedRowsWarning,
            stacklevel=3,
        )
    if partial or not parts:
        parts.append(builder.open_bars())
    return pl.concat(parts).sort("venue", "symbol", "open_time", "first_trade_id", maintain_order=True)


def frames_of(trades: Trades) -> Iterator[pl.DataFrame]:
    """The frames of any kind of trades; a single frame is put in order, by trade_id or else by ts_event."""
    if isinstance(trades, pl.LazyFrame | pl.DataFrame):
        frame = trades.lazy().collect()
        order = "trade_id" if "trade_id" in frame.columns else "ts_event"
        yield frame.sort(order, maintain_order=True) if order in frame.columns else frame
    else:
        yield from trades


def normalised(trades: pl.DataFrame | pl.LazyFrame, *, venue: str, symbol: str) -> pl.DataFrame:
    """A user's frame with all trade columns and `venue`; see `BarBuilder.update`."""
    frame = trades.collect() if isinstance(trades, pl.LazyFrame) else trades
    if not isinstance(frame, pl.DataFrame):
        raise InputError(f"trades are {type(trades).__name__}", hint="give a Polars frame; pl.from_pandas makes one")
    missing = [name for name in REQUIRED if name not in frame.columns]
    if missing:
        raise InputError(f"columns missing: {', '.join(missing)}", hint=f"trades need {', '.join(REQUIRED)}")
    defaults = {
        "venue": pl.lit(venue),
        "symbol": pl.lit(symbol),
        "trade_id": pl.lit(None, dtype=pl.Int64),
        "ts_recv": pl.col("ts_event"),
        "origin": pl.lit(0, dtype=pl.Int8),
    }
    frame = frame.with_columns(**{name: value for name, value in defaults.items() if name not in frame.columns})
    if frame.schema["side"] == pl.String:
        frame = frame.with_columns(pl.col("side").replace_strict(_SIDES, default=None, return_dtype=pl.Int8))
    try:
        frame = frame.select("venue", *(_cast(frame, name, dtype) for name, dtype in TRADE_DTYPES.items()))
    except pl.exceptions.PolarsError as error:
        raise InputError(f"trades do not fit: {error}") from error
    for name in REQUIRED:
        if frame.get_column(name).null_count():
            raise InputError(f"{name} holds nulls or values it cannot take", hint="side is +1/-1 or buy/sell")
    _refuse(frame.get_column("side"), frame.get_column("side").abs() != 1, "other than +1 and -1")
    for name in ("price", "quantity"):
        column = frame.get_column(name)
        _refuse(column, ~(column.is_finite() & (column > 0)), "that are no positive numbers")
    return frame


def _refuse(column: pl.Series, is_bad: pl.Series, what: str) -> None:
    if is_bad.any():
        raise InputError(f"{column.name} holds {is_bad.sum()} values {what}, the first {column.filter(is_bad)[0]}")


def _cast(frame: pl.DataFrame, name: str, dtype: pl.DataType) -> pl.Expr:
    column = pl.col(name)
    if isinstance(dtype, pl.Datetime):
        given = frame.schema[name]
        if not isinstance(given, pl.Datetime):
            raise InputError(f"{name} is {given}", hint="times are Datetime columns; naive ones are taken as UTC")
        zoned = column.dt.replace_time_zone("UTC") if given.time_zone is None else column.dt.convert_time_zone("UTC")
        return zoned.dt.cast_time_unit("us")
    return column.cast(dtype)
