"""`bar_persistence`: bars of both kinds into the store."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Final

import typer

from raven import programs
from raven.rpc.subscriptions import SubscriptionTable
from raven.services import persistence, runtime
from raven.services.runtime import Environment, HostOption, LogLevelOption, PortOption, Service
from raven.sinks.bar_sink import BarSink
from raven.sinks.store import BarKind
from raven.sinks.stores import bar_store, dead_letters, limits, stores_in_force

NAME = "bar_persistence"
UPSTREAMS: Final[dict[str, BarKind]] = {"raven_timebar": "time_bars", "raven_tibs": "tick_imbalance_bars"}


class Bars(StrEnum):
    """What `--bars` may name."""

    TIME = "time"
    TIBS = "tibs"
    BOTH = "both"


_CHOSEN: Final = {Bars.TIME: ["raven_timebar"], Bars.TIBS: ["raven_tibs"], Bars.BOTH: list(UPSTREAMS)}


def build(environment: Environment, bars: Bars) -> Service:
    """A sink for each kind of bars and each store in force."""
    settings, facts = environment.settings, SubscriptionTable()
    sinks = [
        BarSink(
            bar_store(store, UPSTREAMS[upstream], settings, environment.folder),
            limits(settings, store),
            upstreams=[upstream],
            dead_letters=dead_letters(environment.folder),
            facts=persistence.facts_of(facts, position),
            telemetry=environment.telemetry,
            joined=persistence.joined(environment, store),
            left=persistence.left(environment, store),
        )
        for position, store in enumerate(stores_in_force(settings, "bars"))
        for upstream in _CHOSEN[bars]
    ]
    return persistence.build(environment, sinks, facts)


def command(
    bars: Annotated[Bars, typer.Option(help="Which bars to store.")] = Bars.BOTH,
    host: HostOption = None,
    port: PortOption = None,
    log_level: LogLevelOption = None,
) -> None:
    """Store bars."""
    runtime.main(NAME, lambda environment: build(environment, bars), host=host, port=port, log_level=log_level)


def main() -> None:
    """Console entry point."""
    programs.run(command)


if __name__ == "__main__":
    main()
