"""What a consumer takes of the batches of a journal: whatever that holds, it never stops who reads it. Pure.

A journal may have been written by an older version, by another program or by hand. So a batch is looked at before
anything is done with it: `misfit` tells whether its columns are those of its kind, `take` which rows may go on.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, NamedTuple, Protocol

import polars as pl
import pyarrow as pa

from raven.batches.batch import BatchMeta
from raven.batches.gate import AFTER_ALL_US, Checked, Refusal

DAY_US: Final = 86_400_000_000


class Check(Protocol):
    """`raven.batches.gate.check`, or the like for bars."""

    def __call__(self, rows: pl.DataFrame, /, *, latest_us: int) -> Checked:
        """The rows that may go on, and the others with their reasons."""


class Taken(NamedTuple):
    """`rows` may go on. `refused` were wanted and break a rule: each has its entry in `refusals`, in this order."""

    rows: pl.DataFrame
    refused: pl.DataFrame
    refusals: list[Refusal]


def misfit(found: pa.Schema, wanted: pa.Schema) -> str:
    """What columns of `wanted` a batch lacks, or has in another type; empty when it fits. Others do no harm."""
    wrong = []
    for field in wanted:
        places = found.get_all_field_indices(field.name)
        if len(places) != 1:
            wrong.append(f"{field.name} is {'there twice' if places else 'missing'}")
        elif not _is_same(found.field(places[0]).type, field.type):
            wrong.append(f"{field.name} is {found.field(places[0]).type}, not {field.type}")
    return f"the batch is of another kind: {', '.join(wrong)}" if wrong else ""


def latest_us(meta: BatchMeta) -> int:
    """Every time in a batch lies before this one: a day after it was journaled. Of one that never was, none is known.

    The watermark is the exchange's time, and so stands in for a clock of that machine which was set back.
    """
    known_us = max(meta.appended_us, meta.watermark_us or 0)
    return min(known_us + DAY_US, AFTER_ALL_US) if known_us > 0 else AFTER_ALL_US


def take(rows: pl.DataFrame, select: Callable[[pl.DataFrame], pl.DataFrame], check: Check, *, latest_us: int) -> Taken:
    """Of `rows` (columns of their kind) what `select` chooses, parted by `check`.

    A row without a symbol, or a venue where there is one, is nobody's: it is refused, so that it is counted.
    """
    chosen = select(rows)
    names = [name for name in ("venue", "symbol") if name in rows.columns]
    if any(_lacks_names(rows.get_column(name)) for name in names):
        nameless = pl.any_horizontal((pl.col(name) == "").fill_null(value=True) for name in names)
        chosen = pl.concat([select(rows.filter(~nameless)), rows.filter(nameless)])
    checked = check(chosen, latest_us=latest_us)
    refused = chosen[[refusal.row for refusal in checked.refused]] if checked.refused else chosen.clear()
    return Taken(checked.trades, refused, checked.refused)


def _is_same(found: pa.DataType, wanted: pa.DataType) -> bool:
    """Whether both are read alike."""
    if pa.types.is_string(wanted):
        return any(test(found) for test in (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view))
    return bool(found == wanted)


def _lacks_names(names: pl.Series) -> bool:
    return bool(names.null_count()) or bool((names == "").any())
