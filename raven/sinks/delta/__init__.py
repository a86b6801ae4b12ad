"""The embedded store: trades and bars in Delta Lake tables, open to Polars, DuckDB and Spark at any time."""

from __future__ import annotations

from raven.sinks.delta.scan import scan_bars, scan_trades
from raven.sinks.delta.stores import DeltaBarStore, DeltaTradeStore
from raven.sinks.delta.table import Upkeep

__all__ = ["DeltaBarStore", "DeltaTradeStore", "Upkeep", "scan_bars", "scan_trades"]
