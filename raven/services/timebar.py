"""`raven_timebar`: time bars of one or more intervals."""

from __future__ import annotations

from typing import Annotated

import typer

from raven import programs
from raven.bars.time_bars import TimeBarKernel
from raven.batches.schema import TIME_BAR_SCHEMA
from raven.errors import InputError
from raven.services import aggregation, runtime
from raven.services.runtime import Environment, HostOption, LogLevelOption, PortOption, Service

NAME = "raven_timebar"


def build(environment: Environment, seconds: list[int]) -> Service:
    """The aggregator with a kernel for each interval."""
    settings = environment.settings.timebar
    intervals = list(dict.fromkeys(seconds or settings.seconds))
    if not intervals:
        raise InputError("no interval given", hint="name at least one with --seconds")
    kernels = [TimeBarKernel(every * 1_000_000, settings.allowed_lateness_ms * 1_000) for every in intervals]
    return aggregation.build(environment, kernels, TIME_BAR_SCHEMA)


def command(
    seconds: Annotated[list[int] | None, typer.Option(help="Length of a bar; repeat for several. Default 60.")] = None,
    host: HostOption = None,
    port: PortOption = None,
    log_level: LogLevelOption = None,
) -> None:
    """Build time bars from trades and stream them."""
    runtime.main(NAME, lambda environment: build(environment, seconds or []), host=host, port=port, log_level=log_level)


def main() -> None:
    """Console entry point."""
    programs.run(command)


if __name__ == "__main__":
    main()
