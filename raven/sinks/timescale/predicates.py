"""What a server can be asked to leave out, for a filter of Polars: conditions that the filter implies. Pure.

The filter itself is applied to what comes back. So a part of it that is not understood here costs time, and nothing
else: neither a form of expression that is new, nor one that the server would judge in another way.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import polars as pl

_OPERATORS: Final = {"Eq": "=", "Lt": "<", "LtEq": "<=", "Gt": ">", "GtEq": ">="}
_TEXTS: Final = ("venue", "symbol", "spec")
_TIMES: Final = ("open_time", "close_time")
_TIMES_US: Final = range(-62_135_596_800_000_000, 253_402_300_800_000_000)
"""The years 1 to 9999, those of datetime: Polars has 290,000 on either side, the server and its driver refuse some."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """`column` `operator` `value`: a text, or a time in microseconds since the epoch."""

    column: str
    operator: str
    value: str | int


def comparisons(predicate: pl.Expr | None) -> list[Comparison]:
    """Conditions that hold for every row that `predicate` lets through; perhaps none.

    They are those of its parts, joined by "and", that compare a text or time column with a value. A column of text is
    only compared for equality: the server may sort in another order.
    """
    if predicate is None:
        return []
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the format may change: what is not understood is not used
            tree = json.loads(predicate.meta.serialize(format="json"))
    except (pl.exceptions.PolarsError, ValueError):
        return []
    return list(_walk(tree))


def _walk(node: Any) -> Iterator[Comparison]:
    match node:
        case {"BinaryExpr": {"left": left, "op": "And", "right": right}}:
            yield from _walk(left)
            yield from _walk(right)
        case {
            "BinaryExpr": {"left": {"Column": str(column)}, "op": str(word), "right": {"Literal": {"Scalar": scalar}}}
        }:
            match scalar:
                case {"String": str(value)} if column in _TEXTS and word == "Eq":
                    # a text with NUL cannot be sent, nor be there
                    if "\0" not in value:
                        yield Comparison(column, "=", value)
                case {"Datetime": [int(value), "Microseconds", {"inner": "UTC"}]} if (
                    column in _TIMES and word in _OPERATORS and value in _TIMES_US
                ):
                    yield Comparison(column, _OPERATORS[word], value)
