"""`raven_tibs`: tick imbalance bars."""

from __future__ import annotations

from typing import Annotated

import typer

from raven.bars.tick_imbalance import TickImbalanceKernel
from raven.batches.schema import TIB_SCHEMA
from raven.services import aggregation, runtime
from raven.services.runtime import Environment, HostOption, LogLevelOption, PortOption, Service

NAME = "raven_tibs"


def build(environment: Environment, flags: dict[str, float | None]) -> Service:
    """The aggregator with one kernel; flags that are given win over `[tibs]`."""
    given = {name: value for name, value in flags.items() if value is not None}
    parameters = {**environment.settings.tibs.model_dump(), **given}
    kernel = TickImbalanceKernel(**parameters)
    if kernel.warning:
        environment.telemetry.warning("tib_parameters", kernel.warning)
    return aggregation.build(environment, [kernel], TIB_SCHEMA)


def command(
    initial_size: Annotated[float | None, typer.Option(help="Expected ticks of the first bar [100].")] = None,
    initial_p_buy: Annotated[float | None, typer.Option(help="Expected share of buys at the start [0.7].")] = None,
    alpha_size: Annotated[float | None, typer.Option(help="Weight of the last bar in the size average [0.1].")] = None,
    alpha_imbl: Annotated[float | None, typer.Option(help="Weight in the imbalance average [0.1].")] = None,
    size_min: Annotated[float | None, typer.Option(help="Least expected size [50].")] = None,
    size_max: Annotated[float | None, typer.Option(help="Largest expected size [1000].")] = None,
    min_imbalance: Annotated[float | None, typer.Option(help="Least |expected imbalance|; 0: off [0].")] = None,
    max_ticks: Annotated[int | None, typer.Option(help="Close a bar at so many ticks; 0: off [0].")] = None,
    host: HostOption = None,
    port: PortOption = None,
    log_level: LogLevelOption = None,
) -> None:
    """Build tick imbalance bars from trades and stream them."""
    flags = {
        "initial_size": initial_size, "initial_p_buy": initial_p_buy, "alpha_size": alpha_size,
        "alpha_imbl": alpha_imbl, "size_min": size_min, "size_max": size_max, "min_imbalance": min_imbalance,
        "max_ticks": max_ticks,
    }  # fmt: skip
    runtime.main(NAME, lambda environment: build(environment, flags), host=host, port=port, log_level=log_level)


def main() -> None:
    """Console entry point."""
    typer.run(command)


if __name__ == "__main__":
    main()
