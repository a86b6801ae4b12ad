"""`tick_persistence`: trades into the store."""

from __future__ import annotations

from raven import programs
from raven.control.plan import sources_of
from raven.rpc.subscriptions import SubscriptionTable
from raven.services import persistence, runtime
from raven.services.runtime import Environment, HostOption, LogLevelOption, PortOption, Service
from raven.sinks.stores import dead_letters, limits, stores_in_force, trade_store
from raven.sinks.trade_sink import TradeSink

NAME = "tick_persistence"


def build(environment: Environment) -> Service:
    """A sink of trades for each store in force."""
    settings, facts = environment.settings, SubscriptionTable()
    sinks = [
        TradeSink(
            trade_store(store, settings, environment.folder),
            limits(settings, store),
            venues=sources_of(NAME),
            dead_letters=dead_letters(environment.folder),
            facts=persistence.facts_of(facts, position),
            telemetry=environment.telemetry,
            joined=persistence.joined(environment, store),
            left=persistence.left(environment, store),
        )
        for position, store in enumerate(stores_in_force(settings, "trades"))
    ]
    return persistence.build(environment, sinks, facts)


def command(host: HostOption = None, port: PortOption = None, log_level: LogLevelOption = None) -> None:
    """Store trades."""
    runtime.main(NAME, build, host=host, port=port, log_level=log_level)


def main() -> None:
    """Console entry point."""
    programs.run(command)


if __name__ == "__main__":
    main()
