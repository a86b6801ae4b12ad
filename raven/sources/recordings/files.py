"""Bytes of recorded files: plain, zip, gzip or Zstandard, told by their first bytes, not by their names."""

from __future__ import annotations

import gzip
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Final

import zstandard

from raven.errors import InputError

BLOCK_BYTES: Final = 8 << 20
"""How much of a file is in memory at a time, decompressed."""

_PACKED_BYTES: Final = 1 << 17

_DAMAGED: Final = (zipfile.BadZipFile, gzip.BadGzipFile, zlib.error, zstandard.ZstdError, EOFError)


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

    Raises InputError when the file cannot be read or is damaged, also when that shows only at its end.
    """
    rest: list[bytes] = []
    for chunk in read_chunks(path, BLOCK_BYTES):
        whole, newline, tail = chunk.rpartition(b"\n")
        if newline:
            yield b"".join((*rest, whole))
            rest = []
        rest.append(tail)
    last = b"".join(rest)
    if last:
        yield last


def read_chunks(path: Path, size_bytes: int) -> Iterator[bytes]:
    """The decompressed bytes, cut anywhere; raises InputError when the file cannot be read or is damaged."""
    try:
        with path.open("rb") as file:
            magic = file.read(4)
            file.seek(0)
            if magic[:2] == b"PK":
                yield from _unzip(file, path, size_bytes)
            elif magic[:2] == b"\x1f\x8b":
                with gzip.open(file) as unzipped:
                    yield from iter(lambda: unzipped.read(size_bytes), b"")
            elif magic == b"\x28\xb5\x2f\xfd":
                yield from _unzstd(file)
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


def _unzstd(file: IO[bytes]) -> Iterator[bytes]:
    """One Zstandard frame after the other; a decompressor that is fed too little says so only by `eof`."""
    frame = zstandard.ZstdDecompressor().decompressobj()
    for packed in iter(lambda: file.read(_PACKED_BYTES), b""):
        rest = packed
        while rest:
            if frame.eof:
                frame = zstandard.ZstdDecompressor().decompressobj()
            unpacked = frame.decompress(rest)
            rest = frame.unused_data if frame.eof else b""
            if unpacked:
                yield unpacked
    if not frame.eof:
        raise EOFError("it ends in the middle")
