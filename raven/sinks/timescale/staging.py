"""A flush into its table within the running transaction: COPY into staging, upsert; bad rows are found by halving."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

import polars as pl
import pyarrow as pa

from raven.batches.schema import to_record_batch
from raven.sinks.encode import Layout
from raven.sinks.store import Refusal, StoreRefusedError
from raven.sinks.timescale.errors import RowRefusedError
from raven.sinks.timescale.session import Session
from raven.sinks.timescale.sql import EMPTY_STAGING, PIECE, PIECE_DONE, PIECE_UNDONE, STAGING, upsert

MOST_REFUSED_ROWS: Final = 100
"""More in one flush is no bad row, but a fault of the table."""

_OLDEST_US: Final = -(2**63) + 946_684_800_000_000
"""The driver counts from 2000 on, and does not notice when that is out of int64; the server's limit is above."""


@dataclass(slots=True)
class Stored:
    """What became of rows: `inserted`, `replaced`, and those refused, by their number."""

    inserted: int = 0
    replaced: int = 0
    refusals: list[Refusal] = field(default_factory=list)


def store(session: Session, layout: Layout, rows: pl.DataFrame) -> Stored:
    """Insert new rows, replace those of a lower revision, leave the others; identities in `rows` are distinct.

    Rows that the server refuses are left out and told. Raises StoreRefusedError when they are too many.
    """
    stored = Stored()
    numbered = rows.with_row_index("row")
    times = pl.col([name for name, dtype in rows.schema.items() if dtype.is_temporal()]).to_physical()
    too_old = pl.any_horizontal(times < _OLDEST_US)
    for number in numbered.filter(too_old).get_column("row"):
        _refuse(stored, layout, Refusal(number, "timestamp out of range"))
    pieces = [numbered.filter(~too_old)]
    while pieces:
        piece = pieces.pop()
        if piece.is_empty():
            continue
        session.script(PIECE)
        try:
            counts = _upsert(session, layout, to_record_batch(piece, layout.schema))
        except RowRefusedError as error:
            session.script(PIECE_UNDONE)
            if piece.height == 1:
                _refuse(stored, layout, Refusal(piece.item(0, "row"), error.message))
            else:
                half = piece.height // 2
                pieces += [piece[half:], piece[:half]]
        else:
            stored.inserted += counts["inserted"]
            stored.replaced += counts["replaced"]
            if pieces:
                session.script(EMPTY_STAGING)
        session.script(PIECE_DONE)
    return stored


def _upsert(session: Session, layout: Layout, rows: pa.RecordBatch) -> dict[str, int]:
    session.copy_into(STAGING, rows)
    counts: dict[str, int] = session.run(upsert(layout)).to_pylist()[0]
    return counts


def _refuse(stored: Stored, layout: Layout, refusal: Refusal) -> None:
    stored.refusals.append(refusal)
    if len(stored.refusals) > MOST_REFUSED_ROWS:
        raise StoreRefusedError(
            f"the server refuses more than {MOST_REFUSED_ROWS} rows at once of {layout.name}: {refusal.reason}",
            hint="so it is not the rows: look at the table's constraints and triggers",
        )
