"""Reading bars back: a lazy frame over a table, which asks the server only for the rows and columns of a query."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import polars as pl
import pyarrow as pa
from polars.io.plugins import register_io_source

from raven.batches.schema import polars_schema
from raven.clock import utc
from raven.errors import InputError
from raven.settings import TimescaleSettings
from raven.sinks.encode import BARS, Layout
from raven.sinks.store import BarKind
from raven.sinks.timescale.predicates import Comparison, comparisons
from raven.sinks.timescale.schema import check
from raven.sinks.timescale.session import session
from raven.sinks.timescale.sql import select

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(slots=True)
class _Query:
    """A SELECT in the making: conditions, and the values of their parameters."""

    conditions: list[str] = field(default_factory=list)
    values: list[pa.Array] = field(default_factory=list)

    def add(self, layout: Layout, comparison: Comparison) -> None:
        self.values.append(pa.array([comparison.value], layout.schema.field(comparison.column).type))
        self.conditions.append(f'"{comparison.column}" {comparison.operator} ${len(self.values)}')

    def parameters(self) -> pa.RecordBatch | None:
        names = [f"p{number}" for number in range(len(self.values))]
        return pa.RecordBatch.from_arrays(self.values, names=names) if self.values else None


def scan_bars(
    settings: TimescaleSettings,
    kind: BarKind = "time_bars",
    *,
    venue: str | None = None,
    symbol: str | None = None,
    spec: str | None = None,
    start: datetime | str | None = None,
    end: datetime | str | None = None,
) -> pl.LazyFrame:
    """Bars of `kind` in the database, `start` <= open_time < `end`, in no particular order.

    Columns: those of TIME_BAR_SCHEMA or TIB_SCHEMA. Each time it is collected it is read anew: only columns that are
    needed, and only rows that a filter of the query cannot rule out. Raises StoreError when the database cannot be
    reached or has no such table, InputError when a time cannot be read.
    """
    if kind not in BARS:
        raise InputError(f"{kind!r} is not a kind of bars", hint=f"one of: {', '.join(BARS)}")
    layout = BARS[kind]
    asked = [
        *(
            Comparison(name, "=", value)
            for name, value in (("venue", venue), ("symbol", symbol), ("spec", spec))
            if value is not None
        ),
        *(
            Comparison(layout.time, operator, _us(time))
            for operator, time in ((">=", start), ("<", end))
            if time is not None
        ),
    ]
    url = settings.url.get_secret_value()
    with session(url, timeout_s=settings.timeout_s) as opened:
        check(opened, layout)

    def rows(
        columns: list[str] | None, predicate: pl.Expr | None, n_rows: int | None, batch_size: int | None
    ) -> Iterator[pl.DataFrame]:
        del batch_size
        wanted = layout.schema.names if columns is None else columns
        if any("\0" in text for text in (venue, symbol, spec) if text is not None):  # no text in a database holds NUL
            yield pl.DataFrame(schema=polars_schema(layout.schema)).select(wanted)
            return
        frame = _read(settings, layout, wanted, [*asked, *comparisons(predicate)], predicate, n_rows)
        yield frame

    return register_io_source(
        rows, schema=polars_schema(layout.schema), is_pure=False, explain_name=f"SELECT FROM {kind}"
    )


def _read(
    settings: TimescaleSettings,
    layout: Layout,
    columns: list[str],
    conditions: Sequence[Comparison],
    predicate: pl.Expr | None,
    n_rows: int | None,
) -> pl.DataFrame:
    """The rows that fulfil `conditions` and `predicate`; conditions only rule out what `predicate` would."""
    query = _Query()
    for comparison in conditions:
        query.add(layout, comparison)
    needed = {*columns, *(predicate.meta.root_names() if predicate is not None else ())}
    names = [name for name in layout.schema.names if name in needed] or [layout.time]
    limit = n_rows if predicate is None else None
    with session(settings.url.get_secret_value(), timeout_s=settings.timeout_s, patient=True) as opened:
        table = opened.run(select(layout, names, query.conditions, limit), query.parameters())
    fields = [layout.schema.field(name) for name in names]
    frame = pl.from_arrow(table.cast(pa.schema(field.with_nullable(True) for field in fields)))
    assert isinstance(frame, pl.DataFrame)
    if predicate is not None:
        frame = frame.filter(predicate)
        frame = frame if n_rows is None else frame.head(n_rows)
    return frame.select(columns)


def _us(time: datetime | str) -> int:
    return (utc(time) - _EPOCH) // timedelta(microseconds=1)
