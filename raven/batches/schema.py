"""The Arrow schemas of trades and bars: what flows on the wire, lies in journals and is stored.

Times are `timestamp[us, UTC]`; prices are quote per base unit, quantities base units, float64.
"""

from __future__ import annotations

from typing import Final

import polars as pl
import pyarrow as pa

from raven.errors import InputError

SCHEMA_VERSION: Final = "2"
"""Of all schemas here together; a journal of another version is refused.

2: expected_size and expected_imbalance of TIB_SCHEMA may be null, for bars that expect nothing.
"""

BUY: Final = 1
SELL: Final = -1

ORIGIN_LIVE: Final = 0
ORIGIN_REST: Final = 1
ORIGIN_ARCHIVE: Final = 2

_TIMESTAMP = pa.timestamp("us", tz="UTC")

TRADE_SCHEMA: Final = pa.schema(
    [
        pa.field("symbol", pa.string(), nullable=False),
        pa.field("trade_id", pa.int64(), nullable=False),
        pa.field("ts_event", _TIMESTAMP, nullable=False),
        pa.field("ts_recv", _TIMESTAMP, nullable=False),
        pa.field("price", pa.float64(), nullable=False),
        pa.field("quantity", pa.float64(), nullable=False),
        pa.field("side", pa.int8(), nullable=False),
        pa.field("origin", pa.int8(), nullable=False),
    ]
)
"""One trade a row: `side` is the aggressor (+1 buy, -1 sell), `origin` 0 live, 1 REST, 2 archive."""

_BAR_FIELDS = [
    pa.field("venue", pa.string(), nullable=False),
    pa.field("symbol", pa.string(), nullable=False),
    pa.field("spec", pa.string(), nullable=False),
    pa.field("open_time", _TIMESTAMP, nullable=False),
    pa.field("close_time", _TIMESTAMP, nullable=False),
    pa.field("open", pa.float64(), nullable=False),
    pa.field("high", pa.float64(), nullable=False),
    pa.field("low", pa.float64(), nullable=False),
    pa.field("close", pa.float64(), nullable=False),
    pa.field("volume", pa.float64(), nullable=False),
    pa.field("quote_volume", pa.float64(), nullable=False),
    pa.field("vwap", pa.float64(), nullable=False),
    pa.field("buy_volume", pa.float64(), nullable=False),
    pa.field("buy_quote_volume", pa.float64(), nullable=False),
    pa.field("buy_ticks", pa.int64(), nullable=False),
    pa.field("sell_ticks", pa.int64(), nullable=False),
    pa.field("total_ticks", pa.int64(), nullable=False),
    pa.field("first_trade_id", pa.int64()),
    pa.field("last_trade_id", pa.int64()),
    pa.field("complete", pa.bool_()),
    pa.field("revision", pa.int64(), nullable=False),
]

TIME_BAR_SCHEMA: Final = pa.schema(_BAR_FIELDS)
"""One time bar a row; identity (venue, symbol, spec, open_time); `close_time` is exclusive.

`first_trade_id`, `last_trade_id` and `complete` are null only where the trades carried no ids.
"""

TIB_SCHEMA: Final = pa.schema(
    [
        *_BAR_FIELDS,
        pa.field("theta", pa.float64(), nullable=False),
        pa.field("threshold", pa.float64(), nullable=False),
        pa.field("expected_size", pa.float64()),
        pa.field("expected_imbalance", pa.float64()),
    ]
)
"""One bar that a trade closed a row, not the clock; identity (venue, symbol, spec, first_trade_id).

`theta` is the imbalance it closed with, buys less sells. `threshold` is what it closed on: a tick imbalance bar's bound
of |theta|, with the expected_size and expected_imbalance it is made of; the size of a tick, volume or dollar bar, which
expects nothing (null). `close_time` is the last trade's time.
"""


def polars_schema(schema: pa.Schema) -> dict[str, pl.DataType]:
    """The Polars column types of an Arrow schema, in order."""
    return dict(pl.from_arrow(schema.empty_table()).schema)  # type: ignore[union-attr]


TRADE_DTYPES: Final = polars_schema(TRADE_SCHEMA)
TIME_BAR_DTYPES: Final = polars_schema(TIME_BAR_SCHEMA)
TIB_DTYPES: Final = polars_schema(TIB_SCHEMA)


def stream_schema(schema: pa.Schema, *, kind: str, venue: str) -> pa.Schema:
    """`schema` with what belongs to a whole stream in its metadata: `kind`, `venue` (empty for bars), version."""
    return schema.with_metadata({"raven.kind": kind, "raven.venue": venue, "raven.schema_version": SCHEMA_VERSION})


def to_record_batch(frame: pl.DataFrame, schema: pa.Schema) -> pa.RecordBatch:
    """`frame` as one record batch of exactly `schema`; columns are selected by name.

    Raises InputError when a column is missing, of a type that does not cast, or null where `schema` forbids it.
    """
    missing = [name for name in schema.names if name not in frame.columns]
    if missing:
        raise InputError(f"columns missing: {', '.join(missing)}", hint=f"needed: {', '.join(schema.names)}")
    table = frame.select(schema.names).to_arrow()
    for field in schema:
        if not field.nullable and table.column(field.name).null_count:
            raise InputError(f"column {field.name} holds {table.column(field.name).null_count} nulls")
    try:
        table = table.cast(schema)
    except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError) as error:  # all say: there is no such cast
        raise InputError(f"columns do not fit the schema: {error}") from error
    batches = table.combine_chunks().to_batches()
    return batches[0] if batches else pa.RecordBatch.from_pylist([], schema=schema)


def to_frame(batch: pa.RecordBatch) -> pl.DataFrame:
    """A record batch as a Polars frame, without copying numbers."""
    frame = pl.from_arrow(batch)
    assert isinstance(frame, pl.DataFrame)
    return frame
