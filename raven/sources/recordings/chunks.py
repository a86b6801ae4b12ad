"""What every reader of recorded files yields: trades, and what is none."""

from __future__ import annotations

from typing import NamedTuple

import polars as pl

from raven.batches.gate import BadReason, Refusal, show


class Chunk(NamedTuple):
    """`trades` (TRADE_SCHEMA) of one stretch of a file, in file order.

    `bad`: what gave no trade, in order; `row` is its line in the file, or, of files without lines, its row or entry,
    counted from 1.
    """

    trades: pl.DataFrame
    bad: list[Refusal]


def bad_line(line: int, reason: BadReason, text: bytes) -> Refusal:
    """The refusal of a whole line, with its beginning."""
    return Refusal(line, "it", repr(show(text.decode(errors="replace").strip())), reason)
