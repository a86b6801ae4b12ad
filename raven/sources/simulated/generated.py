"""A market made of a seed: a pure function of (seed, symbol, time)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Any, Final, TypeAlias

import numpy as np
import numpy.typing as npt
import polars as pl

from raven.errors import InputError
from raven.sources.simulated.market import MARKET_DTYPES, Block, History, Listing
from raven.sources.simulated.path import EPOCH_US, MINUTE_US, SymbolPath

_Columns: TypeAlias = dict[str, npt.NDArray[Any]]

_PIECE_ROWS: Final = 2_048
_BLOCK_ROWS: Final = 8_192
_LONGEST_WINDOW_US: Final = 5_000_000


class GeneratedMarket:
    """Seeded trades of `symbols` from 2020-01-01 on, each symbol with `trades_per_second` of its own.

    Every minute of a symbol holds exactly 60 * trades_per_second trades and ids are counted from the epoch, so ids
    are contiguous, any moment's history can be looked up, and a restart goes on with the same ids and prices.
    Without `start_us` the play begins at once, now; with it, at that time (UTC) with the first subscription.
    `speed` is 1.0 for real time, a factor of it, or None for as fast as it is read.

    Raises InputError when a symbol is not one, or a rate, a speed or the start is out of range.
    """

    def __init__(
        self,
        symbols: Sequence[str],
        *,
        seed: int = 0,
        trades_per_second: float = 20.0,
        speed: float | None = 1.0,
        start_us: int | None = None,
    ) -> None:
        per_minute = round(60 * trades_per_second)
        if per_minute < 1:
            raise InputError(f"{trades_per_second} trades a second are too few", hint="one a minute is the least")
        if speed is not None and speed <= 0:
            raise InputError(f"speed must be above zero, got {speed}")
        if start_us is not None and start_us < EPOCH_US:
            raise InputError("the generated market has no history before 2020-01-01")
        if not symbols:
            raise InputError("a generated market needs a symbol", hint="for example BTCUSDT")
        self._paths = {symbol: SymbolPath(seed, symbol, per_minute) for symbol in dict.fromkeys(symbols)}
        self._names = pl.Series(list(self._paths), dtype=pl.String)
        self._per_minute = per_minute
        self._speed = speed
        self._start_us = start_us
        self._began_at_us = EPOCH_US
        self._next_ids: list[int] = []
        # bounded by two pieces a symbol: the play needs one or two, look-ups need none
        self._piece = lru_cache(maxsize=2 * len(self._paths) + 2)(self._make_piece)

    @property
    def listings(self) -> dict[str, Listing]:
        """The symbols, in the order they were given."""
        return {symbol: path.listing for symbol, path in self._paths.items()}

    @property
    def waits_for_reader(self) -> bool:
        """Only a play from a given start waits; real time does not."""
        return self._start_us is not None

    def begin(self, now_us: int) -> History:
        """Everything before the start is history."""
        self._began_at_us = now_us if self._start_us is None else self._start_us
        self._next_ids = [self.id_at(symbol, self._began_at_us) for symbol in self._paths]
        return History(np.array(self._next_ids, dtype=np.int64) - 1, self._began_at_us)

    def blocks(self) -> Iterator[Block]:
        """Blocks without end, from the beginning of the play on."""
        next_ids = list(self._next_ids)
        rows_per_us = len(self._paths) * self._per_minute / MINUTE_US
        window_us = min(max(1, int(_BLOCK_ROWS / rows_per_us)), _LONGEST_WINDOW_US)
        # symbols do not begin new pieces at the same moment
        shifts = [code * _PIECE_ROWS // len(self._paths) for code in range(len(self._paths))]
        stop_us = self._began_at_us
        while True:
            stop_us += window_us
            parts = []
            for code, symbol in enumerate(self._paths):
                for part in self._until(symbol, shifts[code], next_ids[code], stop_us):
                    parts.append((code, part))
                    next_ids[code] += len(part["trade_id"])
            if parts:
                yield self._block(parts)

    def time_us(self, elapsed_us: int) -> int | None:
        """The clock of the play."""
        return None if self._speed is None else self._began_at_us + int(elapsed_us * self._speed)

    def id_at(self, symbol: str, time_us: int) -> int:
        """See Market."""
        minute = max(0, time_us - EPOCH_US) // MINUTE_US
        first_id = minute * self._per_minute + 1
        times = self._paths[symbol].times(first_id, first_id + self._per_minute)
        return first_id + int(np.searchsorted(times, time_us, side="left"))

    def trades(
        self, symbol: str, first_id: int, stop_id: int, *, head: int | None = None, tail: int | None = None
    ) -> pl.DataFrame:
        """See Market."""
        first_id = max(first_id, 1)
        if head is not None:
            stop_id = min(stop_id, first_id + head)
        if tail is not None:
            first_id = max(first_id, stop_id - tail)
        if first_id >= stop_id:
            return pl.DataFrame(schema=MARKET_DTYPES)
        columns = self._paths[symbol].columns(first_id, stop_id)
        return pl.DataFrame(columns).select(pl.lit(symbol).alias("symbol"), *list(MARKET_DTYPES)[1:])

    def _until(self, symbol: str, shift: int, first_id: int, stop_us: int) -> Iterator[_Columns]:
        """The trades from `first_id` on and before `stop_us`, out of cached pieces."""
        while True:
            edge = (first_id - 1 + shift) // _PIECE_ROWS * _PIECE_ROWS - shift + 1
            begin, end = max(edge, 1), edge + _PIECE_ROWS
            piece = self._piece(symbol, begin, end)
            start, stop = first_id - begin, int(np.searchsorted(piece["time_us"], stop_us, side="left"))
            if stop > start:
                yield {name: values[start:stop] for name, values in piece.items()}
            if stop < end - begin:
                return
            first_id = end

    def _make_piece(self, symbol: str, first_id: int, stop_id: int) -> _Columns:
        return self._paths[symbol].columns(first_id, stop_id)

    def _block(self, parts: list[tuple[int, _Columns]]) -> Block:
        names = list(MARKET_DTYPES)[1:]
        columns = {name: np.concatenate([part[name] for _, part in parts]) for name in names}
        codes = np.repeat([code for code, _ in parts], [len(part["trade_id"]) for _, part in parts])
        order = np.argsort(columns["time_us"], kind="stable")
        ordered = {name: values[order] for name, values in columns.items()}
        due = None
        if self._speed is not None:
            due = ((ordered["time_us"] - self._began_at_us) / self._speed).astype(np.int64)
        frame = pl.DataFrame({"symbol": self._names.gather(codes[order]), **ordered})
        return Block(frame.select(*MARKET_DTYPES), codes[order], due)
