"""Raven: every trade, the bars built from them, and both in your databases.

What a notebook imports is here, each name loaded when it is first used; see `raven.api`.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from raven.api import (
        DollarBars as DollarBars,
    )
    from raven.api import (
        TickBars as TickBars,
    )
    from raven.api import (
        TickImbalanceBars as TickImbalanceBars,
    )
    from raven.api import (
        TimeBars as TimeBars,
    )
    from raven.api import (
        VolumeBars as VolumeBars,
    )
    from raven.api import (
        dollar_bars as dollar_bars,
    )
    from raven.api import (
        iter_trades as iter_trades,
    )
    from raven.api import (
        live as live,
    )
    from raven.api import (
        read_trades as read_trades,
    )
    from raven.api import (
        replay as replay,
    )
    from raven.api import (
        scan_bars as scan_bars,
    )
    from raven.api import (
        scan_trades as scan_trades,
    )
    from raven.api import (
        tick_bars as tick_bars,
    )
    from raven.api import (
        tick_imbalance_bars as tick_imbalance_bars,
    )
    from raven.api import (
        time_bars as time_bars,
    )
    from raven.api import (
        volume_bars as volume_bars,
    )

_API = (
    "DollarBars",
    "TickBars",
    "TickImbalanceBars",
    "TimeBars",
    "VolumeBars",
    "dollar_bars",
    "iter_trades",
    "live",
    "read_trades",
    "replay",
    "scan_bars",
    "scan_trades",
    "tick_bars",
    "tick_imbalance_bars",
    "time_bars",
    "volume_bars",
)


def __getattr__(name: str) -> Any:
    if name in _API:
        return getattr(import_module("raven.api"), name)
    raise AttributeError(f"module 'raven' has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*globals(), *_API]
