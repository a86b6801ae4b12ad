"""Modules that libraries load only when they first need them: loaded at start, for an upgrade takes the files away.

A service goes on with the code it began with until it is restarted; what it had not loaded by then would be gone, or of
another version than the rest.
"""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from typing import Final

LATE: Final = (
    "numpy.ma",  # Polars, for a series of some types
    "adbc_driver_manager._reader",  # the driver of TimescaleDB
    "dateutil.parser",  # the client of InfluxDB
    "python_socks.async_.asyncio",  # websockets and aiohttp, behind a SOCKS proxy
    "grpc._auth",
    "grpc._plugin_wrapping",
)


def preload() -> None:
    """Load them, those of libraries that are installed."""
    for name in LATE:
        if find_spec(name.partition(".")[0]) is not None:
            import_module(name)
