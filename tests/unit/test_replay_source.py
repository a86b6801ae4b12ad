"""Recordings in the place of a source: what is published, when, and where it goes on."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from itertools import islice
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from polars.testing import assert_frame_equal

from raven.batches.batch import BatchMeta, Cursor, Gap
from raven.batches.ipc import decode
from raven.batches.schema import SCHEMA_VERSION, TIB_SCHEMA, TRADE_SCHEMA, stream_schema, to_frame, to_record_batch
from raven.errors import InputError, JournalError
from raven.journal import Journal, JournalOptions, JournalReader
from raven.rpc.hub import Hub
from raven.sources.replay import Choice, Recorded, Recording, open_recording
from raven.sources.replay.files import BATCH_AGE_US, cut
from raven.sources.replay.source import OVER, ReplaySource
from raven.telemetry import Telemetry
from tests.unit.samples import START, trades

SPOT = "BINANCE_SPOT"
SCHEMA = stream_schema(TRADE_SCHEMA, kind="trades", venue=SPOT)
NO_OPTIONS = JournalOptions()
START_US = int(START.timestamp() * 1e6)


def make_journal(folder: Path, batches: Sequence[tuple[pl.DataFrame, BatchMeta]], *, every_us: int = 1_000) -> Path:
    """A journal of these batches, appended `every_us` apart from START on."""
    times_us = iter(
        range(START_US - every_us, START_US + every_us * len(batches), every_us)
    )  # the first is of making it
    with Journal.open(folder, SCHEMA, now_us=lambda: next(times_us)) as journal:
        for frame, meta in batches:
            journal.append(to_record_batch(frame, SCHEMA), meta)
    return folder


def two_symbols() -> list[tuple[pl.DataFrame, BatchMeta]]:
    """Batches of BTCUSDT (4 trades a second) and ETHUSDT (2), with a gap, a held symbol and an idle one."""
    second = 1_000_000
    eth = "ETHUSDT"
    return [
        (pl.concat([trades(range(8)), trades(range(4), eth, every_ms=500)]), BatchMeta(watermark_us=START_US + 2 * second)),
        (trades(range(8, 12)), BatchMeta(watermark_us=START_US + 3 * second, held=(eth,))),
        (
            pl.concat([trades(range(12, 16)), trades(range(7, 8), eth, every_ms=500)]),
            BatchMeta(watermark_us=START_US + 4 * second, gaps=(Gap(eth, 3, 7),)),
        ),
        (trades([]), BatchMeta(watermark_us=START_US + 5 * second)),
        (trades(range(20, 24)), BatchMeta(watermark_us=None)),
    ]  # fmt: skip


def rows_of(recorded: Sequence[Recorded]) -> pl.DataFrame:
    return pl.concat([to_frame(one.batch) for one in recorded])


@asynccontextmanager
async def replaying(
    recording: Recording, folder: Path, *, speed: float | None = None, once: bool = False,
    options: JournalOptions = NO_OPTIONS,
) -> AsyncIterator[tuple[ReplaySource, Hub, asyncio.Future[None]]]:  # fmt: skip
    with Journal.open(folder, SCHEMA, options=options) as journal:
        hub = Hub(journal, is_replay=True)
        source = ReplaySource(
            recording, hub, speed=speed, once=once, telemetry=Telemetry("test"), report=lambda *_: None
        )
        run = asyncio.ensure_future(source.run())
        try:
            yield source, hub, run
        finally:
            run.cancel()
            await asyncio.gather(run, return_exceptions=True)


async def until(condition: Callable[[], bool], run: asyncio.Future[None]) -> None:
    async with asyncio.timeout(15):
        while not condition():
            if run.done():
                run.result()
            await asyncio.sleep(0.01)


class TestJournals:
    def test_batches_come_as_they_were_cut(self, tmp_path: Path) -> None:
        made = two_symbols()
        recording = open_recording([make_journal(tmp_path / "a", made)])
        found = list(recording.batches(None, {}))
        assert (recording.venue, recording.symbols) == ("BINANCE_SPOT", ["BTCUSDT", "ETHUSDT"])
        assert (recording.first_us, recording.last_us) == (START_US, START_US + 4_000)
        assert [one.due_us - START_US for one in found] == [0, 1_000, 2_000, 3_000, 4_000]
        entries = list(JournalReader(tmp_path / "a").entries())
        for one, entry, (frame, meta) in zip(found, entries, made, strict=True):
            assert one.batch.equals(decode(entry.payload)[0])
            assert_frame_equal(to_frame(one.batch), frame)
            assert (one.meta.watermark_us, one.meta.held, one.meta.gaps) == (meta.watermark_us, meta.held, meta.gaps)
            assert one.meta.input == ("BINANCE_SPOT", entry.meta.cursor)

    def test_from_any_place_on(self, tmp_path: Path) -> None:
        paths = [make_journal(tmp_path / name, two_symbols()) for name in ("a", "b")]
        recording = open_recording(paths)
        whole = list(recording.batches(None, {}))
        assert len(whole) == 10
        for position, one in enumerate(whole):
            rest = list(recording.batches(one.meta.input[1], {}))
            assert [each.meta for each in rest] == [each.meta for each in whole[position + 1 :]]

    def test_journals_follow_each_other_in_time_whatever_their_order(self, tmp_path: Path) -> None:
        paths = []
        for name, ids in (("later", range(10, 20)), ("earlier", range(10))):  # as imports may be made
            newest_us = START_US + 250_000 * ids[-1]
            paths.append(make_journal(tmp_path / name, [(trades(ids), BatchMeta(watermark_us=newest_us))]))
        recordings = [open_recording(order) for order in (paths, paths[::-1])]
        for recording in recordings:
            assert rows_of(list(recording.batches(None, {})))["trade_id"].to_list() == list(range(20))
        assert recordings[0].identity == recordings[1].identity

    def test_chosen_symbols_and_times(self, tmp_path: Path) -> None:
        made = two_symbols()
        path = make_journal(tmp_path / "a", made)
        everything = pl.concat([frame for frame, _ in made])

        def chosen(choice: Choice) -> list[Recorded]:
            return list(open_recording([path], choice=choice).batches(None, {}))

        btc = chosen(Choice(frozenset({"BTCUSDT"})))
        assert_frame_equal(rows_of(btc), everything.filter(pl.col("symbol") == "BTCUSDT"))
        assert [(one.meta.held, one.meta.gaps) for one in btc] == [((), ())] * 5
        eth = chosen(Choice(frozenset({"ETHUSDT"})))
        assert [one.batch.num_rows for one in eth] == [4, 0, 1, 0, 0], "time goes on while the other symbol trades"
        assert eth[1].meta.held == ("ETHUSDT",)
        assert eth[2].meta.gaps == (Gap("ETHUSDT", 3, 7),)
        first, second = START_US + 1_000_000, START_US + 3_000_000
        within = chosen(Choice(start_us=first, end_us=second))
        assert_frame_equal(
            rows_of(within),
            everything.filter(pl.col("ts_event").dt.epoch("us").is_between(first, second, closed="left")),
        )
        assert len(within) == 2, "batches that lie outside are left out"

    def test_a_symbol_that_was_not_recorded(self, tmp_path: Path) -> None:
        path = make_journal(tmp_path / "a", two_symbols())
        with pytest.raises(InputError, match="BTCUSD is not in the recording; did you mean BTCUSDT"):
            open_recording([path], choice=Choice(frozenset({"BTCUSD"})))

    def test_journals_that_cannot_be_replayed(self, tmp_path: Path) -> None:
        with Journal.open(tmp_path / "bars", stream_schema(TIB_SCHEMA, kind="tick_imbalance_bars", venue="")):
            pass
        with pytest.raises(InputError, match="a journal of tick_imbalance_bars"):
            open_recording([tmp_path / "bars"])
        with Journal.open(tmp_path / "empty", SCHEMA):
            pass
        with pytest.raises(JournalError, match="holds no batch yet"):
            open_recording([tmp_path / "empty"])
        other = TRADE_SCHEMA.with_metadata({**(SCHEMA.metadata or {}), b"raven.schema_version": b"0"})
        with Journal.open(tmp_path / "old", other) as journal:
            journal.append(to_record_batch(trades(range(3)), other), BatchMeta())
        with pytest.raises(InputError, match=f"another version: its schema version is '0', not '{SCHEMA_VERSION}'"):
            open_recording([tmp_path / "old"])


class TestFiles:
    @pytest.fixture
    def parquet(self, tmp_path: Path) -> Path:
        """Ids 0 to 29,999 of BTCUSDT, but for 10,000 to 10,004; 20,000 comes twice."""
        ids = [number for number in range(30_000) if not 10_000 <= number < 10_005]
        ids.insert(ids.index(20_000), 20_000)
        path = tmp_path / "BTCUSDT.parquet"
        trades(ids, every_ms=10).write_parquet(path)
        return path

    def test_cut_by_rows_with_gaps_and_without_repeats(self, parquet: Path) -> None:
        recording = open_recording([parquet], venue=SPOT)
        found = list(recording.batches(None, {}))
        assert [one.batch.num_rows for one in found] == [8_192, 8_192, 8_192, 5_419]
        assert [gap for one in found for gap in one.meta.gaps] == [Gap("BTCUSDT", 9_999, 10_005, reason="not recorded")]
        assert recording.left_out.repeats == 1
        for one in found:
            assert one.meta.watermark_us == one.due_us == to_frame(one.batch)["ts_event"].dt.epoch("us").max()
        assert rows_of(found)["trade_id"].is_unique().all()

    @pytest.mark.parametrize("speed", [None, 100.0])
    def test_from_any_place_on(self, parquet: Path, speed: float | None) -> None:
        whole = list(open_recording([parquet], venue=SPOT, speed=speed).batches(None, {}))
        expected = rows_of(whole)
        taken = 0
        for one in islice(whole, 0, len(whole) - 1, 1 + len(whole) // 5):
            taken = sum(each.batch.num_rows for each in whole[: whole.index(one) + 1])
            last_ids = {"BTCUSDT": int(to_frame(one.batch)["trade_id"][-1])}
            rest = list(open_recording([parquet], venue=SPOT).batches(one.meta.input[1], last_ids))
            assert_frame_equal(rows_of(rest), expected[taken:])

    def test_at_a_speed_a_batch_spans_what_one_would_live(self, parquet: Path) -> None:
        found = list(open_recording([parquet], venue=SPOT, speed=100.0).batches(None, {}))
        for one in found:
            times = to_frame(one.batch)["ts_event"].dt.epoch("us")
            assert times.max() - times.min() < 100 * BATCH_AGE_US
        assert 100 < len(found) < 200

    def test_cut_keeps_the_order_of_rows(self) -> None:
        shuffled = trades(range(1_000)).sample(fraction=1.0, shuffle=True, seed=1)
        pieces = list(cut(shuffled, 1_000_000))
        assert_frame_equal(pl.concat(pieces), shuffled)
        newest = np.array([piece["ts_event"].dt.epoch("us").max() for piece in pieces])
        assert (np.maximum.accumulate(newest) // 1_000_000).tolist() == sorted(
            set((np.maximum.accumulate(newest) // 1_000_000).tolist())
        )

    def test_files_of_several_symbols_come_side_by_side(self, tmp_path: Path) -> None:
        paths, parts = [], []
        for symbol, every_ms, days in (("BTCUSDT", 10, 2), ("ETHUSDT", 37, 1), ("LTCUSDT", 7_000, 2)):
            for day in range(days):
                first = day * 40_000 * 10 // every_ms
                parts.append(trades(range(first, first + 400_000 // every_ms), symbol, every_ms=every_ms))
                paths.append(tmp_path / f"{symbol}-{day}.parquet")
                parts[-1].write_parquet(paths[-1])
        swapped = pl.concat([parts[0][1:2], parts[0][:1], parts[0][2:]])  # the order of rows does not matter
        swapped.write_parquet(paths[0])
        found = list(open_recording(paths, venue=SPOT).batches(None, {}))
        merged = rows_of(found)
        assert merged.height == sum(part.height for part in parts)
        times = merged.get_column("ts_event")
        assert (times.cum_max() == times).all()
        for symbol in ("ETHUSDT", "LTCUSDT"):
            own = merged.filter(pl.col("symbol") == symbol)
            assert own.get_column("trade_id").to_list() == sorted(own.get_column("trade_id"))
        assert not any(one.meta.gaps for one in found)
        one = found[1]
        last_ids = dict(rows_of(found[:2]).group_by("symbol").agg(pl.col("trade_id").max()).iter_rows())
        rest = list(open_recording(paths, venue=SPOT).batches(one.meta.input[1], last_ids))
        assert_frame_equal(rows_of(rest), rows_of(found[2:]))

    @pytest.mark.slow
    @pytest.mark.slow
    def test_the_order_of_files_makes_no_other_replay(self, tmp_path: Path) -> None:
        """What was begun with the files in one order is gone on with in another."""
        paths = [tmp_path / f"BTCUSDT-{day}.parquet" for day in range(3)]
        for day, path in enumerate(paths):
            trades(range(day * 9_000, (day + 1) * 9_000 + 5)).write_parquet(path)
        one, other = (open_recording(order, speed=100.0, venue="BINANCE_SPOT") for order in (paths, paths[::-1]))
        assert one.identity == other.identity
        assert one.left_out.sentences() == other.left_out.sentences()
        assert one.left_out.repeats == 10
        for mine, theirs in zip(one.batches(None, {}), other.batches(None, {}), strict=True):
            assert mine == theirs

    def test_times(self, parquet: Path) -> None:
        choice = Choice(start_us=START_US + 10_000_000, end_us=START_US + 20_000_000)
        recording = open_recording([parquet], venue=SPOT, choice=choice)
        assert rows_of(list(recording.batches(None, {})))["trade_id"].to_list() == list(range(1_000, 2_000))
        assert (recording.first_us, recording.last_us) == (START_US + 10_000_000, START_US + 19_990_000)
        with pytest.raises(InputError, match="no trade lies between"):
            open_recording([parquet], venue=SPOT, choice=Choice(end_us=START_US))
        with pytest.raises(InputError, match="not before its end"):
            open_recording([parquet], venue=SPOT, choice=Choice(start_us=5, end_us=5))

    def test_another_series_is_not_taken_for_the_venues_own(self, shared_data: Path) -> None:
        with pytest.raises(InputError, match="no aggTrade frames"):
            open_recording([shared_data / "ws_raw_usdm_ethusdt_20240808.gz"])
        futures = open_recording([shared_data / "cryptofeed_BINANCE_FUTURES.jsonl.zst"])
        assert futures.venue == "BINANCE_FUTURES"


class TestPublishing:
    @pytest.fixture
    def recording(self, tmp_path: Path) -> Recording:
        """40 batches over 10 s."""
        batches = [(trades(range(n, n + 5)), BatchMeta(watermark_us=START_US + n)) for n in range(0, 200, 5)]
        return open_recording([make_journal(tmp_path / "recorded", batches, every_us=250_000)])

    async def test_it_begins_when_a_symbol_is_wanted_and_rests_while_none_is(
        self, tmp_path: Path, recording: Recording
    ) -> None:
        async with replaying(recording, tmp_path / "own", speed=100.0) as (source, hub, run):
            await asyncio.sleep(0.2)
            assert hub.journal.last_sequence == 0
            source.want({"BTCUSDT": None})
            assert "BTCUSDT" in source.acknowledged
            await until(lambda: hub.journal.last_sequence >= 3, run)
            await source.leave(["BTCUSDT"])
            await asyncio.sleep(0.05)
            stopped_at = hub.journal.last_sequence
            await asyncio.sleep(0.2)
            assert hub.journal.last_sequence == stopped_at < 40
            source.want({"BTCUSDT": None})
            await until(lambda: source.is_over, run)
            assert hub.journal.last_sequence == 40 + 1, "the last one closes the windows"
            assert source.facts.of("BINANCE_SPOT", "BTCUSDT").message == OVER
            assert hub.session_start == Cursor(hub.journal.id, 0)

    async def test_at_five_times_the_pace_ten_seconds_take_two(self, tmp_path: Path, recording: Recording) -> None:
        async with replaying(recording, tmp_path / "own", speed=5.0) as (source, _, run):
            source.want({"BTCUSDT": None})
            began = time.monotonic()
            await until(lambda: source.is_over, run)
            assert 1.8 < time.monotonic() - began < 6.0

    async def test_what_was_published_is_not_published_again(self, tmp_path: Path, recording: Recording) -> None:
        for _ in range(3):
            async with replaying(recording, tmp_path / "own", speed=25.0) as (source, hub, run):
                before = hub.journal.last_sequence
                source.want({"BTCUSDT": None})
                await until(lambda hub=hub, before=before: hub.journal.last_sequence >= before + 5, run)
        async with replaying(recording, tmp_path / "own") as (source, hub, run):
            assert 0 < hub.journal.last_sequence < 40
            source.want({"BTCUSDT": None})
            await until(lambda: source.is_over, run)
        async with replaying(recording, tmp_path / "own") as (source, hub, run):
            source.want({"BTCUSDT": None})
            await until(lambda: source.is_over, run)
        *entries, end = JournalReader(tmp_path / "own").entries()
        inputs = [entry.meta.input[1] for entry in entries]
        assert inputs == [one.meta.input[1] for one in recording.batches(None, {})]
        assert (end.rows, end.meta.input) == (0, entries[-1].meta.input), "said once, whatever is started again"
        assert end.meta.watermark_us > entries[-1].meta.watermark_us

    @pytest.mark.slow
    async def test_it_never_gets_further_ahead_than_the_journal_keeps(self, tmp_path: Path) -> None:
        batches = [(trades(range(n, n + 1_000)), BatchMeta()) for n in range(0, 150_000, 1_000)]
        recording = open_recording([make_journal(tmp_path / "recorded", batches)])
        options = JournalOptions(segment_bytes=2**18, max_bytes=2**22)
        async with replaying(recording, tmp_path / "own", options=options) as (source, hub, run):
            hub.journal.register("slow", 0)
            source.want({"BTCUSDT": None})
            await until(lambda: hub.journal.consumers()[0].behind_bytes > 2**21, run)
            await asyncio.sleep(0.5)
            assert not source.is_over
            while not source.is_over:
                result = await asyncio.to_thread(hub.journal.enforce_retention)
                assert not result.lost_by
                hub.journal.acknowledge("slow", hub.journal.last_sequence)
                await asyncio.sleep(0.02)
            assert hub.journal.last_sequence == 150 + 1  # and the end

    async def test_once_it_ends_when_all_is_acknowledged(self, tmp_path: Path, recording: Recording) -> None:
        async with replaying(recording, tmp_path / "own", once=True) as (source, hub, run):
            source.want({"BTCUSDT": None})
            await until(lambda: source.is_over, run)
            hub.journal.register("slow", 0)
            hub.journal.acknowledge("slow", hub.journal.last_sequence - 1)
            await asyncio.sleep(0.4)
            assert not run.done()
            hub.journal.acknowledge("slow", hub.journal.last_sequence)
            async with asyncio.timeout(5):
                await run

    async def test_symbols(self, tmp_path: Path) -> None:
        recording = open_recording([make_journal(tmp_path / "recorded", two_symbols())])
        async with replaying(recording, tmp_path / "own") as (source, hub, run):
            assert await source.check(["BTCUSDT", "ETHUSDT"]) == {}
            refused = await source.check(["ETHUSD"])
            assert refused == {"ETHUSD": "ETHUSD is not in the recording; did you mean ETHUSDT, BTCUSDT?"}
            assert await source.matching("*USDT") == ["BTCUSDT", "ETHUSDT"]
            assert await source.matching("ETH*") == ["ETHUSDT"]
            source.want({"ETHUSDT": None})
            await until(lambda: source.is_over, run)
            facts = source.facts.of("BINANCE_SPOT", "ETHUSDT")
            assert (facts.gaps, facts.missing_ids, facts.rows) == (1, 3, 5)
            assert "BTCUSDT" not in source.acknowledged
            assert hub.journal.last_sequence == 5 + 1, "rows of symbols that nobody wants are published, too"
