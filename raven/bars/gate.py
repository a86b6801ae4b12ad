"""What a bar has to be before a store is given it: the gate of bars, beside that of trades. Pure.

It asks for less than the kernels keep, since their sums are rounded; what it refuses no kernel makes.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

import polars as pl
import pyarrow as pa

from raven.batches.gate import BadReason, Checked, Refusal, show, value_at

VENUE: Final = re.compile(r"[A-Z0-9_]+")
"""Venues are names of ours and become folders: nothing that needs escaping."""

_AFTER_ALL_US: Final = 7_258_118_400_000_000  # 2200-01-01: a long window may end far ahead
_TIMES: Final = ("open_time", "close_time")
_NAMES: Final = ("venue", "symbol", "spec")
_COUNTS: Final = ("buy_ticks", "sell_ticks", "total_ticks", "revision")
_IDS: Final = ("first_trade_id", "last_trade_id")
_NOT_BELOW_ZERO: Final = ("quote_volume", "vwap", "buy_volume", "buy_quote_volume")
_FINITE: Final = ("theta", "threshold", "expected_size", "expected_imbalance")


class _Rule(NamedTuple):
    column: str
    reason: BadReason
    says: str
    holds: pl.Expr
    """Null where the column is."""


def check(bars: pl.DataFrame, schema: pa.Schema, key: str, *, latest_us: int) -> Checked:
    """Check bars of `schema`'s columns and types; `key` is the column that identifies a bar beside its names.

    `latest_us` (Unix microseconds): every bar opens before it. A null breaks the rule of a column that needs a value.
    """
    optional = {field.name for field in schema if field.nullable and field.name != key}
    rules = [rule for rule in _rules(latest_us) if rule.column in schema.names]
    broken = [
        (~rule.holds.fill_null(value=rule.column in optional)).alias(str(number)) for number, rule in enumerate(rules)
    ]
    found = bars.select(broken)
    bad = found.select(pl.any_horizontal(pl.all())).to_series()
    if not bad.any():
        return Checked(bars, [])
    return Checked(bars.filter(~bad), list(_refusals(bars, rules, found.with_row_index("row").filter(bad))))


def says(refusal: Refusal) -> str:
    """The column and what it has to be; alike for all rows that break one rule."""
    rule = next(rule for rule in _rules(0) if (rule.column, rule.reason) == (refusal.column, refusal.reason))
    return f"{rule.column}: {rule.says}"


def _refusals(bars: pl.DataFrame, rules: Sequence[_Rule], found: pl.DataFrame) -> Iterator[Refusal]:
    for row, *broken in found.iter_rows():
        rule = rules[broken.index(True)]
        yield Refusal(row, rule.column, show(value_at(bars.get_column(rule.column), row)), rule.reason)


def _rules(latest_us: int) -> Iterator[_Rule]:
    venue = pl.col("venue").str.contains(f"^(?:{VENUE.pattern})$")
    yield _Rule("venue", BadReason.BAD_SYMBOL, "a venue is upper case letters, digits and underscores", venue)
    for name in _NAMES[1:]:
        named = (pl.col(name) != "") & ~pl.col(name).str.contains("\0", literal=True)
        yield _Rule(name, BadReason.BAD_SYMBOL, "it is a text, and not empty", named)
    opens, closes = (pl.col(name).to_physical() for name in _TIMES)
    yield _Rule(
        "open_time", BadReason.BAD_TIME, "a bar opens between 1970 and tomorrow", (opens >= 0) & (opens < latest_us)
    )
    ends = (closes >= opens) & (closes < _AFTER_ALL_US)
    yield _Rule("close_time", BadReason.BAD_TIME, "a bar closes after it opens, and before 2200", ends)
    for name in _IDS:
        yield _Rule(name, BadReason.BAD_ID, "an id is a whole number from 0 on", pl.col(name) >= 0)
    for name in ("open", "close", "volume"):
        reason = BadReason.BAD_QUANTITY if name == "volume" else BadReason.BAD_PRICE
        yield _Rule(name, reason, "it is a finite number above 0", _is_above_zero(name))
    ends_of = ("open", "close")
    high = _is_above_zero("high") & (pl.col("high") >= pl.max_horizontal(*ends_of))
    low = _is_above_zero("low") & (pl.col("low") <= pl.min_horizontal(*ends_of))
    yield _Rule("high", BadReason.BAD_PRICE, "it is a finite number above 0, and no price of the bar is higher", high)
    yield _Rule("low", BadReason.BAD_PRICE, "it is a finite number above 0, and no price of the bar is lower", low)
    for name in _NOT_BELOW_ZERO:
        value = pl.col(name)
        reason = BadReason.BAD_PRICE if name == "vwap" else BadReason.BAD_QUANTITY
        yield _Rule(name, reason, "it is a finite number, and not below 0", value.is_finite() & (value >= 0))
    for name in _COUNTS:
        yield _Rule(name, BadReason.BAD_QUANTITY, "it is a whole number from 0 on", pl.col(name) >= 0)
    for name in _FINITE:
        yield _Rule(name, BadReason.BAD_FIELD, "it is a finite number", pl.col(name).is_finite())


def _is_above_zero(name: str) -> pl.Expr:
    return pl.col(name).is_finite() & (pl.col(name) > 0)
