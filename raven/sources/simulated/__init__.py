"""The simulated exchange: a public exchange's WebSocket and REST on a local port, fed by a recording or a seed."""

from raven.sources.simulated.build import build_market
from raven.sources.simulated.exchange import DEFAULT_PORT, ExchangeOptions, SimulatedExchange
from raven.sources.simulated.generated import GeneratedMarket
from raven.sources.simulated.market import Market
from raven.sources.simulated.recorded import RecordedMarket

__all__ = [
    "DEFAULT_PORT",
    "ExchangeOptions",
    "GeneratedMarket",
    "Market",
    "RecordedMarket",
    "SimulatedExchange",
    "build_market",
]
