"""Binance: spot and USD-M futures. What is Binance's own vocabulary (`aggTrade`, `kline`) stays in here."""

from __future__ import annotations

from typing import Final, Literal, TypeAlias

BINANCE_SPOT: Final = "BINANCE_SPOT"
BINANCE_FUTURES: Final = "BINANCE_FUTURES"

TradeEvent: TypeAlias = Literal["trade", "aggTrade"]
"""The two series of trades, each with ids of its own: single trades (`t`) and aggregate trades (`a`)."""
