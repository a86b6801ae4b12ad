"""Trades that do not decode, as they were written: the gate says which value of them is wrong, and why. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Protocol, cast

import msgspec
import polars as pl
from msgspec import Raw

from raven.batches.raw import MAKER

_STRING: Final = msgspec.json.Decoder(str)
NOTHING: Final = Raw()
"""Stands for a value that is not there."""


class Written(Protocol):
    """The values of one trade as they stand in the JSON, of any type."""

    symbol: Raw
    trade_id: Raw
    time: Raw
    price: Raw
    quantity: Raw
    maker: Raw


def written_type(**names: str) -> type[Written]:
    """The struct that JSON objects decode to whose values are called `names`."""
    fields = [(name, Raw, NOTHING) for name in ("symbol", "trade_id", "time", "price", "quantity", "maker")]
    return cast("type[Written]", msgspec.defstruct("Written", fields, rename=names, gc=False))


def columns(trades: Sequence[Written], symbol: str | None = None) -> pl.DataFrame:
    """Columns of text for `raven.batches.raw.admit`; `symbol` is that of all where they name none."""
    named = [_name(trade.symbol) for trade in trades] if symbol is None else [symbol] * len(trades)
    return pl.DataFrame(
        {
            "symbol": named,
            "trade_id": [_text(trade.trade_id) for trade in trades],
            "ts_event": [_text(trade.time) for trade in trades],
            "price": [_text(trade.price) for trade in trades],
            "quantity": [_text(trade.quantity) for trade in trades],
            MAKER: [_text(trade.maker) for trade in trades],
        },
        schema_overrides=dict.fromkeys(("symbol", "trade_id", "ts_event", "price", "quantity", MAKER), pl.String),
    )


def _text(value: Raw) -> str | None:
    """What a JSON value says: a string its content, null and nothing None, all others as they are spelt."""
    spelt = bytes(value)
    if spelt in (b"", b"null"):
        return None
    try:
        return _STRING.decode(spelt) if spelt.startswith(b'"') else spelt.decode()
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None


def _name(value: Raw) -> str | None:
    return _text(value) if bytes(value).startswith(b'"') else None
