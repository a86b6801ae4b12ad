"""What a fault does to the frames of one connection: left out, repeated, swapped, garbled, joined by lies. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from raven.sources.simulated.faults import Fault
from raven.sources.simulated.frames import FIN_TEXT, TWO_BYTE_LENGTH, one_frame

_NOT_IN_JSON: Final = b"\x01"
_SPOILT_BYTES: Final = 8
_LARGEST_ID: Final = 2**63 - 1
_MICROSECONDS_FROM: Final = 10**15
_LIES: Final = frozenset({"leap", "future", "strange"})  # they join one frame, whatever their number
_ID: Final = re.compile(r'(?<="[ta]":)(\d+)')
_TIME: Final = re.compile(r'(?<="T":)(\d+)')
_SYMBOL: Final = re.compile(r'(?<="s":")([^"]+)')


class Damage:
    """A fault at work: it changes the next `fault.count` frames, of its symbol if it has one, and is then over."""

    def __init__(self, fault: Fault) -> None:
        self.fault = fault
        self.has_struck = False
        self._left = 1 if fault.kind in _LIES else fault.count
        self._mark = f'"s":"{fault.symbol}"'.encode() if fault.symbol else b""
        self._held: list[bytes] = []

    @property
    def is_lie(self) -> bool:
        """Whether it adds frames that cannot be: beside others it would lie about their lies."""
        return self.fault.kind in _LIES

    @property
    def is_over(self) -> bool:
        """Whether it leaves all further frames alone."""
        return self._left == 0

    def apply(self, frames: Sequence[bytes]) -> list[bytes]:
        """What is sent instead of `frames` (whole WebSocket frames); one may be held back for the next call."""
        sent: list[bytes] = []
        for frame in frames:
            sent += self._instead(frame) if self._left and self._mark in frame else (frame,)
        return sent

    def held(self) -> list[bytes]:
        """What was held back and will have no neighbour any more."""
        held, self._held, self._left = self._held, [], 0
        return held

    def _instead(self, frame: bytes) -> tuple[bytes, ...]:
        if self.fault.kind == "reorder" and not self._held:
            self._held = [frame]
            return ()
        self._left -= 1
        self.has_struck = True
        match self.fault.kind:
            case "skip":
                return ()
            case "repeat":
                return (frame, frame)
            case "reorder":
                return (frame, self._held.pop())
            case kind if kind in _LIES:
                return _joined(frame, self.fault)
            case _:
                return (_garbled(frame, is_cut=self._left % 2 == 1),)


def _text(frame: bytes) -> str:
    return frame[2 if frame[1] < TWO_BYTE_LENGTH else 4 :].decode()


def _joined(frame: bytes, fault: Fault) -> tuple[bytes, ...]:
    """The frame and the lies of a fault."""
    match fault.kind:
        case "leap":
            return (frame, _leaping(frame, fault.count))
        case "future":
            return (_future(frame, fault.seconds), frame)
        case _:
            return (frame, *(_strange(frame, number) for number in range(fault.count)))


def _leaping(frame: bytes, ids: int) -> bytes:
    text = _ID.sub(lambda found: str(min(int(found[1]) + ids, _LARGEST_ID)), _text(frame), count=1)
    return one_frame(FIN_TEXT, text.encode())


def _future(frame: bytes, seconds: float) -> bytes:
    def later(found: re.Match[str]) -> str:
        time = int(found[1])
        return str(time + round(seconds * (1e6 if time >= _MICROSECONDS_FROM else 1e3)))

    return one_frame(FIN_TEXT, _TIME.sub(later, _text(frame), count=1).encode())


def _strange(frame: bytes, number: int) -> bytes:
    """A symbol as nobody would list it: letters that break out of paths, every other out of lines and colours too."""
    text = _SYMBOL.sub(lambda _: rf"../\u001b[31mX{number}\n" if number % 2 else f"../X{number}", _text(frame), count=1)
    return one_frame(FIN_TEXT, text.encode())


def _garbled(frame: bytes, *, is_cut: bool) -> bytes:
    """The frame with a text of the same length that is no JSON: cut short, or with bytes that JSON does not have.

    Neither can be taken for another trade, and both are still UTF-8.
    """
    start = 2 if frame[1] < TWO_BYTE_LENGTH else 4
    text = _text(frame)
    kept = len(text) * 2 // 3
    if is_cut:
        spoilt = text[:kept]
    else:
        spoilt = text[:kept] + _NOT_IN_JSON.decode() * _SPOILT_BYTES + text[kept + _SPOILT_BYTES :]
    # characters of several bytes may have gone: spaces make up for them
    payload = spoilt.encode()[: len(frame) - start]
    return frame[:start] + payload.ljust(len(frame) - start)
