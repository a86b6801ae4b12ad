"""What every reader of recorded files yields: rows, and the lines no row could be made of."""

from __future__ import annotations

from typing import Final, NamedTuple

import polars as pl

from raven.batches.gate import BadReason

_SHOWN_BYTES: Final = 80


class BadLine(NamedTuple):
    """A line (counted from 1; in a REST reply an entry) that gave no row, with its beginning."""

    line: int
    reason: BadReason
    text: str


class Chunk(NamedTuple):
    """`trades` (TRADE_SCHEMA) of one stretch of a file, in file order."""

    trades: pl.DataFrame
    bad: list[BadLine]


def show(text: bytes) -> str:
    """The beginning of a line, fit for a message."""
    return text[:_SHOWN_BYTES].decode(errors="replace").strip()
