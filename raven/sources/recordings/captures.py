"""Raw captures: WebSocket frames as they were recorded, a line each, in four shapes."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from itertools import compress, repeat
from operator import attrgetter, eq, is_not, itemgetter
from pathlib import Path
from typing import Final, NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt
import polars as pl
from msgspec import Struct

from raven.batches.gate import BadReason, Refusal
from raven.clock import tomorrow_us
from raven.errors import InputError
from raven.sources.binance import TradeEvent
from raven.sources.binance.frames import UNREADABLE, decode_together
from raven.sources.binance.messages import decode_frames
from raven.sources.binance.rows import Bools, Int64s
from raven.sources.recordings.chunks import Chunk, bad_line
from raven.sources.recordings.files import read_blocks
from raven.sources.recordings.frame_lists import frames_of_list
from raven.sources.recordings.kinds import ACCEPTED, Recording, RecordingKind, describe

_EVENTS: Final[dict[TradeEvent, re.Pattern[bytes]]] = {
    "trade": re.compile(rb'"e\\?"\s*:\s*\\?"trade\\?"'),
    "aggTrade": re.compile(rb'"e\\?"\s*:\s*\\?"aggTrade\\?"'),
}
_EARLIEST_NS: Final = 1_230_768_000_000_000_000  # 2009-01-01
_LATEST_NS: Final = 4_102_444_800_000_000_000  # 2100-01-01
_REMARKS: Final = (b"http://", b"https://", b"ws://", b"wss://")
"""How lines begin that tell what was connected to or fetched, and hold no frame."""


class Frames(NamedTuple):
    """Frames of one stretch of a capture, when each was received (Unix ns), and the line it stood on.

    `bad`: lines that do not have the shape of the capture's lines.
    """

    frames: list[bytes]
    recv_ns: Int64s
    lines: Int64s
    bad: list[Refusal]


def read_capture(path: str | Path) -> tuple[list[bytes], npt.NDArray[np.int64]]:
    """All frames of a raw capture, whatever they are, and when each was received (n int64, Unix nanoseconds).

    Where a capture holds frames alone, the exchange's event times (`E`) stand for the times of receipt; a frame
    without one takes that of the frame before. The frames come as recorded, garbled ones too. Raises InputError
    when the file is no capture, is damaged, or holds a line that is not of its shape.
    """
    recording = describe(Path(path))
    if not recording.kind.is_capture:
        raise InputError(f"{recording.path.name} is no raw capture but {recording.kind}", hint=ACCEPTED)
    frames: list[bytes] = []
    stamps: list[Int64s] = [np.empty(0, np.int64)]
    for stretch in read_frames(recording):
        if stretch.bad:
            line = stretch.bad[0]
            raise InputError(f"{recording.path.name}, line {line.row}: {line}")
        frames.extend(stretch.frames)
        stamps.append(stretch.recv_ns)
    recv_ns = np.concatenate(stamps)
    return frames, recv_ns if recording.kind.is_stamped else _event_ns(frames)


def holds(recording: Recording, event: TradeEvent) -> bool:
    """Whether a capture holds any frame of `event`; raises InputError when the file is damaged before the first."""
    return any(map(_EVENTS[event].search, read_blocks(recording.path)))


def read_capture_trades(recording: Recording, event: TradeEvent) -> Iterator[Chunk]:
    """The trades of a capture in the order they came; where times of receipt are not known, ts_recv = ts_event."""
    latest_us = tomorrow_us()
    for stretch in read_frames(recording):
        stamps = stretch.recv_ns if recording.kind.is_stamped else None
        decoded = decode_frames(stretch.frames, stamps, event=event, latest_us=latest_us)
        dead = [d.refusal._replace(row=int(stretch.lines[d.refusal.row])) for d in decoded.dead]
        yield Chunk(decoded.trades, sorted(stretch.bad + dead, key=attrgetter("row")))


def read_frames(recording: Recording) -> Iterator[Frames]:
    """The frames of a capture, block by block; where none says when it was received all are received at 0.

    A list is read whole; its entries are counted in place of lines.
    """
    if recording.kind is RecordingKind.CAPTURE_LIST:
        frames = frames_of_list(recording)
        yield Frames(frames, np.zeros(len(frames), np.int64), np.arange(1, len(frames) + 1), [])
        return
    split = _SPLIT[recording.kind]
    first_line = 1
    for block in read_blocks(recording.path):
        lines = block.split(b"\n")
        filled = list(map(bool, lines))
        at = np.flatnonzero(filled)
        found = split(list(compress(lines, filled)))
        bad = at[found.bad] + first_line
        yield Frames(
            found.frames,
            found.recv_ns,
            at[found.kept] + first_line,
            [bad_line(int(line), BadReason.UNKNOWN_SHAPE, lines[line - first_line]) for line in bad],
        )
        first_line += len(lines)


class _Split(NamedTuple):
    """Frames out of n lines: each frame with its stamp and its line (`kept`); `bad`: lines of another shape."""

    frames: list[bytes]
    recv_ns: Int64s
    kept: npt.NDArray[np.intp]
    bad: npt.NDArray[np.intp]


def _split_ns(lines: Sequence[bytes]) -> _Split:
    """`1723161254087896568 {…}`."""
    stamps, frames = _partition(lines, b" ")
    recv_ns = stamps.cast(pl.Int64, strict=False).fill_null(0).to_numpy()
    stamped = (recv_ns >= _EARLIEST_NS) & (recv_ns < _LATEST_NS)
    return _Split(list(compress(frames, stamped)), recv_ns[stamped], np.flatnonzero(stamped), np.flatnonzero(~stamped))


def _split_s(lines: Sequence[bytes]) -> _Split:
    """`1617566591.326123: {…}`, among remarks on connections."""
    stamps, frames = _partition(lines, b": ")
    recv_ns, stamped = _from_seconds(stamps.cast(pl.Float64, strict=False))
    remarks = np.fromiter(map(bytes.startswith, lines, repeat(_REMARKS)), np.bool_, len(lines))
    return _Split(
        list(compress(frames, stamped)), recv_ns[stamped], np.flatnonzero(stamped),
        np.flatnonzero(~stamped & ~remarks),
    )  # fmt: skip


class _Record(Struct, gc=False):
    t: str
    ts: float | None = None
    data: str | None = None


_RECORD: Final = msgspec.json.Decoder(_Record)


def _split_records(lines: Sequence[bytes]) -> _Split:
    """`{"t":"recv","ts":1633998534.48,"data":"{…}"}`, among records of other things."""
    records = decode_together(lines, _RECORD)
    if records is None:
        records = list(map(_record_or_nothing, lines))
    received = np.fromiter(map(eq, map(attrgetter("t"), records), repeat("recv")), np.bool_, len(records))
    broken = np.fromiter(map(eq, map(attrgetter("t"), records), repeat("")), np.bool_, len(records))
    recv_ns, stamped = _from_seconds(pl.Series(list(map(attrgetter("ts"), records)), dtype=pl.Float64))
    filled = np.fromiter(map(is_not, map(attrgetter("data"), records), repeat(None)), np.bool_, len(records))
    good = received & stamped & filled
    frames = list(map(str.encode, compress(map(attrgetter("data"), records), good)))
    return _Split(frames, recv_ns[good], np.flatnonzero(good), np.flatnonzero(broken | (received & ~good)))


def _record_or_nothing(line: bytes) -> _Record:
    try:
        return _RECORD.decode(line)
    except UNREADABLE:
        return _Record("")


def _split_plain(lines: Sequence[bytes]) -> _Split:
    """`{…}`."""
    every = np.arange(len(lines))
    return _Split(list(lines), np.zeros(len(lines), np.int64), every, every[:0])


_SPLIT: Final[dict[RecordingKind, Callable[[Sequence[bytes]], _Split]]] = {
    RecordingKind.CAPTURE_NS: _split_ns,
    RecordingKind.CAPTURE_S: _split_s,
    RecordingKind.CAPTURE_RECORDS: _split_records,
    RecordingKind.CAPTURE_PLAIN: _split_plain,
}


def _partition(lines: Sequence[bytes], separator: bytes) -> tuple[pl.Series, list[bytes]]:
    """What stands before the first `separator` of each line, as text (null where it is none), and after it."""
    parts = list(map(bytes.partition, lines, repeat(separator)))
    stamps = pl.Series(list(map(itemgetter(0), parts)), dtype=pl.Binary).cast(pl.String, strict=False)
    return stamps, list(map(itemgetter(2), parts))


def _from_seconds(seconds: pl.Series) -> tuple[Int64s, Bools]:
    """Nanoseconds out of seconds, which floats hold to the microsecond, and which of them are sane."""
    values = seconds.fill_null(0.0).to_numpy()
    sane = (values >= _EARLIEST_NS / 1e9) & (values < _LATEST_NS / 1e9)
    return np.rint(np.where(sane, values, 0.0) * 1e6).astype(np.int64) * 1000, sane


def _event_ns(frames: Sequence[bytes]) -> Int64s:
    """The event time (`E`) of each frame in nanoseconds, that of the frame before where it has none."""
    texts = pl.Series(frames, dtype=pl.Binary).cast(pl.String, strict=False)
    times = texts.str.extract(r'"E"\s*:\s*(\d{12,17})').cast(pl.Int64)
    nanoseconds = pl.when(times < 10**15).then(times * 1_000_000).otherwise(times * 1000)
    filled = pl.select(nanoseconds.forward_fill().backward_fill().fill_null(0)).to_series()
    return filled.to_numpy()
