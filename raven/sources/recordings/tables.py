"""Rows of trades out of CSV files."""

from __future__ import annotations

from collections.abc import Iterator
from types import MappingProxyType
from typing import Final

import polars as pl

from raven.batches.gate import BadReason, Checked, Refusal
from raven.batches.raw import MAKER, admit
from raven.batches.schema import ORIGIN_ARCHIVE, TRADE_DTYPES
from raven.clock import tomorrow_us
from raven.sources.recordings.chunks import Chunk, bad_line
from raven.sources.recordings.files import read_blocks
from raven.sources.recordings.kinds import Recording
from raven.sources.recordings.layouts import Layout

_NAMES: Final = MappingProxyType({"id": "trade_id", "time": "ts_event", "maker": MAKER})
"""What columns of the layouts are called at the gate, where their names differ."""


def read_csv(recording: Recording, symbol: str) -> Iterator[Chunk]:
    """The rows of an archive's or a collector's CSV in file order, `symbol` throughout, ts_recv = ts_event."""
    assert recording.layout is not None
    latest_us = tomorrow_us()
    line = 1
    for block in read_blocks(recording.path):
        text, text_line = block, line
        if line == 1:
            text = text.removeprefix(b"\xef\xbb\xbf")
            if recording.layout.header:
                text, text_line = text.partition(b"\n")[2], 2
        line += block.count(b"\n") + 1
        yield _parse(text.rstrip(b"\r\n"), recording.layout, symbol, text_line, latest_us)


def _parse(text: bytes, layout: Layout, symbol: str, first_line: int, latest_us: int) -> Chunk:
    if not text:
        return Chunk(pl.DataFrame(schema=TRADE_DTYPES), [])
    parsed = pl.read_csv(
        text, has_header=False, schema=layout.dtypes, quote_char=None, ignore_errors=True,
        missing_columns="insert", extra_columns="ignore", truncate_ragged_lines=True,
    )  # fmt: skip
    # the parser cuts a line too long, and leaves out an empty one, without a word
    is_whole = (
        text.count(b",")
        == (len(layout.columns) - 1) * parsed.height
        == (len(layout.columns) - 1) * (text.count(b"\n") + 1)
    )
    if is_whole and not any(parsed.get_column(name).null_count() for name in layout.needed):
        checked = _admit(parsed, symbol, latest_us)
        if not checked.refused:
            return Chunk(checked.trades, [])
    return _parse_slowly(text, layout, symbol, first_line, latest_us)


def _admit(columns: pl.DataFrame, symbol: str, latest_us: int) -> Checked:
    named = columns.rename(dict(_NAMES), strict=False).with_columns(symbol=pl.lit(symbol))
    return admit(named, latest_us=latest_us, origin=ORIGIN_ARCHIVE)


def _parse_slowly(text: bytes, layout: Layout, symbol: str, first_line: int, latest_us: int) -> Chunk:
    """Line by line as text, so that every line that gives no trade says why."""
    texts = text.split(b"\n")
    fields = pl.Series(texts, dtype=pl.Binary).cast(pl.String, strict=False).str.strip_chars("\r").str.split(",")
    names = layout.columns
    columns = pl.select(
        pl.int_range(len(texts)).alias("_row"),
        (fields.list.len() == len(names)).fill_null(value=False).alias("_whole"),
        *(fields.list.get(place, null_on_oob=True).alias(name) for place, name in enumerate(names)),
    )
    if "best_match" in names:
        flags = pl.col("best_match").str.to_lowercase().is_in(["true", "false"]).fill_null(value=False)
        columns = columns.with_columns(pl.col("_whole") & flags)
    whole = columns.filter("_whole")
    checked = _admit(whole.drop("_row", "_whole"), symbol, latest_us)
    rows = whole.get_column("_row")
    cut = columns.filter(~pl.col("_whole")).get_column("_row").to_list()
    bad = [bad_line(first_line + row, BadReason.BAD_FIELD, texts[row]) for row in cut]
    bad += [refusal._replace(row=first_line + rows[refusal.row]) for refusal in checked.refused]
    return Chunk(checked.trades, sorted(bad, key=_line))


def _line(refusal: Refusal) -> int:
    return refusal.row
