"""Rows of trades out of recorded REST replies: lists of trades or aggregate trades, plain or wrapped in `info`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from operator import attrgetter
from typing import Final

import msgspec
import polars as pl
from msgspec import Struct

from raven.batches.schema import ORIGIN_REST
from raven.errors import InputError
from raven.sources.binance.frames import UNREADABLE
from raven.sources.binance.replies import decode_list, figures
from raven.sources.binance.rows import build_rows
from raven.sources.recordings.chunks import BadLine, Chunk
from raven.sources.recordings.files import read_whole
from raven.sources.recordings.kinds import Recording


class _Wrapped(Struct, gc=False):
    info: msgspec.Raw
    symbol: str = ""


_WRAPPED: Final = msgspec.json.Decoder(list[_Wrapped])


def read_reply(recording: Recording, symbol: str | None) -> Iterator[Chunk]:
    """The rows of a REST reply, which is read whole; ts_recv = ts_event.

    The symbol is the wrapper's where there is one (`XRP/ETH` is XRPETH), else `symbol`. Raises InputError.
    """
    assert recording.event is not None
    body = read_whole(recording.path)
    symbols: pl.Series | None = None
    try:
        if b'"info"' in body.partition(b"}")[0]:
            wrapped = _WRAPPED.decode(body)
            symbols = _own_names(wrapped)
            body = b"[" + b",".join(map(bytes, map(attrgetter("info"), wrapped))) + b"]"
        trades = decode_list(body, recording.event)
    except UNREADABLE as error:
        raise InputError(f"{recording.path.name} cannot be read: {error}") from error
    if symbols is None:
        symbols = pl.repeat(recording.symbol_or(symbol), len(trades), dtype=pl.String, eager=True)
    rows = build_rows(figures(trades, symbols), recv_us=None, origin=ORIGIN_REST)
    yield Chunk(rows.trades, [BadLine(row + 1, reason, str(trades[row])) for row, reason in rows.bad])


def _own_names(wrapped: Sequence[_Wrapped]) -> pl.Series:
    """The venue's names of unified ones: XRPETH of `XRP/ETH` and of `XRP/ETH:ETH`."""
    unified = pl.Series(list(map(attrgetter("symbol"), wrapped)), dtype=pl.String)
    return unified.str.replace(r":.*$", "").str.replace("/", "", literal=True)
