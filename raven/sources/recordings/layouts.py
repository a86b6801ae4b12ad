"""The column layouts of recorded CSV files, told by their first line."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Final

import polars as pl

from raven.sources.binance import BINANCE_FUTURES, BINANCE_SPOT, TradeEvent


@dataclass(frozen=True, slots=True)
class Layout:
    """`columns`: the name of each column in order; `header`: whether the first line names them.

    `venue` and `event` are None where the layout does not tell. `refused` says what the file is when it holds no
    trades. `is_own`: its columns are named as Raven's own are, and may stand in any order.
    """

    columns: tuple[str, ...] = ()
    venue: str | None = None
    event: TradeEvent | None = None
    header: bool = False
    refused: str = ""
    is_own: bool = False

    @property
    def dtypes(self) -> dict[str, pl.DataType]:
        """The Polars type of each column; those that nothing is read from are text."""
        return {column: _DTYPES.get(column, pl.String()) for column in self.columns}

    @property
    def needed(self) -> list[str]:
        """The columns that make a row: if one is missing, the row is not whole."""
        return [column for column in self.columns if column in _DTYPES]


_DTYPES: Final[Mapping[str, pl.DataType]] = MappingProxyType(
    {
        "id": pl.Int64(),
        "price": pl.Float64(),
        "quantity": pl.Float64(),
        "time": pl.Int64(),
        "maker": pl.Boolean(),
        "side": pl.String(),
        "best_match": pl.Boolean(),  # the last column of spot files: a line cut short shows there
    }
)

_TRADES: Final = ("id", "price", "quantity", "quote_quantity", "time", "maker")
_AGG_TRADES: Final = ("id", "price", "quantity", "first", "last", "time", "maker")

LAYOUTS: Final[Mapping[str, Layout]] = MappingProxyType(
    {
        "spot trades": Layout((*_TRADES, "best_match"), BINANCE_SPOT, "trade"),
        "spot aggregate trades": Layout((*_AGG_TRADES, "best_match"), BINANCE_SPOT, "aggTrade"),
        "USD-M trades": Layout(_TRADES, BINANCE_FUTURES, "trade"),
        "USD-M aggregate trades": Layout(_AGG_TRADES, BINANCE_FUTURES, "aggTrade"),
        "collector": Layout(("time", "price", "quantity", "side", "id"), header=True),
        "klines": Layout(refused="klines (bars), not trades"),
        "COIN-M": Layout(refused="COIN-M futures, whose quantities are contracts"),
    }
)

_HEADERS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "id,price,qty,quote_qty,time,is_buyer_maker,is_best_match": "spot trades",
        "id,price,qty,quote_qty,time,is_buyer_maker": "USD-M trades",
        "id,price,qty,base_qty,time,is_buyer_maker": "COIN-M",
        "agg_trade_id,price,quantity,first_trade_id,last_trade_id,transact_time,is_buyer_maker,is_best_match": (
            "spot aggregate trades"
        ),
        "agg_trade_id,price,quantity,first_trade_id,last_trade_id,transact_time,is_buyer_maker": (
            "USD-M aggregate trades"
        ),
        "timestamp,price,quantity,side,tradeid": "collector",
    }
)

_SHAPES: Final[Mapping[tuple[int, int], str]] = MappingProxyType(
    {
        (7, 2): "spot trades",
        (8, 2): "spot aggregate trades",
        (6, 1): "USD-M trades",
        (7, 1): "USD-M aggregate trades",
        (12, 0): "klines",
    }
)
"""Files without a header: how many columns, and how many of the last of them are true or false."""


_OWN: Final = frozenset({"trade_id", "ts_event", "price", "quantity"})
_BARS: Final = frozenset({"open", "high", "low", "close"})
_CONTRACTS: Final = (10.0, 100.0)
"""What a contract of COIN-M is worth in USD."""


def layout_of(first_line: bytes) -> Layout | None:
    """The layout that the first line of a CSV file tells, None when it is none of those known."""
    line = first_line.decode(errors="replace").strip().lower()
    names = tuple(name.strip().strip('"') for name in line.split(","))
    if set(names) >= _OWN:
        return Layout(names, header=True, is_own=True)
    if set(names) >= _BARS:
        return replace(LAYOUTS["klines"], refused="bars, not trades")
    if line.startswith("open_time,"):
        return LAYOUTS["klines"]
    if line in _HEADERS:
        layout = LAYOUTS[_HEADERS[line]]
        return layout if layout.header else replace(layout, header=True)
    fields = line.split(",")
    if not fields[0].isdigit():
        return None
    flags = sum(field in {"true", "false"} for field in fields)
    shape = _SHAPES.get((len(fields), flags))
    return None if shape is None else LAYOUTS[shape]


def counts_contracts(layout: Layout, lines: Sequence[bytes]) -> bool:
    """Whether `lines` of an archive of USD-M's layout are of COIN-M: its files without a header have the same columns.

    Where USD-M has what was paid (price times quantity), COIN-M has the coins that the contracts were worth.
    """
    if layout.columns != _TRADES:
        return False
    for line in lines:
        try:
            price, quantity, quote = map(float, line.split(b",")[1:4])
            paid, contract = price * quantity, quote * price / quantity
        except (ValueError, ZeroDivisionError):
            continue
        return abs(quote - paid) > paid / 100 and any(abs(contract - size) < size / 50 for size in _CONTRACTS)
    return False
