"""`tick_persistence`: trades into the store."""

from __future__ import annotations

from typing import Annotated, Final

import typer

from raven.rpc.subscriptions import SubscriptionTable
from raven.services import persistence, runtime
from raven.services.runtime import Environment, Service
from raven.sinks.delta import DeltaTradeStore
from raven.sinks.sink import TradeSink
from raven.sources.binance import BINANCE_SPOT

NAME = "tick_persistence"
SOURCES: Final = {"binance_spot": BINANCE_SPOT}


def build(environment: Environment) -> Service:
    """The sink of trades over the embedded Delta Lake."""
    facts = SubscriptionTable()
    sink = TradeSink(
        DeltaTradeStore(environment.settings.data / "delta"),
        persistence.limits(environment),
        venues=SOURCES,
        facts=facts,
        telemetry=environment.telemetry,
        joined=environment.wanted.joined,
    )
    return persistence.build(environment, dict.fromkeys(SOURCES, sink), facts)


def command(
    host: Annotated[str | None, typer.Option(help="Address to bind.")] = None,
    port: Annotated[int | None, typer.Option(help="gRPC port; metrics at port + 1000.")] = None,
) -> None:
    """Store trades."""
    runtime.main(NAME, build, host=host, port=port)


def main() -> None:
    """Console entry point."""
    typer.run(command)


if __name__ == "__main__":
    main()
