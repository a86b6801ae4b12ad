"""Small made-up trades for tests that need no market."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import polars as pl

from raven.batches.instrument import Instrument
from raven.batches.schema import TRADE_DTYPES

START = datetime(2026, 1, 1, tzinfo=UTC)


def trades(ids: range | list[int], symbol: str = "BTCUSDT", *, every_ms: int = 250) -> pl.DataFrame:
    """One trade an id, `every_ms` apart, alternating sides in runs so that imbalance bars form."""
    times = [START + timedelta(milliseconds=every_ms * number) for number in ids]
    return pl.DataFrame(
        {
            "symbol": [symbol] * len(ids),
            "trade_id": list(ids),
            "ts_event": times,
            "ts_recv": times,
            "price": [100.0 + number % 7 for number in ids],
            "quantity": [0.5 + number % 3 for number in ids],
            "side": [1 if number % 10 < 8 else -1 for number in ids],
            "origin": [0] * len(ids),
        },
        schema=TRADE_DTYPES,
    )


def spot(*symbols: str) -> list[Instrument]:
    """Symbols of spot."""
    return [Instrument("BINANCE_SPOT", symbol) for symbol in symbols]
