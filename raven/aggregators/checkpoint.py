"""The checkpoint of an aggregator: positions, kernel states and output sequence, in one file, written atomically.

The file is an Arrow IPC stream of rows (upstream, spec, state), with the positions as JSON in its metadata.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import msgspec
import pyarrow as pa

from raven.batches.batch import Cursor
from raven.errors import StateError
from raven.files import read_file, write_atomically

FORMAT_VERSION: Final = 1
_KEY: Final = b"raven.checkpoint"
_SCHEMA: Final = pa.schema([("upstream", pa.string()), ("spec", pa.string()), ("state", pa.binary())])


class Position(msgspec.Struct, frozen=True):
    """What an aggregator has taken of one upstream: the place, and the last trade id of each symbol.

    `published_through`: while it recovers, the input whose output is already in its journal.
    """

    cursor: Cursor | None = None
    last_ids: dict[str, int] = msgspec.field(default_factory=dict)
    published_through: Cursor | None = None


class _Header(msgspec.Struct):
    version: int
    output_sequence: int
    positions: dict[str, Position]


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """`states` holds a kernel snapshot for each (upstream, spec)."""

    positions: Mapping[str, Position] = field(default_factory=dict)
    states: Mapping[tuple[str, str], bytes] = field(default_factory=dict)
    output_sequence: int = 0


def save(path: Path, checkpoint: Checkpoint) -> None:
    """Replace the checkpoint at `path`; blocking, synced."""
    header = _Header(FORMAT_VERSION, checkpoint.output_sequence, dict(checkpoint.positions))
    schema = _SCHEMA.with_metadata({_KEY: msgspec.json.encode(header)})
    rows = [
        {"upstream": upstream, "spec": spec, "state": state} for (upstream, spec), state in checkpoint.states.items()
    ]
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, schema) as writer:
        writer.write_table(pa.Table.from_pylist(rows, schema=schema))
    write_atomically(path, sink.getvalue().to_pybytes())


def load(path: Path) -> Checkpoint:
    """The checkpoint at `path`, an empty one when there is none; raises StateError when it cannot be used."""
    if not path.exists():
        return Checkpoint()
    hint = "remove it to start over from the upstream's journal"
    try:
        with pa.ipc.open_stream(read_file(path)) as reader:
            table = reader.read_all()
        header = msgspec.json.decode((table.schema.metadata or {})[_KEY], type=_Header)
    except (pa.ArrowInvalid, OSError, KeyError, msgspec.MsgspecError) as error:
        raise StateError(f"the checkpoint {path} is damaged: {error}", hint=hint) from error
    if header.version != FORMAT_VERSION:
        raise StateError(f"the checkpoint {path} has format {header.version}, not {FORMAT_VERSION}", hint=hint)
    states = {(row["upstream"], row["spec"]): row["state"] for row in table.to_pylist()}
    return Checkpoint(header.positions, states, header.output_sequence)
