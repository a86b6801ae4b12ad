"""The simulated exchange: a public exchange's WebSocket and REST on a local port, fed by a recording or a seed.

The names are loaded when they are first used, so that a command's help is quick.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from raven.sources.simulated.build import build_market
    from raven.sources.simulated.exchange import DEFAULT_PORT, SimulatedExchange
    from raven.sources.simulated.generated import GeneratedMarket
    from raven.sources.simulated.market import Market
    from raven.sources.simulated.recorded import RecordedMarket
    from raven.sources.simulated.served import ExchangeOptions
    from raven.sources.simulated.venue import FUTURES, SPOT, Venue

__all__ = [
    "DEFAULT_PORT",
    "FUTURES",
    "SPOT",
    "ExchangeOptions",
    "GeneratedMarket",
    "Market",
    "RecordedMarket",
    "SimulatedExchange",
    "Venue",
    "build_market",
]

_HOMES: Final = {
    "DEFAULT_PORT": "exchange",
    "FUTURES": "venue",
    "SPOT": "venue",
    "ExchangeOptions": "served",
    "GeneratedMarket": "generated",
    "Market": "market",
    "RecordedMarket": "recorded",
    "SimulatedExchange": "exchange",
    "Venue": "venue",
    "build_market": "build",
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
