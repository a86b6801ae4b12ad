"""`raven up`: everything on this machine, in one terminal, until Ctrl-C."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from rich.live import Live

from raven.cli import output
from raven.cli.dashboard import Dashboard
from raven.cli.supervisor import Child, Supervisor, module_command
from raven.control.plan import SERVICES, port_of, target_of
from raven.errors import ExchangeError, InputError, RegionBlockedError, UpstreamError
from raven.rpc.access import Access
from raven.rpc.client import Client
from raven.rpc.pb import control_pb2
from raven.settings import Settings
from raven.sources.binance.protocol import SPOT
from raven.sources.binance.rest import BinanceRest
from raven.sources.simulated.market import split_symbol

SINKS: Final = ("tick_persistence", "bar_persistence")
PROBE_S: Final = 4.0
READY_S: Final = 30.0
REDRAW_PER_S: Final = 4
PLAIN_EVERY_S: Final = 5.0
SHORT_BARS_S: Final = 10  # so that a newcomer sees bars close at once


@dataclass(frozen=True, slots=True)
class Exchange:
    """Where trades come from: the line that says so, and the settings that the services get."""

    simulated: bool
    line: str
    environment: Mapping[str, str]


async def choose_exchange(settings: Settings, simulate: bool | None, port: int) -> Exchange:
    """Binance where it answers, its public data endpoint where the region is blocked, else the simulated exchange."""
    why = "Binance cannot be reached"
    if not simulate:
        rest = BinanceRest(settings.binance_spot.model_copy(update={"connect_timeout_s": PROBE_S}), SPOT)
        try:
            await rest.server_time_ms()
        except RegionBlockedError:
            why = "Binance does not serve this region"
        except ExchangeError:
            pass
        else:
            return Exchange(False, f"Collecting from Binance at {rest.url}", {})
        finally:
            await rest.close()
        if simulate is False:
            raise InputError(why, hint="leave out --live to run on the simulated exchange")
    return Exchange(
        True,
        "SIMULATED exchange" if simulate else f"{why}: running on the SIMULATED exchange",
        {
            "RAVEN__SIMULATED": "true",
            "RAVEN__DATA": str((settings.data / "simulated").absolute()),
            "RAVEN__BINANCE_SPOT__REST_URL": f"http://127.0.0.1:{port}",
            "RAVEN__BINANCE_SPOT__WEBSOCKET_URL": f"ws://127.0.0.1:{port}",
        },
    )


def require_free_ports(settings: Settings, ports: Mapping[str, int]) -> None:
    """Say at once which port is taken; raises InputError."""
    for name, port in ports.items():
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((settings.server.host, port))
            except OSError as error:
                raise InputError(
                    f"port {port} of {name} cannot be used: {error.strerror}",
                    hint="is Raven running already? `ravenctl status` tells; ports are settings under [server]",
                ) from error


def children(exchange: Exchange, symbols: Sequence[str], folder: Path, port: int, rate: float) -> list[Child]:
    """The processes, in the order in which they are stopped: upstream first, so that consumers can finish."""
    processes = []
    if exchange.simulated:
        arguments = ["simulate", "--port", str(port), "--rate", str(rate)]
        for symbol in symbols:
            arguments += ["--symbol", symbol]
        processes.append(Child("simulate", module_command("raven.cli.raven", *arguments), folder / "simulate.log"))
    for name in SERVICES:
        extra = ["--seconds", str(SHORT_BARS_S), "--seconds", "60"] if name == "raven_timebar" else []
        processes.append(Child(name, module_command(SERVICES[name].module, *extra), folder / f"{name}.log"))
    # the exchange goes last: a source that is being stopped should not see it vanish
    return [*processes[1:], processes[0]] if exchange.simulated else processes


async def up(settings: Settings, symbols: Sequence[str], *, simulate: bool | None, port: int, rate: float) -> None:
    """Run until SIGINT or SIGTERM; raises RavenError when it cannot begin."""
    for symbol in symbols:
        split_symbol(symbol)  # says what is wrong with it before anything starts
    access = Access.of(settings)
    ports = {name: port_of(settings, name) for name in SERVICES}
    require_free_ports(settings, ports)
    exchange = await choose_exchange(settings, simulate, port)
    output.console.print(exchange.line)
    if exchange.simulated:
        require_free_ports(settings, {"simulate": port})
    data = Path(exchange.environment.get("RAVEN__DATA", str(settings.data.absolute())))
    output.console.print(f"Data and logs: {data}")
    supervisor = Supervisor(children(exchange, symbols, data / "logs", port, rate), exchange.environment)
    targets = {name: target_of(settings, name) for name in ports}
    title = "Raven: SIMULATED exchange, not a real market" if exchange.simulated else "Raven: Binance spot"
    dashboard = Dashboard(targets, access, symbols, title)
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    tasks = [
        asyncio.ensure_future(supervisor.run()),
        asyncio.ensure_future(dashboard.run()),
        asyncio.ensure_future(_begin(targets, access, symbols)),
    ]
    try:
        await _show(dashboard, supervisor, stop, tasks)
    finally:
        output.console.print("Stopping …")
        killed = await supervisor.stop()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await dashboard.close()
        output.console.print("Stopped." if not killed else f"Stopped; had to kill {', '.join(killed)}.")


async def _begin(targets: Mapping[str, str], access: Access, symbols: Sequence[str]) -> None:
    """Start collecting into both sinks, which start what they need; raises ExchangeError for refused symbols."""
    for name in SINKS:
        deadline = time.monotonic() + READY_S
        async with Client(targets[name], access) as client:
            while True:
                try:
                    results = await client.start(symbols)
                    break
                except UpstreamError:
                    if time.monotonic() > deadline:
                        raise
                    await asyncio.sleep(0.2)
        refused = [result.message for result in results if result.state == control_pb2.SYMBOL_STATE_REFUSED]
        if refused:
            raise ExchangeError("; ".join(refused))
    await asyncio.Event().wait()


async def _show(
    dashboard: Dashboard, supervisor: Supervisor, stop: asyncio.Event, tasks: Sequence[asyncio.Future[None]]
) -> None:
    """Draw until told to stop, or until a task fails. Piped output gets the view every few seconds."""
    terminal = sys.stdout.isatty()
    live = Live(console=output.console, auto_refresh=False, screen=False, transient=False)
    with live if terminal else contextlib.nullcontext():
        while not stop.is_set():
            for task in tasks:
                if task.done():
                    task.result()
            notes = [
                f"{child.name} was started again {child.restarts} times; last {child.last_exit}"
                for child in supervisor.children
                if child.restarts
            ]
            view = dashboard.view(notes)
            if terminal:
                live.update(view, refresh=True)
            else:
                output.console.print(view)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(1 / REDRAW_PER_S if terminal else PLAIN_EVERY_S):
                    await stop.wait()
