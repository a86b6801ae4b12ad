"""What a journal holds never stops who reads it: bad rows go to the dead letters, and the others are stored."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import polars as pl
import pytest
from polars.testing import assert_frame_equal
from typer.testing import CliRunner

from raven.aggregators.aggregator import Aggregator
from raven.bars.time_bars import TimeBarKernel
from raven.batches import gate, intake
from raven.batches.batch import BatchMeta, Cursor
from raven.batches.ipc import decode
from raven.batches.schema import TIME_BAR_SCHEMA, TRADE_DTYPES, TRADE_SCHEMA, stream_schema, to_frame, to_record_batch
from raven.cli.raven import app
from raven.errors import InputError
from raven.journal import Journal
from raven.rpc.hub import Hub
from raven.rpc.subscriptions import SubscriptionTable
from raven.sinks.bar_sink import BarSink
from raven.sinks.dead_letters import BATCHES, FOLDER, DeadLetters, Letters
from raven.sinks.delta import DeltaBarStore, DeltaTradeStore
from raven.sinks.resend import groups
from raven.sinks.sink import FlushLimits, Sink
from raven.sinks.store import BAR_SCHEMAS, BarKind, BarStore, Refusal, TradeFlush, TradeStore, WriteResult
from raven.sinks.trade_sink import TradeSink
from raven.telemetry import Telemetry
from tests.unit import bad_journals as bad
from tests.unit.samples import START, spot, trades
from tests.unit.store_compliance import SPOT, as_stored, some_trades

TRADES_FROM = "binance_spot"
BARS_FROM = "bars"


@asynccontextmanager
async def running(sink: Sink[TradeStore] | Sink[BarStore], upstream: str) -> AsyncIterator[list[Cursor | None]]:
    """The sink over its store; what it acknowledged."""
    acknowledged: list[Cursor | None] = []

    async def acknowledge(upstream: str, cursor: Cursor | None) -> None:  # noqa: ARG001
        acknowledged.append(cursor)

    sink.acknowledge = acknowledge
    sink.want(upstream, spot(bad.SYMBOL))
    run = asyncio.ensure_future(sink.run())
    await sink.ready.wait()
    try:
        yield acknowledged
    finally:
        run.cancel()
        await asyncio.gather(run, return_exceptions=True)
        await sink.close()


def trade_sink(store: TradeStore, where: Path) -> TradeSink:
    return TradeSink(
        store, FlushLimits(20, 0.05), venues={TRADES_FROM: SPOT}, dead_letters=DeadLetters(where / FOLDER),
        facts=SubscriptionTable(), telemetry=Telemetry("test"), joined=lambda *_: None,
    )  # fmt: skip


def bar_sink(store: BarStore, where: Path) -> BarSink:
    return BarSink(
        store, FlushLimits(20, 0.05), upstreams=[BARS_FROM], dead_letters=DeadLetters(where / FOLDER),
        facts=SubscriptionTable(), telemetry=Telemetry("test"), joined=lambda *_: None,
    )  # fmt: skip


async def store_trades(store: TradeStore, where: Path) -> TradeSink:
    """A journal of good and bad trades through the sink of `store`."""
    if not (where / "journal").exists():
        bad.write_trades(where / "journal")
    others = len(bad.OTHER_SCHEMAS)
    batches = list(bad.read(where / "journal", TRADE_SCHEMA, kind="trades", venue=SPOT))
    sink = trade_sink(store, where)
    async with running(sink, TRADES_FROM) as acknowledged:
        for batch, meta in batches:
            await asyncio.wait_for(sink.take(TRADES_FROM, batch, meta), 60)
        await until_acknowledged(acknowledged, batches[-1][1].cursor)
        assert sink.problem == ""
    totals = sink._telemetry.totals
    assert totals["stored_rows"] == bad.good_trades().height
    assert totals["dead_rows"] == len(bad.BAD_TRADES) + 3 * others
    assert totals["refused_rows"] == totals["dead_rows"]
    assert totals["refused_batches"] == others
    return sink


async def store_bars(store: BarStore, where: Path) -> BarSink:
    """The like of `store_trades` with bars."""
    bad.write_bars(where / "journal", store.kind)
    sink = bar_sink(store, where)
    async with running(sink, BARS_FROM) as acknowledged:
        for batch, meta in bad.read(where / "journal", BAR_SCHEMAS[store.kind], kind=store.kind, venue=""):
            await asyncio.wait_for(sink.take(BARS_FROM, batch, meta), 60)
        await until_acknowledged(acknowledged, meta.cursor)
        assert sink.problem == ""
    assert sink._telemetry.totals["stored_rows"] == len(bad.BAD_BARS)
    assert sink._telemetry.totals["dead_rows"] == len(bad.BAD_BARS) + 3
    return sink


async def until_acknowledged(acknowledged: list[Cursor | None], cursor: Cursor) -> None:
    async with asyncio.timeout(60):
        while acknowledged[-1:] != [cursor]:
            await asyncio.sleep(0.01)


def assert_trade_letters(where: Path, store: str) -> None:
    """Every bad row is a dead letter with its reason and all that it held, and every strange batch with its place."""
    by_table = letters_of(where, store)
    rows = pl.concat([one.rows for one in by_table["trades"]])
    assert Counter(rows["reason"]) == Counter(reason for _, reason in bad.BAD_TRADES)
    assert Counter(rows["price"].cast(pl.String)) == Counter(bad.bad_trades()["price"].cast(pl.String))
    assert {"buy", "sell", "0", "2", "-128", None} == set(rows["side"])
    batches = pl.concat([one.rows for one in by_table[BATCHES]])
    assert batches["sequence"].is_duplicated().any() is False
    assert batches["rows"].to_list() == [3] * len(bad.OTHER_SCHEMAS)
    reasons = " ".join(batches["reason"])
    for said in ("price is missing", "price is string, not double", "symbol is missing"):
        assert said in reasons
    for payload, sequence in batches.select("batch", "sequence").iter_rows():
        batch, meta = decode(payload)
        assert (batch.num_rows, meta.sequence) == (3, sequence)


def assert_bar_letters(where: Path, store: str, kind: BarKind) -> None:
    rows = pl.concat([one.rows for one in letters_of(where, store)[kind]])
    assert Counter(reason.partition(":")[0] for reason in rows["reason"]) == Counter(name for _, name in bad.BAD_BARS)


def letters_of(where: Path, store: str) -> dict[str, list[Letters]]:
    found: dict[str, list[Letters]] = {}
    for one in DeadLetters(where / FOLDER).read():
        assert one.store == store
        found.setdefault(one.table, []).append(one)
    return found


async def test_trades_into_delta(tmp_path: Path) -> None:
    await store_trades(DeltaTradeStore(tmp_path / "delta"), tmp_path)
    assert_trade_letters(tmp_path, "delta")
    stored = pl.scan_delta(str(tmp_path / "delta" / "trades")).drop("date").collect()
    wanted = as_stored(SPOT, bad.good_trades())
    assert_frame_equal(stored.sort("trade_id"), wanted.select(stored.columns), check_exact=True)


@pytest.mark.parametrize("kind", list(BAR_SCHEMAS))
async def test_bars_into_delta(tmp_path: Path, kind: BarKind) -> None:
    await store_bars(DeltaBarStore(tmp_path / "delta", kind), tmp_path)
    assert_bar_letters(tmp_path, "delta", kind)
    stored = pl.scan_delta(str(tmp_path / "delta" / kind)).drop("date").collect()
    assert_frame_equal(stored.sort("first_trade_id"), bad.good_bars(kind).select(stored.columns), check_exact=True)


async def test_what_was_kept_before_a_crash_is_not_there_twice(tmp_path: Path) -> None:
    class DyingStore(DeltaTradeStore):
        def write(self, flush: TradeFlush) -> WriteResult:  # noqa: ARG002
            raise SystemExit

    bad.write_trades(tmp_path / "journal")
    batches = list(bad.read(tmp_path / "journal", TRADE_SCHEMA, kind="trades", venue=SPOT))
    sink = trade_sink(DyingStore(tmp_path / "delta"), tmp_path)
    sink.want(TRADES_FROM, spot(bad.SYMBOL))
    await sink.open()
    for batch, meta in batches[:3]:
        await sink.take(TRADES_FROM, batch, meta)
    with pytest.raises(SystemExit):
        await sink.flush()
    sink._in_flight = None
    await sink.worker.close(10)
    assert DeadLetters(tmp_path / FOLDER).read(), "they are kept before the store is written"
    await store_trades(DeltaTradeStore(tmp_path / "delta"), tmp_path)
    assert_trade_letters(tmp_path, "delta")


async def test_rows_of_symbols_that_nobody_wants_are_nobodys_dead_letters(tmp_path: Path) -> None:
    sink = trade_sink(DeltaTradeStore(tmp_path / "delta"), tmp_path)
    rows = some_trades("ETHUSDT", 0, 5).with_columns(price=pl.lit(bad.NAN))
    async with running(sink, TRADES_FROM):
        await sink.take(TRADES_FROM, to_record_batch(rows, TRADE_SCHEMA), BatchMeta("j", 1))
        assert sink.position(TRADES_FROM) == Cursor("j", 1)
    assert not DeadLetters(tmp_path / FOLDER).read()
    assert "refused_rows" not in sink._telemetry.totals


async def test_a_batch_that_cannot_be_read_is_passed_with_its_place(tmp_path: Path) -> None:
    sink = trade_sink(DeltaTradeStore(tmp_path / "delta"), tmp_path)
    async with running(sink, TRADES_FROM):
        await sink.set_aside(TRADES_FROM, Cursor("j", 7), b"not Arrow", "a batch cannot be decoded: no")
    assert sink.is_durable(TRADES_FROM)
    assert sink.position(TRADES_FROM) == Cursor("j", 7)
    [letter] = DeadLetters(tmp_path / FOLDER).read()
    found = letter.rows.select("upstream", "journal_id", "sequence", "batch", "reason").row(0)
    assert found == (TRADES_FROM, "j", 7, b"not Arrow", "a batch cannot be decoded: no")


# sent again


def deadletters(*arguments: str, code: int) -> str:
    done = CliRunner().invoke(app, ["deadletters", *arguments])
    assert done.exit_code == code, done.output
    return done.output


async def test_a_row_that_breaks_a_rule_is_refused_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "data" / "tick_persistence-50091"
    await store_trades(DeltaTradeStore(tmp_path / "data" / "delta"), folder)
    groups = json.loads(deadletters("--json", code=0))
    refused = len(bad.BAD_TRADES) + 3 * len(bad.OTHER_SCHEMAS)
    assert sum(group["rows"] for group in groups) == refused
    assert {group["table"] for group in groups} == {"trades", "batches"}
    [price] = [group for group in groups if group["reason"] == bad.PRICE]
    assert price["rows"] == 6
    assert "price" in deadletters(code=0)
    assert json.loads(deadletters("--resend", "--json", code=1))["stored"] == 0
    assert_trade_letters(folder, "delta")


async def test_rows_that_keep_the_rules_by_now_are_stored_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "data" / "tick_persistence-50091"
    store = DeltaTradeStore(tmp_path / "data" / "delta")
    await store_trades(store, folder)
    rows = as_stored(SPOT, some_trades(bad.SYMBOL, 0, 2 * len(bad.BAD_TRADES) + 5))
    letters = DeadLetters(folder / FOLDER)
    for one in letters.read():
        one.path.unlink()
    letters.add("delta", "trades", rows, [Refusal(row, "its time was ahead") for row in (0, 1, 3, rows.height - 1)])
    assert json.loads(deadletters("--resend", "--json", code=1)) == {"stored": 3, "refused": 1}
    stored = pl.scan_delta(str(tmp_path / "data" / "delta" / "trades")).collect()
    assert sorted(stored["trade_id"]) == sorted([*bad.good_trades()["trade_id"], 1, 3])
    [left] = letters.read()
    assert left.rows["reason"].to_list() == [
        "newer than the last trade of its symbol that is stored: send it again later"
    ]


# bars that are made of such trades


def aggregator_on(folder: Path, journal: Journal) -> Aggregator:
    schema = stream_schema(TIME_BAR_SCHEMA, kind="time_bars", venue="")
    aggregator = Aggregator(
        [TimeBarKernel(60_000_000)], Hub(journal), folder / "checkpoint.arrow", venues={TRADES_FROM: SPOT},
        schema=schema, telemetry=Telemetry("test"), joined=lambda *_: None,
    )  # fmt: skip
    aggregator.want(TRADES_FROM, spot(bad.SYMBOL))
    return aggregator


async def bars_of(folder: Path, batches: Sequence[tuple[object, BatchMeta]]) -> tuple[pl.DataFrame, Aggregator]:
    with Journal.open(folder / "bars", stream_schema(TIME_BAR_SCHEMA, kind="time_bars", venue="")) as journal:
        aggregator = aggregator_on(folder, journal)
        for batch, meta in batches:
            await aggregator.take(TRADES_FROM, batch, meta)  # type: ignore[arg-type]
        found = [to_frame(decode(entry.payload)[0]) for entry in journal.read()]
    return pl.concat(found).sort("revision").unique("open_time", keep="last").sort("open_time"), aggregator


async def test_no_bar_is_made_of_bad_trades(tmp_path: Path) -> None:
    others = bad.write_trades(tmp_path / "journal")
    batches = list(bad.read(tmp_path / "journal", TRADE_SCHEMA, kind="trades", venue=SPOT))
    later = some_trades(bad.SYMBOL, 10**6, 1)  # ends the last window
    batches.append((to_record_batch(later, TRADE_SCHEMA), BatchMeta("j", 99)))
    bars, aggregator = await bars_of(tmp_path, batches)
    good = bad.good_trades()
    assert bars["total_ticks"].sum() == good.height
    assert bars["volume"].sum() == pytest.approx(good["quantity"].sum(), rel=1e-12)
    assert bars["high"].max() == good["price"].max()
    assert not bars["complete"].any(), "ids are missing"
    totals = aggregator._telemetry.totals
    assert totals["refused_rows"] == len(bad.BAD_TRADES) + 3 * others
    assert totals["refused_batches"] == others
    assert aggregator.position(TRADES_FROM) == Cursor("j", 99)


async def test_a_bar_with_a_bad_trade_is_not_complete_and_its_neighbours_are(tmp_path: Path) -> None:
    rows = trades(range(1, 20 * 60 * 4), every_ms=250)
    spoilt = rows.with_columns(
        price=pl.when(pl.col("trade_id") == 2_000).then(bad.NAN).otherwise("price"),
    )
    watermark_us = int(START.timestamp() * 1e6)
    batches = [
        (to_record_batch(part, TRADE_SCHEMA), BatchMeta("j", number + 1, watermark_us=watermark_us + number))
        for number, part in enumerate(spoilt.iter_slices(500))
    ]
    bars, aggregator = await bars_of(tmp_path, batches)
    assert bars["close"].is_finite().all()
    incomplete = bars.filter(~pl.col("complete") & (pl.col("first_trade_id") > 1))
    assert incomplete["total_ticks"].to_list() == [239]
    assert bars["complete"].sum() == bars.height - 2
    assert aggregator._telemetry.totals["refused_rows"] == 1


async def test_an_aggregator_passes_a_batch_that_cannot_be_read(tmp_path: Path) -> None:
    with Journal.open(tmp_path / "bars", stream_schema(TIME_BAR_SCHEMA, kind="time_bars", venue="")) as journal:
        aggregator = aggregator_on(tmp_path, journal)
        await aggregator.set_aside(TRADES_FROM, Cursor("j", 3), b"", "no")
        assert aggregator.position(TRADES_FROM) == Cursor("j", 3)
        assert not aggregator.is_durable(TRADES_FROM)
        await aggregator.save()
        assert aggregator_on(tmp_path, journal).position(TRADES_FROM) == Cursor("j", 3)


# times that no calendar has

BEYOND_US = [-(2**63), -(2**62), 2**62, 2**63 - 1]


def with_time(column: str, time_us: int) -> pl.DataFrame:
    """40 good trades but for the sixth one's time."""
    rows = some_trades(bad.SYMBOL, 0, 40)
    physical = rows.get_column(column).to_physical().to_list()
    physical[5] = time_us
    return rows.with_columns(pl.Series(column, physical, pl.Int64).cast(TRADE_DTYPES[column]))


@pytest.mark.parametrize("watermark_us", [None, 2**63 - 1])
@pytest.mark.parametrize("column", ["ts_event", "ts_recv"])
@pytest.mark.parametrize("time_us", BEYOND_US)
async def test_a_time_beyond_the_calendar_costs_its_row_alone(
    tmp_path: Path, column: str, time_us: int, watermark_us: int | None
) -> None:
    rows = with_time(column, time_us)
    later = some_trades(bad.SYMBOL, 10**6, 1)
    batches = [
        (to_record_batch(rows, TRADE_SCHEMA), BatchMeta("j", 1, watermark_us=watermark_us)),
        (to_record_batch(later, TRADE_SCHEMA), BatchMeta("j", 2)),
    ]
    sink = trade_sink(DeltaTradeStore(tmp_path / "delta"), tmp_path)
    async with running(sink, TRADES_FROM) as acknowledged:
        for batch, meta in batches:
            await asyncio.wait_for(sink.take(TRADES_FROM, batch, meta), 60)
        await until_acknowledged(acknowledged, Cursor("j", 2))
    assert pl.scan_delta(str(tmp_path / "delta" / "trades")).collect().height == 40
    [group] = groups(DeadLetters(tmp_path / FOLDER))
    assert group["reason"] == f"{column}: a time lies between 2009 and tomorrow"
    assert group["example"][column] == f"{time_us} us since 1970"
    bars, aggregator = await bars_of(tmp_path, batches)
    assert bars["total_ticks"].sum() == 39
    assert aggregator._telemetry.totals["refused_rows"] == 1


@pytest.mark.parametrize("time_us", BEYOND_US)
async def test_a_bar_whose_time_is_beyond_the_calendar_costs_itself_alone(tmp_path: Path, time_us: int) -> None:
    good = bad.good_bars("time_bars")
    opens = good.get_column("open_time").to_physical().to_list()
    opens[3] = time_us
    bars = good.with_columns(pl.Series("open_time", opens, pl.Int64).cast(good.schema["open_time"]))
    sink = bar_sink(DeltaBarStore(tmp_path / "delta", "time_bars"), tmp_path)
    async with running(sink, BARS_FROM) as acknowledged:
        await sink.take(BARS_FROM, to_record_batch(bars, TIME_BAR_SCHEMA), BatchMeta("j", 1))
        await until_acknowledged(acknowledged, Cursor("j", 1))
    assert pl.scan_delta(str(tmp_path / "delta" / "time_bars")).collect().height == good.height - 1


def test_metadata_that_nests_without_end_is_damaged() -> None:
    with pytest.raises(InputError, match="metadata cannot be read"):
        BatchMeta.from_ipc({b"raven.batch": b'{"x":' + b"[" * 50_000})


# the rules


def test_a_clock_that_was_set_back_refuses_nothing() -> None:
    now_us = 1_780_000_000_000_000
    assert intake.latest_us(BatchMeta(appended_us=1, watermark_us=now_us)) > now_us
    assert intake.latest_us(BatchMeta(appended_us=now_us)) == now_us + intake.DAY_US
    assert intake.latest_us(BatchMeta()) > now_us
    assert intake.latest_us(BatchMeta(appended_us=2**63 - 1)) == gate.AFTER_ALL_US
