"""InfluxDB v2 as a store of trades."""

from __future__ import annotations

from raven.sinks.influx.scan import scan_trades
from raven.sinks.influx.store import InfluxTradeStore

__all__ = ["InfluxTradeStore", "scan_trades"]
