"""Reading the tables, also while they are written: a scan sees the newest commit there was when it began."""

from __future__ import annotations

from datetime import datetime, time
from pathlib import Path

import polars as pl
from deltalake import DeltaTable

from raven.clock import utc
from raven.errors import InputError, StoreError
from raven.sinks.delta.table import explained
from raven.sinks.encode import BARS, TRADES, Layout
from raven.sinks.store import BarKind

Instant = datetime | str
"""A time: UTC where it does not say otherwise; as text ISO 8601."""


def scan_trades(
    root: Path,
    *,
    venue: str | None = None,
    symbol: str | None = None,
    start: Instant | None = None,
    end: Instant | None = None,
) -> pl.LazyFrame:
    """Trades stored in `root` (`<data>/delta`), `start` <= ts_event < `end`, in no particular order.

    Columns: venue, symbol, trade_id, ts_event, ts_recv, price, quantity, side (`buy`/`sell`), origin.
    Raises StoreError when no trades are stored there, InputError when a time cannot be read.
    """
    return _scan(root, TRADES, {"venue": venue, "symbol": symbol}, start, end)


def scan_bars(
    root: Path,
    kind: BarKind = "time_bars",
    *,
    venue: str | None = None,
    symbol: str | None = None,
    spec: str | None = None,
    start: Instant | None = None,
    end: Instant | None = None,
) -> pl.LazyFrame:
    """Bars of `kind` stored in `root` (`<data>/delta`), `start` <= open_time < `end`, in no particular order.

    Columns: those of TIME_BAR_SCHEMA or TIB_SCHEMA.
    Raises StoreError when no bars of that kind are stored there, InputError when a time cannot be read.
    """
    if kind not in BARS:
        raise InputError(f"{kind!r} is not a kind of bars", hint=f"one of: {', '.join(BARS)}")
    return _scan(root, BARS[kind], {"venue": venue, "symbol": symbol, "spec": spec}, start, end)


def _scan(
    root: Path, layout: Layout, equal: dict[str, str | None], start: Instant | None, end: Instant | None
) -> pl.LazyFrame:
    path = root.absolute() / layout.name
    with explained(f"{path} cannot be read"):
        if not DeltaTable.is_deltatable(path):
            raise StoreError(
                f"no {layout.name} are stored in {root}",
                hint="is a persistence service running with the delta store, and is this its data folder?",
            )
        rows = pl.scan_delta(path)
    for name, value in equal.items():
        if value is not None:
            rows = rows.filter(pl.col(name) == value)
    # a file's statistics may be missing, its date cannot be
    if start is not None:
        first = utc(start)
        rows = rows.filter(pl.col("date") >= first.date(), pl.col(layout.time) >= first)
    if end is not None:
        last = utc(end)
        day = pl.col("date")
        days = day <= last.date() if last.time() > time.min else day < last.date()
        rows = rows.filter(days, pl.col(layout.time) < last)
    return rows.select(layout.schema.names)
