"""Journals written by hand, with everything in them that nobody may store, for the tests of who reads them."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa

from raven.batches.batch import BatchMeta
from raven.batches.ipc import decode
from raven.batches.schema import TRADE_DTYPES, TRADE_SCHEMA, polars_schema, stream_schema
from raven.journal import Journal
from raven.sinks.store import BAR_SCHEMAS, BarKind
from tests.unit.store_compliance import SPOT, some_bars, some_trades

NAN, INF = float("nan"), float("inf")
SYMBOL = "BTCUSDT"
PRICE = "price: a price is a finite number above 0"
QUANTITY = "quantity: a quantity is a finite number above 0, as is price times quantity"
SIDE = "side: a side is +1 or -1, buy or sell, or is_buyer_maker true or false"
ID = "trade_id: an id is a whole number from 0 to 2^63-1"
NAME = "symbol: a symbol has 1 to 64 letters, none of them blank or a control character"
TIME = "ts_event: a time lies between 2009 and tomorrow"
RECEIVED = "ts_recv: a time lies between 2009 and tomorrow"
WHOLE = "origin: it is not whole"
AHEAD = datetime.now(UTC) + timedelta(days=400)
LONG_AGO = datetime(1650, 1, 1, tzinfo=UTC)

BAD_TRADES: list[tuple[dict[str, Any], str]] = [
    *(({"price": value}, PRICE) for value in (NAN, INF, -INF, -1.0, 0.0, None)),
    *(({"quantity": value}, QUANTITY) for value in (NAN, INF, -INF, -1.0, 0.0, None)),
    *(({"side": value}, SIDE) for value in (0, 2, -128, None)),
    *(({"trade_id": value}, ID) for value in (-1, -(2**63), None)),
    *(({"symbol": value}, NAME) for value in ("", None)),
    *(({"ts_event": value}, TIME) for value in (AHEAD, LONG_AGO, datetime(2008, 12, 31, tzinfo=UTC), None)),
    *(({"ts_recv": value}, RECEIVED) for value in (AHEAD, None)),
    *(({"origin": value}, WHOLE) for value in (9, -1, None)),
]
"""What is wrong in a row, and the reason that its dead letter has."""

BAD_BARS: list[tuple[dict[str, Any], str]] = [
    *(({name: value}, name) for name in ("open", "high", "low", "close", "volume") for value in (NAN, INF, -1.0, 0.0, None)),
    *(({name: value}, name) for name in ("quote_volume", "vwap", "buy_volume", "buy_quote_volume") for value in (NAN, -1.0, None)),
    *(({name: value}, name) for name in ("buy_ticks", "sell_ticks", "total_ticks", "revision") for value in (-1, None)),
    *(({name: value}, name) for name in ("venue", "symbol", "spec") for value in ("", None)),
    ({"spec": "1\0m"}, "spec"),
    ({"high": 1e-9}, "high"),
    ({"low": 1e9}, "low"),
    ({"open_time": None}, "open_time"),
    ({"open_time": AHEAD}, "open_time"),
    ({"open_time": LONG_AGO}, "open_time"),
    ({"close_time": None}, "close_time"),
    ({"close_time": datetime(2020, 1, 1, tzinfo=UTC)}, "close_time"),
    ({"close_time": datetime(2300, 1, 1, tzinfo=UTC)}, "close_time"),
    ({"first_trade_id": -1}, "first_trade_id"),
]  # fmt: skip
"""What is wrong in a bar, and the column that its dead letter's reason names."""

OTHER_SCHEMAS: list[pa.Schema] = [
    pa.schema([field for field in TRADE_SCHEMA if field.name != "price"]),
    pa.schema([field.with_type(pa.string()) if field.name == "price" else field for field in TRADE_SCHEMA]),
    pa.schema([field for field in TRADE_SCHEMA if field.name != "symbol"]),
    pa.schema([("nonsense", pa.list_(pa.int8()))]),
]
"""Of batches that are of another kind than their stream says."""


def good_trades() -> pl.DataFrame:
    """As many good trades as there are bad ones, and one more, with the odd ids."""
    return some_trades(SYMBOL, 0, 2 * len(BAD_TRADES) + 1).gather_every(2)


def bad_trades() -> pl.DataFrame:
    """A row of each kind that is bad, with the even ids between those of the good ones where the id is not what is bad."""
    rows = some_trades(SYMBOL, 0, 2 * len(BAD_TRADES) + 1).gather_every(2, 1).to_dicts()
    spoilt = [{**row, **wrong} for row, (wrong, _) in zip(rows, BAD_TRADES, strict=True)]
    return pl.DataFrame(spoilt, schema=TRADE_DTYPES)


def write_trades(folder: Path) -> int:
    """A journal of trades, good and bad in turn, with batches of another kind among them; how many batches of these."""
    good, bad = good_trades(), bad_trades()
    stream = stream_schema(TRADE_SCHEMA, kind="trades", venue=SPOT)
    parts = [pl.concat([good[at : at + 5], bad[at : at + 5]]) for at in range(0, good.height, 5)]
    half = len(parts) // 2
    _append(folder, stream, [_batch(part, TRADE_SCHEMA) for part in parts[:half]])
    for other in OTHER_SCHEMAS:
        schema = other.with_metadata(stream.metadata)
        _append(
            folder, schema, [pa.RecordBatch.from_arrays([pa.nulls(3, field.type) for field in other], schema=schema)]
        )
    _append(folder, stream, [_batch(part, TRADE_SCHEMA) for part in parts[half:]])
    return len(OTHER_SCHEMAS)


def good_bars(kind: BarKind) -> pl.DataFrame:
    """As many good bars as there are bad ones."""
    return _bars(kind, range(0, 2 * len(BAD_BARS), 2))


def bad_bars(kind: BarKind) -> pl.DataFrame:
    """A bar of each kind that is bad, between the good ones."""
    rows = _bars(kind, range(1, 2 * len(BAD_BARS), 2)).to_dicts()
    spoilt = [{**row, **wrong} for row, (wrong, _) in zip(rows, BAD_BARS, strict=True)]
    return pl.DataFrame(spoilt, schema=polars_schema(BAR_SCHEMAS[kind]))


def _bars(kind: BarKind, numbers: range) -> pl.DataFrame:
    """Bars whose prices fit each other."""
    return some_bars(kind, numbers).with_columns(open=10.0, high=12.5, low=9.25, close=11.0)


def write_bars(folder: Path, kind: BarKind) -> None:
    """A journal of bars, good and bad in turn, and one batch of another kind."""
    good, bad = good_bars(kind), bad_bars(kind)
    stream = stream_schema(BAR_SCHEMAS[kind], kind=kind, venue="")
    parts = [pl.concat([good[at : at + 7], bad[at : at + 7]]) for at in range(0, good.height, 7)]
    _append(folder, stream, [_batch(part, BAR_SCHEMAS[kind]) for part in parts[:3]])
    other = pa.schema([field for field in BAR_SCHEMAS[kind] if field.name != "close"], metadata=stream.metadata)
    _append(folder, other, [pa.RecordBatch.from_arrays([pa.nulls(3, field.type) for field in other], schema=other)])
    _append(folder, stream, [_batch(part, BAR_SCHEMAS[kind]) for part in parts[3:]])


def read(folder: Path, schema: pa.Schema, *, kind: str, venue: str) -> Iterator[tuple[pa.RecordBatch, BatchMeta]]:
    """The batches of a journal as a consumer gets them."""
    with Journal.open(folder, stream_schema(schema, kind=kind, venue=venue)) as journal:
        yield from (decode(entry.payload) for entry in journal.read())


def _batch(rows: pl.DataFrame, schema: pa.Schema) -> pa.RecordBatch:
    """As `schema`, whose promise that nothing is null nobody keeps."""
    arrays = [rows.get_column(field.name).to_arrow().cast(field.type) for field in schema]
    return pa.RecordBatch.from_arrays(arrays, schema=schema)


def _append(folder: Path, schema: pa.Schema, batches: list[pa.RecordBatch]) -> None:
    with Journal.open(folder, schema) as journal:
        for batch in batches:
            journal.append(batch, BatchMeta())
