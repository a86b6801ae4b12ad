"""`raven_tibs`: bars that trades close: tick imbalance bars and, where asked for, tick, volume and dollar bars."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Annotated

import typer

from raven import programs
from raven.bars.kernel import Kernel
from raven.bars.sized import MEASURES, SizedBarKernel
from raven.bars.tick_imbalance import TickImbalanceKernel
from raven.batches.schema import TIB_SCHEMA
from raven.errors import InputError
from raven.services import aggregation, runtime
from raven.services.runtime import Environment, HostOption, LogLevelOption, PortOption, Service
from raven.settings import TibsSettings

NAME = "raven_tibs"


def build(environment: Environment, flags: Mapping[str, object]) -> Service:
    """The aggregator with a kernel for each bar type and size; flags that are given win over `[tibs]`."""
    chosen = kernels(environment.settings.tibs, flags)
    for kernel in chosen:
        if isinstance(kernel, TickImbalanceKernel) and kernel.warning:
            environment.telemetry.warning("tib_parameters", kernel.warning)
    return aggregation.build(environment, chosen, TIB_SCHEMA)


def kernels(settings: TibsSettings, flags: Mapping[str, object]) -> Sequence[Kernel]:
    """The kernels asked for, each once; a flag that is None leaves its setting in force.

    Raises InputError when a parameter is out of range or no bars are left to build.
    """
    asked = settings.model_copy(update={name: value for name, value in flags.items() if value is not None})
    chosen: list[Kernel] = []
    if asked.imbalance_bars:
        parameters = {field.name: getattr(asked, field.name) for field in fields(TickImbalanceKernel)}
        chosen.append(TickImbalanceKernel(**parameters))
    for measure in MEASURES:
        chosen += [SizedBarKernel(measure, size) for size in getattr(asked, f"{measure}_bars")]
    if not chosen:
        raise InputError("no bars are left to build", hint="leave out --no-tibs, or add --tick-bars or another size")
    return list(dict.fromkeys(chosen))


def command(
    initial_size: Annotated[float | None, typer.Option(help="Expected ticks of the first bar [100].")] = None,
    initial_p_buy: Annotated[float | None, typer.Option(help="Expected share of buys at the start [0.7].")] = None,
    alpha_size: Annotated[float | None, typer.Option(help="Weight of the last bar in the size average [0.1].")] = None,
    alpha_imbl: Annotated[float | None, typer.Option(help="Weight in the imbalance average [0.1].")] = None,
    size_min: Annotated[float | None, typer.Option(help="Least expected size [50].")] = None,
    size_max: Annotated[float | None, typer.Option(help="Largest expected size [1000].")] = None,
    min_imbalance: Annotated[float | None, typer.Option(help="Least |expected imbalance|; 0: off [0].")] = None,
    max_ticks: Annotated[int | None, typer.Option(help="Close a bar at so many ticks; 0: off [0].")] = None,
    tick_bars: Annotated[
        list[float] | None, typer.Option(help="Bars of so many trades, too; repeat for several.")
    ] = None,
    volume_bars: Annotated[
        list[float] | None, typer.Option(help="Bars of so many base units, too; repeat for several.")
    ] = None,
    dollar_bars: Annotated[
        list[float] | None, typer.Option(help="Bars of so many quote units, too; repeat for several.")
    ] = None,
    tibs: Annotated[
        bool | None, typer.Option("--tibs/--no-tibs", help="Build tick imbalance bars, or leave them out [--tibs].")
    ] = None,
    host: HostOption = None,
    port: PortOption = None,
    log_level: LogLevelOption = None,
) -> None:
    """Build bars that trades close from trades, and stream them: tick imbalance bars and those of the sizes given."""
    flags = {
        "initial_size": initial_size, "initial_p_buy": initial_p_buy, "alpha_size": alpha_size,
        "alpha_imbl": alpha_imbl, "size_min": size_min, "size_max": size_max, "min_imbalance": min_imbalance,
        "max_ticks": max_ticks, "tick_bars": tick_bars or None, "volume_bars": volume_bars or None,
        "dollar_bars": dollar_bars or None, "imbalance_bars": tibs,
    }  # fmt: skip
    runtime.main(NAME, lambda environment: build(environment, flags), host=host, port=port, log_level=log_level)


def main() -> None:
    """Console entry point."""
    programs.run(command)


if __name__ == "__main__":
    main()
