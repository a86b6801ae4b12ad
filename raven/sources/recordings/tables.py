"""Rows of trades out of CSV files: archives', a collector's, and Raven's own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from types import MappingProxyType
from typing import Final, NamedTuple

import polars as pl

from raven.batches.gate import BadReason, Refusal
from raven.batches.raw import MAKER
from raven.batches.schema import TRADE_DTYPES
from raven.clock import tomorrow_us
from raven.errors import InputError
from raven.sources.recordings.arrow import LINE, admit_table
from raven.sources.recordings.chunks import Chunk, bad_line
from raven.sources.recordings.files import read_blocks
from raven.sources.recordings.kinds import Recording

_NAMES: Final = MappingProxyType({"id": "trade_id", "time": "ts_event", "maker": MAKER})
"""What columns of the layouts are called at the gate, where their names differ."""

_OWN_DTYPES: Final = {name: TRADE_DTYPES[name] for name in ("trade_id", "price", "quantity", "origin")}
_NO_TEXT: Final = "\N{REPLACEMENT CHARACTER}"  # where bytes are no UTF-8
_BOM: Final = b"\xef\xbb\xbf"


class _Form(NamedTuple):
    """The columns of a file's lines with the types they mostly have, and what makes trades of a table of them."""

    dtypes: dict[str, pl.DataType]
    needed: list[str]
    admit: Callable[[pl.DataFrame], Chunk]


def read_csv(recording: Recording, symbol: str) -> Iterator[Chunk]:
    """The rows of an archive's or a collector's CSV in file order, `symbol` throughout, ts_recv = ts_event."""
    layout, latest_us = recording.layout, tomorrow_us()
    assert layout is not None

    def admit(table: pl.DataFrame) -> Chunk:
        named = table.rename(dict(_NAMES), strict=False).with_columns(symbol=pl.lit(symbol))
        return admit_table(named, recording, symbol, None, latest_us)

    return _read(recording, _Form(layout.dtypes, layout.needed, admit))


def read_own_csv(recording: Recording, symbol: str | None, venue: str | None) -> Iterator[Chunk]:
    """The rows of CSV that `write_csv` makes of what `read_trades` gave, in file order; columns as in `read_tables`.

    Values may be quoted; they hold no commas. Raises InputError.
    """
    layout, latest_us = recording.layout, tomorrow_us()
    assert layout is not None
    if not {"side", MAKER} & set(layout.columns):
        raise InputError(f"{recording.path.name} holds no trades: columns missing: side", hint="+1/-1 or buy/sell")
    dtypes = {name: _OWN_DTYPES.get(name, pl.String()) for name in layout.columns}

    def admit(table: pl.DataFrame) -> Chunk:
        text = pl.col(pl.String)  # a quote that does not end here stands for a value with a line break
        whole = text.str.count_matches('"', literal=True) % 2 == 0
        unquoted = table.with_columns(pl.when(whole).then(text.str.strip_chars('" ')))
        return admit_table(unquoted, recording, symbol, venue, latest_us)

    return _read(recording, _Form(dtypes, [], admit))


def _read(recording: Recording, form: _Form) -> Iterator[Chunk]:
    assert recording.layout is not None
    line = 1
    for block in read_blocks(recording.path):
        text, text_line = block, line
        if line == 1:
            text = text.removeprefix(_BOM)
            if recording.layout.header:
                text, text_line = text.partition(b"\n")[2], 2
        line += block.count(b"\n") + 1
        yield _parse(text.rstrip(b"\r\n"), form, text_line)


def _parse(text: bytes, form: _Form, first_line: int) -> Chunk:
    if not text:
        return Chunk(pl.DataFrame(schema=TRADE_DTYPES), [])
    try:
        table = pl.read_csv(
            text, has_header=False, schema=form.dtypes, quote_char=None, ignore_errors=True,
            missing_columns="insert", extra_columns="ignore", truncate_ragged_lines=True,
        )  # fmt: skip
    except pl.exceptions.ComputeError:  # bytes that are no text, which cost their line alone
        return _parse_slowly(text, form, first_line)
    # the parser cuts a line too long, and leaves out an empty one, without a word
    lines, separators = text.count(b"\n") + 1, len(form.dtypes) - 1
    is_whole = table.height == lines and text.count(b",") == separators * lines
    if is_whole and not any(table.get_column(name).null_count() for name in form.needed):
        chunk = form.admit(table.with_row_index(LINE, first_line))
        if not chunk.bad:
            return chunk
    return _parse_slowly(text, form, first_line)


def _parse_slowly(text: bytes, form: _Form, first_line: int) -> Chunk:
    """Line by line as text, so that every line that gives no trade says why."""
    texts = text.split(b"\n")
    lines = pl.Series(text.decode(errors="replace").split("\n"), dtype=pl.String).str.strip_chars("\r")
    fields = lines.str.split(",")
    names = list(form.dtypes)
    table = pl.select(
        pl.int_range(first_line, first_line + len(texts)).alias(LINE),
        ((fields.list.len() == len(names)) & ~lines.str.contains(_NO_TEXT, literal=True)).alias("_whole"),
        *(fields.list.get(place, null_on_oob=True).alias(name) for place, name in enumerate(names)),
    )
    if "best_match" in names:  # nothing is read from it, but a line cut short shows there
        flags = pl.col("best_match").str.to_lowercase().is_in(["true", "false"]).fill_null(value=False)
        table = table.with_columns(pl.col("_whole") & flags)
    chunk = form.admit(table.filter("_whole").drop("_whole"))
    cut = table.filter(~pl.col("_whole")).get_column(LINE)
    bad = [bad_line(line, BadReason.BAD_FIELD, texts[line - first_line]) for line in cut]
    return Chunk(chunk.trades, sorted([*bad, *chunk.bad], key=_line))


def _line(refusal: Refusal) -> int:
    return refusal.row
