"""The day of a row: Delta tables are partitioned by venue and date (UTC), and by nothing finer."""

from __future__ import annotations

from typing import Final

import polars as pl
import pyarrow as pa

from raven.sinks.encode import Layout

PARTITION_COLUMNS: Final = ("venue", "date")


def dated_schema(layout: Layout) -> pa.Schema:
    """The columns of the Delta table of `layout`: its own and `date`."""
    return layout.schema.append(pa.field("date", pa.date32(), nullable=False))


def with_date(rows: pl.DataFrame, layout: Layout) -> pl.DataFrame:
    """`rows` with the `date` of their time."""
    return rows.with_columns(date=pl.col(layout.time).dt.date())
