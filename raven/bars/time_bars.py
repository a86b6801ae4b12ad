"""Time bars: windows aligned to the epoch, `[open_time, close_time)`."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol, runtime_checkable

import numpy as np
import polars as pl

from raven.bars.carry import (
    COMMON_DEFAULTS,
    Array,
    Columns,
    Defaults,
    empty_state,
    extend,
    pack,
    unpack,
)
from raven.bars.fold import Chain, bars_frame, chain, fold, select
from raven.bars.rows import Rows, check_ids, group_by_symbol, hold_times
from raven.batches.schema import TIME_BAR_DTYPES, TIME_BAR_SCHEMA
from raven.errors import InputError

if TYPE_CHECKING:
    import pyarrow as pa

    from raven.batches.batch import TradeBatch

_UNITS_US: Final = {"d": 86_400_000_000, "h": 3_600_000_000, "m": 60_000_000, "s": 1_000_000, "ms": 1_000}
_MIN_US: Final = 1_000
_MAX_US: Final = 366 * _UNITS_US["d"]
_DEFAULTS: Final[Defaults] = {**COMMON_DEFAULTS, "emitted_ticks": 0}
_NO_BARS: Final = pl.DataFrame(schema=TIME_BAR_DTYPES)


@runtime_checkable
class Span(Protocol):
    """What `datetime.timedelta` is, without a clock's module in the core."""

    @property
    def days(self) -> int:
        """Whole days."""

    @property
    def seconds(self) -> int:
        """Seconds beside the days."""

    @property
    def microseconds(self) -> int:
        """Microseconds beside both."""


def parse_every(every: str | int | Span) -> int:
    """A window's length in microseconds, from `"1m"` (units ms, s, m, h, d), a timedelta or whole seconds.

    Raises InputError when it cannot be read or no window can have that length (1 ms to 366 d, whole ms).
    """
    if isinstance(every, str):
        match = re.fullmatch(r"([0-9]{1,12})(ms|s|m|h|d)", every)
        if match is None:
            raise InputError(f"{every!r} is no window length", hint="write it like 500ms, 90s, 1m, 4h or 1d")
        every_us = int(match[1]) * _UNITS_US[match[2]]
    elif isinstance(every, int) and not isinstance(every, bool):
        every_us = every * _UNITS_US["s"]
    elif isinstance(every, Span):
        every_us = (every.days * 86_400 + every.seconds) * 1_000_000 + every.microseconds
    else:
        raise InputError(f"{every!r} is no window length", hint="give '1m', a timedelta or whole seconds")
    _check_every(every_us)
    return every_us


def _check_every(every_us: int) -> None:
    if not _MIN_US <= every_us <= _MAX_US or every_us % _MIN_US:
        raise InputError(
            f"a time bar cannot be {every_us / 1_000_000:g} s long",
            hint="choose 1 ms to 366 d, in whole milliseconds",
        )


@dataclass(frozen=True, slots=True)
class TimeBarKernel:
    """Time bars of `every_us` microseconds.

    A bar closes when a later trade of its symbol passes its end. A quiet symbol's bar is sent as an
    incomplete revision once a batch's watermark is `allowed_lateness_us` past its end; it stays open, and is
    sent again when its end is proven or more trades come. A ts_event below its predecessor's is folded at the
    running maximum and counted in the state's `late_ticks`. Empty windows make no bar.

    `allowed_lateness_us` changes which revisions appear, never a bar's last one, so a state fits any.
    """

    every_us: int
    allowed_lateness_us: int = 2_000_000

    def __post_init__(self) -> None:
        _check_every(self.every_us)
        if self.allowed_lateness_us < 0:
            raise InputError(f"allowed lateness must be >= 0, got {self.allowed_lateness_us} us")

    @property
    def kind(self) -> str:
        """`time_bars`."""
        return "time_bars"

    @property
    def spec(self) -> str:
        """The length in the largest unit that divides it: `90s`, `1m`, `1h`, `1d`."""
        unit = next(unit for unit, unit_us in _UNITS_US.items() if self.every_us % unit_us == 0)
        return f"{self.every_us // _UNITS_US[unit]}{unit}"

    @property
    def schema(self) -> pa.Schema:
        """TIME_BAR_SCHEMA."""
        return TIME_BAR_SCHEMA

    @property
    def fingerprint(self) -> str:
        """Kind and spec."""
        return f"{self.kind}:{self.spec}"

    def initial(self) -> pl.DataFrame:
        """The state before the first trade; beside the common columns, `emitted_ticks`.

        That is the total_ticks with which the open bar was last sent, 0 if it was not or has grown since.
        """
        return empty_state(_DEFAULTS)

    def step(self, state: pl.DataFrame, batch: TradeBatch) -> tuple[pl.DataFrame, pl.DataFrame]:
        """The next state, and the bars that the trades closed or the watermark revised."""
        symbols, carried = unpack(state)
        closed = None
        if batch.trades.height:
            symbols, rows = group_by_symbol(symbols, batch.trades)
            carried = extend(carried, len(symbols), _DEFAULTS)
            links = self._fold(rows, symbols, carried)
            self._keep_open(carried, links)
            closed = self._closed(links)
        due = self._due(symbols, carried, batch)
        if due.size:
            carried = {**carried, "emitted_ticks": carried["emitted_ticks"].copy()}
            carried["emitted_ticks"][due] = carried["total_ticks"][due]
            revised = {**select(carried, due), "code": due, "complete": np.zeros(len(due), dtype=bool)}
            closed = _concat(closed, revised) if closed else revised
        bars = self._bars(closed, symbols, batch.venue)
        return (pack(symbols, carried) if batch.trades.height or due.size else state), bars

    def open_bars(self, state: pl.DataFrame, venue: str) -> pl.DataFrame:
        """The bars still open, as they stand, never complete (null without ids)."""
        symbols, carried = unpack(state)
        every = np.arange(len(symbols))
        return self._bars({**carried, "code": every, "complete": np.zeros(len(every), dtype=bool)}, symbols, venue)

    def _fold(self, rows: Rows, symbols: pl.Series, carried: Columns) -> Chain:
        """The bars `rows` touched; counts the late ones in `carried`."""
        check_ids(rows, symbols, carried)
        rows, late_ticks = hold_times(rows, carried["last_time_us"])
        carried["late_ticks"][rows.codes] += late_ticks
        window = rows.time_us // self.every_us
        is_start = np.append(True, window[1:] != window[:-1])
        is_start[rows.firsts] = True
        starts = np.flatnonzero(is_start)
        code = rows.codes[np.searchsorted(rows.firsts, starts, side="right") - 1]
        parts = fold(rows, starts)
        parts["open_time_us"] = window[starts] * self.every_us
        # only a symbol's first part can be in its open bar's window: later ones are in later windows
        joins = (carried["total_ticks"][code] > 0) & (parts["open_time_us"] == carried["open_time_us"][code])
        # what these parts hold was not sent yet, be it the whole bar or its newest trades
        parts["emitted_ticks"] = np.zeros(len(code), dtype=np.int64)
        return chain(carried, parts, code, joins)

    @staticmethod
    def _keep_open(carried: Columns, links: Chain) -> None:
        """Write each symbol's newest bar into `carried`."""
        newest = np.flatnonzero(links.is_last)
        for name, column in links.bars.items():
            carried[name][links.code[newest]] = column[newest]

    @staticmethod
    def _closed(links: Chain) -> Columns:
        """The bars a later trade passed, but for those already sent as they are and not proven complete."""
        bars = links.bars
        whole = bars["last_trade_id"] - bars["first_trade_id"] + 1 == bars["total_ticks"]
        proven = bars["start_seen"] & links.end_seen & whole
        news = ~links.is_last & (proven | (bars["total_ticks"] > bars["emitted_ticks"]))
        return select({**bars, "code": links.code, "complete": proven}, np.flatnonzero(news))

    def _due(self, symbols: pl.Series, carried: Columns, batch: TradeBatch) -> Array:
        """The state rows whose open bar the batch's watermark says is over, with trades not yet sent."""
        if batch.watermark_us is None:
            return np.empty(0, dtype=np.int64)
        limit_us = batch.watermark_us - self.allowed_lateness_us - self.every_us
        is_due = (carried["open_time_us"] <= limit_us) & (carried["total_ticks"] > carried["emitted_ticks"])
        if batch.held and is_due.any():
            is_due &= ~symbols.is_in(list(batch.held)).to_numpy()
        return np.flatnonzero(is_due)

    def _bars(self, bars: Columns | None, symbols: pl.Series, venue: str) -> pl.DataFrame:
        if bars is None:
            return _NO_BARS.clone()
        bars = {**bars, "close_time_us": bars["open_time_us"] + self.every_us}
        return bars_frame(bars, symbols, _NO_BARS, venue=venue, spec=self.spec)


def _concat(one: Columns, other: Columns) -> Columns:
    return {name: np.concatenate([column, other[name]]) for name, column in one.items()}


def with_empty(bars: pl.DataFrame, every_us: int) -> pl.DataFrame:
    """`bars` with a flat bar of no volume for each empty window between two bars of a symbol.

    It is complete when the ids on both sides prove that no trade lies between.
    """
    keys = ["venue", "symbol"]
    following = bars.with_columns(
        _next_open=pl.col("open_time").shift(-1).over(keys), _next_id=pl.col("first_trade_id").shift(-1).over(keys)
    ).filter(pl.col("_next_open") > pl.col("close_time"))
    windows = pl.datetime_ranges("close_time", "_next_open", interval=f"{every_us}us", closed="left")
    none_between = pl.col("_next_id") == pl.col("last_trade_id") + 1
    flat = following.select(
        *keys, "spec", windows.alias("open_time"), "close", none_between.alias("complete")
    ).explode("open_time")  # fmt: skip
    zero, nothing = pl.lit(0.0), pl.lit(None, dtype=pl.Int64)
    empty = flat.select(
        *keys,
        "spec",
        "open_time",
        (pl.col("open_time") + pl.duration(microseconds=every_us)).alias("close_time"),
        *(pl.col("close").alias(name) for name in ("open", "high", "low", "close")),
        zero.alias("volume"),
        zero.alias("quote_volume"),
        pl.col("close").alias("vwap"),
        zero.alias("buy_volume"),
        zero.alias("buy_quote_volume"),
        *(pl.lit(0, dtype=pl.Int64).alias(name) for name in ("buy_ticks", "sell_ticks", "total_ticks")),
        nothing.alias("first_trade_id"),
        nothing.alias("last_trade_id"),
        "complete",
        pl.col("complete").fill_null(value=False).cast(pl.Int64).alias("revision"),
    )
    return pl.concat([bars, empty.select(bars.columns)]).sort("venue", "symbol", "open_time")
