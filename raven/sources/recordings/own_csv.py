"""Rows of trades out of CSV with Raven's own columns, as `write_csv` makes it of what `read_trades` gave."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import polars as pl

from raven.batches.gate import BadReason, check
from raven.batches.schema import BUY, ORIGIN_ARCHIVE, SELL, TRADE_DTYPES
from raven.clock import now_us
from raven.errors import InputError
from raven.sources.recordings.chunks import BadLine, Chunk, show
from raven.sources.recordings.files import read_blocks
from raven.sources.recordings.kinds import Recording
from raven.sources.recordings.tabular import of_venue

_DTYPES: Final = {name: TRADE_DTYPES[name] for name in ("trade_id", "price", "quantity", "origin")}
_DAY_US: Final = 86_400_000_000
_SIDES: Final = {"1": BUY, "+1": BUY, "buy": BUY, "-1": SELL, "sell": SELL}
_MAKERS: Final = {"true": SELL, "false": BUY}


def read_own_csv(recording: Recording, symbol: str | None, venue: str | None) -> Iterator[Chunk]:
    """The rows of such a file in file order; columns as in `read_parquet`, others are not looked at.

    Times are ISO, without a zone UTC. Raises InputError.
    """
    assert recording.layout is not None
    columns = recording.layout.columns
    if not {"side", "is_buyer_maker"} & set(columns):
        raise InputError(f"{recording.path.name} holds no trades: columns missing: side", hint="+1/-1 or buy/sell")
    named = None if "symbol" in columns else recording.symbol_or(symbol)
    line = 1
    for block in read_blocks(recording.path):
        text, text_line = block, line
        if line == 1:
            text, text_line = block.partition(b"\n")[2], 2
        line += block.count(b"\n") + 1
        if text.strip():
            yield _parse(text.rstrip(b"\r\n"), recording, named, venue, text_line)


def _parse(text: bytes, recording: Recording, symbol: str | None, venue: str | None, first_line: int) -> Chunk:
    assert recording.layout is not None
    columns = recording.layout.columns
    table = pl.read_csv(
        text, has_header=False, schema={name: _DTYPES.get(name, pl.String()) for name in columns}, quote_char=None,
        ignore_errors=True, missing_columns="insert", extra_columns="ignore", truncate_ragged_lines=True,
    ).with_row_index("line", offset=first_line)  # fmt: skip
    bad = _not_whole(text, table.height, len(columns))
    if bad:
        table = table.filter(~pl.col("line").is_in([first_line + row for row in bad]))
    names = [name for name in ("symbol", "venue", "side", "is_buyer_maker") if name in columns]
    wanted = of_venue(table.with_columns(pl.col(names).str.strip_chars('" ')), recording.path.name, venue)
    typed = _typed(wanted, symbol)
    checked = check(typed, latest_us=now_us() + _DAY_US)
    refused = [(typed.get_column("line")[one.row] - first_line, one.reason) for one in checked.refused]
    refused += [(row, BadReason.BAD_FIELD) for row in bad]
    lines = text.split(b"\n") if refused else []
    return Chunk(
        checked.trades.select(*TRADE_DTYPES),
        [BadLine(first_line + row, reason, show(lines[row])) for row, reason in sorted(refused)],
    )


def _not_whole(text: bytes, rows: int, columns: int) -> list[int]:
    """The lines (from 0) with more or fewer fields than there are columns: the parser fills and cuts without a word."""
    if text.count(b",") == rows * (columns - 1):
        return []
    lines = pl.Series(text.split(b"\n"), dtype=pl.Binary).cast(pl.String, strict=False)
    whole = lines.str.count_matches(",", literal=True).eq(columns - 1).fill_null(value=False)
    return whole.not_().arg_true().to_list()


def _typed(table: pl.DataFrame, symbol: str | None) -> pl.DataFrame:
    """The columns of TRADE_SCHEMA and the line out of text, null where the text is no such thing."""
    ts_event = _times(table.get_column("ts_event"))
    side = _lookup("side", _SIDES) if "side" in table.columns else _lookup("is_buyer_maker", _MAKERS)
    return table.select(
        "line",
        pl.col("symbol") if symbol is None else pl.lit(symbol).alias("symbol"),
        "trade_id",
        ts_event.alias("ts_event"),
        (_times(table.get_column("ts_recv")) if "ts_recv" in table.columns else ts_event).alias("ts_recv"),
        "price",
        "quantity",
        side.alias("side"),
        pl.col("origin") if "origin" in table.columns else pl.lit(ORIGIN_ARCHIVE, pl.Int8).alias("origin"),
    )


def _lookup(column: str, values: dict[str, int]) -> pl.Expr:
    return pl.col(column).str.to_lowercase().replace_strict(values, default=None, return_dtype=pl.Int8)


def _times(texts: pl.Series) -> pl.Series:
    """As Polars writes them; where any is not, also with a blank for the T, `Z`, `+00:00`, or without a zone."""
    times = texts.str.to_datetime("%Y-%m-%dT%H:%M:%S%.f%z", time_unit="us", time_zone="UTC", strict=False)
    if times.null_count():
        plain = texts.str.strip_chars('" ').str.replace(" ", "T", literal=True).str.replace(r"Z$|[+-]00:?00$", "")
        times = times.fill_null(
            plain.str.to_datetime("%Y-%m-%dT%H:%M:%S%.f", time_unit="us", strict=False).dt.replace_time_zone("UTC")
        )
    return times
