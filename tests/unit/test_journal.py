"""The journal in ordinary life: append, read back, the seam, numbering, the lock, what it refuses."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
import zipfile
from pathlib import Path

import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raven.batches import ipc
from raven.batches.batch import BatchMeta, Cursor, Gap
from raven.batches.schema import SCHEMA_VERSION, TIME_BAR_SCHEMA, TRADE_SCHEMA, stream_schema, to_frame, to_record_batch
from raven.errors import JournalError, JournalLockedError
from raven.journal import Entry, Journal, JournalOptions
from raven.journal.journal import LEAP
from raven.journal.retention import Backlog

SCHEMA = stream_schema(TRADE_SCHEMA, kind="trades", venue="BINANCE_SPOT")


def trades(first_id: int, rows: int, *, symbol: str = "BTCUSDT") -> pa.RecordBatch:
    """`rows` trades of one symbol with ids from `first_id` on."""
    times = pl.Series(range(first_id, first_id + rows), dtype=pl.Int64).cast(pl.Datetime("us", "UTC"))
    frame = pl.DataFrame(
        {
            "symbol": pl.Series([symbol] * rows, dtype=pl.String),
            "trade_id": pl.Series(range(first_id, first_id + rows), dtype=pl.Int64),
            "ts_event": times,
            "ts_recv": times,
            "price": pl.Series([1.5] * rows, dtype=pl.Float64),
            "quantity": pl.Series([2.0] * rows, dtype=pl.Float64),
            "side": pl.Series([1] * rows, dtype=pl.Int8),
            "origin": pl.Series([0] * rows, dtype=pl.Int8),
        }
    )
    return to_record_batch(frame, SCHEMA)


def append_many(journal: Journal, count: int, *, rows: int = 3, first_id: int = 1) -> list[Entry]:
    """Append `count` batches of consecutive ids."""
    return [journal.append(trades(first_id + i * rows, rows), BatchMeta()) for i in range(count)]


def ids_of(entries: list[Entry]) -> list[int]:
    """The trade ids in the payloads."""
    return [i for entry in entries for i in ipc.decode(entry.payload)[0].column("trade_id").to_pylist()]


class Clock:
    """A clock set by hand."""

    def __init__(self, now_us: int = 1_000_000) -> None:
        self.now_us = now_us

    def __call__(self) -> int:
        return self.now_us


def archive_batches(shared_data: Path, rows: int) -> list[pa.RecordBatch]:
    """Real BTCUSDT trades in batches of `rows`."""
    with zipfile.ZipFile(shared_data / "BTCUSDT-trades-2019-04-01_00h-12h.zip") as archive:
        raw = archive.read(archive.namelist()[0])
    frame = pl.read_csv(
        raw, has_header=False, new_columns=["trade_id", "price", "quantity", "quote", "time_ms", "maker", "best"]
    ).select(
        symbol=pl.lit("BTCUSDT"),
        trade_id="trade_id",
        ts_event=pl.from_epoch("time_ms", time_unit="ms").dt.cast_time_unit("us").dt.replace_time_zone("UTC"),
        ts_recv=pl.from_epoch("time_ms", time_unit="ms").dt.cast_time_unit("us").dt.replace_time_zone("UTC"),
        price=pl.col("price").cast(pl.Float64),
        quantity=pl.col("quantity").cast(pl.Float64),
        side=pl.when(pl.col("maker")).then(-1).otherwise(1).cast(pl.Int8),
        origin=pl.lit(2, pl.Int8),
    )
    return [to_record_batch(part, SCHEMA) for part in frame.iter_slices(rows)]


def test_real_trades_come_back_as_they_were(tmp_path, shared_data):
    batches = archive_batches(shared_data, 1000)
    metas = [BatchMeta(watermark_us=i, held=("ETHUSDT",) if i % 2 else ()) for i in range(len(batches))]
    with Journal.open(tmp_path / "j", SCHEMA, options=JournalOptions(segment_bytes=2**20)) as journal:
        appended = [journal.append(batch, meta) for batch, meta in zip(batches, metas, strict=True)]
        read = list(journal.read())
        assert read == appended
        assert [entry.meta.sequence for entry in read] == list(range(1, len(batches) + 1))
        assert sum(entry.rows for entry in read) == 102_899
        for entry, batch, meta in zip(read, batches, metas, strict=True):
            decoded, decoded_meta = ipc.decode(entry.payload)
            assert decoded.equals(batch)
            assert decoded.schema.equals(SCHEMA, check_metadata=True)
            assert decoded_meta == entry.meta
            assert (entry.meta.watermark_us, entry.meta.held) == (meta.watermark_us, meta.held)
            assert entry.meta.journal_id == journal.id
        assert len(list((tmp_path / "j").glob("*.arrows"))) > 3


def test_metadata_of_every_kind_survives(tmp_path):
    meta = BatchMeta(
        watermark_us=0,
        held=("币安人生USDT",),
        gaps=(Gap("BTCUSDT", 5, 9, final=False, reason="hold"),),
        input=("binance_spot", Cursor("abc", 7)),
    )
    with Journal.open(tmp_path, SCHEMA, now_us=Clock(77)) as journal:
        journal.append(trades(1, 0), meta)
        (entry,) = journal.read()
    assert entry.rows == 0
    assert (entry.meta.watermark_us, entry.meta.held, entry.meta.gaps, entry.meta.input) == (
        meta.watermark_us,
        meta.held,
        meta.gaps,
        meta.input,
    )
    assert (entry.meta.sequence, entry.meta.appended_us, entry.meta.journal_id) == (1, 77, journal.id)


@settings(max_examples=15, deadline=None)
@given(
    sizes=st.lists(st.integers(0, 40), min_size=1, max_size=12),
    segment_bytes=st.integers(1, 8000),
    reopen_at=st.integers(0, 12),
)
def test_reading_after_any_sequence_gives_exactly_the_rest(sizes, segment_bytes, reopen_at):
    with tempfile.TemporaryDirectory() as folder:
        options = JournalOptions(segment_bytes=segment_bytes)
        journal = Journal.open(Path(folder), SCHEMA, options=options)
        for i, size in enumerate(sizes):
            if i == reopen_at:
                journal.close()
                journal = Journal.open(Path(folder), SCHEMA, options=options)
            journal.append(trades(i * 100, size), BatchMeta())
        for after in range(len(sizes) + 2):
            entries = list(journal.read(after))
            assert [entry.meta.sequence for entry in entries] == list(range(after + 1, len(sizes) + 1))
            assert [entry.rows for entry in entries] == sizes[after:]
        journal.close()


@pytest.mark.parametrize("end", ["live", "sealed"])
def test_polars_and_pyarrow_open_every_segment(tmp_path, end):
    journal = Journal.open(tmp_path, SCHEMA, options=JournalOptions(segment_bytes=4000))
    append_many(journal, 20)
    if end == "sealed":
        journal.close()
    paths = sorted(tmp_path.glob("*.arrows"))
    assert len(paths) > 2
    by_polars = pl.concat([pl.read_ipc_stream(path) for path in paths])
    by_pyarrow = pa.concat_tables([pa.ipc.open_stream(path).read_all().replace_schema_metadata() for path in paths])
    assert by_polars["trade_id"].to_list() == list(range(1, 61))
    assert by_pyarrow.column("trade_id").to_pylist() == list(range(1, 61))
    assert by_polars.schema == to_frame(trades(1, 1)).schema
    for path in paths[:-1] if end == "live" else paths:
        assert path.read_bytes().endswith(ipc.END_OF_STREAM)
    assert int(paths[0].stem) == 1
    journal.close()


def test_the_seam_between_disk_and_live_has_no_hole_and_no_overlap(tmp_path):
    count = 600
    journal = Journal.open(tmp_path, SCHEMA, options=JournalOptions(segment_bytes=20_000))
    batches = [trades(i, 1) for i in range(1, count + 1)]
    seen: list[list[int]] = [[], [], []]

    def follow(into: list[int], chunk: int) -> None:
        while not into or into[-1] < count:
            after = into[-1] if into else 0
            # a chunk at a time, as subscribers do: the generator is left while appends go on
            found = [entry.meta.sequence for entry in itertools.islice(journal.read(after), chunk)]
            into.extend(found)
            if not found:
                time.sleep(0.0005)

    readers = [
        threading.Thread(target=follow, args=(into, chunk)) for into, chunk in zip(seen, (1, 7, 10**9), strict=True)
    ]
    for reader in readers:
        reader.start()
    for batch in batches:
        journal.append(batch, BatchMeta())
    for reader in readers:
        reader.join(30)
    journal.close()
    assert all(into == list(range(1, count + 1)) for into in seen)


def test_one_reader_sees_what_is_appended_while_it_reads(tmp_path):
    with Journal.open(tmp_path, SCHEMA, options=JournalOptions(segment_bytes=3000)) as journal:
        append_many(journal, 1)
        sequences = []
        for entry in journal.read():
            sequences.append(entry.meta.sequence)
            if len(sequences) < 12:
                append_many(journal, 1)
        assert sequences == list(range(1, 13))


def test_a_clean_open_numbers_on_without_a_leap(tmp_path):
    with Journal.open(tmp_path, SCHEMA) as journal:
        assert (journal.last_sequence, journal.first_sequence) == (0, None)
        append_many(journal, 3)
        first_id = journal.id
    with Journal.open(tmp_path, SCHEMA) as journal:
        assert journal.id == first_id
        assert journal.opened.clean
        assert journal.last_sequence == 3
        assert append_many(journal, 1)[0].meta.sequence == 4
        assert [path.name for path in sorted(tmp_path.glob("*.arrows"))] == [f"{1:020}.arrows", f"{4:020}.arrows"]


def test_an_empty_journal_opened_again_begins_at_one(tmp_path):
    Journal.open(tmp_path, SCHEMA).close()
    with Journal.open(tmp_path, SCHEMA) as journal:
        assert append_many(journal, 1)[0].meta.sequence == 1


def abandon(journal: Journal) -> None:
    """What a killed process leaves: nothing sealed, nothing marked, the lock free."""
    journal._log.close()
    journal._folder_lock.release()


def test_an_unclean_open_leaps_and_never_gives_a_number_twice(tmp_path):
    journal = Journal.open(tmp_path, SCHEMA)
    append_many(journal, 5)
    abandon(journal)
    journal = Journal.open(tmp_path, SCHEMA)
    assert not journal.opened.clean
    assert journal.last_sequence == 5
    assert append_many(journal, 1)[0].meta.sequence == 5 + LEAP
    abandon(journal)
    # the disk forgets the last batch although it was synced: its number must still not come again
    (path,) = tmp_path.glob("*.arrows")
    with Journal.open(tmp_path, SCHEMA) as journal:
        whole = list(journal.read())
    size = len(path.read_bytes())
    os.truncate(path, size - len(ipc.split(whole[-1].payload, SCHEMA)) - len(ipc.END_OF_STREAM))
    (tmp_path / "state.json").write_bytes(
        json.dumps({"clean": False, "next_sequence": 5 + LEAP, "consumers": {}}).encode()
    )
    with Journal.open(tmp_path, SCHEMA) as journal:
        assert journal.last_sequence == 5
        assert append_many(journal, 1)[0].meta.sequence > 5 + LEAP


def test_appended_us_never_goes_back(tmp_path):
    clock = Clock(1000)
    with Journal.open(tmp_path, SCHEMA, now_us=clock) as journal:
        append_many(journal, 1)
        clock.now_us = 400
        append_many(journal, 1)
        assert [entry.meta.appended_us for entry in journal.read()] == [1000, 1000]
    with Journal.open(tmp_path, SCHEMA, now_us=clock) as journal:
        assert append_many(journal, 1)[0].meta.appended_us == 1000


def test_sequence_before_an_append_time(tmp_path):
    clock = Clock()
    with Journal.open(tmp_path, SCHEMA, options=JournalOptions(segment_bytes=2500), now_us=clock) as journal:
        assert journal.sequence_before(10**15) == 0
        times = [10, 20, 20, 20, 30, 30, 40, 50, 60, 60, 70]
        for now_us in times:
            clock.now_us = now_us
            append_many(journal, 1)
        assert len(list(tmp_path.glob("*.arrows"))) > 3
        for before in range(80):
            assert journal.sequence_before(before) == sum(now_us < before for now_us in times), before
    with Journal.open(tmp_path, SCHEMA, now_us=clock) as journal:
        assert [journal.sequence_before(before) for before in (5, 20, 45, 99)] == [0, 1, 7, 11]


@pytest.mark.parametrize("segment_bytes", [1, 2500])
def test_last_ids_outlive_silence_and_segments(tmp_path, segment_bytes):
    options = JournalOptions(segment_bytes=segment_bytes)
    with Journal.open(tmp_path, SCHEMA, options=options) as journal:
        assert journal.tail_ids() == {}
        journal.append(trades(90, 5, symbol="SILENTUSDT"), BatchMeta())
        append_many(journal, 20)
        journal.append(trades(7, 1), BatchMeta())  # a repair: lower ids, later
        expected = {"SILENTUSDT": 94, "BTCUSDT": 60}
        assert journal.tail_ids() == expected
        assert len(list(tmp_path.glob("*.arrows"))) > 4
    with Journal.open(tmp_path, SCHEMA, options=options) as journal:
        assert journal.tail_ids() == expected


def test_a_segment_carries_its_users_metadata(tmp_path):
    with Journal.open(tmp_path, SCHEMA, options=JournalOptions(segment_bytes=1)) as journal:
        assert journal.last_segment_metadata == {}
        append_many(journal, 1)
        journal.set_segment_metadata({"gaps": "[1]"})
        append_many(journal, 2)
        journal.set_segment_metadata({"gaps": "[2]"})  # no segment begins with this
        payloads = [entry.payload for entry in journal.read()]
    with Journal.open(tmp_path, SCHEMA) as journal:
        assert journal.last_segment_metadata == {"gaps": "[1]"}
        # what is delivered carries the stream's plain schema, whatever its segment holds
        assert all(payload.startswith(ipc.schema_prefix(SCHEMA)) for payload in payloads)
        append_many(journal, 1)  # kept on until told otherwise
    with Journal.open(tmp_path, SCHEMA) as journal:
        assert journal.last_segment_metadata == {"gaps": "[1]"}


def test_bars_have_a_journal_too(tmp_path):
    schema = stream_schema(TIME_BAR_SCHEMA, kind="time_bars", venue="")
    with Journal.open(tmp_path, schema, options=JournalOptions(segment_bytes=1)) as journal:
        for _ in range(3):
            journal.append(pa.RecordBatch.from_pylist([], schema=schema), BatchMeta())
        assert journal.tail_ids() == {}
        assert [entry.rows for entry in journal.read()] == [0, 0, 0]


def test_a_second_process_is_refused_by_name(tmp_path):
    code = """
import sys, pathlib
from raven.journal import Journal
from raven.batches.schema import TRADE_SCHEMA, stream_schema
from raven.errors import JournalLockedError
try:
    Journal.open(pathlib.Path(sys.argv[1]), stream_schema(TRADE_SCHEMA, kind="trades", venue="BINANCE_SPOT"))
except JournalLockedError as error:
    print(error)
"""
    with Journal.open(tmp_path, SCHEMA) as journal:
        said = subprocess.run([sys.executable, "-c", code, tmp_path], capture_output=True, text=True, check=True).stdout
        assert f"in use by process {os.getpid()}" in said
        assert str(tmp_path) in said
        with pytest.raises(JournalLockedError, match="stop that service"):
            Journal.open(tmp_path, SCHEMA)
        append_many(journal, 1)
    Journal.open(tmp_path, SCHEMA).close()


def test_a_failed_open_lets_go_of_the_lock(tmp_path):
    Journal.open(tmp_path, SCHEMA).close()
    with pytest.raises(JournalError):
        Journal.open(tmp_path, stream_schema(TRADE_SCHEMA, kind="trades", venue="BINANCE_FUTURES"))
    Journal.open(tmp_path, SCHEMA).close()


def test_a_journal_of_another_version_or_stream_is_refused(tmp_path):
    with Journal.open(tmp_path, SCHEMA) as journal:
        append_many(journal, 1)
    newer = SCHEMA.with_metadata({**SCHEMA.metadata, b"raven.schema_version": b"99"})
    with pytest.raises(JournalError, match=rf"a journal of another version.*'{SCHEMA_VERSION}'.*'99'"):
        Journal.open(tmp_path, newer)
    futures = stream_schema(TRADE_SCHEMA, kind="trades", venue="BINANCE_FUTURES")
    with pytest.raises(JournalError, match=r"BINANCE_SPOT.*BINANCE_FUTURES"):
        Journal.open(tmp_path, futures)
    identity = json.loads((tmp_path / "journal.json").read_text())
    (tmp_path / "journal.json").write_text(json.dumps({**identity, "format": 2}))
    with pytest.raises(JournalError, match="a journal of another version"):
        Journal.open(tmp_path, SCHEMA)


@pytest.mark.parametrize("name", ["journal.json", "state.json"])
@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe", b"[]", b'{"format": "one"}', b'{"clean": 1}'])
def test_a_damaged_file_beside_the_segments_is_named(tmp_path, name, content):
    with Journal.open(tmp_path, SCHEMA) as journal:
        append_many(journal, 1)
    (tmp_path / name).write_bytes(content)
    with pytest.raises(JournalError, match=f"{name} cannot be read") as caught:
        Journal.open(tmp_path, SCHEMA)
    assert caught.value.hint


def test_segments_without_an_identity_are_no_new_journal(tmp_path):
    with Journal.open(tmp_path, SCHEMA) as journal:
        append_many(journal, 1)
    (tmp_path / "journal.json").unlink()
    with pytest.raises(JournalError, match=r"holds no journal\.json"):
        Journal.open(tmp_path, SCHEMA)


def test_a_lost_state_file_counts_as_an_unclean_end(tmp_path):
    with Journal.open(tmp_path, SCHEMA) as journal:
        append_many(journal, 2)
    (tmp_path / "state.json").unlink()
    with Journal.open(tmp_path, SCHEMA) as journal:
        assert append_many(journal, 1)[0].meta.sequence == 2 + LEAP


def test_a_batch_of_another_schema_is_refused_and_takes_no_number(tmp_path):
    with Journal.open(tmp_path, SCHEMA) as journal:
        with pytest.raises(JournalError, match="does not fit"):
            journal.append(trades(1, 2).select(["symbol", "trade_id"]), BatchMeta())
        unmarked = trades(1, 2).replace_schema_metadata({"x": "y"})
        assert journal.append(unmarked, BatchMeta()).meta.sequence == 1
        (entry,) = journal.read()
        assert ipc.decode(entry.payload)[0].schema.metadata == SCHEMA.metadata


def test_a_slice_of_a_batch_is_stored_as_the_slice(tmp_path):
    with Journal.open(tmp_path, SCHEMA) as journal:
        journal.append(trades(1, 100).slice(40, 3), BatchMeta())
        assert ids_of(list(journal.read())) == [41, 42, 43]


def test_another_column_layout_of_the_same_version_begins_a_segment(tmp_path):
    wider = SCHEMA.append(pa.field("note", pa.string()))
    journal = Journal.open(tmp_path, SCHEMA)
    append_many(journal, 2)
    abandon(journal)
    with Journal.open(tmp_path, wider) as journal:
        batch = trades(7, 1).append_column(wider.field("note"), pa.array(["n"]))
        journal.append(batch.replace_schema_metadata(SCHEMA.metadata), BatchMeta())
        decoded = [ipc.decode(entry.payload)[0] for entry in journal.read()]
    assert [batch.num_columns for batch in decoded] == [8, 8, 9]
    assert sum(pl.read_ipc_stream(path).height for path in tmp_path.glob("*.arrows")) == 7


def test_a_closed_journal_says_so(tmp_path):
    journal = Journal.open(tmp_path, SCHEMA)
    journal.close()
    journal.close()
    with pytest.raises(JournalError, match="is closed"):
        append_many(journal, 1)


def test_a_folder_that_cannot_be_made_is_a_journal_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(JournalError, match="cannot be opened"):
        Journal.open(tmp_path / "file" / "journal", SCHEMA)


@pytest.mark.parametrize("reopen", [False, True])
def test_the_backlog_of_a_consumer_is_told_in_rows_and_since_when(tmp_path, reopen):
    clock = Clock()
    options = JournalOptions(segment_bytes=4_096)
    with Journal.open(tmp_path, SCHEMA, options=options, now_us=clock) as journal:
        assert journal.backlog("a") == Backlog(0, 0)
        entries = append_many(journal, 60, rows=7)
        assert len(list(tmp_path.glob("*.arrows"))) > 3, "the rows lie in several segments"
        if reopen:
            journal.close()
            journal = Journal.open(tmp_path, SCHEMA, options=options, now_us=clock)  # noqa: PLW2901
        for position in (0, 1, 17, 58, 59):
            journal.acknowledge("a", position)
            since_us = entries[position].meta.appended_us
            assert journal.backlog("a") == Backlog(7 * (60 - position), since_us)
        journal.acknowledge("a", 60)
        assert journal.backlog("a") == Backlog(0, 0)
        assert journal.backlog("never heard of").rows == 7 * 60
        journal.close()


def test_a_consumer_is_taken_up_once_with_all_that_is_held(tmp_path):
    with Journal.open(tmp_path, SCHEMA) as journal:
        append_many(journal, 5)
        journal.take_up("a")
        assert [(one.name, one.sequence) for one in journal.consumers()] == [("a", 0)]
        journal.acknowledge("a", 3)
        journal.take_up("a")
        assert [(one.name, one.sequence) for one in journal.consumers()] == [("a", 3)]
