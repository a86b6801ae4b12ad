"""Rows of trades out of Arrow IPC files and streams."""

from __future__ import annotations

from collections.abc import Iterator

from raven.batches.schema import to_frame
from raven.sources.recordings import tabular
from raven.sources.recordings.arrow import _fit as fit
from raven.sources.recordings.chunks import Chunk
from raven.sources.recordings.kinds import Recording


def read_ipc(recording: Recording, symbol: str | None, venue: str | None) -> Iterator[Chunk]:
    """The rows of an Arrow IPC file or stream in file order; columns as in `read_parquet`. Raises InputError."""
    with tabular.damage_named(recording.path):
        for batch in tabular.arrow_batches(recording.path):
            frame = tabular.of_venue(to_frame(batch), recording.path.name, venue)
            yield Chunk(fit(frame, recording, symbol), [])
