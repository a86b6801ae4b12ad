"""Bytes of recorded files: plain, zip, gzip or Zstandard, told by their first bytes, not by their names."""

from __future__ import annotations

import gzip
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Final

import pyarrow as pa

from raven.errors import InputError
from raven.files import open_file

BLOCK_BYTES: Final = 8 << 20
"""How much of a file is in memory at a time, decompressed."""

MAX_LINE_BYTES: Final = 32 << 20
"""The longest line: a few bytes can unpack to one without an end."""

MAX_WHOLE_BYTES: Final = 128 << 20
"""The most of a file that is read whole, decompressed."""

_DAMAGED: Final = (zipfile.BadZipFile, gzip.BadGzipFile, zlib.error, EOFError)


def read_head(path: Path, size_bytes: int = 1 << 20) -> bytes:
    """The first bytes of a file, decompressed; raises InputError when there are none, or they are damaged."""
    head = b""
    for chunk in read_chunks(path, size_bytes):
        head += chunk
        if len(head) >= size_bytes:
            break
    if not head:
        raise InputError(f"{path.name} is empty")
    return head[:size_bytes]


def read_blocks(path: Path) -> Iterator[bytes]:
    """The decompressed bytes in blocks of whole lines, without the newline a block ends with.

    Raises InputError when the file cannot be read or is damaged, also when that shows only at its end, and for a line
    longer than `MAX_LINE_BYTES`.
    """
    rest: list[bytes] = []
    rest_bytes = 0
    for chunk in read_chunks(path, BLOCK_BYTES):
        whole, newline, tail = chunk.rpartition(b"\n")
        if newline:
            yield b"".join((*rest, whole))
            rest, rest_bytes = [], 0
        rest.append(tail)
        rest_bytes += len(tail)
        if rest_bytes > MAX_LINE_BYTES:
            raise InputError(
                f"{path.name} has a line of more than {MAX_LINE_BYTES >> 20} MiB", hint="it is no recording, or damaged"
            )
    last = b"".join(rest)
    if last:
        yield last


def read_whole(path: Path) -> bytes:
    """All decompressed bytes; raises InputError as `read_chunks`, and for more than `MAX_WHOLE_BYTES`."""
    parts: list[bytes] = []
    size_bytes = 0
    for chunk in read_chunks(path, BLOCK_BYTES):
        parts.append(chunk)
        size_bytes += len(chunk)
        if size_bytes > MAX_WHOLE_BYTES:
            raise InputError(
                f"{path.name} holds more than {MAX_WHOLE_BYTES >> 20} MiB, and one JSON document is read whole",
                hint="split it into several files",
            )
    return b"".join(parts)


def read_chunks(path: Path, size_bytes: int) -> Iterator[bytes]:
    """The decompressed bytes, cut anywhere; raises InputError when the file cannot be read or is damaged."""
    try:
        with open_file(path) as file:
            magic = file.read(4)
            file.seek(0)
            if magic[:2] == b"PK":
                yield from _unzip(file, path, size_bytes)
            elif magic[:2] == b"\x1f\x8b":
                with gzip.open(file) as unzipped:
                    yield from iter(lambda: unzipped.read(size_bytes), b"")
            elif magic == b"\x28\xb5\x2f\xfd":
                yield from _unzstd(file, size_bytes)
            else:
                yield from iter(lambda: file.read(size_bytes), b"")
    except _DAMAGED as error:
        raise InputError(
            f"{path.name} is damaged: {error}", hint="was the download or the copy cut short? fetch it again"
        ) from error
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}") from error


def _unzip(file: IO[bytes], path: Path, size_bytes: int) -> Iterator[bytes]:
    with zipfile.ZipFile(file) as archive:
        members = [member for member in archive.infolist() if not member.is_dir()]
        if len(members) != 1:
            raise InputError(f"{path.name} holds {len(members)} files", hint="unpack it and name the ones to read")
        if members[0].flag_bits & 1:
            raise InputError(f"{path.name} is encrypted", hint="unpack it first")
        try:
            member = archive.open(members[0])
        except NotImplementedError as error:  # how zipfile says that it does not know the compression
            raise InputError(f"{path.name}: {error}", hint="unpack it first") from error
        with member:
            yield from iter(lambda: member.read(size_bytes), b"")


def _unzstd(file: IO[bytes], size_bytes: int) -> Iterator[bytes]:
    """One Zstandard frame after the other, whatever little of them unpacks to how much."""
    try:
        with pa.CompressedInputStream(pa.PythonFile(file, "r"), "zstd") as unpacked:
            yield from iter(lambda: unpacked.read(size_bytes), b"")
    except OSError as error:
        if error.errno is not None:
            raise
        raise EOFError(str(error)) from error
