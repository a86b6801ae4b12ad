"""What the journal keeps, for whom, and what it says about what it dropped."""

from __future__ import annotations

import itertools
import threading
import time

import pyarrow as pa
import pytest

from raven.batches.batch import BatchMeta, Gap
from raven.batches.schema import TIME_BAR_SCHEMA, stream_schema
from raven.errors import JournalError
from raven.journal import Hole, Journal, JournalOptions, RetentionResult
from tests.unit.test_journal import SCHEMA, Clock, abandon, append_many, ids_of, trades

HOUR_US = 3_600_000_000


def one_batch_a_segment(**settings) -> JournalOptions:
    return JournalOptions(segment_bytes=1, **settings)


def append_hourly(journal: Journal, clock: Clock, count: int) -> None:
    for _ in range(count):
        clock.now_us += HOUR_US
        append_many(journal, 1, first_id=journal.last_sequence * 3 + 1)


def test_old_segments_go_and_the_newest_never(tmp_path):
    clock = Clock()
    options = one_batch_a_segment(retention_s=3 * 3600)
    with Journal.open(tmp_path, SCHEMA, options=options, now_us=clock) as journal:
        append_hourly(journal, clock, 6)
        size = sum(path.stat().st_size for path in sorted(tmp_path.glob("*.arrows"))[:2])
        assert journal.enforce_retention() == RetentionResult(segments=2, bytes=size, through_sequence=2)
        assert journal.first_sequence == 3
        assert [entry.meta.sequence for entry in journal.read()] == [3, 4, 5, 6]
        clock.now_us += 1000 * HOUR_US
        assert journal.enforce_retention().through_sequence == 5
        assert journal.enforce_retention() == RetentionResult()
        assert (journal.first_sequence, journal.last_sequence) == (6, 6)
    with Journal.open(tmp_path, SCHEMA, options=options, now_us=clock) as journal:
        assert journal.last_sequence == 6
        assert journal.enforce_retention() == RetentionResult()
        assert journal.tail_ids() == {"BTCUSDT": 18}


def test_what_a_consumer_has_not_acknowledged_stays(tmp_path):
    clock = Clock()
    options = one_batch_a_segment(retention_s=1.0)
    with Journal.open(tmp_path, SCHEMA, options=options, now_us=clock) as journal:
        journal.register("delta", 0)
        journal.register("influx", 0)
        append_hourly(journal, clock, 6)
        clock.now_us += HOUR_US
        assert journal.enforce_retention() == RetentionResult()
        journal.acknowledge("delta", 5)
        assert journal.enforce_retention() == RetentionResult()
        journal.acknowledge("influx", 2)
        assert journal.enforce_retention().through_sequence == 2
        assert journal.forget("influx")
        assert not journal.forget("influx")
        assert journal.enforce_retention().through_sequence == 5
        assert [status.name for status in journal.consumers()] == ["delta"]


def test_positions_survive_a_crash_as_of_the_last_retention(tmp_path):
    journal = Journal.open(tmp_path, SCHEMA)
    append_many(journal, 6)
    journal.register("delta", 1)
    journal.acknowledge("delta", 3)
    journal.enforce_retention()
    journal.acknowledge("delta", 5)
    abandon(journal)
    journal = Journal.open(tmp_path, SCHEMA)
    assert [(status.name, status.sequence) for status in journal.consumers()] == [("delta", 3)]
    journal.acknowledge("delta", 6)
    journal.close()
    with Journal.open(tmp_path, SCHEMA) as journal:
        assert [(status.name, status.sequence) for status in journal.consumers()] == [("delta", 6)]


def test_a_position_moves_on_by_acknowledging_and_back_by_registering(tmp_path):
    with Journal.open(tmp_path, SCHEMA) as journal:
        append_many(journal, 5)

        def position() -> int:
            (status,) = journal.consumers()
            return status.sequence

        journal.register("bars", 2)
        journal.acknowledge("bars", 1)
        assert position() == 2
        journal.acknowledge("bars", 4)
        assert position() == 4
        journal.register("bars", 5)  # a consumer that comes back ahead of its checkpoint keeps its hold
        assert position() == 4
        journal.register("bars", 1)
        assert position() == 1
        journal.acknowledge("bars", 99)  # nobody has what was never appended
        assert position() == 5
        journal.acknowledge("unknown", 2)
        assert [status.name for status in journal.consumers()] == ["bars", "unknown"]
        with pytest.raises(JournalError, match="needs a name"):
            journal.register("", 0)


def test_how_far_a_consumer_is_behind(tmp_path):
    with Journal.open(tmp_path, SCHEMA, options=JournalOptions(segment_bytes=3000)) as journal:
        append_many(journal, 12)
        names = [f"c{i:02}" for i in range(13)]
        for i, name in enumerate(names):
            journal.acknowledge(name, i)
        behind = [status.behind_bytes for status in journal.consumers()]
        assert behind[-1] == 0
        assert behind[0] == journal.disk().journal_bytes
        assert all(more > less for more, less in itertools.pairwise(behind))


def test_beyond_max_bytes_the_oldest_goes_and_the_lost_ids_are_named(tmp_path):
    with Journal.open(tmp_path, SCHEMA, options=one_batch_a_segment()) as journal:
        journal.register("slow", 1)
        journal.register("quick", 0)
        journal.append(trades(1, 10), BatchMeta())  # slow has it
        journal.append(trades(11, 10), BatchMeta())
        journal.append(trades(5, 3, symbol="ETHUSDT"), BatchMeta())
        journal.append(trades(30, 5), BatchMeta())
        journal.append(trades(8, 2, symbol="ETHUSDT"), BatchMeta())
        journal.append(trades(21, 9), BatchMeta())  # a repair that closes 21..29
        journal.append(trades(35, 5), BatchMeta())
        journal.acknowledge("quick", 7)
        size = [path.stat().st_size for path in sorted(tmp_path.glob("*.arrows"))]
        journal.options = JournalOptions(segment_bytes=1, max_bytes=size[-1])
        journal.acknowledge("slow", 1)
        result = journal.enforce_retention()
        assert result == RetentionResult(
            segments=6,
            bytes=sum(size[:-1]),
            through_sequence=6,
            lost_by=("slow",),
            lost_rows=29,
            gaps=(
                Gap("BTCUSDT", 10, 35, reason="journal.max_bytes"),
                Gap("ETHUSDT", 4, 10, reason="journal.max_bytes"),
            ),
        )
        assert all(gap.final for gap in result.gaps)
        assert ids_of(list(journal.read())) == [35, 36, 37, 38, 39]


def test_beyond_max_bytes_no_more_goes_than_must(tmp_path):
    with Journal.open(tmp_path, SCHEMA, options=one_batch_a_segment()) as journal:
        journal.register("slow", 0)
        append_many(journal, 8)
        total = journal.disk().journal_bytes
        journal.options = one_batch_a_segment(max_bytes=total)
        assert journal.enforce_retention() == RetentionResult()
        journal.options = one_batch_a_segment(max_bytes=total - 1)
        assert journal.enforce_retention().through_sequence == 1
        journal.options = one_batch_a_segment(max_bytes=total // 2)
        assert 4 <= journal.enforce_retention().through_sequence <= 5


def test_lost_ids_with_holes_between_are_ranges_of_their_own(tmp_path):
    with Journal.open(tmp_path, SCHEMA, options=one_batch_a_segment(max_bytes=1)) as journal:
        journal.register("slow", 0)
        for first_id in (1, 4, 20):
            journal.append(trades(first_id, 3), BatchMeta())
        journal.append(trades(50, 1), BatchMeta())
        result = journal.enforce_retention()
        assert [(gap.after_id, gap.before_id) for gap in result.gaps] == [(0, 7), (19, 23)]
        assert result.lost_rows == 9


def test_dropping_acknowledged_batches_beyond_max_bytes_loses_nobody_anything(tmp_path):
    with Journal.open(tmp_path, SCHEMA, options=one_batch_a_segment(max_bytes=1)) as journal:
        append_many(journal, 4)
        journal.acknowledge("quick", 3)
        result = journal.enforce_retention()
        assert (result.segments, result.lost_by, result.lost_rows, result.gaps) == (3, (), 0, ())


def test_lost_bars_are_counted_without_ranges(tmp_path):
    schema = stream_schema(TIME_BAR_SCHEMA, kind="time_bars", venue="")
    bar = pa.RecordBatch.from_pylist(
        [dict.fromkeys(schema.names, 0) | {"venue": "V", "symbol": "S", "spec": "1m", "complete": True}],
        schema=schema,
    )
    with Journal.open(tmp_path, schema, options=one_batch_a_segment(max_bytes=1)) as journal:
        journal.register("slow", 0)
        for _ in range(3):
            journal.append(bar, BatchMeta())
        result = journal.enforce_retention()
        assert (result.segments, result.lost_by, result.lost_rows, result.gaps) == (2, ("slow",), 2, ())


def test_a_reader_behind_what_was_dropped_goes_on_and_is_told(tmp_path):
    with Journal.open(tmp_path, SCHEMA, options=one_batch_a_segment(max_bytes=1)) as journal:
        append_many(journal, 6)
        reading = journal.read()
        assert [next(reading).meta.sequence, next(reading).meta.sequence] == [1, 2]
        journal.enforce_retention()
        append_many(journal, 1)
        rest = list(reading)
        assert [entry.meta.sequence for entry in rest] == [6, 7]
        assert [entry.hole for entry in rest] == [Hole(2, 5), None]
        assert [entry.hole for entry in journal.read(3)] == [Hole(3, 5), None]
        assert [entry.hole for entry in journal.read(5)] == [None, None]
        assert [entry.hole for entry in journal.read(0)] == [None, None], "from the oldest held on: nothing missed"


def test_a_leap_in_numbering_is_no_hole(tmp_path):
    options = one_batch_a_segment()
    journal = Journal.open(tmp_path, SCHEMA, options=options)
    append_many(journal, 2)
    abandon(journal)
    with Journal.open(tmp_path, SCHEMA, options=options) as journal:
        append_many(journal, 2)
        assert [entry.hole for entry in journal.read(1)] == [None, None, None]


@pytest.mark.slow
def test_readers_racing_with_retention_account_for_every_sequence(tmp_path):
    count = 200
    options = JournalOptions(segment_bytes=2500, max_bytes=12_000)
    journal = Journal.open(tmp_path, SCHEMA, options=options)
    journal.register("slow", 0)
    problems: list[str] = []

    def follow() -> None:
        after = 0
        while after < count:
            for entry in journal.read(after):
                expected = after + 1 if entry.hole is None else entry.hole.through + 1
                if entry.meta.sequence != expected and after != 0:
                    problems.append(f"{after} -> {entry.meta.sequence} with {entry.hole}")
                after = entry.meta.sequence
            journal.consumers()
            journal.sequence_before(2**60)
            time.sleep(0.001)

    readers = [threading.Thread(target=follow) for _ in range(2)]
    for reader in readers:
        reader.start()
    for i in range(count):
        append_many(journal, 1, first_id=i * 3 + 1)
        if i % 5 == 0:
            journal.enforce_retention()
    for reader in readers:
        reader.join(30)
        assert not reader.is_alive()
    journal.close()
    assert problems == []


def test_a_segment_somebody_removed_is_an_error_not_a_loop(tmp_path):
    with Journal.open(tmp_path, SCHEMA, options=one_batch_a_segment()) as journal:
        append_many(journal, 3)
        min(tmp_path.glob("*.arrows")).unlink()
        with pytest.raises(JournalError, match="is gone"):
            list(journal.read())


def test_disk_use(tmp_path):
    with Journal.open(tmp_path, SCHEMA, options=JournalOptions(warn_disk_fraction=0.0)) as journal:
        append_many(journal, 3)
        use = journal.disk()
        assert use.journal_bytes == sum(path.stat().st_size for path in tmp_path.glob("*.arrows"))
        assert use.fraction == pytest.approx(use.used_bytes / (use.used_bytes + use.free_bytes))
        assert use.warn
        journal.options = JournalOptions(warn_disk_fraction=1.01)
        assert not journal.disk().warn
