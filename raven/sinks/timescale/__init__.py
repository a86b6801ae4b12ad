"""Bars in TimescaleDB, or in plain PostgreSQL: one row per bar, of its highest revision."""

from __future__ import annotations

from raven.sinks.timescale.scan import scan_bars
from raven.sinks.timescale.store import TimescaleBarStore

__all__ = ["TimescaleBarStore", "scan_bars"]
