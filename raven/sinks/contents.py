"""What a store holds, and what to say of something that it does not hold. Pure."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from typing import Final

import polars as pl

from raven.sinks.encode import Layout

CONTENTS: Final = pl.Schema(
    {
        "venue": pl.String(),
        "symbol": pl.String(),
        "spec": pl.String(),
        "rows": pl.Int64(),
        "first_time": pl.Datetime("us", "UTC"),
        "last_time": pl.Datetime("us", "UTC"),
    }
)
"""Of each group of rows how many there are, and the first and last of their times; trades have no `spec`."""

_LISTED_AT_MOST: Final = 8


def count(rows: pl.LazyFrame, layout: Layout) -> pl.DataFrame:
    """The CONTENTS of a table of `layout`: read once, in streams."""
    time = pl.col(layout.time)
    found = rows.group_by(layout.group).agg(rows=pl.len(), first_time=time.min(), last_time=time.max())
    return as_contents(found.collect(engine="streaming"))


def as_contents(found: pl.DataFrame) -> pl.DataFrame:
    """`found` with the columns of CONTENTS: those it lacks are null."""
    return found.select(
        pl.col(name).cast(dtype) if name in found.columns else pl.lit(None, dtype).alias(name)
        for name, dtype in CONTENTS.items()
    )


def not_stored(groups: pl.DataFrame, asked: Mapping[str, str | None], what: str) -> str | None:
    """What to say when `what` (a table's name) is asked of a group, by columns, and only `groups` are stored.

    None when there is such a group. Else it names the first column that leaves none, and the nearest values stored.
    """
    left, passed = groups, list[str]()
    for name, value in asked.items():
        if value is None:
            continue
        remaining = left.filter(pl.col(name) == value)
        if remaining.is_empty():
            of = f" of {' '.join(left.row(0, named=True)[column] for column in passed)}" if passed else ""
            told = _elsewhere(groups.filter(pl.col(name) == value), passed) or _nearest(value, _values(left, name))
            return f"no {what} with {name} {value}{of} are stored: {told}"
        left = remaining
        passed.append(name)
    return None


def _values(groups: pl.DataFrame, name: str) -> list[str]:
    return groups.get_column(name).unique().sort().to_list()


def _elsewhere(groups: pl.DataFrame, columns: Sequence[str]) -> str:
    """The value is stored, only not together with the others that were asked for."""
    others = [" ".join(row) for row in groups.select(columns).unique().sort(columns).iter_rows()] if columns else []
    return f"there are some of {_listed(others)}" if others else ""


def _nearest(value: str, known: Sequence[str]) -> str:
    """The names most like `value`, in any case, or else all of them."""
    by_case = {name.casefold(): name for name in known}
    close = [by_case[name] for name in difflib.get_close_matches(value.casefold(), by_case, n=3)]
    if close:
        return f"did you mean {' or '.join(close)}?"
    return f"there are {_listed(known)}" if known else "nothing is stored yet"


def _listed(names: Sequence[str]) -> str:
    more = len(names) - _LISTED_AT_MOST
    return ", ".join(names[:_LISTED_AT_MOST]) + (f" and {more} more" if more > 0 else "")
