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
    lines = text.split(b"\n")
    texts = pl.Series(lines, dtype=pl.Binary).cast(pl.String, strict=False)
    whole = texts.str.count_matches(",", literal=True).eq(len(columns) - 1).fill_null(value=False)
    fields = texts.str.strip_chars_end("\r").str.split_exact(",", len(columns) - 1)
    table = fields.struct.rename_fields(list(columns)).struct.unnest()
    table = table.with_columns(pl.col(columns).str.strip_chars('" ')).with_row_index("line", offset=first_line)
    bad = [
        BadLine(first_line + row, BadReason.BAD_FIELD, show(lines[row])) for row in whole.not_().arg_true().to_list()
    ]
    wanted = of_venue(table.filter(whole), recording.path.name, venue)
    checked = check(wanted.select(*_typed(wanted.columns, symbol), "line"), latest_us=now_us() + _DAY_US)
    numbers = wanted.get_column("line")
    bad += [
        BadLine(numbers[refusal.row], refusal.reason, show(lines[numbers[refusal.row] - first_line]))
        for refusal in checked.refused
    ]
    return Chunk(checked.trades.select(*TRADE_DTYPES), sorted(bad))


def _typed(columns: list[str], symbol: str | None) -> list[pl.Expr]:
    """The columns of TRADE_SCHEMA out of text, null where the text is no such thing."""
    held = {
        "symbol": pl.col("symbol") if symbol is None else pl.lit(symbol),
        "trade_id": pl.col("trade_id"),
        "ts_event": _time("ts_event"),
        "ts_recv": _time("ts_recv" if "ts_recv" in columns else "ts_event"),
        "price": pl.col("price"),
        "quantity": pl.col("quantity"),
        "side": _lookup("side", _SIDES) if "side" in columns else _lookup("is_buyer_maker", _MAKERS),
        "origin": pl.col("origin") if "origin" in columns else pl.lit(ORIGIN_ARCHIVE),
    }
    return [held[name].cast(dtype, strict=False).alias(name) for name, dtype in TRADE_DTYPES.items()]


def _lookup(column: str, values: dict[str, int]) -> pl.Expr:
    return pl.col(column).str.to_lowercase().replace_strict(values, default=None, return_dtype=pl.Int8)


def _time(column: str) -> pl.Expr:
    text = pl.col(column).str.replace(" ", "T", literal=True).str.replace(r"Z$|[+-]00:?00$", "")
    return text.str.to_datetime("%Y-%m-%dT%H:%M:%S%.f", time_unit="us", strict=False).dt.replace_time_zone("UTC")
