"""Raven: every trade, the bars built from them, and both in your databases.

What a notebook imports is here: `read_trades` and `replay` give recorded trades, `time_bars`, `tick_imbalance_bars`,
`tick_bars`, `volume_bars` and `dollar_bars` their bars, `scan_trades`, `scan_bars` and `stored` what the stores hold,
and `live` what a running service publishes. Times are UTC.
"""

from typing import TYPE_CHECKING

from raven.errors import (
    AccessError,
    ExchangeError,
    InputError,
    JournalError,
    JournalLockedError,
    RavenError,
    RegionBlockedError,
    SettingsError,
    StateError,
    StoreError,
    TooLateError,
    UnknownHostError,
    UpstreamError,
)
from raven.version import __version__

if TYPE_CHECKING:
    from raven.api import (
        DollarBars,
        DroppedRowsWarning,
        NotStoredWarning,
        RecordingWarning,
        TickBars,
        TickImbalanceBars,
        TimeBars,
        VolumeBars,
        dollar_bars,
        iter_trades,
        live,
        read_trades,
        replay,
        scan_bars,
        scan_trades,
        stored,
        tick_bars,
        tick_imbalance_bars,
        time_bars,
        volume_bars,
    )


__all__ = [
    "AccessError",
    "DollarBars",
    "DroppedRowsWarning",
    "ExchangeError",
    "InputError",
    "JournalError",
    "JournalLockedError",
    "NotStoredWarning",
    "RavenError",
    "RecordingWarning",
    "RegionBlockedError",
    "SettingsError",
    "StateError",
    "StoreError",
    "TickBars",
    "TickImbalanceBars",
    "TimeBars",
    "TooLateError",
    "UnknownHostError",
    "UpstreamError",
    "VolumeBars",
    "__version__",
    "dollar_bars",
    "iter_trades",
    "live",
    "read_trades",
    "replay",
    "scan_bars",
    "scan_trades",
    "stored",
    "tick_bars",
    "tick_imbalance_bars",
    "time_bars",
    "volume_bars",
]


if not TYPE_CHECKING:  # a type checker is to refuse names that are not there

    def __getattr__(name):  # noqa: ANN001, ANN202 - nobody reads its types
        """Each name is loaded when it is first used: Polars takes a while, and the commands need little of this."""
        if name in __all__:
            from importlib import import_module  # noqa: PLC0415 - it would be a name of ours

            return getattr(import_module("raven.api"), name)
        raise AttributeError(f"module 'raven' has no attribute {name!r}")


def __dir__() -> list[str]:
    return list(__all__)
