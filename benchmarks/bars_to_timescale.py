"""Bars into TimescaleDB or PostgreSQL: the store (staging, upsert, positions) against psycopg, in one run.

python -m benchmarks.bars_to_timescale postgresql://user:password@host:port/database

Works in a schema of its own, which it drops at the end. Each way gets a table of its own with the same indexes, and
commits every flush.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable
from itertools import count
from pathlib import Path

import polars as pl
import psycopg

from raven.batches.batch import Cursor
from raven.batches.schema import TIME_BAR_DTYPES
from raven.settings import TimescaleSettings
from raven.sinks.dead_letters import DeadLetters
from raven.sinks.store import BarFlush
from raven.sinks.timescale import TimescaleBarStore
from raven.sinks.timescale.schema import init_db

SCHEMA = "raven_benchmark"
FLUSH_ROWS = 20_000
ROUNDS = 7
SYMBOLS = 200
BY_REVISION = (
    "ON CONFLICT (venue, symbol, spec, open_time) DO UPDATE SET "
    + ", ".join(f'"{name}" = excluded."{name}"' for name in TIME_BAR_DTYPES)
    + " WHERE excluded.revision > bar.revision"
)
BARS = ", ".join(f'"{name}"' for name in TIME_BAR_DTYPES)


def flush(number: int) -> pl.DataFrame:
    """Bars of `SYMBOLS` symbols, the next minutes of each."""
    row = pl.int_range(FLUSH_ROWS, eager=True).alias("row").to_frame()
    minute = number * (FLUSH_ROWS // SYMBOLS) + pl.col("row") // SYMBOLS
    opened = (
        pl.from_epoch(1_700_000_040 + minute * 60, time_unit="s").dt.replace_time_zone("UTC").dt.cast_time_unit("us")
    )
    figures = [name for name, dtype in TIME_BAR_DTYPES.items() if dtype == pl.Float64]
    return row.select(
        pl.lit("BINANCE_SPOT").alias("venue"),
        pl.format("SYM{}USDT", pl.col("row") % SYMBOLS).alias("symbol"),
        pl.lit("1m").alias("spec"),
        opened.alias("open_time"),
        (opened + pl.duration(minutes=1)).alias("close_time"),
        *((pl.col("row") / 7 + place).alias(name) for place, name in enumerate(figures)),
        buy_ticks=pl.lit(60),
        sell_ticks=pl.lit(40),
        total_ticks=pl.lit(100),
        first_trade_id=minute * 100,
        last_trade_id=minute * 100 + 99,
        complete=pl.lit(value=True),
        revision=pl.lit(201),
    ).select(pl.col(name).cast(dtype) for name, dtype in TIME_BAR_DTYPES.items())


def took_s(write: Callable[[pl.DataFrame], object], rows: pl.DataFrame) -> float:
    begun = time.perf_counter()
    write(rows)
    return time.perf_counter() - begun


def copy_into(connection: psycopg.Connection, table: str, rows: pl.DataFrame) -> None:
    with connection.cursor() as cursor, cursor.copy(f"COPY {table} ({BARS}) FROM STDIN") as copy:
        for row in rows.iter_rows():
            copy.write_row(row)
    connection.commit()


def insert_into(connection: psycopg.Connection, table: str, rows: pl.DataFrame, also: str = "") -> None:
    values = ", ".join(["%s"] * len(TIME_BAR_DTYPES))
    with connection.cursor() as cursor:
        cursor.executemany(f"INSERT INTO {table} AS bar ({BARS}) VALUES ({values}) {also}", rows.rows())
    connection.commit()


def equal_table(connection: psycopg.Connection, name: str, *, hypertable: bool) -> str:
    connection.execute(f"CREATE TABLE {name} (LIKE time_bars INCLUDING INDEXES)")
    if hypertable:
        made = f"create_hypertable('{name}', 'open_time', chunk_time_interval => interval '7 days'"
        connection.execute(f"SELECT public.{made}, create_default_indexes => false)")
    connection.commit()
    return name


def compare(url: str, folder: Path) -> dict[str, float]:
    """Rows a second of each way, the best flush: the others were disturbed; the ways take turns."""
    facts = init_db(url, timeout_s=10)
    print(f"PostgreSQL {facts.postgresql}, TimescaleDB {facts.timescaledb or 'none'}; flushes of {FLUSH_ROWS:,} rows")
    is_hypertable = bool(facts.hypertables)
    store = TimescaleBarStore(
        TimescaleSettings(url=url), "time_bars", writer="benchmark", dead_letters=DeadLetters(folder)
    )
    store.open()
    numbers = count()
    with psycopg.connect(url) as connection:
        copied = equal_table(connection, "copied", hypertable=is_hypertable)
        inserted = equal_table(connection, "inserted", hypertable=is_hypertable)
        upserted = equal_table(connection, "upserted", hypertable=is_hypertable)
        ways: dict[str, Callable[[pl.DataFrame], object]] = {
            "store": lambda rows: store.write(BarFlush([rows], {"up": Cursor("j", next(numbers))})),
            "psycopg COPY": lambda rows: copy_into(connection, copied, rows),
            "psycopg executemany": lambda rows: insert_into(connection, inserted, rows),
            "the same, by revision": lambda rows: insert_into(connection, upserted, rows, BY_REVISION),
        }
        took: dict[str, list[float]] = {name: [] for name in ways}
        for number in range(ROUNDS):
            rows = flush(number)
            for name, write in ways.items():
                took[name].append(took_s(write, rows))
    assert store.rows() == ROUNDS * FLUSH_ROWS
    store.close()
    return {name: FLUSH_ROWS / min(each) for name, each in took.items()}


def main(url: str) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(f"DROP SCHEMA IF EXISTS {SCHEMA} CASCADE")
        connection.execute(f"CREATE SCHEMA {SCHEMA}")
        try:
            with tempfile.TemporaryDirectory() as folder:
                there = f"{url}{'&' if '?' in url else '?'}options=-csearch_path%3D{SCHEMA}"
                rates = compare(there, Path(folder))
        finally:
            connection.execute(f"DROP SCHEMA {SCHEMA} CASCADE")
    for name, found in rates.items():
        print(f"{name:<22} {found:>9,.0f} rows/s   store / this = {rates['store'] / found:.1f}")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(sys.argv[1])
