"""Trades to the bytes of WebSocket frames: a whole block in one Polars expression, headers and all."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

import numpy as np
import polars as pl

from raven.sources.simulated.market import Ints

_FIELD: Final = re.compile(r"<(\w+)>")
_EXACT: Final = pl.Decimal(38, 8)
FIN_TEXT: Final = 0x81
FIN_PONG: Final = 0x8A
TWO_BYTE_LENGTH: Final = 126


def decimal(value: pl.Expr) -> pl.Expr:
    """A float as the exchange's decimal number of eight places."""
    return value.cast(_EXACT)


def _short(number: pl.Expr) -> pl.Expr:
    """The text of a decimal number without the zeros at its end."""
    return number.str.strip_chars_end("0").str.strip_chars_end(".")


def texts(template: str, *, micros: bool) -> pl.Expr:
    """One text a trade (columns MARKET_DTYPES): the template with its fields filled in, times in ms or µs."""
    time = pl.col("time_us") if micros else pl.col("time_us") // 1_000
    fields = {
        "symbol": pl.col("symbol"),
        "stream_symbol": pl.col("symbol").str.to_lowercase(),
        "id": pl.col("trade_id").cast(pl.String),
        "time": time.cast(pl.String),
        "price": decimal(pl.col("price")).cast(pl.String),
        "quantity": decimal(pl.col("quantity")).cast(pl.String),
        "short_price": _short(decimal(pl.col("price")).cast(pl.String)),
        "short_quantity": _short(decimal(pl.col("quantity")).cast(pl.String)),
        "quote_quantity": (decimal(pl.col("price")) * decimal(pl.col("quantity"))).cast(pl.String),
        "is_sell": pl.when("is_sell").then(pl.lit("true")).otherwise(pl.lit("false")),
    }
    parts = _FIELD.split(template)  # literals at even places, names of fields at odd ones
    return pl.concat_str([fields[part] if place % 2 else pl.lit(part) for place, part in enumerate(parts)])


@dataclass(frozen=True, slots=True)
class Style:
    """How a connection wants its frames: wrapped with the stream's name or raw, times in µs or ms."""

    combined: bool
    micros: bool


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a connection is subscribed to: of each kind of stream, the symbols."""

    symbols: tuple[tuple[str, frozenset[str]], ...]


@dataclass(frozen=True, slots=True)
class Wire:
    """Frames back to back as they go over the wire; frame k is of the block's row `rows[k]` (ascending)."""

    data: memoryview
    offsets: Ints
    rows: Ints

    def between(self, start: int, stop: int) -> memoryview:
        """All frames of the rows start <= row < stop."""
        first, last = np.searchsorted(self.rows, (start, stop))
        return self.data[self.offsets[first] : self.offsets[last]]

    def frames(self, start: int, stop: int) -> list[bytes]:
        """Likewise, each frame by itself."""
        first, last = np.searchsorted(self.rows, (start, stop))
        edges = self.offsets[first : last + 1].tolist()
        return [bytes(self.data[begin:end]) for begin, end in pairwise(edges)]


class BlockFrames:
    """The frames of one block, made once for all connections that want the same.

    `trades` are its rows that are sent (MARKET_DTYPES) and their place in the block, `row`.
    """

    def __init__(self, trades: pl.DataFrame, templates: Mapping[str, str]) -> None:
        self._trades = trades
        self._templates = templates
        self._made: dict[tuple[Wanted, Style], Wire] = {}

    def wire(self, wanted: Wanted, style: Style) -> Wire:
        """The frames of the wanted streams."""
        made = self._made.get((wanted, style))
        if made is None:
            made = self._made[wanted, style] = self._make(wanted, style)
        return made

    def _make(self, wanted: Wanted, style: Style) -> Wire:
        parts = []
        for kind, symbols in wanted.symbols:
            template = self._templates[kind]
            if style.combined:
                template = f'{{"stream":"<stream_symbol>@{kind}","data":{template}}}'
            chosen = self._trades.filter(pl.col("symbol").is_in(symbols))
            parts.append(chosen.select(pl.col("row").cast(pl.Int64), text=texts(template, micros=style.micros)))
        frames = parts[0] if len(parts) == 1 else pl.concat(parts).sort("row", maintain_order=True)
        return encode(frames.get_column("text"), frames.get_column("row").to_numpy())


def one_frame(first_byte: int, payload: bytes) -> bytes:
    """A single unmasked WebSocket frame of any length (RFC 6455 §5.2); `first_byte` is FIN_TEXT or FIN_PONG."""
    length = len(payload)
    if length < TWO_BYTE_LENGTH:
        return bytes((first_byte, length)) + payload
    if length < 1 << 16:
        return bytes((first_byte, TWO_BYTE_LENGTH)) + length.to_bytes(2, "big") + payload
    return bytes((first_byte, TWO_BYTE_LENGTH + 1)) + length.to_bytes(8, "big") + payload


def encode(payloads: pl.Series, rows: Ints) -> Wire:
    """Texts as unmasked, unfragmented WebSocket text frames (RFC 6455 §5.2); a text has at most 65,535 bytes."""
    length = payloads.str.len_bytes().cast(pl.Int64)
    room = pl.when(length < TWO_BYTE_LENGTH).then(pl.lit("\0" * 2)).otherwise(pl.lit("\0" * 4))
    framed = pl.select(pl.concat_str([room, payloads])).to_series().rechunk()
    if framed.is_empty():
        return Wire(memoryview(b""), np.zeros(1, dtype=np.int64), rows)
    array = framed.to_arrow(compat_level=pl.CompatLevel.oldest())
    _, offset_bytes, data_bytes = array.buffers()
    offsets = np.frombuffer(offset_bytes, dtype=np.int64)[array.offset : array.offset + len(array) + 1]
    data = np.frombuffer(data_bytes, dtype=np.uint8)[offsets[0] : offsets[-1]].copy()
    offsets = offsets - offsets[0]
    lengths, starts = length.to_numpy(), offsets[:-1]
    is_short = lengths < TWO_BYTE_LENGTH
    data[starts] = FIN_TEXT
    data[starts + 1] = np.where(is_short, lengths, TWO_BYTE_LENGTH)
    long_starts, long_lengths = starts[~is_short], lengths[~is_short]
    data[long_starts + 2] = long_lengths >> 8
    data[long_starts + 3] = long_lengths & 0xFF
    return Wire(data.data, offsets, rows)
