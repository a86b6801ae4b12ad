"""Rows of trades out of recorded REST replies: lists of trades or aggregate trades, plain or wrapped in `info`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from operator import attrgetter
from typing import Final

import msgspec
import polars as pl
from msgspec import Struct

from raven.batches.schema import ORIGIN_REST
from raven.clock import tomorrow_us
from raven.errors import InputError
from raven.sources.binance.frames import UNREADABLE
from raven.sources.binance.replies import read_list
from raven.sources.recordings.chunks import Chunk
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
    symbols: str | pl.Series
    try:
        if b'"info"' in body.partition(b"}")[0]:
            wrapped = _WRAPPED.decode(body)
            symbols = _own_names(wrapped)
            body = b"[" + b",".join(map(bytes, map(attrgetter("info"), wrapped))) + b"]"
        else:
            symbols = recording.symbol_or(symbol)
        rows = read_list(body, recording.event, symbols, recv_us=None, origin=ORIGIN_REST, latest_us=tomorrow_us())
    except UNREADABLE as error:
        raise InputError(f"{recording.path.name} cannot be read: {error}") from error
    yield Chunk(rows.trades, [refusal._replace(row=refusal.row + 1) for refusal in rows.refused])


def _own_names(wrapped: Sequence[_Wrapped]) -> pl.Series:
    """The venue's names of unified ones: XRPETH of `XRP/ETH`, also with what it is settled in and when.

    `ETH/USDT:USDT` is ETHUSDT, `ETH/USDT:USDT-240927` ETHUSDT_240927; `ETH/USD:ETH`, of COIN-M, is ETHUSD_PERP.
    """
    unified = pl.Series(list(map(attrgetter("symbol"), wrapped)), dtype=pl.String)
    dated = unified.str.replace(r":[^-]*-(\d{6})$", "_$1").str.replace(r"^([^/]+/USD):.*$", "${1}_PERP")
    return dated.str.replace(r":.*$", "").str.replace("/", "", literal=True)
