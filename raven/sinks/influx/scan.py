"""Reading stored trades back, page by page in the order of time, so that memory stays bounded."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final

import polars as pl
from polars.io.plugins import register_io_source

from raven.batches.schema import polars_schema
from raven.clock import utc
from raven.errors import StoreError
from raven.settings import InfluxSettings
from raven.sinks.encode import TRADES
from raven.sinks.influx.client import Client
from raven.sinks.influx.lines import FLOATS, TAGS
from raven.sinks.influx.place import Place, asked, find, first_time
from raven.sinks.influx.query import after_ns, epoch_us, first_ns, select
from raven.sinks.influx.responses import Answer

PAGE_ROWS: Final = 100_000
FIRST_SPAN_NS: Final = 3_600 * 10**9
SPAN_GROWTH: Final = 4
"""Pages of an hour at first; of more where little is there, of what fills about one where there is much."""
_TIMES: Final = {"ts_event": "ts_event_us", "ts_recv": "ts_recv_us"}
_STORED: Final = {
    **dict.fromkeys(TAGS, pl.String()),
    **dict.fromkeys(FLOATS, pl.Float64()),
    **dict.fromkeys(("time", "trade_id", "origin", *_TIMES.values()), pl.Int64()),
}


@dataclass(frozen=True, slots=True)
class _Scan:
    """What is read: trades with the tags in `equal`, `start_us` <= ts_event < `end_us`."""

    settings: InfluxSettings
    place: Place
    equal: dict[str, str]
    start_us: int | None
    end_us: int | None

    @property
    def first_ns(self) -> int | None:
        return None if self.start_us is None else first_ns(self.start_us)

    @property
    def after_ns(self) -> int | None:
        return None if self.end_us is None else after_ns(self.end_us)


def scan_trades(
    settings: InfluxSettings,
    *,
    venue: str | None = None,
    symbol: str | None = None,
    start: datetime | str | None = None,
    end: datetime | str | None = None,
) -> pl.LazyFrame:
    """Trades stored in the bucket of `settings`, `start` <= ts_event < `end`, in no particular order.

    Columns: venue, symbol, trade_id, ts_event, ts_recv, price, quantity, side (`buy`/`sell`), origin.
    Raises StoreError when no trades are stored there or the server does not answer, as collecting does; InputError
    when a time cannot be read.
    """
    tags = {"venue": venue, "symbol": symbol}
    scan = _Scan(
        settings,
        Place(settings.bucket),
        {tag: value for tag, value in tags.items() if value is not None},
        None if start is None else epoch_us(utc(start)),
        None if end is None else epoch_us(utc(end)),
    )
    client = Client(settings)
    try:
        place, is_filled = find(client, settings.bucket)
    finally:
        client.close()
    if not is_filled:
        raise StoreError(
            f"no trades are stored in the bucket {settings.bucket} at {settings.url}",
            hint="is tick_persistence running with the influx store, and is this its bucket?",
        )
    scan = replace(scan, place=place)

    def read(
        columns: list[str] | None,
        predicate: pl.Expr | None,
        rows: int | None,
        batch_rows: int | None,  # noqa: ARG001 - Polars' wish; a page is what suits the server
    ) -> Iterator[pl.DataFrame]:
        for page in _pages(scan):
            found = page if predicate is None else page.filter(predicate)
            if rows is not None:
                found, rows = found[:rows], rows - found.height
            yield found if columns is None else found.select(columns)
            if rows is not None and rows <= 0:
                return

    return register_io_source(read, schema=polars_schema(TRADES.schema), is_pure=True)


def _pages(scan: _Scan) -> Iterator[pl.DataFrame]:
    """All trades of `scan`, at most about PAGE_ROWS at a time."""
    columns = [*TAGS, *FLOATS, "trade_id", "origin", *_TIMES.values()]
    client = Client(scan.settings)
    try:
        for points in _points(client, scan, columns):
            trades = points.select(
                pl.from_epoch(_TIMES[name], time_unit="us").dt.replace_time_zone("UTC").alias(name)
                if name in _TIMES
                else pl.col(name)
                for name in TRADES.schema.names
            ).cast(polars_schema(TRADES.schema))  # type: ignore[arg-type]
            event_us = pl.col("ts_event").to_physical()
            if scan.start_us is not None:
                trades = trades.filter(event_us >= scan.start_us)
            if scan.end_us is not None:
                trades = trades.filter(event_us < scan.end_us)
            yield trades
    finally:
        client.close()


def _points(client: Client, scan: _Scan, columns: Sequence[str]) -> Iterator[pl.DataFrame]:
    """The points of `scan` that are there now, with their `time`.

    Each page is bounded by time on both sides, or the server would look into all that lies behind it. A full page may
    end amid points of one time (of several symbols): those come with the next. One that is not full ends where its
    time does, or where the server broke it off, which CSV does not tell: so what is left of its time is asked for.
    """
    first, last = (_edge(client, scan, newest=newest) for newest in (False, True))
    if first is None or last is None:
        return
    start, span, limit = first, FIRST_SPAN_NS, PAGE_ROWS
    while start <= last:
        end = min(start + span, last + 1)
        text = select(columns, scan.equal, first_ns=start, after_ns=end, rows=limit)
        points = _csv(asked(client, scan.place, text, accept="text/csv"), columns)
        times = points.get_column("time")
        if points.height >= limit:
            whole = points.filter(times < times[-1])
            limit = PAGE_ROWS if whole.height else limit * 2
            span = max(2 * (times[-1] - times[0]), 1)
            start = times[-1] if whole.height else start
            yield whole
            continue
        yield points
        start = times[-1] + 1 if points.height else start
        rest = select(["trade_id"], scan.equal, first_ns=start, after_ns=end, rows=1)
        if start < end and first_time(client, scan.place, rest) is not None:
            if not points.height:
                raise StoreError(
                    f"InfluxDB breaks off its answer to: {text}", hint="see its log; a shorter time may do"
                )
            continue
        start, span = end, span * SPAN_GROWTH if points.height < limit // SPAN_GROWTH else span


def _edge(client: Client, scan: _Scan, *, newest: bool) -> int | None:
    """The time of the oldest or newest point of `scan`; None: there is none."""
    bounds = {"first_ns": scan.first_ns, "after_ns": scan.after_ns}
    return first_time(client, scan.place, select(["trade_id"], scan.equal, **bounds, rows=1, newest=newest))


def _csv(answer: Answer, columns: Sequence[str]) -> pl.DataFrame:
    """The points in an answer: `time` and `columns`."""
    schema = {name: _STORED[name] for name in ("time", *columns)}
    if not answer.body.strip():
        return pl.DataFrame(schema=schema)
    return pl.read_csv(answer.body, columns=list(schema), schema_overrides=schema).select(list(schema))
