"""A market that plays recorded trades."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import numpy as np
import polars as pl

from raven.batches.schema import SELL
from raven.errors import InputError
from raven.sources.simulated.market import MARKET_DTYPES, Block, Floats, History, Ints, Listing, split_symbol

_BLOCK_ROWS: Final = 8_192
_MOST_DECIMALS: Final = 8


class RecordedMarket:
    """Recorded trades (TRADE_SCHEMA), played once, symbols interleaved by time and each in the order of its ids.

    `speed` 1.0 is real time, another factor faster or slower; None is as fast as the slowest reader reads, and
    pauses while nobody reads. `rate` plays that many trades a second, of all symbols together, irrespective of their
    times. The play begins with the first subscription. A repeated id is played once; `duplicates` counts the others.

    Raises InputError when there is no trade, or a speed or rate is not above zero, or both are given.
    """

    waits_for_reader = True

    def __init__(self, trades: pl.DataFrame, *, speed: float | None = 1.0, rate: float | None = None) -> None:
        if (speed is not None and speed <= 0) or (rate is not None and rate <= 0):
            raise InputError(f"speed and rate must be above zero, got {speed} and {rate}")
        if rate is not None and speed != 1.0:
            raise InputError("speed and rate exclude each other", hint="rate already says how fast")
        if trades.is_empty():
            raise InputError("there is no trade to play", hint="is this the right recording?")
        ordered = _in_play_order(trades)
        self.duplicates = trades.height - ordered.height
        self._due = ordered.get_column("_due").to_numpy()
        self._trades = ordered.select(*MARKET_DTYPES)
        symbols = ordered.get_column("symbol")
        self._codes, self._rows = _split(symbols)
        ids = ordered.get_column("trade_id").to_numpy()
        self._ids = {symbol: ids[rows] for symbol, rows in self._rows.items()}
        self.listings = {symbol: _listing(symbol, self._trades[rows]) for symbol, rows in self._rows.items()}
        self._speed = speed
        self._rate = rate

    def begin(self, now_us: int) -> History:  # noqa: ARG002 - a recording has its own time
        """Nothing is history before the first trade."""
        return History(np.zeros(len(self.listings), dtype=np.int64), int(self._due[0]))

    def blocks(self) -> Iterator[Block]:
        """The whole recording."""
        for start in range(0, self._trades.height, _BLOCK_ROWS):
            rows = slice(start, start + _BLOCK_ROWS)
            yield Block(self._trades[rows], self._codes[rows], self._due_us(rows))

    def time_us(self, elapsed_us: int) -> int | None:
        """The recording's clock, up to its last trade."""
        if self._speed is None or self._rate is not None:
            return None
        return int(min(self._due[0] + elapsed_us * self._speed, self._due[-1]))

    def id_at(self, symbol: str, time_us: int) -> int:
        """See Market; trades are at the running maximum of their times."""
        index = int(np.searchsorted(self._due[self._rows[symbol]], time_us, side="left"))
        ids = self._ids[symbol]
        return int(ids[index]) if index < len(ids) else int(ids[-1]) + 1

    def trades(
        self, symbol: str, first_id: int, stop_id: int, *, head: int | None = None, tail: int | None = None
    ) -> pl.DataFrame:
        """See Market."""
        start, stop = (int(place) for place in np.searchsorted(self._ids[symbol], [first_id, stop_id]))
        if head is not None:
            stop = min(stop, start + head)
        if tail is not None:
            start = max(start, stop - tail)
        return self._trades[self._rows[symbol][start:stop]]

    def _due_us(self, rows: slice) -> Ints | None:
        if self._rate is not None:
            index = np.arange(rows.start, min(rows.stop, self._trades.height))
            return (index * 1e6 / self._rate).astype(np.int64)
        if self._speed is None:
            return None
        since_first: Floats = (self._due[rows] - self._due[0]) / self._speed
        return since_first.astype(np.int64)


def _in_play_order(trades: pl.DataFrame) -> pl.DataFrame:
    """MARKET_DTYPES and `_due`, the time of play: no trade is played before one of its symbol with a lower id."""
    market = trades.select(
        "symbol",
        "trade_id",
        time_us=pl.col("ts_event").dt.timestamp("us"),
        price="price",
        quantity="quantity",
        is_sell=pl.col("side") == SELL,
    )
    by_id = market.sort("symbol", "trade_id", maintain_order=True).unique(
        ("symbol", "trade_id"), keep="first", maintain_order=True
    )
    return by_id.with_columns(_due=pl.col("time_us").cum_max().over("symbol")).sort("_due", "symbol", "trade_id")


def _split(symbols: pl.Series) -> tuple[Ints, dict[str, Ints]]:
    """Each row's symbol code, and each symbol's rows, symbols in alphabetical order."""
    codes = (symbols.rank("dense") - 1).cast(pl.Int64).to_numpy()
    return codes, {
        symbol: np.flatnonzero(codes == code) for code, symbol in enumerate(symbols.unique().sort().to_list())
    }


def _listing(symbol: str, trades: pl.DataFrame) -> Listing:
    base, quote = split_symbol(symbol)
    return Listing(symbol, base, quote, _decimals(trades.get_column("price")), _decimals(trades.get_column("quantity")))


def _decimals(values: pl.Series) -> int:
    """The fewest decimals that hold every value."""
    for decimals in range(_MOST_DECIMALS):
        if (values.round(decimals) == values).all():
            return decimals
    return _MOST_DECIMALS
