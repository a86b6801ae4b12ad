"""Trade ids out of segments: the highest per symbol, and which ranges a piece of a journal holds."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import polars as pl
import pyarrow as pa

from raven.batches.batch import Gap
from raven.journal.segment import Segment

_COLUMNS: Final = ("symbol", "trade_id")
_RANGE_COLUMNS: Final = {"symbol": pl.String(), "first": pl.Int64(), "last": pl.Int64()}


def has_ids(schema: pa.Schema) -> bool:
    """Whether the batches are trades (columns symbol, trade_id)."""
    return set(_COLUMNS) <= set(schema.names)


def highest_ids(segment: Segment) -> dict[str, int]:
    """The highest trade id per symbol up to the segment's end, silent symbols included; empty for bars."""
    ids = dict(segment.notes.last_ids)
    if has_ids(segment.schema):
        highest = _read(segment, 0).drop_nulls().group_by("symbol").agg(pl.col("trade_id").max())
        for symbol, trade_id in highest.iter_rows():
            ids[symbol] = max(trade_id, ids.get(symbol, trade_id))
    return ids


def count_and_ranges(segments: Iterable[Segment], after: int) -> tuple[int, tuple[Gap, ...]]:
    """Rows and contiguous id ranges per symbol in batches above sequence `after`, each a final gap."""
    rows = 0
    ranges = [pl.DataFrame(schema=_RANGE_COLUMNS)]
    for segment in segments:
        if has_ids(segment.schema):
            ids = _read(segment, after)
            single = {"first": pl.col("trade_id"), "last": pl.col("trade_id")}
            ranges.append(_coalesce(ids.drop_nulls().select("symbol", **single)))
            rows += ids.height
        else:
            rows += sum(slot.batch.num_rows for slot in segment.slots() if slot.meta.sequence > after)
    merged = _coalesce(pl.concat(ranges))
    found = merged.select("symbol", "first", "last").iter_rows()
    return rows, tuple(Gap(symbol, first - 1, last + 1, reason="journal.max_bytes") for symbol, first, last in found)


def _coalesce(ranges: pl.DataFrame) -> pl.DataFrame:
    """Overlapping and adjoining ranges of a symbol as one."""
    covered = pl.col("last").cum_max().shift(1).over("symbol")
    begins = (covered.is_null() | (pl.col("first") > covered + 1)).cum_sum()
    return (
        ranges.sort("symbol", "first")
        .group_by("symbol", begins.alias("range"), maintain_order=True)
        .agg(pl.col("first").min(), pl.col("last").max())
        .drop("range")
    )


def _read(segment: Segment, after: int) -> pl.DataFrame:
    schema = pa.schema([segment.schema.field(name) for name in _COLUMNS])
    batches = [slot.batch.select(_COLUMNS) for slot in segment.slots(zero_copy=True) if slot.meta.sequence > after]
    frame = pl.from_arrow(pa.Table.from_batches(batches, schema=schema))
    assert isinstance(frame, pl.DataFrame)
    return frame
