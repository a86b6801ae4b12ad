"""Archives, captures and other files as recordings: in order, cut into batches as a live source would cut them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Final

import msgspec
import numpy as np
import polars as pl

from raven.batches.batch import BatchMeta, Cursor
from raven.batches.schema import TRADE_SCHEMA, stream_schema, to_record_batch
from raven.batches.sequence import check_sequence
from raven.errors import InputError
from raven.sources.binance import TradeEvent
from raven.sources.ordering import OrderedTrades
from raven.sources.recordings import iter_files
from raven.sources.recordings.reading import OnBad
from raven.sources.replay.recording import Choice, Recorded

BATCH_ROWS: Final = 8_192
BATCH_AGE_US: Final = 25_000


class FileRecording:
    """Files of trades of `venue`, in any order, as one stream (see OrderedTrades); see Recording.

    `series`: the files of one symbol, or of None where a file may hold several. All are read and put in order before
    anything is replayed, in memory or in `folder`, so what is wrong with them is said by then: raises InputError,
    at bad rows and conflicts unless `on_bad` skips them.

    A batch ends at BATCH_ROWS rows, and where there is a `speed`, after what at that speed are BATCH_AGE_US.
    A place is a number of rows.
    """

    def __init__(
        self, series: Mapping[str | None, Sequence[Path]], choice: Choice, *, venue: str, event: TradeEvent,
        identity: str, speed: float | None, on_bad: OnBad = "raise", folder: Path | None = None,
    ) -> None:  # fmt: skip
        self.venue = venue
        self.name = ", ".join(path.name for paths in series.values() for path in paths)
        self.identity = identity
        self._id = sha256(identity.encode()).hexdigest()[:32]
        self._choice = choice
        self._age_us = None if speed is None else max(1, int(BATCH_AGE_US * speed))
        self._schema = stream_schema(TRADE_SCHEMA, kind="trades", venue=venue)
        self._trades = OrderedTrades(folder, on_bad=on_bad)
        self.left_out = self._trades.left_out
        self._read(series, event, on_bad)

    def _read(self, series: Mapping[str | None, Sequence[Path]], event: TradeEvent, on_bad: OnBad) -> None:
        only = next(iter(self._choice.symbols)) if len(self._choice.symbols) == 1 else None
        found: set[str] = set()
        for named, paths in series.items():
            reading = iter_files(
                *paths, venue=self.venue, symbol=only if named is None else None, event=event, on_bad=on_bad,
                report=self.left_out.skip,
            )  # fmt: skip
            for path, trades in reading:
                found.update(trades.get_column("symbol").unique())
                self._trades.add(self._choice.rows(trades), path)
        if not found:
            raise InputError(f"{self.name}: no trades")
        self.symbols: Sequence[str] = self._choice.among(found)
        if self._trades.first_us is None or self._trades.last_us is None:
            raise InputError(f"{self.name}: no trade lies between the chosen start and end")
        self.first_us, self.last_us = self._trades.first_us, self._trades.last_us
        self._trades.close()

    def batches(self, after: Cursor | None, last_ids: Mapping[str, int]) -> Iterator[Recorded]:
        """See Recording; missing ids are gaps."""
        taken = 0 if after is None else after.sequence
        place = 0
        watermark_us = 0
        for trades in self._trades.frames(BATCH_ROWS):
            for piece in cut(trades, self._age_us):
                before, place = place, place + piece.height
                watermark_us = max(watermark_us, _newest_us(piece))
                if place <= taken:
                    continue
                checked = check_sequence(piece[max(0, taken - before) :], last_ids)
                last_ids = checked.last_ids
                if checked.accepted.is_empty():
                    continue
                gaps = tuple(msgspec.structs.replace(gap, reason="not recorded") for gap in checked.gaps)
                meta = BatchMeta(watermark_us=watermark_us, gaps=gaps, input=(self.venue, Cursor(self._id, place)))
                yield Recorded(to_record_batch(checked.accepted, self._schema), meta, watermark_us, checked.duplicates)


def cut(trades: pl.DataFrame, age_us: int | None) -> Iterator[pl.DataFrame]:
    """`trades` in pieces, each of what came within `age_us` microseconds of recorded time; None: in one piece."""
    if age_us is None or trades.is_empty():
        yield trades
        return
    times_us = np.maximum.accumulate(trades.get_column("ts_event").dt.epoch("us").to_numpy())
    bounds = np.flatnonzero(np.diff(times_us // age_us)) + 1
    for start, stop in zip([0, *bounds.tolist()], [*bounds.tolist(), trades.height], strict=True):
        yield trades[start:stop]


def _newest_us(trades: pl.DataFrame) -> int:
    return int(trades.select(pl.col("ts_event").max().dt.epoch("us")).item())
