"""The bounded file of frames that could not be decoded, and of trades that cannot be true."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec
import polars as pl

from raven.batches.gate import RULES, BadReason
from raven.clock import now_us
from raven.sources.binance.messages import Dead

MAX_BYTES: Final = 4 * 2**20


class DeadLetters:
    """Appends what is dead as JSON lines to `path`; at `MAX_BYTES` the file is kept once as `.old` and begun anew.

    Of what comes at once no more than `MAX_BYTES` is kept either.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def keep(self, dead: Sequence[Dead]) -> None:
        """Append these frames, each with its reason and the time."""
        self._append(
            {"reason": item.reason, "what": str(item.refusal), "frame": item.frame.decode(errors="replace")}
            for item in dead
        )

    def keep_trades(self, trades: pl.DataFrame, reason: BadReason) -> None:
        """Append these trades (columns of TRADE_SCHEMA; times are Unix microseconds there)."""
        times = pl.col("ts_event", "ts_recv").dt.epoch("us")
        rows = trades.with_columns(times).iter_rows(named=True)
        self._append({"reason": reason, "what": RULES[reason], "trade": row} for row in rows)

    def _append(self, entries: Iterable[dict[str, Any]]) -> None:
        if self.path.exists() and self.path.stat().st_size > MAX_BYTES:
            self.path.replace(self.path.with_suffix(".jsonl.old"))
        with self.path.open("ab") as file:
            file.writelines(_lines(entries))


def _lines(entries: Iterable[dict[str, Any]]) -> Iterator[bytes]:
    stamp, room, encode = now_us(), MAX_BYTES, msgspec.json.Encoder().encode
    for entry in entries:
        line = encode({"time_us": stamp, **entry}) + b"\n"
        room -= len(line)
        if room < 0:
            return
        yield line
