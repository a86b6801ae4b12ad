"""What a simulated exchange plays: a market, in blocks of trades, and everything it has played so far."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt
import polars as pl

from raven.errors import InputError

Ints: TypeAlias = npt.NDArray[np.int64]
Floats: TypeAlias = npt.NDArray[np.float64]

MARKET_DTYPES: Final[Mapping[str, Any]] = {
    "symbol": pl.String,
    "trade_id": pl.Int64,
    "time_us": pl.Int64,
    "price": pl.Float64,
    "quantity": pl.Float64,
    "is_sell": pl.Boolean,
}
"""Trades inside a market: `time_us` is the venue's trade time, UTC; `is_sell` that the aggressor sold."""

QUOTE_ASSETS: Final = (
    "FDUSD", "USDT", "USDC", "BUSD", "TUSD", "BTC", "ETH", "BNB", "EUR", "TRY", "BRL", "JPY", "GBP", "DAI", "IDR"
)  # fmt: skip
_LEGAL_SYMBOL: Final = re.compile(r"(?:(?![a-z])[\w\-.]){1,50}")


@dataclass(frozen=True, slots=True)
class Listing:
    """One symbol as the exchange lists it; decimals are those of its smallest price and quantity step."""

    symbol: str
    base_asset: str
    quote_asset: str
    price_decimals: int
    quantity_decimals: int


@dataclass(frozen=True, slots=True)
class Block:
    """The next trades of a market in the order of play (MARKET_DTYPES).

    `codes` (int64) is each row's place of its symbol in the market's listings. `due_us` (int64, ascending) is when
    each row is to be sent, in microseconds since the play began; None: as fast as it is read.
    """

    trades: pl.DataFrame
    codes: Ints
    due_us: Ints | None


@dataclass(frozen=True, slots=True)
class History:
    """What was there before the play began: the last trade id of each symbol (0: none) and the market's time."""

    last_ids: Ints
    time_us: int


class Market(Protocol):
    """Trades to play, and to look up by id and time."""

    @property
    def listings(self) -> Mapping[str, Listing]:
        """The symbols, in the order of their codes."""

    @property
    def waits_for_reader(self) -> bool:
        """Whether the play begins with the first subscription instead of at once."""

    def begin(self, now_us: int) -> History:
        """Settle where the play begins, at `now_us` of the wall clock (UTC)."""

    def blocks(self) -> Iterator[Block]:
        """All blocks from the beginning of the play on."""

    def time_us(self, elapsed_us: int) -> int | None:
        """The market's own time so long after the play began; None when only the trades played tell it."""

    def id_at(self, symbol: str, time_us: int) -> int:
        """The id of the first trade at or after `time_us`; above every id when there is none."""

    def trades(
        self, symbol: str, first_id: int, stop_id: int, *, head: int | None = None, tail: int | None = None
    ) -> pl.DataFrame:
        """Trades with first_id <= id < stop_id by ascending id, at most the first `head` or the last `tail`."""


def is_legal(symbol: str) -> bool:
    """Whether the exchange takes `symbol` for a symbol at all; letters of any script, but no small Latin ones."""
    return _LEGAL_SYMBOL.fullmatch(symbol) is not None


def split_symbol(symbol: str) -> tuple[str, str]:
    """The base and quote asset of a symbol; raises InputError when it is not one."""
    if not is_legal(symbol):
        raise InputError(f"{symbol!r} is not a symbol", hint="symbols look like BTCUSDT")
    for quote in QUOTE_ASSETS:
        if symbol.endswith(quote) and symbol != quote:
            return symbol.removesuffix(quote), quote
    return symbol[:-3] or symbol, symbol[-3:]
