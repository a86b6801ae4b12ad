"""The simulated exchange: a public exchange's WebSocket and REST on a local port, fed by a recording or a seed."""

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
