"""Raven: every trade, the bars built from them, and both in your databases.

What a notebook imports is here, each name loaded when it is first used; see `raven.api`.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from raven.api import (
        TickImbalanceBars as TickImbalanceBars,
        TimeBars as TimeBars,
        iter_trades as iter_trades,
        live as live,
        read_trades as read_trades,
        replay as replay,
        scan_bars as scan_bars,
        scan_trades as scan_trades,
        tick_imbalance_bars as tick_imbalance_bars,
        time_bars as time_bars,
    )

_API = (
    "TickImbalanceBars",
    "TimeBars",
    "iter_trades",
    "live",
    "read_trades",
    "replay",
    "scan_bars",
    "scan_trades",
    "tick_imbalance_bars",
    "time_bars",
)


def __getattr__(name: str) -> Any:
    if name in _API:
        return getattr(import_module("raven.api"), name)
    raise AttributeError(f"module 'raven' has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*globals(), *_API]
