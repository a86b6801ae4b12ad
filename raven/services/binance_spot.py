"""`binance_spot`: the trades of Binance spot."""

from __future__ import annotations

from raven import programs
from raven.services import exchange, runtime
from raven.services.runtime import Environment, HostOption, LogLevelOption, PortOption, Service
from raven.sources.binance.protocol import SPOT

NAME = "binance_spot"


def build(environment: Environment) -> Service:
    """The source over its journal."""
    return exchange.build(environment, environment.settings.binance_spot, SPOT)


def command(host: HostOption = None, port: PortOption = None, log_level: LogLevelOption = None) -> None:
    """Collect the trades of Binance spot and stream them. Nothing is collected until asked for."""
    runtime.main(NAME, build, host=host, port=port, log_level=log_level)


def main() -> None:
    """Console entry point."""
    programs.run(command)


if __name__ == "__main__":
    main()
