"""`raven simulate`: a simulated exchange on this machine."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from raven.cli import output
from raven.errors import InputError
from raven.sources.simulated.fault_kinds import MOST_KINDS, usage
from raven.sources.simulated.names import NOT_TRADING, symbol_names

if TYPE_CHECKING:
    from raven.sources.simulated.exchange import SimulatedExchange

SIMULATED_PORT = 9443
FAULT_HELP = f"A fault at a second of the play; repeat for several. Numbers after the colon are defaults: {usage()}."
DEFAULT_SYMBOLS = ("BTCUSDT", "ETHUSDT")


def simulate(
    play: Annotated[list[Path] | None, typer.Option("--play", help="A recording to play; repeat for several.")] = None,
    venue: Annotated[
        str, typer.Option(help="spot, futures (or BINANCE_SPOT, BINANCE_FUTURES), or both on one port.")
    ] = "spot",
    symbol: Annotated[
        list[str] | None,
        typer.Option("--symbol", "-s", help="Symbols of a generated market, or of a recording; repeat for several."),
    ] = None,
    symbols: Annotated[int | None, typer.Option(help="Generate so many symbols.")] = None,
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
    weight_limit: Annotated[int | None, typer.Option(help="Request weight a minute; default the venue's.")] = None,
    fault: Annotated[list[str] | None, typer.Option(help=FAULT_HELP, metavar="FAULT")] = None,
    faults: Annotated[int | None, typer.Option(help="So many faults more, at random times.")] = None,
    fault_kinds: Annotated[str | None, typer.Option(help=f"Their kinds, default {','.join(MOST_KINDS)}.")] = None,
    fault_span: Annotated[float, typer.Option(help="The seconds within which they happen.")] = 300.0,
    fault_seed: Annotated[int, typer.Option(help="Seed of their times, and of all faults' victims.")] = 0,
) -> None:
    """Serve a simulated exchange on this machine: a recording, or a generated market.

    What went wrong so far is told at /simulated/faults of its port.
    """
    from raven.sources.simulated.build import build_market, find_venues  # noqa: PLC0415 - the help need not load them
    from raven.sources.simulated.exchange import SimulatedExchange  # noqa: PLC0415
    from raven.sources.simulated.faults import generated_faults, given_faults  # noqa: PLC0415
    from raven.sources.simulated.served import ExchangeOptions  # noqa: PLC0415

    venues = find_venues(venue)
    if play and (len(venues) > 1 or symbols is not None):
        raise InputError(
            "a recording is of one venue and has its own symbols", hint="give no --symbols, and --venue spot or futures"
        )
    schedule = list(given_faults(fault or (), seed=fault_seed))
    if faults is None and fault_kinds is not None:
        raise InputError("--fault-kinds says of what kinds, but not how many", hint="give --faults too")
    if faults is not None:
        kinds = MOST_KINDS if fault_kinds is None else fault_kinds.split(",")
        schedule += generated_faults(faults, seed=fault_seed, span_s=fault_span, kinds=kinds)
    names = [*(symbol or ()), *(() if symbols is None else symbol_names(symbols))]
    if not play:
        names = [*(names or DEFAULT_SYMBOLS), *(entry.symbol for entry in schedule if entry.kind == "list")]
    (first, market), *beside = [
        (found, build_market(play, symbols=names, seed=seed, rate=rate, speed=parse_speed(speed))) for found in venues
    ]
    options = ExchangeOptions(
        now_times=now_times,
        weight_limit=weight_limit,
        faults=schedule,
        not_trading=(NOT_TRADING,) if symbols is not None and NOT_TRADING in names else (),
    )
    asyncio.run(_serve(SimulatedExchange(market, "127.0.0.1", port, options, venue=first, beside=beside)))


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
    output.console.print(
        f"SIMULATED exchange, {' and '.join(exchange.venues)}: {exchange.ws_url} and {exchange.rest_url}; Ctrl-C stops"
    )
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
