"""`raven`: everything on one machine, the simulated exchange, importing recordings."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from raven.cli import output
from raven.cli.up import up as run_up
from raven.errors import InputError
from raven.settings import load, origins

if TYPE_CHECKING:
    from raven.sources.simulated.exchange import SimulatedExchange

app = typer.Typer(no_args_is_help=True, add_completion=False, help="Raven: trades, bars, and both in your databases.")

SIMULATED_PORT = 9443


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


@app.command()
def simulate(
    play: Annotated[list[Path] | None, typer.Option("--play", help="A recording to play; repeat for several.")] = None,
    symbol: Annotated[list[str] | None, typer.Option("--symbol", "-s", help="Symbols of a generated market.")] = None,
    port: Annotated[int, typer.Option(help="Port of WebSocket and REST.")] = SIMULATED_PORT,
    seed: Annotated[int, typer.Option(help="Seed of a generated market.")] = 1,
    rate: Annotated[
        float | None,
        typer.Option(help="Trades a second: of each symbol of a generated market, of a whole recording."),
    ] = None,
    speed: Annotated[
        str, typer.Option(help="1 for real time, N for N times as fast, max for as fast as it is read.")
    ] = "1",
    now_times: Annotated[bool, typer.Option("--now-times", help="Stamp trades with the time they are sent.")] = False,
) -> None:
    """Serve a simulated exchange on this machine: a recording, or a generated market."""
    from raven.sources.simulated.build import build_market  # noqa: PLC0415
    from raven.sources.simulated.exchange import ExchangeOptions, SimulatedExchange  # noqa: PLC0415

    market = build_market(play, symbols=symbol, seed=seed, rate=rate, speed=parse_speed(speed))
    asyncio.run(_serve(SimulatedExchange(market, "127.0.0.1", port, ExchangeOptions(now_times=now_times))))


def parse_speed(speed: str) -> float | None:
    """`max` is None: as fast as it is read; raises InputError for anything but a positive number."""
    if speed == "max":
        return None
    try:
        number = float(speed.removeprefix("x"))
    except ValueError:
        number = 0.0
    if not 0 < number < float("inf"):
        raise InputError(f"--speed {speed} is not a speed", hint="give 1, a number of times as fast, or max")
    return number


async def _serve(exchange: SimulatedExchange) -> None:
    await exchange.start()
    output.console.print(f"SIMULATED exchange: {exchange.ws_url} and {exchange.rest_url}; Ctrl-C stops")
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    try:
        played = asyncio.ensure_future(exchange.finished())
        stopped = asyncio.ensure_future(stop.wait())
        await asyncio.wait({played, stopped}, return_when=asyncio.FIRST_COMPLETED)
        if played.done():
            played.result()  # a play that broke ends the program; one that is over stays open for its clients
            await stopped
        played.cancel()
    finally:
        await exchange.stop()


def main() -> None:
    """Console entry point."""
    output.exit_on_error("raven", app)


if __name__ == "__main__":
    main()
