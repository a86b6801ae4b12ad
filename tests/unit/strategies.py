"""Trades for tests of bars: drawn by hypothesis, made by hand, and read from recordings."""

from __future__ import annotations

import itertools
import json
import zipfile
from collections.abc import Iterable, Sequence
from pathlib import Path

import polars as pl
from hypothesis import strategies as st

from raven.bars.kernel import Kernel
from raven.batches.batch import TradeBatch
from raven.batches.schema import TRADE_DTYPES, polars_schema
from tests.unit.oracles import Trade

VENUE = "BINANCE_SPOT"
START_US = 1_700_000_000_000_000
SYMBOLS = ("BTCUSDT", "ETHUSDT", "币安人生USDT")


@st.composite
def trade_streams(draw, *, max_trades: int = 60, gaps: bool = True, ids: bool = True) -> list[Trade]:
    """Interleaved trades of up to three symbols: sequence-checked, with gaps, late times and shared moments."""
    rows = draw(
        st.lists(
            st.tuples(
                st.sampled_from(SYMBOLS),
                st.sampled_from([1, 1, 1, 1, 1, 1, 2, 40] if gaps else [1]),
                st.sampled_from([-700_000, -1, 0, 0, 0, 1, 90_000, 400_000, 999_999, 3_000_000]),
                st.integers(1, 10_000),
                st.integers(0, 1_000_000),
                st.sampled_from([1, -1]),
            ),
            max_size=max_trades,
        )
    )
    last_ids: dict[str, int] = {}
    now_us = START_US
    trades = []
    for symbol, id_step, time_step, cents, micros, side in rows:
        last_ids[symbol] = last_ids.get(symbol, 0) + id_step
        now_us += time_step
        trade_id = last_ids[symbol] if ids else None
        trades.append(Trade(symbol, trade_id, now_us, cents / 100, micros / 1_000_000, side))
    return trades


def cuts(length: int) -> st.SearchStrategy[list[int]]:
    """Places to cut a list of `length` at, ascending; repeated places make empty batches."""
    return st.lists(st.integers(0, length), max_size=8).map(sorted)


def cut_at(trades: Sequence, places: Sequence[int]) -> list[Sequence]:
    edges = [0, *places, len(trades)]
    return [trades[start:end] for start, end in itertools.pairwise(edges)]


def frame_of(trades: Iterable[Trade]) -> pl.DataFrame:
    """As a kernel takes them."""
    rows = list(trades)
    times = pl.Series([row.ts_us for row in rows], dtype=pl.Int64).cast(TRADE_DTYPES["ts_event"])
    return pl.DataFrame(
        {
            "symbol": pl.Series([row.symbol for row in rows], dtype=pl.String),
            "trade_id": pl.Series([row.trade_id for row in rows], dtype=pl.Int64),
            "ts_event": times,
            "ts_recv": times,
            "price": pl.Series([row.price for row in rows], dtype=pl.Float64),
            "quantity": pl.Series([row.quantity for row in rows], dtype=pl.Float64),
            "side": pl.Series([row.side for row in rows], dtype=pl.Int8),
            "origin": pl.Series([0] * len(rows), dtype=pl.Int8),
        }
    )


def batch_of(trades: Iterable[Trade], watermark_us: int | None = None, held: Iterable[str] = ()) -> TradeBatch:
    return TradeBatch(VENUE, frame_of(trades), watermark_us, frozenset(held))


def run(kernel: Kernel, batches: Iterable[TradeBatch]) -> tuple[pl.DataFrame, pl.DataFrame]:
    """The state after, and all bars in the order they came out."""
    state = kernel.initial()
    out = [pl.DataFrame(schema=polars_schema(kernel.schema))]
    for batch in batches:
        state, bars = kernel.step(state, batch)
        out.append(bars)
    return state, pl.concat(out)


def run_frames(kernel: Kernel, frames: Iterable[pl.DataFrame]) -> tuple[pl.DataFrame, pl.DataFrame]:
    return run(kernel, (TradeBatch(VENUE, frame) for frame in frames))


def in_batches(trades: pl.DataFrame, rows: int) -> list[pl.DataFrame]:
    return [trades.slice(start, rows) for start in range(0, trades.height, rows)]


def archive_trades(folder: Path) -> pl.DataFrame:
    """Twelve hours of BTCUSDT on Binance spot, ids contiguous."""
    with zipfile.ZipFile(folder / "BTCUSDT-trades-2019-04-01_00h-12h.zip") as archive:
        data = archive.read(archive.namelist()[0])
    names = ["trade_id", "price", "quantity", "quote", "time_ms", "is_buyer_maker", "is_best"]
    rows = pl.read_csv(data, has_header=False, new_columns=names, schema_overrides={"is_buyer_maker": pl.String})
    return rows.select(
        symbol=pl.lit("BTCUSDT"),
        trade_id="trade_id",
        ts_event=(pl.col("time_ms") * 1000).cast(TRADE_DTYPES["ts_event"]),
        price="price",
        quantity="quantity",
        side=pl.when(pl.col("is_buyer_maker") == "True").then(-1).otherwise(1).cast(pl.Int8),
    )


def official_hours(folder: Path) -> list[list]:
    """The exchange's own 1h bars of the archive's hours."""
    return json.loads((folder / "BTCUSDT-1h-official-2019-04-01_00h-12h.json").read_text())


def collector_trades(folder: Path) -> list[pl.DataFrame]:
    """What a live collector stored of LTCUSDT, a frame a file: real outages, so real gaps."""
    frames = []
    for path in sorted(folder.glob("LTCUSDT_*_trades__*.csv.gz")):
        rows = pl.read_csv(path)
        frames.append(
            rows.select(
                symbol=pl.lit("LTCUSDT"),
                trade_id="tradeId",
                ts_event=(pl.col("timestamp") * 1000).cast(TRADE_DTYPES["ts_event"]),
                price="price",
                quantity="quantity",
                side=pl.when(pl.col("side") == "buy").then(1).otherwise(-1).cast(pl.Int8),
            )
        )
    return frames


def trades_of(frame: pl.DataFrame) -> list[Trade]:
    columns = frame.select("symbol", "trade_id", pl.col("ts_event").to_physical(), "price", "quantity", "side")
    return [Trade(*row) for row in columns.iter_rows()]
