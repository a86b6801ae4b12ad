"""`tick_persistence`: trades into the store."""

from __future__ import annotations

import typer

from raven.control.plan import sources_of
from raven.rpc.subscriptions import SubscriptionTable
from raven.services import persistence, runtime
from raven.services.runtime import Environment, HostOption, LogLevelOption, PortOption, Service
from raven.sinks.delta import DeltaTradeStore
from raven.sinks.sink import TradeSink

NAME = "tick_persistence"


def build(environment: Environment) -> Service:
    """The sink of trades over the embedded Delta Lake."""
    sources, facts = sources_of(NAME), SubscriptionTable()
    sink = TradeSink(
        DeltaTradeStore(environment.settings.data / "delta"),
        persistence.limits(environment),
        venues=sources,
        facts=facts,
        telemetry=environment.telemetry,
        joined=environment.wanted.joined,
    )
    return persistence.build(environment, dict.fromkeys(sources, sink), facts)


def command(host: HostOption = None, port: PortOption = None, log_level: LogLevelOption = None) -> None:
    """Store trades."""
    runtime.main(NAME, build, host=host, port=port, log_level=log_level)


def main() -> None:
    """Console entry point."""
    typer.run(command)


if __name__ == "__main__":
    main()
