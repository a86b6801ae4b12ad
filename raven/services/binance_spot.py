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
    settings = environment.settings.binance_spot
    source = BinanceSource(
        hub, websocket_url=settings.websocket_url, rest_url=settings.rest_url, folder=environment.folder,
        batch_max_rows=settings.batch_max_rows, batch_max_age_ms=settings.batch_max_age_ms,
        stale_s=settings.stale_s, connect_timeout_s=settings.connect_timeout_s, telemetry=environment.telemetry,
    )  # fmt: skip
    return Service(SourceComponent(source, environment.wanted), hub, [source.run], [source.close])


def command(host: HostOption = None, port: PortOption = None) -> None:
    """Collect the trades of Binance spot and stream them. Nothing is collected until asked for."""
    runtime.main(NAME, build, host=host, port=port)


def main() -> None:
    """Console entry point."""
    typer.run(command)


if __name__ == "__main__":
    main()
