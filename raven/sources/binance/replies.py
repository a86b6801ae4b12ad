"""REST replies about trades: lists of single or aggregate trades, as columns. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from operator import attrgetter
from typing import Any, Final, TypeAlias

import msgspec
import numpy as np
import polars as pl
from msgspec import Struct

from raven.sources.binance import TradeEvent
from raven.sources.binance.frames import Int64
from raven.sources.binance.rows import Figures


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

_LISTS: Final[dict[TradeEvent, msgspec.json.Decoder[Any]]] = {
    "trade": msgspec.json.Decoder(list[_Trade], strict=False),
    "aggTrade": msgspec.json.Decoder(list[_AggTrade], strict=False),
}


def decode_list(body: bytes, event: TradeEvent) -> list[AnyReply]:
    """The trades of one reply; raises what is in `frames.UNREADABLE` when it is not a list of them."""
    trades: list[AnyReply] = _LISTS[event].decode(body)
    return trades


def figures(trades: Sequence[AnyReply], symbols: pl.Series) -> Figures:
    """The columns of a reply's trades; `symbols` names each one's, for a reply does not."""
    rows = len(trades)
    return Figures(
        symbols,
        np.fromiter(map(attrgetter("trade_id"), trades), np.int64, rows),
        np.fromiter(map(attrgetter("time"), trades), np.int64, rows),
        np.fromiter(map(attrgetter("price"), trades), np.float64, rows),
        np.fromiter(map(attrgetter("quantity"), trades), np.float64, rows),
        np.fromiter(map(attrgetter("maker"), trades), np.bool_, rows),
    )
