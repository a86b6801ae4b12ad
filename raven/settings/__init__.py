"""Settings: defaults, then `{RUN_MODE}.toml`, then `local.toml`, then `RAVEN__SECTION__KEY`; later ones win.

The TOML files are looked for in the working directory. An unknown key is an error that names the nearest one.
"""

from raven.settings.loading import Origin, load, nearest, origins
from raven.settings.sections import (
    BinanceFuturesSettings,
    BinanceSettings,
    BinanceSpotSettings,
    JournalSettings,
    SecuritySettings,
    ServerSettings,
    Settings,
    TibsSettings,
    TimebarSettings,
    UpstreamSettings,
)
from raven.settings.stores import (
    DeltaSettings,
    InfluxSettings,
    TimescaleSettings,
)
from raven.settings.values import (
    MAX_PORT,
    METRICS_PORT_OFFSET,
    LogLevel,
    Section,
    StoreName,
    expanded,
)

__all__ = [
    "MAX_PORT",
    "METRICS_PORT_OFFSET",
    "BinanceFuturesSettings",
    "BinanceSettings",
    "BinanceSpotSettings",
    "DeltaSettings",
    "InfluxSettings",
    "JournalSettings",
    "LogLevel",
    "Origin",
    "Section",
    "SecuritySettings",
    "ServerSettings",
    "Settings",
    "StoreName",
    "TibsSettings",
    "TimebarSettings",
    "TimescaleSettings",
    "UpstreamSettings",
    "expanded",
    "load",
    "nearest",
    "origins",
]
