"""A user's own trades, of whatever library and spelling, as frames that have passed the gate."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple, Protocol, TypeAlias

import polars as pl
import pyarrow as pa

from raven.batches.gate import Refusal
from raven.batches.raw import REQUIRED, admit, require_columns
from raven.batches.schema import ORIGIN_LIVE, TRADE_DTYPES
from raven.clock import tomorrow_us
from raven.errors import InputError, argument
from raven.sources.binance.markets import venue_named

OnBad: TypeAlias = Literal["raise", "skip"]


class ArrowTable(Protocol):
    """Anything with the Arrow PyCapsule interface: tables of pyarrow, pandas, DuckDB and others."""

    def __arrow_c_stream__(self, requested_schema: object | None = None) -> object:
        """The table as a stream of Arrow batches."""


Table: TypeAlias = pl.DataFrame | pl.LazyFrame | ArrowTable
"""Trades as one table."""

Trades: TypeAlias = Table | Iterable[Table]
"""Trades as the bar functions take them: one table, or several in order."""

_STANDS_IN: Final = "?"  # where a frame names no symbol, and the caller neither


class Admitted(NamedTuple):
    """`trades`: columns of TRADE_SCHEMA and venue; `refused`: what was given and is no trade."""

    trades: pl.DataFrame
    refused: list[Refusal]


def tables_of(trades: Trades) -> tuple[list[Table] | Iterable[Table], bool]:
    """The tables of `trades`, and whether it is a single one. Raises InputError for what is none."""
    if _is_table(trades):
        return [trades], True  # type: ignore[list-item]
    if isinstance(trades, str | Path):
        raise InputError(f"{str(trades)!r} is a path, not trades", hint=f"raven.read_trades({str(trades)!r}) reads it")
    if not isinstance(trades, Iterable) or isinstance(trades, dict):
        raise _no_table(trades)
    return trades, False


def admitted(trades: Table, *, venue: str, symbol: str, on_bad: OnBad = "raise") -> Admitted:
    """`trades` as the kernels take them; `venue` and `symbol` name rows without such columns.

    Without a column trade_id, or with one of no type, the ids are null. Raises InputError when a column is missing or
    of a type that does not fit, and, unless `on_bad` is `skip`, for the first row that is no trade.
    """
    if on_bad not in ("raise", "skip"):
        raise InputError(f"on_bad is {on_bad!r}", hint="known are raise, skip")
    frame = as_frame(trades)
    require_columns(frame, REQUIRED)
    has_ids = "trade_id" in frame.columns and frame.schema["trade_id"] != pl.Null
    has_symbols = "symbol" in frame.columns
    filled = frame.with_columns(
        *() if has_ids else [pl.lit(0, pl.Int64).alias("trade_id")],
        *() if has_symbols else [pl.lit(symbol or _STANDS_IN).alias("symbol")],
        _venues(frame, venue_named(venue) or venue),
    )
    checked = admit(filled, latest_us=tomorrow_us(), origin=ORIGIN_LIVE)
    if checked.refused and on_bad == "raise":
        first = checked.refused[0]
        raise InputError(
            f"row {first.row}, counted from 0: {first}", hint=f"{argument('on_bad', 'skip')} leaves such rows out"
        )
    good = checked.trades
    if not has_ids:
        good = good.with_columns(trade_id=pl.lit(None, pl.Int64))
    if not has_symbols and not symbol:
        good = good.with_columns(symbol=pl.lit(""))
    return Admitted(good.select("venue", *TRADE_DTYPES), checked.refused)


def _venues(frame: pl.DataFrame, named: str) -> pl.Expr:
    """The venue of each row by Raven's names; `named` where the row says none."""
    if "venue" not in frame.columns:
        return pl.lit(named).alias("venue")
    column = pl.col("venue").cast(pl.String).str.strip_chars()
    spelt = {venue: known for venue in frame.get_column("venue").cast(pl.String).unique().drop_nulls().str.strip_chars()
             if (known := venue_named(venue))}  # fmt: skip
    return (
        pl.when(column.is_null() | (column == "")).then(pl.lit(named)).otherwise(column.replace(spelt)).alias("venue")
    )


def in_order(trades: pl.DataFrame) -> pl.DataFrame:
    """Sorted by trade_id, or else by ts_event; a frame that is so already is left as it is."""
    ids = trades.get_column("trade_id")
    order = "ts_event" if ids.null_count() else "trade_id"
    return trades if trades.get_column(order).is_sorted() else trades.sort(order, maintain_order=True)


def as_frame(table: Table) -> pl.DataFrame:
    """Any table as a Polars frame. Raises InputError for what is none."""
    if isinstance(table, pl.LazyFrame):
        return table.collect()
    if isinstance(table, pl.DataFrame):
        return table
    if _is_pandas(table):
        return _from_pandas(table)
    if not _is_table(table):
        raise _no_table(table)
    try:
        return pl.DataFrame(table)
    except pl.exceptions.SchemaError as error:  # a column alone, such as a pandas Series
        raise _no_table(table) from error


def _is_table(value: object) -> bool:
    return isinstance(value, pl.DataFrame | pl.LazyFrame) or hasattr(value, "__arrow_c_stream__") or _is_pandas(value)


def _is_pandas(value: object) -> bool:
    return type(value).__module__.partition(".")[0] == "pandas" and hasattr(value, "columns")


def _from_pandas(table: Any) -> pl.DataFrame:
    """A pandas frame; an index that is called as a column of trades is one."""
    names = [name for name in table.index.names if name in TRADE_DTYPES]
    named = table.reset_index(names) if names else table
    try:
        return pl.from_pandas(named)
    except pa.ArrowException:  # a column of Python objects of several types: as text each has its own reason
        mixed = [name for name in named.columns if named[name].dtype == object]
        return pl.from_pandas(named.astype(dict.fromkeys(mixed, "string")))


def _no_table(value: object) -> InputError:
    return InputError(
        f"trades are {type(value).__name__}",
        hint="give frames of Polars, pandas or pyarrow, or anything with the Arrow PyCapsule interface",
    )
