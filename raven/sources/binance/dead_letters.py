"""The bounded file of frames that could not be decoded."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import msgspec

from raven.clock import now_us
from raven.sources.binance.messages import Dead

MAX_BYTES: Final = 4 * 2**20


class DeadLetters:
    """Appends dead frames as JSON lines to `path`; at `MAX_BYTES` the file is kept once as `.old` and begun anew."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def keep(self, dead: Sequence[Dead]) -> None:
        """Append these frames, each with its reason and the time."""
        if self.path.exists() and self.path.stat().st_size > MAX_BYTES:
            self.path.replace(self.path.with_suffix(".jsonl.old"))
        stamp = now_us()
        encoder = msgspec.json.Encoder()
        lines = [
            encoder.encode(
                {
                    "time_us": stamp,
                    "reason": item.reason,
                    "what": str(item.refusal),
                    "frame": item.frame.decode(errors="replace"),
                }
            )
            for item in dead
        ]
        with self.path.open("ab") as file:
            file.write(b"\n".join(lines) + b"\n")
