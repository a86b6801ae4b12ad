"""The gate: what a trade has to be, whichever door it comes in by. One set of rules, one closed set of reasons. Pure.

Frames, REST, files, foreign journals and a user's own frame all end here: `check` takes columns that have their types
already, `raven.batches.raw.admit` columns as somebody wrote them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from enum import StrEnum
from types import MappingProxyType
from typing import Any, Final, NamedTuple

import numpy as np
import polars as pl

from raven.batches.schema import BUY, ORIGIN_ARCHIVE, ORIGIN_LIVE, SELL
from raven.batches.sequence import Array

EARLIEST_US: Final = 1_230_768_000_000_000
"""2009-01-01 UTC: there was nothing to trade before."""

AFTER_ALL_US: Final = 4_102_444_800_000_000
"""2100-01-01 UTC: no trade is of a later time, whatever is known of a clock."""

SHOWN_LETTERS: Final = 80
LONGEST_SYMBOL: Final = 64
MOST_ID: Final = 10**12
"""No exchange has given out so many ids: one beyond would make repeats of all that follow."""
_NEVER: Final = -(2**63)
_UNITS_A_SECOND: Final = MappingProxyType({"ms": 10**3, "us": 10**6, "ns": 10**9})
_CALENDAR_S: Final = range(-62_000_000_000, 253_000_000_000)
"""The seconds that Python's calendar has in any zone; a column may hold others, and cannot hand them out."""


class BadReason(StrEnum):
    """Why something that came in is no trade to be kept: a closed set, fit for a metric's label."""

    NOT_JSON = "not_json"
    UNKNOWN_SHAPE = "unknown_shape"
    BAD_FIELD = "bad_field"
    """A line or row is not whole: cut short, too long, or with a column that nothing is read from damaged."""
    BAD_SYMBOL = "bad_symbol"
    BAD_ID = "bad_id"
    BAD_TIME = "bad_time"
    BAD_PRICE = "bad_price"
    BAD_QUANTITY = "bad_quantity"
    BAD_SIDE = "bad_side"
    OTHER_MARKET = "other_market"
    """A trade of another market than the stream's: contracts of COIN-M among those of USD-M."""
    ID_AHEAD = "id_ahead"
    """An id further ahead than the exchange can have gone."""
    TIME_AHEAD = "time_ahead"
    """A time that the exchange's clock has not reached."""


RULES: Final = MappingProxyType(
    {
        BadReason.NOT_JSON: "it is no JSON",
        BadReason.UNKNOWN_SHAPE: "it has no shape that is known",
        BadReason.BAD_FIELD: "it is not whole",
        BadReason.BAD_SYMBOL: f"a symbol has 1 to {LONGEST_SYMBOL} letters, none of them blank or a control character",
        BadReason.BAD_ID: "an id is a whole number from 0 to 2^63-1",
        BadReason.BAD_TIME: "a time lies between 2009 and tomorrow",
        BadReason.BAD_PRICE: "a price is a finite number above 0",
        BadReason.BAD_QUANTITY: "a quantity is a finite number above 0, as is price times quantity",
        BadReason.BAD_SIDE: "a side is +1 or -1, buy or sell, or is_buyer_maker true or false",
        BadReason.OTHER_MARKET: "it is a trade of another market",
        BadReason.ID_AHEAD: "no exchange goes on that fast",
        BadReason.TIME_AHEAD: "the exchange's clock is not there yet",
    }
)
"""What each reason says is broken."""


class Refusal(NamedTuple):
    """A row (counted from 0) that is no trade: the column, its value as text, and why."""

    row: int
    column: str
    value: str
    reason: BadReason

    def __str__(self) -> str:
        """`bad_price: price is -5.0; a price is a finite number above 0`."""
        return f"{self.reason}: {self.column} is {self.value}; {RULES[self.reason]}"


class Checked(NamedTuple):
    """`trades`: the rows that may go on, in order; `refused`: every other, by row, with the first rule it breaks."""

    trades: pl.DataFrame
    refused: list[Refusal]


class _Rule(NamedTuple):
    column: str
    reason: BadReason
    broken: Array


def check(trades: pl.DataFrame, *, latest_us: int, most_id: int | None = None) -> Checked:
    """Check rows of TRADE_SCHEMA's columns and types; nulls break the rule of their column.

    `latest_us` (Unix microseconds): every time lies before it. `most_id`: no exchange has come as far; None: ids are
    judged otherwise. Columns beside those of TRADE_SCHEMA go along unseen.
    """
    rules = [rule for rule in _rules(trades, latest_us, most_id) if rule.broken.any()]
    if not rules:
        return Checked(trades, [])
    broken = np.logical_or.reduce([rule.broken for rule in rules])
    first = np.argmax(np.stack([rule.broken for rule in rules]), axis=0)
    at = np.flatnonzero(broken)
    refused = [
        Refusal(row, rules[k].column, show(value_at(trades.get_column(rules[k].column), row)), rules[k].reason)
        for row, k in zip(at.tolist(), first[at].tolist(), strict=True)
    ]
    return Checked(trades.filter(pl.Series(~broken)), refused)


def _rules(trades: pl.DataFrame, latest_us: int, most_id: int | None) -> Iterable[_Rule]:
    """What is wrong, rule by rule, in the order in which the reasons are told."""
    if trades.is_empty():
        return
    yield _Rule("symbol", BadReason.BAD_SYMBOL, _bad_symbols(trades.get_column("symbol")))
    ids = _whole(trades, "trade_id", _NEVER)
    yield _Rule("trade_id", BadReason.BAD_ID, ids < 0)
    if most_id is not None:
        yield _Rule("trade_id", BadReason.ID_AHEAD, ids >= most_id)
    for name in ("ts_event", "ts_recv"):
        times_us = _whole(trades, name, _NEVER)
        yield _Rule(name, BadReason.BAD_TIME, (times_us < EARLIEST_US) | (times_us >= latest_us))
    prices, quantities = (_figures(trades, name) for name in ("price", "quantity"))
    yield _Rule("price", BadReason.BAD_PRICE, ~((prices > 0) & (prices < np.inf)))
    with np.errstate(over="ignore", invalid="ignore"):
        worth = prices * quantities  # a bar sums it: it has to be a number, too
    yield _Rule("quantity", BadReason.BAD_QUANTITY, ~((quantities > 0) & (quantities < np.inf) & (worth < np.inf)))
    sides = _whole(trades, "side", 0)
    yield _Rule("side", BadReason.BAD_SIDE, (sides != BUY) & (sides != SELL))
    origins = _whole(trades, "origin", -1)
    yield _Rule("origin", BadReason.BAD_FIELD, (origins < ORIGIN_LIVE) | (origins > ORIGIN_ARCHIVE))


def _figures(trades: pl.DataFrame, name: str) -> Array:
    """A column of figures, 0 where there is none."""
    figures = trades.get_column(name)
    return (figures.fill_null(0.0) if figures.null_count() else figures).to_numpy()


def _whole(trades: pl.DataFrame, name: str, filler: int) -> Array:
    """A column of whole numbers or times as integers, `filler` where there is none."""
    column = trades.get_column(name)
    if column.null_count():
        column = column.to_physical().fill_null(filler)
    values = column.to_numpy()
    return values.view(np.int64) if values.dtype.kind == "M" else values


def _bad_symbols(symbols: pl.Series) -> Array:
    """Which rows name no symbol; a stream has few names and many rows."""
    if symbols[0] is not None and (symbols == symbols[0]).all(ignore_nulls=False):
        return np.full(len(symbols), not is_symbol(symbols[0]))
    names = symbols.unique().to_list()
    if all(map(is_symbol, names)):
        return np.zeros(len(symbols), dtype=bool)
    good = pl.Series(list(filter(is_symbol, names)), dtype=pl.String)
    return ~symbols.is_in(good.implode()).fill_null(value=False).to_numpy()


def is_symbol(name: str | None) -> bool:
    """Whether `name` can be a symbol: letters of any script, none blank, none a control character."""
    return name is not None and 1 <= len(name) <= LONGEST_SYMBOL and name.isprintable() and " " not in name


def show(value: object) -> str:
    """A value fit for a message: one line, and not a long one."""
    text = "missing" if value is None else str(value) or "empty"
    text = text if text.isprintable() else repr(text)[1:-1]
    return text if len(text) <= SHOWN_LETTERS else text[:SHOWN_LETTERS] + "…"


def value_at(column: pl.Series, row: int) -> Any:
    """A value in a column; a time beyond the calendar as the number that it is, in words: no datetime can hold it."""
    if isinstance(column.dtype, pl.Datetime):
        number, unit = column.to_physical()[row], column.dtype.time_unit
        if number is not None and number // _UNITS_A_SECOND[unit] not in _CALENDAR_S:
            return f"{number} {unit} since 1970"
    return column[row]


def count(refused: Iterable[Refusal]) -> Counter[BadReason]:
    """How many rows each reason cost."""
    return Counter(refusal.reason for refusal in refused)
