"""Archives, captures and other files as recordings: cut into batches as a live source would cut them."""

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
from raven.sources.recordings import iter_trades
from raven.sources.replay.merging import merge_by_time
from raven.sources.replay.recording import Choice, Recorded

BATCH_ROWS: Final = 8_192
BATCH_AGE_US: Final = 25_000


class FileRecording:
    """Files of trades of `venue`; see Recording.

    `series`: the files of one symbol, or of None where a file may hold several. They are read one after the other as
    they are given, the series side by side. All are read through once, so that what is wrong with them is said before
    anything is replayed: raises InputError.

    A batch ends at BATCH_ROWS rows, and where there is a `speed`, after what at that speed are BATCH_AGE_US.
    A place is a number of rows.
    """

    def __init__(
        self, series: Mapping[str | None, Sequence[Path]], choice: Choice, *, venue: str, event: TradeEvent,
        identity: str, speed: float | None,
    ) -> None:  # fmt: skip
        self.venue = venue
        self.name = ", ".join(path.name for paths in series.values() for path in paths)
        self.identity = identity
        self._id = sha256(identity.encode()).hexdigest()[:32]
        self._series = dict(series)
        self._choice = choice
        self._event: TradeEvent = event
        self._age_us = None if speed is None else max(1, int(BATCH_AGE_US * speed))
        self._schema = stream_schema(TRADE_SCHEMA, kind="trades", venue=venue)
        self._survey()

    def _survey(self) -> None:
        found: set[str] = set()
        times: list[tuple[int, int]] = []
        for trades in self._trades(1 << 18):
            found.update(trades.get_column("symbol").unique())
            chosen = self._choice.rows(trades).select(
                first=pl.col("ts_event").min().dt.epoch("us"), last=pl.col("ts_event").max().dt.epoch("us")
            )
            times += [span for span in chosen.iter_rows() if span[0] is not None]
        if not found:
            raise InputError(f"{self.name}: no trades")
        self.symbols: Sequence[str] = self._choice.among(found)
        if not times:
            raise InputError(f"{self.name}: no trade lies between the chosen start and end")
        self.first_us, self.last_us = min(first for first, _ in times), max(last for _, last in times)

    def _trades(self, rows: int) -> Iterator[pl.DataFrame]:
        only = next(iter(self._choice.symbols)) if len(self._choice.symbols) == 1 else None
        series = [
            iter_trades(
                *paths, batch_rows=rows, venue=self.venue, symbol=only if named is None else None, event=self._event
            )
            for named, paths in self._series.items()
        ]
        return series[0] if len(series) == 1 else merge_by_time(series, rows)

    def batches(self, after: Cursor | None, last_ids: Mapping[str, int]) -> Iterator[Recorded]:
        """See Recording; rows whose ids were there before are left out, missing ids are gaps."""
        taken = 0 if after is None else after.sequence
        place = 0
        watermark_us: int | None = None
        for trades in self._trades(BATCH_ROWS):
            for piece in cut(trades, self._age_us):
                before, place = place, place + piece.height
                rows = self._choice.rows(piece)
                if rows.height:
                    watermark_us = max(watermark_us or 0, _newest_us(rows))
                if place <= taken or watermark_us is None:
                    continue
                fresh = rows if before >= taken else self._choice.rows(piece[taken - before :])
                checked = check_sequence(fresh, last_ids)
                last_ids = checked.last_ids
                if checked.accepted.height:
                    gaps = tuple(msgspec.structs.replace(gap, reason="not recorded") for gap in checked.gaps)
                    meta = BatchMeta(watermark_us=watermark_us, gaps=gaps, input=(self.venue, Cursor(self._id, place)))
                    batch = to_record_batch(checked.accepted, self._schema)
                    yield Recorded(batch, meta, watermark_us, checked.duplicates)


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
