"""The aggregator over a real journal: exactly one output per input, whatever is lost between two checkpoints."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import polars as pl
import pyarrow as pa
import pytest
from polars.testing import assert_frame_equal

from raven.aggregators.aggregator import Aggregator
from raven.aggregators.checkpoint import Checkpoint, Position, load, save
from raven.bars.tick_imbalance import TickImbalanceKernel
from raven.bars.time_bars import TimeBarKernel
from raven.batches.batch import BatchMeta, Cursor, Gap
from raven.batches.ipc import decode
from raven.batches.schema import TIME_BAR_SCHEMA, TRADE_SCHEMA, stream_schema, to_frame, to_record_batch
from raven.errors import StateError
from raven.journal import Journal
from raven.rpc.hub import Hub
from raven.telemetry import Telemetry
from tests.unit.samples import START, spot, trades

SCHEMA = stream_schema(TIME_BAR_SCHEMA, kind="time_bars", venue="")
UPSTREAM = "binance_spot"
SYMBOLS = ("BTCUSDT", "ETHUSDT")


def inputs(count: int) -> list[tuple[pa.RecordBatch, BatchMeta]]:
    """Input batches of both symbols, 20 trades each, a quarter of a second apart."""
    made = []
    for number in range(count):
        rows = pl.concat([trades(range(1 + 10 * number, 11 + 10 * number), symbol) for symbol in SYMBOLS])
        watermark_us = int(START.timestamp() * 1e6) + 250_000 * 10 * (number + 1)
        meta = BatchMeta(journal_id="upstream", sequence=number + 1, watermark_us=watermark_us)
        made.append((to_record_batch(rows, TRADE_SCHEMA), meta))
    return made


@asynccontextmanager
async def aggregating(
    folder: Path, symbols: Sequence[str] = SYMBOLS, seconds: int = 1
) -> AsyncIterator[tuple[Aggregator, Journal]]:
    with Journal.open(folder / "journal", SCHEMA) as journal:
        aggregator = Aggregator(
            [TimeBarKernel(seconds * 1_000_000)], Hub(journal), folder / "checkpoint.arrow",
            venues={UPSTREAM: "BINANCE_SPOT"}, schema=SCHEMA, telemetry=Telemetry("test"),
            joined=lambda *_: None,
        )  # fmt: skip
        aggregator.want(UPSTREAM, spot(*symbols))
        yield aggregator, journal


def published(folder: Path) -> pl.DataFrame:
    with Journal.open(folder / "journal", SCHEMA) as journal:
        entries = list(journal.read())
    cursors = [entry.meta.input for entry in entries]
    assert len(set(cursors)) == len(cursors), "at most one output batch an input batch"
    return pl.concat([to_frame(decode(entry.payload)[0]) for entry in entries])


@pytest.mark.slow
async def test_crash_anywhere_publishes_what_an_undisturbed_run_publishes(tmp_path: Path) -> None:
    batches = inputs(12)
    async with aggregating(tmp_path / "calm") as (aggregator, _):
        for batch, meta in batches:
            await aggregator.take(UPSTREAM, batch, meta)
    expected = published(tmp_path / "calm")
    assert expected.height >= 2 * 25
    for saved_after in range(0, 12, 3):
        for crashed_after in range(saved_after, 12, 2):
            folder = tmp_path / f"{saved_after}-{crashed_after}"
            async with aggregating(folder) as (aggregator, _):
                for number, (batch, meta) in enumerate(batches[:crashed_after]):
                    if number == saved_after:
                        await aggregator.save()
                    await aggregator.take(UPSTREAM, batch, meta)
            async with aggregating(folder) as (aggregator, _):
                position = aggregator.position(UPSTREAM)
                begin = 0 if position is None else position.sequence
                for number, (batch, meta) in enumerate(batches[begin:]):
                    await aggregator.take(UPSTREAM, batch, meta)
                    if number == 1:
                        await aggregator.save()  # a checkpoint in the middle of recovering
            assert_frame_equal(published(folder), expected)


async def test_a_symbol_that_joins_later_catches_up_and_nothing_counts_twice(tmp_path: Path) -> None:
    batches = inputs(12)
    async with aggregating(tmp_path / "calm") as (aggregator, _):
        for batch, meta in batches:
            await aggregator.take(UPSTREAM, batch, meta)
    newest = ["symbol", "open_time"]
    expected = (
        published(tmp_path / "calm").sort("revision").unique(newest, keep="last", maintain_order=True).sort(newest)
    )
    async with aggregating(tmp_path / "late", ["BTCUSDT"]) as (aggregator, _):
        for batch, meta in batches[:7]:
            await aggregator.take(UPSTREAM, batch, meta)
        aggregator.want(UPSTREAM, spot("ETHUSDT"))
        await aggregator.rewind(UPSTREAM, Cursor("upstream", 0), spot("ETHUSDT"))
        assert aggregator.position(UPSTREAM) == Cursor("upstream", 0)
        for batch, meta in batches:
            await aggregator.take(UPSTREAM, batch, meta)
    with Journal.open(tmp_path / "late" / "journal", SCHEMA) as journal:
        bars = pl.concat([to_frame(decode(entry.payload)[0]) for entry in journal.read()])
    late = bars.sort("revision").unique(newest, keep="last", maintain_order=True).sort(newest)
    assert_frame_equal(late, expected)


async def test_rewind_never_goes_forward(tmp_path: Path) -> None:
    async with aggregating(tmp_path) as (aggregator, _):
        for batch, meta in inputs(3):
            await aggregator.take(UPSTREAM, batch, meta)
        await aggregator.rewind(UPSTREAM, Cursor("upstream", 9), spot("BTCUSDT"))
        assert aggregator.position(UPSTREAM) == Cursor("upstream", 3)
        await aggregator.rewind(UPSTREAM, Cursor("another", 1), spot("BTCUSDT"))
        assert aggregator.position(UPSTREAM) == Cursor("upstream", 3)


async def test_stop_publishes_the_open_bar_incomplete(tmp_path: Path) -> None:
    async with aggregating(tmp_path, seconds=3600) as (aggregator, journal):
        batch, meta = inputs(1)[0]
        await aggregator.take(UPSTREAM, batch, meta)
        assert journal.last_sequence == 0
        await aggregator.leave(UPSTREAM, spot("ETHUSDT"))
    bars = published(tmp_path)
    assert bars.select("symbol", "total_ticks", "complete").rows() == [("ETHUSDT", 10, False)]


async def test_repeated_rows_are_dropped_and_counted(tmp_path: Path) -> None:
    async with aggregating(tmp_path) as (aggregator, _):
        batch, meta = inputs(1)[0]
        await aggregator.take(UPSTREAM, batch, meta)
        await aggregator.take(UPSTREAM, batch, BatchMeta(journal_id="upstream", sequence=2))
        assert aggregator._telemetry.totals["duplicate_rows"] == 20
        assert [aggregator.facts.of("BINANCE_SPOT", symbol).duplicates for symbol in SYMBOLS] == [10, 10]


async def test_gaps_and_held_symbols_are_told_of_what_is_collected_here(tmp_path: Path) -> None:
    async with aggregating(tmp_path) as (aggregator, _):
        batch, meta = inputs(1)[0]
        gaps = (Gap("BTCUSDT", 20, 25), Gap("OTHERUSDT", 1, 5))
        told = BatchMeta("upstream", 1, watermark_us=meta.watermark_us, held=("ETHUSDT", "OTHERUSDT"), gaps=gaps)
        await aggregator.take(UPSTREAM, batch, told)
        totals = aggregator._telemetry.totals
        assert (totals["gaps"], totals["missing_ids"]) == (1, 4)
        facts = {symbol: aggregator.facts.of("BINANCE_SPOT", symbol) for symbol in (*SYMBOLS, "OTHERUSDT")}
        assert {symbol: (known.gaps, known.held) for symbol, known in facts.items()} == {
            "BTCUSDT": (1, False), "ETHUSDT": (0, True), "OTHERUSDT": (0, False),
        }  # fmt: skip


def test_checkpoint_round_trip_and_damage(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.arrow"
    assert load(path) == Checkpoint()
    kernel = TickImbalanceKernel()
    checkpoint = Checkpoint(
        {UPSTREAM: Position(Cursor("j", 7), {"币安人生USDT": 5}, Cursor("j", 9))},
        {(UPSTREAM, kernel.spec): b"state"},
        42,
    )
    save(path, checkpoint)
    assert load(path) == checkpoint
    whole = path.read_bytes()
    for damaged in (whole[:-30], whole[:40], b"", b"not a checkpoint"):
        path.write_bytes(damaged)
        with pytest.raises(StateError, match="damaged"):
            load(path)


async def test_late_rows_are_counted_once_however_many_kernels(tmp_path: Path) -> None:
    rows = trades(range(10)).with_columns(pl.col("ts_event").reverse())
    async with aggregating(tmp_path) as (aggregator, _):
        await aggregator.take(UPSTREAM, to_record_batch(rows, TRADE_SCHEMA), BatchMeta("upstream", 1))
        assert aggregator._telemetry.totals["late_rows"] == 9
