"""What the tables of every store look like, and how a flush becomes their rows. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal

import polars as pl
import pyarrow as pa

from raven.bars.gate import VENUE
from raven.batches.schema import TRADE_DTYPES, TRADE_SCHEMA, polars_schema, to_frame
from raven.errors import InputError
from raven.sinks.store import BAR_KEYS, BAR_SCHEMAS, BarFlush, BarKind, Rows, TradeFlush

SIDES: Final = {1: "buy", -1: "sell"}

_STORED_TYPES = {"side": pa.string()}


@dataclass(frozen=True, slots=True)
class Layout:
    """A table: its name, its columns, the column that says when a row was, the order rows lie in.

    `group` and `key` together identify a row; `key` grows within a group.
    """

    name: str
    schema: pa.Schema
    time: str
    group: tuple[str, ...]
    key: str

    @property
    def identity(self) -> list[str]:
        """The columns that identify a row."""
        return [*self.group, self.key]


TRADES: Final = Layout(
    name="trades",
    schema=pa.schema(
        [
            pa.field("venue", pa.string(), nullable=False),
            *(field.with_type(_STORED_TYPES.get(field.name, field.type)) for field in TRADE_SCHEMA),
        ]
    ),
    time="ts_event",
    group=("venue", "symbol"),
    key="trade_id",
)
"""Trades: venue, and the columns of TRADE_SCHEMA with `side` spelt out."""

BARS: Final[Mapping[BarKind, Layout]] = {
    kind: Layout(
        name=kind,
        schema=schema,
        time="open_time",
        group=("venue", "symbol", "spec"),
        key=BAR_KEYS[kind],
    )
    for kind, schema in BAR_SCHEMAS.items()
}
"""Bars of each kind: the columns of their schema."""

LAYOUTS: Final[Mapping[str, Layout]] = {layout.name: layout for layout in (TRADES, *BARS.values())}
"""All tables by name."""


def encode_trades(flush: TradeFlush) -> pl.DataFrame:
    """The rows of TRADES in `flush`, sorted by venue, symbol and id, each id once.

    Raises InputError when a column is missing or of another type, or a side is neither 1 nor -1.
    """
    by_venue: dict[str, list[Rows]] = {}
    for venue, rows in flush.trades:
        by_venue.setdefault(venue, []).append(rows)
    frames = [
        _join(rows, TRADE_SCHEMA).with_columns(pl.lit(_checked(venue)).alias("venue"))
        for venue, rows in by_venue.items()
    ]
    if not frames:
        return pl.DataFrame(schema=polars_schema(TRADES.schema))
    trades = pl.concat(frames).with_columns(
        side=pl.col("side").replace_strict(SIDES, default=None, return_dtype=pl.String)
    )
    unknown = trades.get_column("side").null_count()
    if unknown:
        raise InputError(f"{unknown} trades have a side that is neither 1 (buy) nor -1 (sell)")
    return _finish(trades, TRADES, TRADES.identity, keep="first")


def encode_bars(flush: BarFlush, kind: BarKind) -> pl.DataFrame:
    """The rows of BARS[kind] in `flush`, sorted by identity, of each bar only the newest revision.

    Raises InputError when a column is missing or of another type, or a bar cannot be identified.
    """
    layout = BARS[kind]
    bars = _join(flush.bars, BAR_SCHEMAS[kind])
    nameless = bars.get_column(layout.key).null_count()
    if nameless:
        raise InputError(
            f"{nameless} bars without {layout.key} cannot be identified",
            hint="were there trades without ids?",
        )
    for venue in bars.get_column("venue").unique():
        _checked(venue)
    return _finish(bars, layout, [*layout.identity, "revision"], keep="last")


def trade_letters(venue: str, trades: pl.DataFrame) -> pl.DataFrame:
    """Trades (columns of TRADE_SCHEMA) that were refused, in the columns of TRADES: a side that is none as it was."""
    side = pl.col("side")
    spelt = pl.coalesce(side.replace_strict(SIDES, default=None, return_dtype=pl.String), side.cast(pl.String))
    return trades.with_columns(spelt, venue=pl.lit(venue)).select(TRADES.schema.names)


def letter_trades(rows: pl.DataFrame) -> pl.DataFrame:
    """What `trade_letters` was given: the columns of TRADE_SCHEMA; a side that is no number is null."""
    side = pl.col("side")
    numbers = {word: number for number, word in SIDES.items()}
    given = pl.coalesce(
        side.replace_strict(numbers, default=None, return_dtype=pl.Int8), side.cast(pl.Int8, strict=False)
    )
    return rows.with_columns(given).select(list(TRADE_DTYPES))


def row_count(flush: TradeFlush | BarFlush) -> int:
    """How many rows a flush holds, repeated ones included."""
    batches = [rows for _, rows in flush.trades] if isinstance(flush, TradeFlush) else flush.bars
    return sum(rows.height if isinstance(rows, pl.DataFrame) else rows.num_rows for rows in batches)


def _join(batches: Sequence[Rows], schema: pa.Schema) -> pl.DataFrame:
    """All rows, checked against `schema`."""
    wanted = pl.Schema(polars_schema(schema))
    frames = [_select(rows if isinstance(rows, pl.DataFrame) else to_frame(rows), wanted) for rows in batches]
    joined = pl.concat(frames) if frames else pl.DataFrame(schema=wanted)
    nulls = [field.name for field in schema if not field.nullable and joined.get_column(field.name).null_count()]
    if nulls:
        raise InputError(f"rows hold nulls in {', '.join(nulls)}")
    return joined


def _select(rows: pl.DataFrame, wanted: pl.Schema) -> pl.DataFrame:
    found = rows.schema
    if found == wanted:
        return rows
    wrong = [f"{name} ({found.get(name, 'missing')})" for name, dtype in wanted.items() if found.get(name) != dtype]
    if wrong:
        raise InputError(f"rows do not fit the table: {', '.join(wrong)}", hint=f"wanted: {dict(wanted)}")
    return rows.select(wanted.names())


def _finish(rows: pl.DataFrame, layout: Layout, order: list[str], *, keep: Literal["first", "last"]) -> pl.DataFrame:
    """Sorted by `order`, of each identity the first or last row, in the table's column order."""
    identity = pl.col(layout.identity)
    other = identity.ne_missing(identity.shift(1 if keep == "first" else -1))
    return (
        rows.lazy()
        .sort(order, maintain_order=True)
        .filter(pl.any_horizontal(other))
        .select(layout.schema.names)
        .collect()
    )


def _checked(venue: str) -> str:
    """A venue that can be a folder."""
    if not VENUE.fullmatch(venue):
        raise InputError(f"{venue!r} is not a venue", hint="venues are upper case letters, digits and underscores")
    return venue
