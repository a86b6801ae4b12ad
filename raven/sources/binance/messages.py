"""Binance WebSocket messages: parsing without I/O.

A micro-batch of frames is decoded in one call. What may go wrong stays inside: a frame that cannot be used
costs itself alone and comes back with its reason. Frames in = trades + dead + control + other.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import compress, repeat
from operator import attrgetter, contains, itemgetter, not_
from typing import Any, Final, Literal, NamedTuple
from urllib.parse import quote

import msgspec
import numpy as np
import numpy.typing as npt
import polars as pl
from msgspec import UNSET

from raven.batches.gate import BadReason, Checked, Refusal, show
from raven.batches.raw import admit
from raven.batches.schema import ORIGIN_LIVE, TRADE_DTYPES
from raven.errors import InputError
from raven.sources.binance import TradeEvent
from raven.sources.binance import frames as wire
from raven.sources.binance.markets import coin_m_among
from raven.sources.binance.rows import build_rows
from raven.sources.binance.written import Written, columns

_NOT_MARKET: Final = frozenset({"INSURANCE_FUND", "ADL", "NA"})


class Dead(NamedTuple):
    """A frame that could not be used, as it came, and why; the refusal's `row` is its place in the batch."""

    refusal: Refusal
    frame: bytes

    @property
    def reason(self) -> BadReason:
        """Which rule it breaks."""
        return self.refusal.reason


class ControlReply(NamedTuple):
    """What the exchange says about the connection itself.

    - `result`: the reply to request `id`; `result` is None (done), a list of stream names, or a property's
      value.
    - `error`: a request was refused; `error` says why, `code` is the exchange's number. `id` is None where
      the exchange names none.
    - `shutdown`: the server will close the connection soon.
    """

    kind: Literal["result", "error", "shutdown"]
    id: int | str | None = None
    result: Any = None
    code: int | None = None
    error: str = ""


@dataclass(frozen=True, slots=True)
class Decoded:
    """One decoded micro-batch; each frame is in exactly one of the four.

    `trades` has the columns of TRADE_SCHEMA, rows in arrival order. `control_at` are the positions of the frames of
    `control` in the batch. `other` counts well-formed frames that are
    no trades of the wanted event, by event type; prints of USD-M futures outside the market (insurance fund,
    ADL) are among them as `trade:ADL` and the like.
    """

    trades: pl.DataFrame
    dead: list[Dead]
    control: list[ControlReply]
    control_at: list[int]
    other: Counter[str]


def decode_frames(
    frames: Sequence[bytes],
    recv_ns: Sequence[int] | npt.NDArray[np.int64] | None,
    *,
    event: TradeEvent,
    latest_us: int,
    origin: int = ORIGIN_LIVE,
) -> Decoded:
    """Decode one micro-batch of n frames, combined (`{"stream":…,"data":…}`) or raw, in one call.

    `recv_ns`: when each was received, Unix nanoseconds; None: not known, ts_recv is ts_event then. `event`: whose
    series is wanted, `trade` (ids `t`) or `aggTrade` (ids `a`). `latest_us`: no trade is as late, Unix microseconds. No
    frame raises; InputError only when the two lengths differ.
    """
    if recv_ns is not None and len(frames) != len(recv_ns):
        raise InputError(f"{len(frames)} frames came with {len(recv_ns)} receive times")
    found = _Sorted()
    positions: npt.NDArray[np.int64] | slice = slice(None)
    trades = wire.decode_trades(frames, wire.FORMS[event])
    if trades is None:
        _sort(frames, event, found)
        found.trades.sort(key=itemgetter(0))
        positions = np.fromiter(map(itemgetter(0), found.trades), np.int64, len(found.trades))
        trades = list(map(itemgetter(1), found.trades))
    place = np.arange(len(frames))[positions]
    trades, place = _of_this_market(trades, place, frames, found)
    recv_us = None if recv_ns is None else np.asarray(recv_ns, dtype=np.int64) // 1000
    stamps = None if recv_us is None else recv_us[place]
    rows = build_rows(wire.figures(trades), recv_us=stamps, origin=origin, latest_us=latest_us)
    found.dead += [refusal._replace(row=int(place[refusal.row])) for refusal in rows.refused]
    kept = rows.trades if not found.odd else _with_odd(rows, place, recv_us, found, origin, latest_us)
    found.control.sort(key=itemgetter(0))
    return Decoded(
        kept,
        [Dead(refusal, frames[refusal.row]) for refusal in sorted(found.dead, key=itemgetter(0))],
        [reply for _, reply in found.control],
        [position for position, _ in found.control],
        found.other,
    )


def _of_this_market(
    trades: list[wire.AnyTrade], place: npt.NDArray[np.int64], frames: Sequence[bytes], found: _Sorted
) -> tuple[list[wire.AnyTrade], npt.NDArray[np.int64]]:
    """`trades` and their places without those of another market, told by their symbols, which are dead."""
    others = coin_m_among(map(attrgetter("symbol"), trades))
    if not others:
        return trades, place
    is_other = np.isin(list(map(attrgetter("symbol"), trades)), others)
    found.dead += [_refusal(at, frames[at], BadReason.OTHER_MARKET) for at in place[is_other].tolist()]
    return list(compress(trades, ~is_other)), place[~is_other]


def _with_odd(
    rows: Checked,
    place: npt.NDArray[np.int64],
    recv_us: npt.NDArray[np.int64] | None,
    found: _Sorted,
    origin: int,
    latest_us: int,
) -> pl.DataFrame:
    """The trades of a batch with those that are written in an unusual way but say what a trade says."""
    at = np.fromiter(map(itemgetter(0), found.odd), np.int64, len(found.odd))
    written = columns(list(map(itemgetter(1), found.odd)))
    if recv_us is not None:
        written = written.with_columns(pl.Series("ts_recv", recv_us[at]).cast(TRADE_DTYPES["ts_recv"]))
    odd = admit(written, latest_us=latest_us, origin=origin)
    found.dead += [refusal._replace(row=int(at[refusal.row])) for refusal in odd.refused]
    if odd.trades.is_empty():
        return rows.trades
    places = [*np.delete(place, [r.row for r in rows.refused]), *np.delete(at, [r.row for r in odd.refused])]
    order = pl.Series("_place", places)
    return pl.concat([rows.trades, odd.trades]).with_columns(order).sort("_place").drop("_place")


@dataclass(slots=True)
class _Sorted:
    """The frames of a batch by what they are, with their positions in it; `odd`: trades that do not decode as such."""

    trades: list[tuple[int, wire.AnyTrade]] = field(default_factory=list)
    odd: list[tuple[int, Written]] = field(default_factory=list)
    dead: list[Refusal] = field(default_factory=list)
    control: list[tuple[int, ControlReply]] = field(default_factory=list)
    other: Counter[str] = field(default_factory=Counter)


def _sort(frames: Sequence[bytes], event: TradeEvent, found: _Sorted) -> None:
    """Sort a batch that is not all trades: what looks like trades in one go, the rest frame by frame."""
    form = wire.FORMS[event]
    like_trade = list(map(contains, frames, repeat(form.needle)))
    unlike = list(map(not_, like_trade))
    at, candidates = list(compress(range(len(frames)), like_trade)), list(compress(frames, like_trade))
    trades = wire.decode_trades(candidates, form)
    if trades is None:
        for position, frame in zip(at, candidates, strict=True):
            _sort_one(position, frame, event, found)
    else:
        found.trades.extend(zip(at, trades, strict=True))
    at, others = list(compress(range(len(frames)), unlike)), list(compress(frames, unlike))
    probes = wire.decode_together(others, wire.PROBE)
    if probes is None:
        for position, frame in zip(at, others, strict=True):
            _sort_one(position, frame, event, found)
    else:
        for position, frame, probe in zip(at, others, probes, strict=True):
            _sort_probe(position, frame, probe, event, found)


def _sort_one(position: int, frame: bytes, event: TradeEvent, found: _Sorted) -> None:
    reason = BadReason.NOT_JSON
    try:
        probe = wire.PROBE.decode(frame)
    except msgspec.ValidationError:
        reason = BadReason.UNKNOWN_SHAPE
    except wire.UNREADABLE:
        pass
    else:
        _sort_probe(position, frame, probe, event, found)
        return
    # what makes a frame unlike any other may stand where a trade is not asked
    trade = wire.decode_trade(frame, wire.FORMS[event])
    if trade is not None:
        found.trades.append((position, trade))
    else:
        found.dead.append(_refusal(position, frame, reason))


def _sort_probe(
    position: int, frame: bytes, probe: wire.Probe | list[wire.Body], event: TradeEvent, found: _Sorted
) -> None:
    named = wire.event_of(probe)
    if named == event:
        trade = wire.decode_trade(frame, wire.FORMS[event])
        kind = wire.kind_of(probe)
        if trade is not None:
            found.trades.append((position, trade))
        elif wire.is_of_other_market(probe):
            found.dead.append(_refusal(position, frame, BadReason.OTHER_MARKET))
        elif kind in _NOT_MARKET:
            found.other[f"{event}:{kind}"] += 1
        elif kind in (None, "MARKET") and (written := wire.written(frame, wire.FORMS[event])) is not None:
            found.odd.append((position, written))
        else:
            found.dead.append(_refusal(position, frame, BadReason.BAD_FIELD))
    elif named == "serverShutdown":
        found.control.append((position, ControlReply("shutdown")))
    elif named is not None:
        found.other[named] += 1
    elif (reply := _control_reply(probe)) is not None:
        found.control.append((position, reply))
    else:
        found.dead.append(_refusal(position, frame, BadReason.UNKNOWN_SHAPE))


def _refusal(position: int, frame: bytes, reason: BadReason) -> Refusal:
    return Refusal(position, "it", repr(show(frame.decode(errors="replace"))), reason)


def _control_reply(probe: wire.Probe | list[wire.Body]) -> ControlReply | None:
    if isinstance(probe, list):
        return None
    number = None if probe.id is UNSET else probe.id
    if probe.error is not UNSET:
        return ControlReply("error", number, code=probe.error.code, error=probe.error.msg)
    if probe.code is not UNSET and probe.msg is not UNSET:
        return ControlReply("error", number, code=probe.code, error=probe.msg)
    if probe.result is not UNSET and probe.id is not UNSET:
        return ControlReply("result", number, probe.result)
    return None


def stream_name(symbol: str, event: TradeEvent) -> str:
    """The stream of `symbol`'s trades: `btcusdt@trade`."""
    return f"{symbol.lower()}@{event}"


def subscribe_message(streams: Iterable[str], request_id: int) -> str:
    """Ask for `streams`; the reply carries `request_id`."""
    return _request("SUBSCRIBE", streams, request_id)


def unsubscribe_message(streams: Iterable[str], request_id: int) -> str:
    """Give `streams` back; the reply carries `request_id`."""
    return _request("UNSUBSCRIBE", streams, request_id)


def _request(method: str, streams: Iterable[str], request_id: int) -> str:
    return msgspec.json.encode({"method": method, "params": list(streams), "id": request_id}).decode()


def combined_path(streams: Iterable[str], *, microseconds: bool = False) -> str:
    """Path and query of a combined connection that starts with `streams`, escaped."""
    unit = "timeUnit=MICROSECOND&" if microseconds else ""
    return f"/stream?{unit}streams={'/'.join(quote(stream, safe='@!') for stream in streams)}"
