"""The journal when things die: torn tails at every byte, kill -9, full disks, hurt files."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import threading
from pathlib import Path

import polars as pl
import pyarrow as pa
import pytest

from raven.batches import ipc
from raven.batches.batch import BatchMeta
from raven.errors import JournalError
from raven.journal import Journal, JournalOptions, JournalReader
from raven.journal.journal import LEAP
from tests.unit.test_journal import SCHEMA, abandon, append_many, ids_of, trades


def torn_journal(folder: Path, batches: int) -> tuple[bytes, list[int]]:
    """What a killed writer of one segment leaves: the segment's bytes, and where each whole batch ends."""
    journal = Journal.open(folder, SCHEMA)
    entries = append_many(journal, batches)
    abandon(journal)
    content = (folder / f"{1:020}.arrows").read_bytes()
    sizes = [len(ipc.split(entry.payload, SCHEMA)) for entry in entries]
    return content, [len(content) - sum(sizes[i + 1 :]) for i in range(batches)]


@pytest.mark.parametrize(
    "where", [pytest.param("every byte of the last batch", marks=pytest.mark.slow), "steps through the whole file"]
)
def test_a_torn_tail_is_cut_wherever_it_tears(tmp_path, where):
    content, ends = torn_journal(tmp_path, 3)
    state = (tmp_path / "state.json").read_bytes()
    path = tmp_path / f"{1:020}.arrows"
    every_byte = range(ends[-2], ends[-1] + 1)
    for cut in every_byte if where.startswith("every") else range(0, ends[-1] + 1, 23):
        for old in tmp_path.glob("*.arrows"):
            old.unlink()
        path.write_bytes(content[:cut])
        (tmp_path / "state.json").write_bytes(state)
        whole = sum(end <= cut for end in ends)
        kept = ends[whole - 1] if whole else 0
        # a reader from outside is not disturbed by the tear, before it is mended
        assert [entry.meta.sequence for entry in JournalReader(tmp_path).entries()] == list(range(1, whole + 1)), cut
        with Journal.open(tmp_path, SCHEMA) as journal:
            assert journal.opened.cut_bytes == cut - kept, cut
            assert not journal.opened.clean
            assert journal.last_sequence == whole
            assert [entry.meta.sequence for entry in journal.read()] == list(range(1, whole + 1))
            # an empty batch is shorter than most of what was torn: nothing of that may show behind it
            assert journal.append(trades(100, 0), BatchMeta()).meta.sequence == whole + LEAP
            assert ids_of(list(journal.read())) == list(range(1, whole * 3 + 1))
        expected = list(range(1, whole * 3 + 1))
        (left,) = tmp_path.glob("*.arrows")
        assert left.read_bytes().endswith(ipc.END_OF_STREAM)
        assert pl.read_ipc_stream(left)["trade_id"].to_list() == expected, cut
        assert pa.ipc.open_stream(left).read_all().column("trade_id").to_pylist() == expected, cut


@pytest.mark.parametrize("tail", [b"\0" * 500, b"\xff\xff\xff\xff\0\0", b"\xff\xff\xff\xff\0\0\0\0\0"])
def test_a_tail_of_zeros_or_half_an_end_is_cut(tmp_path, tail):
    content, _ = torn_journal(tmp_path, 3)
    (tmp_path / f"{1:020}.arrows").write_bytes(content + tail)
    with Journal.open(tmp_path, SCHEMA) as journal:
        assert journal.opened.cut_bytes == len(tail)
        assert len(list(journal.read())) == 3


def test_a_crash_just_after_sealing_goes_on_in_a_new_segment(tmp_path):
    content, _ = torn_journal(tmp_path, 3)
    (tmp_path / f"{1:020}.arrows").write_bytes(content + ipc.END_OF_STREAM)
    with Journal.open(tmp_path, SCHEMA) as journal:
        assert journal.opened.cut_bytes == 0
        assert append_many(journal, 1)[0].meta.sequence == 3 + LEAP
        assert len(list(tmp_path.glob("*.arrows"))) == 2


def test_a_segment_torn_before_its_first_batch_goes_and_the_one_before_counts(tmp_path):
    options = JournalOptions(segment_bytes=1)
    journal = Journal.open(tmp_path, SCHEMA, options=options)
    append_many(journal, 3)
    abandon(journal)
    newest = max(tmp_path.glob("*.arrows"))
    size = newest.stat().st_size
    os.truncate(newest, size - 1)
    with Journal.open(tmp_path, SCHEMA, options=options) as journal:
        assert not newest.exists()
        assert journal.opened.cut_bytes == size - 1
        assert journal.last_sequence == 2
        assert journal.tail_ids() == {"BTCUSDT": 6}
        append_many(journal, 1, first_id=7)
        assert ids_of(list(journal.read())) == list(range(1, 10))


@pytest.mark.parametrize("where", ["schema", "second batch"])
def test_damage_in_the_middle_is_refused_and_nothing_is_cut(tmp_path, where):
    content, ends = torn_journal(tmp_path, 5)
    hurt = bytearray(content)
    at = 20 if where == "schema" else ends[0] + 20
    hurt[at : at + 8] = b"\xee" * 8
    path = tmp_path / f"{1:020}.arrows"
    path.write_bytes(hurt)
    with pytest.raises(JournalError, match="batches follow the damage") as caught:
        Journal.open(tmp_path, SCHEMA)
    assert str(path) in caught.value.message
    assert path.read_bytes() == bytes(hurt)


@pytest.mark.parametrize("harm", [b"\xee" * 8, b"\0" * 8])
def test_damage_in_an_old_segment_is_an_error_where_it_is_read(tmp_path, harm):
    with Journal.open(tmp_path, SCHEMA, options=JournalOptions(segment_bytes=3000)) as journal:
        entries = append_many(journal, 12)
    path = min(tmp_path.glob("*.arrows"))
    end = path.stat().st_size - len(ipc.END_OF_STREAM)
    hurt = bytearray(path.read_bytes())
    at = end - len(ipc.split(entries[1].payload, SCHEMA))  # the last batch of the oldest segment
    hurt[at : at + 8] = harm
    path.write_bytes(hurt)
    with Journal.open(tmp_path, SCHEMA) as journal:
        with pytest.raises(JournalError, match=f"damaged at byte {at}"):
            list(journal.read())
        with pytest.raises(JournalError, match=f"damaged at byte {at}"):
            list(JournalReader(tmp_path).entries())


WRITER = """
import sys, pathlib
sys.path.insert(0, sys.argv[2])
from tests.unit.test_journal import SCHEMA, trades
from raven.batches.batch import BatchMeta
from raven.journal import Journal, JournalOptions
journal = Journal.open(pathlib.Path(sys.argv[1]), SCHEMA, options=JournalOptions(segment_bytes=50_000))
first_id = int(sys.argv[3])
while True:
    entry = journal.append(trades(first_id, 5), BatchMeta())
    first_id += 5
    print(entry.meta.sequence, first_id - 1, flush=True)
"""


@pytest.mark.slow
def test_whatever_was_reported_survives_kill_9(tmp_path):
    sequences, last_id = [], 0
    for _ in range(2):
        command = [sys.executable, "-c", WRITER, str(tmp_path), str(Path(__file__).parents[2]), str(last_id + 1)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
            assert child.stdout is not None
            killer = threading.Timer(30, child.kill)
            killer.start()
            reported = [child.stdout.readline() for _ in range(100)]
            child.send_signal(signal.SIGKILL)
            reported += [line for line in child.stdout if line.endswith("\n")]
            killer.cancel()
        sequences += [int(line.split()[0]) for line in reported]
        entries = list(JournalReader(tmp_path).entries())
        found = [entry.meta.sequence for entry in entries]
        assert set(sequences) <= set(found)
        assert found == sorted(set(found))
        # at most the one in flight was appended and not reported
        assert len(set(found) - set(sequences)) <= 1
        sequences = found
        ids = ids_of(entries)
        assert ids == list(range(1, len(ids) + 1))
        last_id = ids[-1]
    with Journal.open(tmp_path, SCHEMA) as journal:
        assert not journal.opened.clean
        assert [entry.meta.sequence for entry in journal.read()] == sequences
        assert sequences[-1] > LEAP


class SmallDisk:
    """A folder that takes about `limit` bytes of journal until `relieve` is called."""

    def __init__(self, path: Path, *, is_mount: bool) -> None:
        self.path = path
        self._is_mount = is_mount
        self._limits = resource.getrlimit(resource.RLIMIT_FSIZE)

    def fill(self, limit: int) -> None:
        if self._is_mount:
            self._remount(2 * limit)
        else:
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, self._limits[1]))

    def relieve(self) -> None:
        if self._is_mount:
            self._remount(2**26)
        else:
            resource.setrlimit(resource.RLIMIT_FSIZE, self._limits)

    def _remount(self, size: int) -> None:
        subprocess.run(["mount", "-o", f"remount,size={size}", self.path], check=True)


def can_mount() -> bool:
    """Whether this process may mount a tmpfs of its own."""
    status = Path("/proc/self/status").read_text()
    capabilities = int(next(line.split()[1] for line in status.splitlines() if line.startswith("CapEff")), 16)
    return os.geteuid() == 0 and bool(capabilities >> 21 & 1)  # CAP_SYS_ADMIN


@pytest.fixture(params=["file size limit", *(["full disk"] if can_mount() else [])])
def small_disk(request, tmp_path):
    is_mount = request.param == "full disk"
    if is_mount:
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", tmp_path], check=True)
    disk = SmallDisk(tmp_path, is_mount=is_mount)
    try:
        yield disk
    finally:
        disk.relieve()
        if is_mount:
            subprocess.run(["umount", tmp_path], check=True)


def test_a_full_disk_harms_nothing_written_and_the_journal_goes_on(small_disk):
    folder = small_disk.path / "j"
    journal = Journal.open(folder, SCHEMA)
    appended = append_many(journal, 5, rows=50)
    small_disk.fill(64_000)
    failure = None
    while failure is None:
        try:
            appended += append_many(journal, 1, rows=50, first_id=1000)
        except JournalError as error:
            failure = error
    assert "appending to journal" in failure.message
    assert "nothing written before is harmed" in failure.hint
    assert 10 < len(appended) < 60
    (path,) = folder.glob("*.arrows")
    whole = path.stat().st_size
    with pytest.raises(JournalError):
        journal.append(trades(1, 500), BatchMeta())
    assert path.stat().st_size == whole
    assert list(journal.read()) == appended
    assert pl.read_ipc_stream(path).height == 50 * len(appended)
    small_disk.relieve()
    after = journal.append(trades(9000, 50), BatchMeta())
    assert after.meta.sequence > appended[-1].meta.sequence + 1, "a failed attempt's number must not come again"
    assert list(journal.read()) == [*appended, after]
    journal.close()
    with Journal.open(folder, SCHEMA) as journal:
        assert journal.opened.cut_bytes == 0
        assert journal.opened.clean
        assert list(journal.read()) == [*appended, after]
        # numbers go on above every attempt, those that failed too
        assert append_many(journal, 1)[0].meta.sequence == after.meta.sequence + 1


def test_a_full_disk_while_a_segment_begins(small_disk):
    folder = small_disk.path / "j"
    journal = Journal.open(folder, SCHEMA, options=JournalOptions(segment_bytes=1))
    appended = append_many(journal, 2, rows=10)
    small_disk.fill(64_000)
    for _ in range(2):
        with pytest.raises(JournalError):
            journal.append(trades(1000, 4000), BatchMeta())
    assert len(list(folder.glob("*.arrows"))) == 2
    assert list(journal.read()) == appended
    small_disk.relieve()
    appended += append_many(journal, 2, rows=10)
    assert list(journal.read()) == appended
    journal.close()


def test_an_unclean_end_on_a_full_disk_is_found_clean_of_torn_bytes(small_disk):
    folder = small_disk.path / "j"
    journal = Journal.open(folder, SCHEMA)
    appended = append_many(journal, 2)
    small_disk.fill(64_000)
    with pytest.raises(JournalError):
        journal.append(trades(1000, 5000), BatchMeta())
    abandon(journal)
    small_disk.relieve()
    with Journal.open(folder, SCHEMA) as journal:
        assert journal.opened.cut_bytes == 0
        assert list(journal.read()) == appended


def test_a_reader_from_outside_survives_a_live_writer(tmp_path):
    journal = Journal.open(tmp_path, SCHEMA, options=JournalOptions(segment_bytes=5000))
    failures: list[Exception] = []

    def read() -> None:
        reader, after = JournalReader(tmp_path), 0
        try:
            while after < 80:
                for entry in reader.entries(after):
                    assert entry.meta.sequence == after + 1
                    after = entry.meta.sequence
        except (JournalError, AssertionError) as error:
            failures.append(error)

    thread = threading.Thread(target=read)
    thread.start()
    append_many(journal, 80)
    thread.join(30)
    assert not thread.is_alive()
    assert not failures
    journal.close()
