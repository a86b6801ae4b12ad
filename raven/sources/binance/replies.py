"""REST replies about trades: lists of single or aggregate trades, as columns. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from operator import attrgetter
from typing import Any, Final, TypeAlias

import msgspec
import numpy as np
import polars as pl
from msgspec import Struct

from raven.batches.gate import Checked
from raven.batches.raw import admit
from raven.sources.binance import TradeEvent
from raven.sources.binance.frames import Int64
from raven.sources.binance.rows import Figures, build_rows
from raven.sources.binance.written import columns, written_type


class _Trade(Struct, gc=False, rename={"trade_id": "id", "quantity": "qty", "maker": "isBuyerMaker"}):
    trade_id: Int64
    price: float
    quantity: float
    time: Int64
    maker: bool


class _AggTrade(Struct, gc=False, rename={"trade_id": "a", "price": "p", "quantity": "q", "time": "T", "maker": "m"}):
    trade_id: Int64
    price: float
    quantity: float
    time: Int64
    maker: bool


AnyReply: TypeAlias = _Trade | _AggTrade


_WRITTEN: Final[dict[TradeEvent, msgspec.json.Decoder[Any]]] = {
    "trade": msgspec.json.Decoder(list[written_type(trade_id="id", quantity="qty", maker="isBuyerMaker")]),  # type: ignore[misc]
    "aggTrade": msgspec.json.Decoder(
        list[written_type(trade_id="a", price="p", quantity="q", time="T", maker="m")]  # type: ignore[misc]
    ),
}

_LISTS: Final[dict[TradeEvent, msgspec.json.Decoder[Any]]] = {
    "trade": msgspec.json.Decoder(list[_Trade], strict=False),
    "aggTrade": msgspec.json.Decoder(list[_AggTrade], strict=False),
}


def decode_list(body: bytes, event: TradeEvent) -> list[AnyReply]:
    """The trades of one reply; raises what is in `frames.UNREADABLE` when it is not a list of them."""
    trades: list[AnyReply] = _LISTS[event].decode(body)
    return trades


def read_list(
    body: bytes, event: TradeEvent, symbols: str | pl.Series, *, recv_us: int | None, origin: int, latest_us: int
) -> Checked:
    """The rows of one reply that pass the gate; of the refused ones `row` is the place in the list.

    `symbols` names each row's, for a reply does not. `recv_us`: when it was received; None: ts_recv is ts_event. Raises
    what is in `frames.UNREADABLE` when it is no list of objects.
    """
    try:
        trades = decode_list(body, event)
    except msgspec.ValidationError:
        written = columns(_WRITTEN[event].decode(body))
        named = written.with_columns(symbol=pl.lit(symbols) if isinstance(symbols, str) else symbols)
        if recv_us is not None:
            named = named.with_columns(ts_recv=pl.lit(recv_us))
        return admit(named, latest_us=latest_us, origin=origin)
    if isinstance(symbols, str):
        symbols = pl.repeat(symbols, len(trades), dtype=pl.String, eager=True)
    stamps = None if recv_us is None else np.full(len(trades), recv_us, dtype=np.int64)
    return build_rows(_figures(trades, symbols), recv_us=stamps, origin=origin, latest_us=latest_us)


def _figures(trades: Sequence[AnyReply], symbols: pl.Series) -> Figures:
    rows = len(trades)
    return Figures(
        symbols,
        np.fromiter(map(attrgetter("trade_id"), trades), np.int64, rows),
        np.fromiter(map(attrgetter("time"), trades), np.int64, rows),
        np.fromiter(map(attrgetter("price"), trades), np.float64, rows),
        np.fromiter(map(attrgetter("quantity"), trades), np.float64, rows),
        np.fromiter(map(attrgetter("maker"), trades), np.bool_, rows),
    )
