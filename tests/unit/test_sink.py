"""The sink's loop over the real store: flushes, positions, a store that is down for a while, shutdown."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import polars as pl
import pytest

from raven.batches.batch import BatchMeta, Cursor
from raven.batches.instrument import Instrument
from raven.batches.schema import TRADE_SCHEMA, to_record_batch
from raven.rpc.subscriptions import SubscriptionTable
from raven.sinks import sink as sinks
from raven.sinks import worker as workers
from raven.sinks.dead_letters import DeadLetters
from raven.sinks.delta import DeltaTradeStore
from raven.sinks.sink import FlushLimits
from raven.sinks.store import StoreRefusedError, StoreUnavailableError, TradeFlush, WriteResult
from raven.sinks.trade_sink import TradeSink
from raven.telemetry import Telemetry
from tests.unit.samples import spot, trades

UPSTREAM = "binance_spot"


class FlakyStore(DeltaTradeStore):
    """The real store, which cannot be reached for the first `failures` writes, and fails to open, or to tell positions, so often."""

    failures = 0
    failing_opens = 0
    failing_positions = 0
    error: StoreUnavailableError = StoreUnavailableError("the disk is away")
    hangs: threading.Event | None = None

    def open(self) -> None:
        if self.failing_opens:
            self.failing_opens -= 1
            raise self.error
        super().open()

    def position(self, upstream: str) -> Cursor | None:
        if self.failing_positions:
            self.failing_positions -= 1
            raise self.error
        return super().position(upstream)

    def write(self, flush: TradeFlush) -> WriteResult:
        if self.hangs is not None:
            self.hangs.wait(60)
        if self.failures:
            self.failures -= 1
            raise self.error
        return super().write(flush)


class Recorder:
    """What the sink told others."""

    def __init__(self) -> None:
        self.acknowledged: list[Cursor] = []
        self.joined: list[Instrument] = []
        self.left: list[Instrument] = []

    async def acknowledge(self, upstream: str, cursor: Cursor) -> None:
        assert upstream == UPSTREAM
        self.acknowledged.append(cursor)

    def note_joined(self, upstream: str, instruments: Sequence[Instrument]) -> None:
        assert upstream == UPSTREAM
        self.joined.extend(instruments)

    def note_left(self, upstream: str, instruments: Sequence[Instrument]) -> None:
        assert upstream == UPSTREAM
        self.left.extend(instruments)


@asynccontextmanager
async def sinking(
    folder: Path, *, rows: int = 100, age_s: float = 30, failures: int = 0
) -> AsyncIterator[tuple[TradeSink, Recorder]]:
    store, recorder = FlakyStore(folder / "delta"), Recorder()
    store.failures = failures
    sink = TradeSink(
        store, FlushLimits(rows, age_s, 600), venues={UPSTREAM: "BINANCE_SPOT"}, facts=SubscriptionTable(),
        dead_letters=DeadLetters(folder / "dead"), telemetry=Telemetry("test"), joined=recorder.note_joined, left=recorder.note_left,
    )  # fmt: skip
    sink.acknowledge = recorder.acknowledge
    sink.want(UPSTREAM, spot("BTCUSDT"))
    run = asyncio.ensure_future(sink.run())
    await sink.ready.wait()
    try:
        yield sink, recorder
    finally:
        run.cancel()
        await asyncio.gather(run, return_exceptions=True)
        await sink.close()


async def until_stored(sink: TradeSink, rows: int) -> None:
    async with asyncio.timeout(20):
        while sink._telemetry.totals.get("stored_rows", 0) < rows:
            await asyncio.sleep(0.01)


async def feed(sink: TradeSink, sequences: range, symbol: str = "BTCUSDT") -> None:
    """Ten trades a batch."""
    for number in sequences:
        batch = to_record_batch(trades(range(10 * number, 10 * number + 10), symbol), TRADE_SCHEMA)
        await sink.take(UPSTREAM, batch, BatchMeta(journal_id="j", sequence=number))


def stored(folder: Path) -> list[int]:
    return pl.scan_delta(str(folder / "delta" / "trades")).collect().get_column("trade_id").sort().to_list()


async def until(recorder: Recorder, count: int) -> None:
    async with asyncio.timeout(15):
        while len(recorder.acknowledged) < count:
            await asyncio.sleep(0.01)


async def test_a_flush_is_due_by_rows_and_acknowledged_after_it_is_stored(tmp_path: Path) -> None:
    async with sinking(tmp_path) as (sink, recorder):
        await feed(sink, range(1, 11))
        await until(recorder, 1)
        assert stored(tmp_path) == list(range(10, 110))
        assert recorder.acknowledged == [Cursor("j", 10)]


async def test_a_flush_is_due_by_age(tmp_path: Path) -> None:
    async with sinking(tmp_path, age_s=0.1) as (sink, recorder):
        await feed(sink, range(1, 2))
        await until(recorder, 1)
        assert stored(tmp_path) == list(range(10, 20))


async def test_a_store_that_is_down_is_waited_for_and_nothing_is_lost_or_doubled(tmp_path: Path) -> None:
    async with sinking(tmp_path, failures=3) as (sink, recorder):
        await asyncio.wait_for(feed(sink, range(1, 61)), 20)
        await until(recorder, 1)
        assert sink._telemetry.totals["retries"] == 3
    assert stored(tmp_path) == list(range(10, 610))


async def test_a_flush_stores_the_position_of_its_own_rows_whatever_was_taken_since(tmp_path: Path) -> None:
    async with sinking(tmp_path, failures=1) as (sink, recorder):
        await feed(sink, range(1, 11))
        async with asyncio.timeout(10):
            while not sink.problem:
                await asyncio.sleep(0.001)
        await feed(sink, range(11, 16))
        await until(recorder, 1)
        assert recorder.acknowledged == [Cursor("j", 10)]
        assert sink.worker.store.position(UPSTREAM) == Cursor("j", 10)


async def test_what_is_wanted_again_has_not_left_with_the_flush_under_way(tmp_path: Path) -> None:
    async with sinking(tmp_path, failures=1) as (sink, recorder):
        await feed(sink, range(1, 11))
        await sink.leave(UPSTREAM, spot("BTCUSDT"))
        async with asyncio.timeout(10):
            while not sink.problem:
                await asyncio.sleep(0.001)
        sink.want(UPSTREAM, spot("BTCUSDT"))
        await feed(sink, range(11, 16))
        await sink.leave(UPSTREAM, spot("BTCUSDT"))
        await until(recorder, 1)
        assert recorder.left == []
        await sink.flush()
        assert recorder.left == spot("BTCUSDT")


async def test_a_store_that_is_down_is_logged_once_and_when_it_is_back(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    async with sinking(tmp_path, failures=3) as (sink, recorder):
        await asyncio.wait_for(feed(sink, range(1, 61)), 20)
        await until(recorder, 1)
        await until_stored(sink, 600)
        told = sink._telemetry.snapshot()
    events = [(record.raven_event, record.raven_fields) for record in caplog.records if record.name == "raven.test"]
    assert events == [("store_unavailable", {}), ("store_back", {"unlogged_repeats": 2})]
    assert told['raven_events_total{event="store_unavailable",level="warning"}'] == 3
    assert told['raven_retries_total{store="delta/trades"}'] == 3
    assert told['raven_flush_seconds_count{store="delta/trades"}'] >= 1
    assert told['raven_pending_rows{queue="delta/trades"}'] == 0


async def test_reading_stops_while_the_buffer_is_full(tmp_path: Path) -> None:
    async with sinking(tmp_path, failures=10**6) as (sink, _):
        feeding = asyncio.ensure_future(feed(sink, range(1, 10_000)))
        await asyncio.sleep(0.5)
        assert not feeding.done()
        assert sink._rows.rows <= 100 * sinks.BUFFER_FLUSHES + 10
        feeding.cancel()
        sink._store.failures = 0  # type: ignore[attr-defined]


async def test_shutdown_writes_what_is_buffered_and_a_restart_goes_on(tmp_path: Path) -> None:
    async with sinking(tmp_path) as (sink, _):
        await feed(sink, range(1, 4))
    async with sinking(tmp_path) as (sink, _):
        assert sink.position(UPSTREAM) == Cursor("j", 3)
        await feed(sink, range(3, 6))
    assert stored(tmp_path) == list(range(10, 60))


async def test_shutdown_in_the_middle_of_a_failing_flush_keeps_the_old_position(tmp_path: Path) -> None:
    async with sinking(tmp_path, failures=10**6) as (sink, _):
        await feed(sink, range(1, 12))
        await asyncio.sleep(0.3)  # the flush is being tried
        await feed(sink, range(12, 14))
    async with sinking(tmp_path) as (sink, _):
        assert sink.position(UPSTREAM) is None, "rows of the flush that was cut short must come again"


async def test_a_flush_cut_short_is_written_first_when_the_store_is_back(tmp_path: Path) -> None:
    async with sinking(tmp_path, failures=10**6) as (sink, _):
        await feed(sink, range(1, 12))
        await asyncio.sleep(0.3)  # the flush is being tried, and is cut short
        await feed(sink, range(12, 14))
        assert sink.problem == "delta/trades: the disk is away"
        sink._store.failures = 0  # type: ignore[attr-defined]
        await asyncio.sleep(0)
    assert stored(tmp_path) == list(range(10, 140))
    async with sinking(tmp_path) as (sink, _):
        assert sink.position(UPSTREAM) == Cursor("j", 13)


async def test_a_quiet_symbol_moves_the_position(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sinks, "POSITION_S", 0.2)
    async with sinking(tmp_path) as (sink, recorder):
        await feed(sink, range(1, 6), "ETHUSDT")
        await until(recorder, 1)
        assert recorder.acknowledged == [Cursor("j", 5)]
    async with sinking(tmp_path) as (sink, _):
        assert sink.position(UPSTREAM) == Cursor("j", 5)


async def test_a_symbol_that_joins_goes_back_and_joins_with_the_next_flush(tmp_path: Path) -> None:
    async with sinking(tmp_path) as (sink, recorder):
        await feed(sink, range(1, 11))
        await until(recorder, 1)
        sink.want(UPSTREAM, spot("ETHUSDT"))
        await sink.rewind(UPSTREAM, Cursor("j", 4), spot("ETHUSDT"))
        assert sink.position(UPSTREAM) == Cursor("j", 4)
        assert recorder.joined == []
        await feed(sink, range(5, 15))
        await until(recorder, 2)
        assert recorder.joined == spot("ETHUSDT")
    assert stored(tmp_path) == list(range(10, 150))


def a_sink(store: FlakyStore, *, probe_s: float = 30.0) -> TradeSink:
    sink = TradeSink(
        store, FlushLimits(100, 0.05, probe_s=probe_s), venues={UPSTREAM: "BINANCE_SPOT"}, facts=SubscriptionTable(),
        dead_letters=DeadLetters(store._table.path.parent / "dead"), telemetry=Telemetry("test"), joined=lambda _, __: None,
    )  # fmt: skip
    sink.want(UPSTREAM, spot("BTCUSDT"))
    return sink


async def test_a_store_that_is_down_at_the_start_is_opened_when_it_is_back(tmp_path: Path) -> None:
    store = FlakyStore(tmp_path / "delta")
    store.failing_opens = 3
    sink = a_sink(store)
    run = asyncio.ensure_future(sink.run())
    await asyncio.sleep(0.1)
    assert not sink.ready.is_set()
    assert sink.problem == "delta/trades: the disk is away"
    assert sink.worker.problem_since_us > 0
    async with asyncio.timeout(10):
        await sink.ready.wait()
    assert (sink.problem, sink.worker.problem_since_us) == ("", 0)
    assert sink.worker.last_error == "delta/trades: the disk is away"
    run.cancel()
    await asyncio.gather(run, return_exceptions=True)
    await sink.close()


async def test_a_store_whose_position_cannot_be_read_at_the_start_goes_on_when_it_can(tmp_path: Path) -> None:
    async with sinking(tmp_path) as (sink, _):
        await feed(sink, range(1, 4))
    store = FlakyStore(tmp_path / "delta")
    store.failing_positions = 2
    sink = a_sink(store, probe_s=0.1)
    run = asyncio.ensure_future(sink.run())
    async with asyncio.timeout(10):
        await sink.ready.wait()
    assert store.failing_positions == 0
    assert sink.position(UPSTREAM) == Cursor("j", 3)
    run.cancel()
    await asyncio.gather(run, return_exceptions=True)
    await sink.close()
    held = FlakyStore(tmp_path / "delta")
    held.open()  # the lock was let go of
    held.close()


async def test_a_sink_that_never_opened_closes_at_once(tmp_path: Path) -> None:
    store = FlakyStore(tmp_path / "delta")
    store.failing_opens = 10**6
    sink = a_sink(store)
    run = asyncio.ensure_future(sink.run())
    await asyncio.sleep(0.1)
    run.cancel()
    await asyncio.gather(run, return_exceptions=True)
    async with asyncio.timeout(10):
        await sink.close()


async def test_a_store_that_needs_mending_is_tried_now_and_then(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store = FlakyStore(tmp_path / "delta")
    store.failures, store.error = 4, StoreRefusedError("the password is wrong", hint="set timescale.url right")
    sink = a_sink(store, probe_s=0.3)
    run = asyncio.ensure_future(sink.run())
    await sink.ready.wait()
    began = time.monotonic()
    await feed(sink, range(1, 2))
    await until_stored(sink, 10)
    assert 4 * 0.3 * 0.9 <= time.monotonic() - began < 10
    [refused] = [record for record in caplog.records if getattr(record, "raven_event", "") == "store_refused"]
    assert refused.levelno == logging.ERROR
    assert "set timescale.url right" in refused.message
    run.cancel()
    await asyncio.gather(run, return_exceptions=True)
    await sink.close()


async def test_a_store_may_say_how_long_to_wait(tmp_path: Path) -> None:
    store = FlakyStore(tmp_path / "delta")
    store.failures, store.error = 1, StoreUnavailableError("slow down", retry_after_s=1.0)
    sink = a_sink(store)
    run = asyncio.ensure_future(sink.run())
    await sink.ready.wait()
    began = time.monotonic()
    await feed(sink, range(1, 2))
    await until_stored(sink, 10)
    assert time.monotonic() - began >= 1.0
    run.cancel()
    await asyncio.gather(run, return_exceptions=True)
    await sink.close()


async def test_a_store_that_hangs_does_not_hold_up_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sinks, "CLOSE_S", 0.5)
    store = FlakyStore(tmp_path / "delta")
    store.hangs = threading.Event()
    sink = a_sink(store)
    run = asyncio.ensure_future(sink.run())
    await sink.ready.wait()
    await feed(sink, range(1, 2))
    await asyncio.sleep(0.3)  # the flush hangs
    run.cancel()
    await asyncio.gather(run, return_exceptions=True)
    async with asyncio.timeout(5):
        await sink.close()
    assert stored(tmp_path) == []
    store.hangs.set()
    while store._table._lock is not None:
        await asyncio.sleep(0.01)  # the thread that was left behind ends


async def test_what_no_waiting_mends_is_told_and_ends_no_service(tmp_path: Path) -> None:
    held = FlakyStore(tmp_path / "delta")
    held.open()
    store = FlakyStore(tmp_path / "delta")
    sink = a_sink(store, probe_s=0.1)
    run = asyncio.ensure_future(sink.run())
    async with asyncio.timeout(10):
        while not sink.problem:
            await asyncio.sleep(0.01)
    assert "is being written by process" in sink.problem
    held.close()
    async with asyncio.timeout(10):
        await sink.ready.wait()
    assert not run.done()
    run.cancel()
    await asyncio.gather(run, return_exceptions=True)
    await sink.close()


async def test_a_store_that_does_not_answer_has_a_problem_before_it_gives_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workers, "SLOW_S", 0.2)
    store = FlakyStore(tmp_path / "delta")
    sink = a_sink(store)
    run = asyncio.ensure_future(sink.run())
    await sink.ready.wait()
    assert sink.problem == ""
    store.hangs = threading.Event()
    await feed(sink, range(1, 2))
    async with asyncio.timeout(10):
        while not sink.problem:
            await asyncio.sleep(0.01)
    assert sink.problem == "delta/trades: no answer for 0 s"
    assert sink.worker.problem_since_us > 0
    store.hangs.set()
    await until_stored(sink, 10)
    assert (sink.problem, sink.worker.problem_since_us) == ("", 0)
    run.cancel()
    await asyncio.gather(run, return_exceptions=True)
    await sink.close()


async def test_a_store_that_searches_says_so_instead_of_seeming_to_hang(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    class SearchingStore(FlakyStore):
        done = threading.Event()

        def write(self, flush: TradeFlush) -> WriteResult:
            self.report("looking for the rows that it does not take", settled=1_500, of=10_000)
            self.done.wait(60)
            return super().write(flush)

    monkeypatch.setattr(workers, "SLOW_S", 0.05)
    store = SearchingStore(tmp_path / "delta")
    sink = a_sink(store)
    run = asyncio.ensure_future(sink.run())
    await sink.ready.wait()
    with caplog.at_level(logging.WARNING):
        await feed(sink, range(1, 2))
        async with asyncio.timeout(20):
            while "looking" not in sink.problem:
                await asyncio.sleep(0.01)
    said = "delta/trades: looking for the rows that it does not take"
    assert sink.problem == f"{said} (settled: 1,500, of: 10,000)"
    assert any(said in record.getMessage() for record in caplog.records)
    store.done.set()
    await until_stored(sink, 10)
    assert sink.problem == ""
    run.cancel()
    await asyncio.gather(run, return_exceptions=True)
    await sink.close()


async def test_what_cannot_be_read_back_is_said_at_the_start(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    store = FlakyStore(tmp_path / "delta")
    store.unreadable = "the token may not read it"
    sink = a_sink(store)
    with caplog.at_level(logging.WARNING):
        await sink.open()
    await sink.close()
    assert "delta/trades is written: the token may not read it" in caplog.text
