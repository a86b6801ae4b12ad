"""The codec: one batch is one self-contained Arrow IPC stream (schema, batch, end-of-stream).

A journal segment holds the same bytes with the schema written once: `split` and `join` move between the two
without decoding, so what is stored and what is sent are one encoding.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Final

import pyarrow as pa

from raven.batches.batch import BatchMeta
from raven.errors import InputError

END_OF_STREAM: Final = b"\xff\xff\xff\xff\x00\x00\x00\x00"


@lru_cache(maxsize=32)
def schema_prefix(schema: pa.Schema) -> bytes:
    """The bytes every stream of `schema` begins with."""
    sink = pa.BufferOutputStream()
    pa.ipc.new_stream(sink, schema).close()
    return bytes(sink.getvalue().to_pybytes()[: -len(END_OF_STREAM)])


def encode(batch: pa.RecordBatch, meta: BatchMeta) -> bytes:
    """One batch with its metadata as a self-contained IPC stream."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batch.schema) as writer:
        writer.write_batch(batch, custom_metadata=meta.to_ipc())
    return bytes(sink.getvalue().to_pybytes())


def decode(payload: bytes | memoryview) -> tuple[pa.RecordBatch, BatchMeta]:
    """The batch and metadata of one payload; raises InputError when the bytes are damaged."""
    try:
        with pa.ipc.open_stream(payload) as reader:
            read = reader.read_next_batch_with_custom_metadata()
            read.batch.validate(full=True)  # offsets that lie outside their buffer crash those who follow them
    except (ValueError, pa.ArrowException, OSError, StopIteration) as error:
        raise InputError(f"a batch cannot be decoded: {error}") from error
    return read.batch, BatchMeta.from_ipc(read.custom_metadata)


def split(payload: bytes, schema: pa.Schema) -> bytes:
    """The batch message alone, as a segment holds it, out of a payload of exactly `schema`, metadata included.

    Raises InputError when the payload is of another schema.
    """
    prefix = schema_prefix(schema)
    if not payload.startswith(prefix):
        raise InputError("the batch is of another schema than its stream")
    return payload[len(prefix) : -len(END_OF_STREAM)]


def join(message: bytes, schema: pa.Schema) -> bytes:
    """A payload again, out of a batch message of a segment of `schema`."""
    return schema_prefix(schema) + message + END_OF_STREAM
