"""Reading a journal from outside."""

from __future__ import annotations

import pytest

from raven.batches import ipc
from raven.batches.batch import BatchMeta
from raven.errors import JournalError
from raven.journal import Hole, Journal, JournalOptions, JournalReader
from tests.unit.test_journal import SCHEMA, Clock, append_many, archive_batches


def test_it_reads_what_the_writer_wrote_while_it_is_open(tmp_path, shared_data):
    with Journal.open(tmp_path, SCHEMA, options=JournalOptions(segment_bytes=2**20)) as journal:
        appended = [journal.append(batch, BatchMeta()) for batch in archive_batches(shared_data, 2000)]
        reader = JournalReader(tmp_path)
        assert list(reader.entries()) == appended
        assert list(reader.entries(7)) == appended[7:]
        assert (reader.id, reader.kind, reader.venue) == (journal.id, "trades", "BINANCE_SPOT")
        assert reader.schema.equals(SCHEMA, check_metadata=True)
    assert list(JournalReader(tmp_path).entries()) == appended


def test_a_span_of_append_times(tmp_path):
    clock = Clock()
    times = [10, 20, 20, 30, 30, 40, 50, 60]
    with Journal.open(tmp_path, SCHEMA, options=JournalOptions(segment_bytes=2500), now_us=clock) as journal:
        for now_us in times:
            clock.now_us = now_us
            append_many(journal, 1)
    reader = JournalReader(tmp_path)
    for start_us in (None, 0, 10, 20, 25, 60, 61):
        for end_us in (None, 0, 20, 30, 31, 100):
            for after in (0, 3):
                found = [(e.meta.sequence, e.hole) for e in reader.entries(after, start_us=start_us, end_us=end_us)]
                assert found == [
                    (i, None)
                    for i, at in enumerate(times, 1)
                    if i > after and (start_us is None or at >= start_us) and (end_us is None or at < end_us)
                ]


def test_last_ids_and_times_while_it_is_written(tmp_path, shared_data):
    clock = Clock()
    with Journal.open(tmp_path, SCHEMA, options=JournalOptions(segment_bytes=2**20), now_us=clock) as journal:
        with pytest.raises(JournalError, match="holds no batch yet"):
            JournalReader(tmp_path).tail_ids()
        for now_us, batch in enumerate(archive_batches(shared_data, 5000), 100):
            clock.now_us = now_us
            entry = journal.append(batch, BatchMeta())
            if entry.meta.sequence % 5 == 1:
                assert JournalReader(tmp_path).tail_ids() == journal.tail_ids()
                assert JournalReader(tmp_path).span_us() == (100, now_us)
        torn = tmp_path / "99999999999999999999.arrows"
        torn.write_bytes(b"a segment being made")
        assert JournalReader(tmp_path).span_us() == (100, now_us)
        torn.unlink()


def test_entries_go_on_to_what_is_appended_meanwhile(tmp_path):
    with Journal.open(tmp_path, SCHEMA, options=JournalOptions(segment_bytes=3000)) as journal:
        append_many(journal, 1)
        sequences = []
        for entry in JournalReader(tmp_path).entries():
            sequences.append(entry.meta.sequence)
            if len(sequences) < 10:
                append_many(journal, 1)
        assert sequences == list(range(1, 11))


def test_what_retention_takes_away_meanwhile_is_told(tmp_path):
    with Journal.open(tmp_path, SCHEMA, options=JournalOptions(segment_bytes=1, max_bytes=1)) as journal:
        append_many(journal, 6)
        reading = JournalReader(tmp_path).entries()
        next(reading)
        journal.enforce_retention()
        rest = list(reading)
        assert [(entry.meta.sequence, entry.hole) for entry in rest] == [(6, Hole(1, 5))]


def test_what_is_a_journal(tmp_path):
    assert not JournalReader.is_journal(tmp_path)
    with pytest.raises(JournalError, match="is not a journal"):
        JournalReader(tmp_path)
    with Journal.open(tmp_path, SCHEMA):
        assert JournalReader.is_journal(tmp_path)
        reader = JournalReader(tmp_path)
        assert list(reader.entries()) == []
        assert list(reader.entries(start_us=5)) == []
        with pytest.raises(JournalError, match="holds no batch yet"):
            _ = reader.schema


def test_payloads_decode_alone(tmp_path):
    with Journal.open(tmp_path, SCHEMA) as journal:
        append_many(journal, 2)
    for entry in JournalReader(tmp_path).entries():
        batch, meta = ipc.decode(entry.payload)
        assert meta == entry.meta
        assert batch.num_rows == entry.rows == 3
