"""The console scripts. They load what they run within reach of Ctrl-C, which ends them without a traceback."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Final

INTERRUPTED: Final = 130
"""Exit code of a program that Ctrl-C ended, as shells know it."""


def _script(module: str) -> Callable[[], None]:
    def run() -> None:
        try:
            import_module(module).main()
        except KeyboardInterrupt:
            raise SystemExit(INTERRUPTED) from None

    return run


binance_spot = _script("raven.services.binance_spot")
binance_futures = _script("raven.services.binance_futures")
raven_timebar = _script("raven.services.timebar")
raven_tibs = _script("raven.services.tibs")
tick_persistence = _script("raven.services.tick_persistence")
bar_persistence = _script("raven.services.bar_persistence")
ravenctl = _script("raven.cli.ravenctl")
raven = _script("raven.cli.raven")
