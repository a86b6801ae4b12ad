"""`raven simulate`: a simulated exchange on this machine."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from raven.cli import output
from raven.errors import InputError

if TYPE_CHECKING:
    from raven.sources.simulated.exchange import SimulatedExchange

SIMULATED_PORT = 9443


def simulate(
    play: Annotated[list[Path] | None, typer.Option("--play", help="A recording to play; repeat for several.")] = None,
    venue: Annotated[
        str, typer.Option(help="spot, futures (or BINANCE_SPOT, BINANCE_FUTURES), or both on one port.")
    ] = "spot",
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
    from raven.sources.simulated.build import build_market, find_venues  # noqa: PLC0415
    from raven.sources.simulated.exchange import SimulatedExchange  # noqa: PLC0415
    from raven.sources.simulated.served import ExchangeOptions  # noqa: PLC0415

    venues = find_venues(venue)
    if play and len(venues) > 1:
        raise InputError("a recording is of one venue", hint="give --venue spot or --venue futures")
    (first, market), *beside = [
        (found, build_market(play, symbols=symbol, seed=seed, rate=rate, speed=parse_speed(speed))) for found in venues
    ]
    options = ExchangeOptions(now_times=now_times)
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
