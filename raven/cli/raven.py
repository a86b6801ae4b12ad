"""`raven`: everything on one machine, the simulated exchange, importing and replaying recordings."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Annotated

import typer

from raven.cli import output
from raven.cli.replay import replay
from raven.cli.simulate import SIMULATED_PORT, simulate
from raven.cli.token import token
from raven.cli.up import up as run_up
from raven.settings import load, origins

app = typer.Typer(no_args_is_help=True, add_completion=False, help="Raven: trades, bars, and both in your databases.")
app.command()(simulate)
app.command()(token)
app.command()(replay)


@app.command()
def up(
    symbol: Annotated[
        list[str] | None, typer.Option("--symbol", "-s", help="Repeat for several. Default BTCUSDT ETHUSDT.")
    ] = None,
    simulate: Annotated[
        bool | None,
        typer.Option("--simulate/--live", help="Insist on the simulated exchange, or on the real one."),
    ] = None,
    simulated_port: Annotated[int, typer.Option(help="Port of the simulated exchange.")] = SIMULATED_PORT,
    rate: Annotated[float, typer.Option(help="Trades a second and symbol on the simulated exchange.")] = 20.0,
) -> None:
    """Run every service on this machine and show trades and bars until Ctrl-C."""
    symbols = [entry.upper() for entry in symbol or ["BTCUSDT", "ETHUSDT"]]
    asyncio.run(run_up(load(), symbols, simulate=simulate, port=simulated_port, rate=rate))


@app.command()
def config(json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False) -> None:
    """Print the settings in force and where each comes from; secrets are hidden."""
    found = origins()
    if json:
        output.print_json([entry._asdict() for entry in found])
        return
    rows = [
        [entry.key, str(entry.value), "[dim]default[/]" if entry.source == "default" else entry.source]
        for entry in found
    ]
    output.table("Settings", ("key", "value", "from"), rows)


@app.command("import")
def import_(
    file: Annotated[list[Path], typer.Argument(help="Archive zips or CSVs, raw captures, Parquet.")],
    into: Annotated[Path | None, typer.Option(help="Journal folder; default <data>/imported-<venue>.")] = None,
    venue: Annotated[
        str | None, typer.Option(help="BINANCE_SPOT or BINANCE_FUTURES; default: as the file tells.")
    ] = None,
    symbol: Annotated[str | None, typer.Option(help="For files that name no symbol.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Turn recordings into a journal that can be replayed and read by Polars and pyarrow."""
    from raven.sources.importing import import_files  # noqa: PLC0415 - other commands need not load it

    with output.progress("importing", enabled=not json) as advance:
        report = import_files(file, into=into, data=load().data, venue=venue, symbol=symbol, advance=advance)
    if json:
        output.print_json(report.as_dict())
        return
    output.console.print(
        f"{output.count(report.rows)} trades of {', '.join(report.symbols) or 'no symbol'} into {report.journal}"
    )
    if report.duplicates:
        output.console.print(f"{output.count(report.duplicates)} rows left out: their ids were in the journal already")
    if report.gaps:
        output.console.print(f"{report.gaps} gaps, {output.count(report.missing_ids)} ids missing")


def main() -> None:
    """Console entry point."""
    output.exit_on_error("raven", app)


if __name__ == "__main__":
    main()
