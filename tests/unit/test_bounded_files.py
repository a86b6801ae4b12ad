"""Files that unpack to more than memory holds, that are no files, and whom those that Raven makes belong to."""

from __future__ import annotations

import gzip
import io
import os
import re
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import zstandard

from raven import files
from raven.batches.batch import BatchMeta
from raven.batches.schema import TRADE_SCHEMA, stream_schema, to_record_batch
from raven.errors import InputError, JournalError, JournalLockedError
from raven.journal import Journal, JournalReader
from raven.sources.recordings import files as recordings
from raven.sources.recordings import read_trades
from tests.unit.samples import trades

STREAM = stream_schema(TRADE_SCHEMA, kind="trades", venue="BINANCE_SPOT")
MIB = 1 << 20
UNPACKED_MIB = 384
MOST_KIB = 300 * 1024

READ = """
import resource, sys, raven
from raven.errors import RavenError
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
try:
    raven.read_trades(sys.argv[1])
except RavenError as error:
    print(error)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


def zipped(pieces: Callable[[], list[bytes]]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive, archive.open("x.txt", "w") as member:
        for piece in pieces():
            member.write(piece)
    return buffer.getvalue()


def gzipped(pieces: Callable[[], list[bytes]]) -> bytes:
    buffer = io.BytesIO()
    with gzip.GzipFile(fileobj=buffer, mode="wb", compresslevel=6) as file:
        for piece in pieces():
            file.write(piece)
    return buffer.getvalue()


def zstd(pieces: Callable[[], list[bytes]]) -> bytes:
    packer = zstandard.ZstdCompressor(level=1).compressobj()
    return b"".join([*map(packer.compress, pieces()), packer.flush()])


CAPTURE = (
    b'{"e":"trade","E":1672531200000,"s":"BTCUSDT","t":1,"p":"1","q":"1","T":1672531200000,"m":true,"M":true}\n{"e":"',
    "a line of more than 32 MiB",
)
CSV = (b"1,1.5,2,3,1672531200000,True,True\n", "a line of more than 32 MiB")
REPLY = (
    b'[{"id":1,"price":"1","qty":"1","time":1672531200000,"isBuyerMaker":true},{"id":"', "holds more than 128 MiB"
)  # fmt: skip


@pytest.mark.parametrize(
    ("pack", "beginning", "says"),
    [(zipped, *CSV), (gzipped, *CSV), (zstd, *CSV), (gzipped, *CAPTURE), (gzipped, *REPLY)],
)
@pytest.mark.slow
def test_a_line_without_an_end_takes_no_memory(tmp_path: Path, pack, beginning: bytes, says: str) -> None:
    path = tmp_path / "BTCUSDT-trades-2023-01-01"
    path.write_bytes(pack(lambda: [beginning, *[b"7" * MIB] * UNPACKED_MIB]))
    assert path.stat().st_size < 2 * MIB
    told = subprocess.run(
        [sys.executable, "-c", READ, path], capture_output=True, text=True, check=True, cwd=tmp_path
    ).stdout.splitlines()
    assert re.search(says, told[0]), told
    assert int(told[-1]) < MOST_KIB, f"{int(told[-1]) >> 10} MiB"


def test_the_bounds_are_those_of_one_line_and_one_document(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recordings, "MAX_LINE_BYTES", 1_000)
    monkeypatch.setattr(recordings, "BLOCK_BYTES", 100)
    line = b"1,1.5,2,3,1672531200000,True,True\n"
    many = tmp_path / "BTCUSDT-trades-2023-01-01.csv"
    many.write_bytes(b"".join(line.replace(b"1,", b"%d," % number, 1) for number in range(1, 200)))
    assert read_trades(many).height == 199
    monkeypatch.setattr(recordings, "MAX_WHOLE_BYTES", 500)
    reply = tmp_path / "BTCUSDT.json"
    reply.write_bytes(b'[{"id":1,"price":"1","qty":"1","time":1672531200000,"isBuyerMaker":true}]')
    assert read_trades(reply).height == 1
    reply.write_bytes(b'[{"id":1,"price":"1","qty":"1","time":1672531200000,"isBuyerMaker":true}' + b" " * 500 + b"]")
    with pytest.raises(InputError, match=r"BTCUSDT.json holds more than .*split it"):
        read_trades(reply)


def make_device(path: Path) -> None:
    path.symlink_to("/dev/zero")


@pytest.mark.timeout(20)
@pytest.mark.parametrize(("make", "kind"), [(os.mkfifo, "pipe"), (make_device, "device")])
def test_a_recording_that_is_no_file_is_refused(tmp_path: Path, make, kind: str) -> None:
    make(tmp_path / "BTCUSDT.csv")
    with pytest.raises(InputError, match=f"BTCUSDT.csv cannot be read: it is a {kind}, not a file"):
        read_trades(tmp_path / "BTCUSDT.csv")


@pytest.mark.timeout(30)
@pytest.mark.parametrize(("make", "kind"), [(os.mkfifo, "pipe"), (os.mkdir, "folder"), (make_device, "device")])
@pytest.mark.parametrize("name", ["00000000000000000001.arrows", "00000000000000000002.arrows"])
def test_a_segment_that_is_no_file_is_told(tmp_path: Path, make, kind: str, name: str) -> None:
    folder = tmp_path / "journal"
    with Journal.open(folder, STREAM) as journal:
        journal.append(to_record_batch(trades([1], "BTCUSDT"), TRADE_SCHEMA), BatchMeta())
    (folder / name).unlink(missing_ok=True)
    make(folder / name)
    says = f"segment .*{name} cannot be read: it is a {kind}, not a file.*move it away"
    with pytest.raises(JournalError, match=says):
        list(JournalReader(folder).entries())
    with pytest.raises(JournalError, match=says):
        read_trades(folder)
    with pytest.raises(JournalError, match=says), Journal.open(folder, STREAM) as journal:
        list(journal.read())


@pytest.mark.timeout(30)
@pytest.mark.parametrize("name", ["journal.json", "state.json", "lock"])
def test_what_lies_beside_the_segments_and_is_no_file_is_told(tmp_path: Path, name: str) -> None:
    folder = tmp_path / "journal"
    Journal.open(folder, STREAM).close()
    (folder / name).unlink()
    os.mkfifo(folder / name)
    with pytest.raises(JournalError, match=r"pipe, not a file|cannot be opened") as error:
        Journal.open(folder, STREAM)
    assert not isinstance(error.value, JournalLockedError)


@pytest.mark.parametrize(("group_reads", "folder", "file"), [(False, 0o700, 0o600), (True, 0o750, 0o640)])
def test_data_is_its_owners(tmp_path: Path, group_reads: bool, folder: int, file: int) -> None:
    before = os.umask(0)
    try:
        files.keep_private(group_reads=group_reads)
        with Journal.open(tmp_path / "data" / "journal", STREAM) as journal:
            journal.append(to_record_batch(trades([1], "BTCUSDT"), TRADE_SCHEMA), BatchMeta())
    finally:
        os.umask(before)
    for path in (tmp_path / "data").rglob("*"):
        assert path.stat().st_mode & 0o777 == (folder if path.is_dir() else file), path
    assert (tmp_path / "data").stat().st_mode & 0o777 == folder
