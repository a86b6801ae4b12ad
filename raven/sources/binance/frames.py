"""What Binance's WebSocket frames look like, and decoding many of them at once. Pure.

Numbers in strings become floats inside the JSON parser (correctly rounded, the same as Python's `float`), so
that a trade costs no string objects.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import repeat
from operator import attrgetter
from typing import Annotated, Any, Final, Literal, NamedTuple, TypeAlias, TypeVar

import msgspec
import numpy as np
import polars as pl
from msgspec import UNSET, Meta, Raw, Struct, UnsetType

from raven.sources.binance import TradeEvent
from raven.sources.binance.rows import Figures
from raven.sources.binance.written import NOTHING, Written, written_type

T = TypeVar("T")

Int64: TypeAlias = Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)]

UNREADABLE: Final = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
"""What msgspec raises on bytes from outside: malformed or unexpected JSON, invalid UTF-8, endless nesting."""


_SHORT: Final = {"symbol": "s", "time": "T", "price": "p", "quantity": "q", "maker": "m"}


class _Figures(Struct, gc=False, rename=_SHORT):
    symbol: str
    time: Int64
    price: float
    quantity: float
    maker: bool


class _Trade(_Figures, gc=False, kw_only=True, rename={"event": "e", "trade_id": "t", "kind": "X", "market": "st"}):
    event: Literal["trade"]
    trade_id: Int64
    kind: Literal["MARKET"] = "MARKET"
    market: Literal[1] = 1
    data: UnsetType = UNSET


class _AggTrade(_Figures, gc=False, kw_only=True, rename={"event": "e", "trade_id": "a", "market": "st"}):
    event: Literal["aggTrade"]
    trade_id: Int64
    market: Literal[1] = 1
    data: UnsetType = UNSET


AnyTrade: TypeAlias = _Trade | _AggTrade


class _Enveloped(Struct, gc=False):
    data: Raw = NOTHING


class _CombinedTrade(Struct, gc=False):
    data: _Trade


class _CombinedAggTrade(Struct, gc=False):
    data: _AggTrade


class Body(Struct, rename={"event": "e", "update_id": "u", "kind": "X", "market": "st"}):
    """As much of any event as tells what it is."""

    event: str | UnsetType = UNSET
    update_id: int | UnsetType = UNSET
    lastUpdateId: int | UnsetType = UNSET  # noqa: N815 - the exchange's name
    kind: Any = UNSET
    market: Any = UNSET


class Refusal(Struct):
    """The exchange's error."""

    code: int
    msg: str


class Probe(Body):
    """As much of any frame as tells what it is."""

    data: Body | list[Body] | UnsetType = UNSET
    result: Any = UNSET
    id: int | str | UnsetType | None = UNSET
    error: Refusal | UnsetType = UNSET
    code: int | UnsetType = UNSET
    msg: str | UnsetType = UNSET


class Form(NamedTuple):
    """How the trades of one event are told and decoded; `needle` is in nearly all of its frames."""

    needle: bytes
    combined: msgspec.json.Decoder[Any]
    raw: msgspec.json.Decoder[Any]
    written: msgspec.json.Decoder[Any]


FORMS: Final[dict[TradeEvent, Form]] = {
    "trade": Form(
        b'"e":"trade"',
        msgspec.json.Decoder(_CombinedTrade, strict=False),
        msgspec.json.Decoder(_Trade, strict=False),
        msgspec.json.Decoder(written_type(**_SHORT, trade_id="t")),
    ),
    "aggTrade": Form(
        b'"e":"aggTrade"',
        msgspec.json.Decoder(_CombinedAggTrade, strict=False),
        msgspec.json.Decoder(_AggTrade, strict=False),
        msgspec.json.Decoder(written_type(**_SHORT, trade_id="a")),
    ),
}

_ENVELOPED: Final = msgspec.json.Decoder(_Enveloped)
PROBE: Final = msgspec.json.Decoder(Probe | list[Body])

_data = attrgetter("data")


def decode_together(frames: Sequence[bytes], decoder: msgspec.json.Decoder[T]) -> list[T] | None:
    """Each frame decoded, or None when any of them does not decode.

    No frame can swallow its neighbour or stand for two: each begins with `{` and ends with `}`, and between
    values stands a bare newline. A value that ran over a boundary would hold `}` newline `{`, which is nowhere
    valid JSON; so every frame holds at least one whole value, and as many values as frames means one each.
    """
    if not (all(map(bytes.startswith, frames, repeat(b"{"))) and all(map(bytes.endswith, frames, repeat(b"}")))):
        return None
    try:
        items = decoder.decode_lines(b"\n".join(frames))
    except UNREADABLE:
        return None
    return items if len(items) == len(frames) else None


def decode_trades(frames: Sequence[bytes], form: Form) -> list[AnyTrade] | None:
    """The trades of frames that are all trades of one shape, combined or raw; None when they are not."""
    combined = decode_together(frames, form.combined)
    if combined is not None:
        return list(map(_data, combined))
    return decode_together(frames, form.raw)


def decode_trade(frame: bytes, form: Form) -> AnyTrade | None:
    """One frame's trade, None when it holds none."""
    for decoder in (form.combined, form.raw):
        try:
            decoded = decoder.decode(frame)
        except UNREADABLE:
            continue
        return decoded.data if decoder is form.combined else decoded  # type: ignore[no-any-return]
    return None


def written(frame: bytes, form: Form) -> Written | None:
    """The values of a trade as they stand in its frame, whatever they are; None when it is no object."""
    try:
        body = _ENVELOPED.decode(frame).data
        found: Written = form.written.decode(body or frame)
    except UNREADABLE:
        return None
    return found


def event_of(probe: Probe | list[Body]) -> str | None:
    """The event type of a frame, of a list of events the first one's; None where it cannot be told.

    Two messages name none and are told by their keys: spot's best price and the order book over REST.
    """
    body = _body(probe)
    if isinstance(body, list):
        named = [item.event for item in body]
        return named[0] or None if named and UNSET not in named else None
    if body.event is not UNSET:
        return body.event or None
    if body.update_id is not UNSET:
        return "bookTicker"
    return None if body.lastUpdateId is UNSET else "depth"


def kind_of(probe: Probe | list[Body]) -> Any:
    """The kind (`X`) of a print of USD-M futures; None where there is none."""
    body = _body(probe)
    return None if isinstance(body, list) or not isinstance(body.kind, str) else body.kind


def is_of_other_market(probe: Probe | list[Body]) -> bool:
    """Whether a frame says that it is of another market than USD-M, whose stream carries COIN-M as well (`st` is 2)."""
    body = _body(probe)
    return not isinstance(body, list) and isinstance(body.market, int) and body.market != 1


def _body(probe: Probe | list[Body]) -> Body | list[Body]:
    return probe if isinstance(probe, list) or probe.data is UNSET else probe.data


def figures(trades: Sequence[AnyTrade]) -> Figures:
    """The columns of decoded trades."""
    rows = len(trades)
    return Figures(
        pl.Series(list(map(attrgetter("symbol"), trades)), dtype=pl.String),
        np.fromiter(map(attrgetter("trade_id"), trades), np.int64, rows),
        np.fromiter(map(attrgetter("time"), trades), np.int64, rows),
        np.fromiter(map(attrgetter("price"), trades), np.float64, rows),
        np.fromiter(map(attrgetter("quantity"), trades), np.float64, rows),
        np.fromiter(map(attrgetter("maker"), trades), np.bool_, rows),
    )
