"""Rows of trades out of CSV files."""

from __future__ import annotations

from collections.abc import Iterator

import polars as pl

from raven.batches.gate import BadReason
from raven.batches.schema import ORIGIN_ARCHIVE, TRADE_DTYPES
from raven.sources.binance.rows import Figures, build_rows
from raven.sources.recordings.chunks import BadLine, Chunk, show
from raven.sources.recordings.files import read_blocks
from raven.sources.recordings.kinds import Recording
from raven.sources.recordings.layouts import Layout


def read_csv(recording: Recording, symbol: str) -> Iterator[Chunk]:
    """The rows of an archive's or a collector's CSV in file order, `symbol` throughout, ts_recv = ts_event."""
    assert recording.layout is not None
    line = 1
    for block in read_blocks(recording.path):
        text, text_line = block, line
        if line == 1:
            text = text.removeprefix(b"\xef\xbb\xbf")
            if recording.layout.header:
                text, text_line = text.partition(b"\n")[2], 2
        line += block.count(b"\n") + 1
        yield _parse(text.rstrip(b"\r\n"), recording.layout, symbol, text_line)


def _parse(text: bytes, layout: Layout, symbol: str, first_line: int) -> Chunk:
    if not text:
        return Chunk(pl.DataFrame(schema=TRADE_DTYPES), [])
    parsed = pl.read_csv(
        text, has_header=False, schema=layout.dtypes, quote_char=None, ignore_errors=True,
        missing_columns="insert", extra_columns="ignore", truncate_ragged_lines=True,
    )  # fmt: skip
    whole = pl.all_horizontal(pl.col(layout.needed).is_not_null())
    if "side" in layout.columns:
        whole &= pl.col("side").is_in(["buy", "sell"])
        parsed = parsed.with_columns(maker=pl.col("side") == "sell")
    separators = len(layout.columns) - 1
    if text.count(b",") != separators * parsed.height:
        # the parser cuts a line too long without a word
        lines = pl.Series(text.split(b"\n"), dtype=pl.Binary).cast(pl.String, strict=False)
        whole &= lines.str.count_matches(",", literal=True) == separators
    parsed = parsed.with_row_index("row").with_columns(whole.fill_null(value=False).alias("whole"))
    good = parsed.filter("whole")
    figures = Figures(
        pl.repeat(symbol, good.height, dtype=pl.String, eager=True),
        *(good.get_column(name).to_numpy() for name in ("id", "time", "price", "quantity", "maker")),
    )
    rows = build_rows(figures, recv_us=None, origin=ORIGIN_ARCHIVE)
    bad = [(row, BadReason.BAD_FIELD) for row in parsed.filter(~pl.col("whole")).get_column("row")]
    bad += [(good.get_column("row")[row], reason) for row, reason in rows.bad]
    if not bad:
        return Chunk(rows.trades, [])
    texts = text.split(b"\n")
    return Chunk(rows.trades, [BadLine(first_line + row, why, show(texts[row])) for row, why in sorted(bad)])
