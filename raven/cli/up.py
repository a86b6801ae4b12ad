"""`raven up`: everything on this machine, in one terminal, until Ctrl-C."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

from raven.batches.instrument import Instrument
from raven.cli import output
from raven.cli.checks.machine import bind_problem, who_listens
from raven.cli.child_log import ChildLog
from raven.cli.collecting import collect
from raven.cli.exchange import Exchange, choose_exchange, data_folder
from raven.cli.instruments import DEFAULTS, left_out, remembered, shown, spelt, take_folders
from raven.cli.screen import Screen
from raven.cli.supervisor import Child, Supervisor, child_command
from raven.cli.watch import Watch
from raven.control.plan import SERVICES, WILDCARDS, port_of, target_of
from raven.errors import InputError
from raven.rpc.access import Access, address
from raven.rpc.client import Client
from raven.services.runtime import metrics_host
from raven.settings import METRICS_PORT_OFFSET, Settings

SIMULATE: Final = "simulate"
SHORT_BARS_S: Final = (10, 60)  # so that a newcomer sees bars close at once


@dataclass(frozen=True, slots=True)
class Plan:
    """What to run and collect, as the command line says.

    - `services`: their names, upstream first.
    - `instruments`: what to collect; none: what was collected before, or else a first pair of symbols.
    - `collect`: whether to ask for anything at all.
    - `simulate`: insist on the simulated exchange, or on the real one; None: as the network allows.
    - `rate`: trades a second and symbol of the simulated exchange, which listens on `simulated_port`.
    - `logs`: follow the services' logs instead of drawing tables.
    """

    services: Sequence[str]
    instruments: Sequence[Instrument]
    collect: bool
    simulate: bool | None
    simulated_port: int
    rate: float
    logs: bool

    @property
    def sources(self) -> list[str]:
        """The sources among the services."""
        return [name for name in self.services if SERVICES[name].venue]

    def venues(self, before: Sequence[Instrument]) -> list[str]:
        """Where trades are collected here, given what was collected before."""
        wanted = {one.venue for one in self.instruments or before or DEFAULTS}
        return [SERVICES[name].venue for name in self.sources if SERVICES[name].venue in wanted]


def _tell(lines: Iterable[str]) -> None:
    for line in lines:
        output.console.print(line, soft_wrap=True)


async def up(settings: Settings, plan: Plan) -> None:
    """Run until SIGINT, SIGTERM or SIGHUP; raises RavenError when it cannot begin."""
    access = Access.of(settings)
    await require_free_ports(settings, plan.services, access)
    _tell(take_folders(settings, settings.data, plan.services))  # at once: what follows may fail
    venues = plan.venues(remembered(settings, settings.data, plan.services))
    exchange = await choose_exchange(settings, venues, plan.simulate, plan.simulated_port)
    if exchange.simulated and plan.sources:
        _require_free([(SIMULATE, "--simulated-port", "127.0.0.1", plan.simulated_port)])
    data = data_folder(settings, exchange)
    _tell(take_folders(settings, data, plan.services))
    before = remembered(settings, data, plan.services)
    wanted: Sequence[Instrument] = () if before else DEFAULTS
    wanted = (plan.instruments or wanted) if plan.collect else ()
    others = left_out(before, wanted) if wanted else []
    stop = asyncio.Event()
    screen = Screen(stop, logs=plan.logs, simulated=exchange.simulated)
    processes = children(settings, plan, exchange, [*wanted, *before], data / "logs")
    supervisor = Supervisor(processes, exchange.environment, screen.announce)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        asyncio.get_running_loop().add_signal_handler(number, _stop, stop, supervisor)
    output.console.print(exchange.line)
    output.console.print(f"Data and logs: {data}", soft_wrap=True)
    _tell(_introduction(before, wanted, others))
    async with contextlib.AsyncExitStack() as stack:
        clients = {
            name: await stack.enter_async_context(Client(target_of(settings, name), access)) for name in plan.services
        }  # fmt: skip
        watch = Watch(clients)
        supervisor.start()
        runs = [supervisor.run(), watch.run(), stop.wait()]
        runs.append(screen.show(watch, processes, wanted or before, title_of(exchange, venues)))
        if wanted:
            ready = partial(_all_answer_or_fail, processes, watch)
            runs.append(collect(clients, wanted, ready, others=others, say=screen.announce))
        try:
            await _until_stopped(stop, runs)
        finally:
            screen.say("Stopping …")
            killed = await supervisor.stop()
            screen.say("Stopped." if not killed else f"Stopped; had to kill {', '.join(killed)}.")


def _stop(stop: asyncio.Event, supervisor: Supervisor) -> None:
    """The first signal asks for an orderly end, the second ends everything at once."""
    if stop.is_set():
        supervisor.kill()
    stop.set()


async def _until_stopped(stop: asyncio.Event, runs: Sequence[Any]) -> None:
    """Until told to stop; an error of any run ends the others and is raised."""
    tasks = [asyncio.ensure_future(run) for run in runs]
    try:
        while not stop.is_set():
            pending = [task for task in tasks if not task.done()]
            done, _ = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _introduction(
    before: Sequence[Instrument], wanted: Sequence[Instrument], others: Sequence[Instrument]
) -> Iterator[str]:
    """What becomes of what was collected before."""
    if before and not wanted:
        yield f"Going on with what was collected before: {shown(before)}"
    if others:
        yield f"Collecting {shown(wanted)}. What was collected before is stopped: {shown(others)}"
        yield f"To go on with it, too: raven up --symbols {spelt([*wanted, *others])}"


def _all_answer_or_fail(children: Sequence[Child], watch: Watch) -> bool:
    return all(child.name in watch.status or child.failures > 0 or child.name == SIMULATE for child in children)


async def require_free_ports(settings: Settings, services: Sequence[str], access: Access) -> None:
    """Say at once which services run already, or else which ports are taken and by which setting; raises InputError."""
    host, metrics = settings.server.host, metrics_host(settings, settings.server.host)
    here = "127.0.0.1" if host in WILDCARDS else host
    taken = {
        name: address(here, port_of(settings, name)) for name in services if bind_problem(host, port_of(settings, name))
    }
    running = [name for name, where in taken.items() if await who_listens(where, access) == name]
    if running:
        names = "every service" if len(running) == len(SERVICES) else ", ".join(running)
        raise InputError(f"Raven is running already: {names}", hint="`ravenctl status` shows it")
    asked = []
    for name in services:
        setting, port = f"server.{SERVICES[name].port_setting}", port_of(settings, name)
        asked.append((name, setting, host, port))
        asked.append((f"{name}'s metrics", f"{setting} + {METRICS_PORT_OFFSET}", metrics, port + METRICS_PORT_OFFSET))
    _require_free(asked)


def _require_free(asked: Sequence[tuple[str, str, str, int]]) -> None:
    problems = []
    for name, setting, host, port in asked:
        problem = bind_problem(host, port)
        if problem:
            why = os.strerror(problem)
            problems.append(f"port {port} of {name} ({setting}) cannot be used at {host}: {why}")
    if problems:
        raise InputError("; ".join(problems), hint="end what listens there; ports and host are settings")


def children(
    settings: Settings, plan: Plan, exchange: Exchange, instruments: Sequence[Instrument], folder: Path
) -> list[Child]:
    """The processes, each with its stage of stopping: upstream first, so that consumers can finish."""
    processes = []
    for name in plan.services:
        extra: list[str] = []
        if name == "raven_timebar" and "seconds" not in settings.timebar.model_fields_set:
            extra = [argument for seconds in SHORT_BARS_S for argument in ("--seconds", str(seconds))]
        command = child_command(SERVICES[name].module, *extra)
        processes.append(Child(name, command, ChildLog(folder / f"{name}.log"), stage_of(name)))
    if exchange.simulated and plan.sources:
        venues = [SERVICES[name].venue for name in plan.sources]
        arguments = ["--port", str(plan.simulated_port), "--rate", str(plan.rate)]
        arguments += ["--venue", venues[0] if len(venues) == 1 else "both"]
        for symbol in dict.fromkeys(one.symbol for one in (*DEFAULTS, *instruments) if not one.is_pattern):
            arguments += ["--symbol", symbol]
        command = child_command("raven.cli.raven", SIMULATE, *arguments)
        # it goes last: a source that is being stopped should not see the exchange vanish
        processes.insert(0, Child(SIMULATE, command, ChildLog(folder / f"{SIMULATE}.log"), stage=len(SERVICES)))
    return processes


def stage_of(name: str) -> int:
    """How many services lie before this one."""
    return max((1 + stage_of(upstream) for upstream in SERVICES[name].upstreams), default=0)


def title_of(exchange: Exchange, venues: Sequence[str]) -> str:
    """The title of the screen."""
    if exchange.simulated:
        return "Raven: SIMULATED exchange, not a real market"
    return f"Raven: {' and '.join(venues)}" if venues else "Raven"


def services_of(only: Mapping[str, None]) -> list[str]:
    """The services to run, upstream first; all of them when none is named."""
    return [name for name in SERVICES if not only or name in only]
