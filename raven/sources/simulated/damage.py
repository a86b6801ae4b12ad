"""What a fault does to the frames of one connection: left out, repeated, swapped, garbled. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from raven.sources.simulated.faults import Fault
from raven.sources.simulated.frames import TWO_BYTE_LENGTH

_NOT_IN_JSON: Final = b"\x01"
_SPOILT_BYTES: Final = 8


class Damage:
    """A fault at work: it changes the next `fault.count` frames, of its symbol if it has one, and is then over."""

    def __init__(self, fault: Fault) -> None:
        self.fault = fault
        self.has_struck = False
        self._left = fault.count
        self._mark = f'"s":"{fault.symbol}"'.encode() if fault.symbol else b""
        self._held: list[bytes] = []

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
            case _:
                return (_garbled(frame, is_cut=self._left % 2 == 1),)


def _garbled(frame: bytes, *, is_cut: bool) -> bytes:
    """The frame with a text of the same length that is no JSON: cut short, or with bytes that JSON does not have.

    Neither can be taken for another trade, and both are still UTF-8.
    """
    start = 2 if frame[1] < TWO_BYTE_LENGTH else 4
    text = frame[start:].decode()
    kept = len(text) * 2 // 3
    if is_cut:
        spoilt = text[:kept]
    else:
        spoilt = text[:kept] + _NOT_IN_JSON.decode() * _SPOILT_BYTES + text[kept + _SPOILT_BYTES :]
    # characters of several bytes may have gone: spaces make up for them
    payload = spoilt.encode()[: len(frame) - start]
    return frame[:start] + payload.ljust(len(frame) - start)
