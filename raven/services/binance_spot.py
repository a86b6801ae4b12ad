"""`binance_spot`: the trades of Binance spot."""

from __future__ import annotations

import typer

from raven.control.components import SourceComponent
from raven.services import runtime
from raven.services.runtime import Environment, HostOption, PortOption, Service
from raven.sources.binance.source import STREAM_SCHEMA, BinanceSource

NAME = "binance_spot"


def build(environment: Environment) -> Service:
    """The source over its journal."""
    hub = environment.open_hub(STREAM_SCHEMA)
    source = BinanceSource(
        hub, settings=environment.settings.binance_spot, folder=environment.folder, telemetry=environment.telemetry
    )
    return Service(SourceComponent(source), hub, [source.run], [source.close])


def command(host: HostOption = None, port: PortOption = None) -> None:
    """Collect the trades of Binance spot and stream them. Nothing is collected until asked for."""
    runtime.main(NAME, build, host=host, port=port)


def main() -> None:
    """Console entry point."""
    typer.run(command)


if __name__ == "__main__":
    main()
