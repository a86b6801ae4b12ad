"""Kernel state to bytes and back: an Arrow IPC stream that says what it is, and a checksum.

Any Arrow reader opens the stream; the four bytes after it are its CRC-32, so that damage is found before a
sum is trusted.
"""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING, Final

import polars as pl
import pyarrow as pa

from raven.errors import StateError

if TYPE_CHECKING:
    from raven.bars.kernel import Kernel

STATE_VERSION: Final = "1"

_VERSION: Final = b"raven.state_version"
_FINGERPRINT: Final = b"raven.fingerprint"
_CHECKSUM_BYTES: Final = 4
_HINT: Final = "start from an empty state, or rebuild it by replaying the journal"


def snapshot(kernel: Kernel, state: pl.DataFrame) -> bytes:
    """`state` of `kernel` as bytes that `restore` takes."""
    table = state.to_arrow().replace_schema_metadata(
        {_VERSION: STATE_VERSION, _FINGERPRINT: kernel.fingerprint},
    )
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    stream = bytes(sink.getvalue().to_pybytes())
    return stream + _checksum(stream)


def restore(kernel: Kernel, data: bytes) -> pl.DataFrame:
    """The state in `data`.

    Raises StateError when the bytes are damaged, or of another format version or another kernel's.
    """
    stream, checksum = data[:-_CHECKSUM_BYTES], data[-_CHECKSUM_BYTES:]
    if not stream or _checksum(stream) != checksum:
        raise StateError(f"a saved state of {len(data)} bytes is damaged: its checksum does not fit", hint=_HINT)
    try:
        with pa.ipc.open_stream(stream) as reader:
            table = reader.read_all()
    except (pa.ArrowInvalid, OSError) as error:
        raise StateError(f"a saved state of {len(data)} bytes cannot be read: {error}", hint=_HINT) from error
    metadata = table.schema.metadata or {}
    version = metadata.get(_VERSION, b"none").decode(errors="replace")
    if version != STATE_VERSION:
        raise StateError(
            f"a saved state has format version {version}, this Raven reads {STATE_VERSION}",
            hint=f"use the Raven that saved it, or {_HINT}",
        )
    fingerprint = metadata.get(_FINGERPRINT, b"none").decode(errors="replace")
    if fingerprint != kernel.fingerprint:
        raise StateError(
            f"a saved state belongs to {fingerprint}, not to {kernel.fingerprint}",
            hint=f"use the parameters it was saved with, or {_HINT}",
        )
    state = pl.from_arrow(table)
    assert isinstance(state, pl.DataFrame)
    if state.schema != kernel.initial().schema or any(state.null_count().row(0)):
        raise StateError("a saved state has other columns than this Raven's", hint=_HINT)
    return state


def _checksum(stream: bytes) -> bytes:
    return zlib.crc32(stream).to_bytes(_CHECKSUM_BYTES, "little")
