"""The life of a service: lock its folder, build it, serve it, run it until told to stop, close it in order."""

from __future__ import annotations

import asyncio
import gc
import signal
import sys
from collections.abc import Callable, Coroutine, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import pyarrow as pa
import typer

from raven.control.components import Component
from raven.control.handler import ControlService
from raven.control.plan import SERVICES, port_of, target_of
from raven.control.wanted import WantedFile
from raven.errors import RavenError
from raven.files import FolderLock
from raven.journal import Journal, JournalOptions
from raven.rpc.access import Access, is_local
from raven.rpc.consumer import Consumer
from raven.rpc.follower import Follower
from raven.rpc.hub import Hub
from raven.rpc.server import Server
from raven.settings import MAX_PORT, METRICS_PORT_OFFSET, Settings, load
from raven.telemetry import Telemetry, set_up_logging

RETENTION_EVERY_S = 10.0

HostOption = Annotated[str | None, typer.Option(help="Address to bind.")]
PortOption = Annotated[
    int | None, typer.Option(help="gRPC port; metrics at port + 1000.", min=1, max=MAX_PORT - METRICS_PORT_OFFSET)
]


@dataclass(frozen=True, slots=True)
class Environment:
    """What every service is built from."""

    name: str
    port: int
    settings: Settings
    access: Access
    folder: Path
    telemetry: Telemetry
    wanted: WantedFile

    def open_hub(self, schema: pa.Schema) -> Hub:
        """The service's own journal and its subscribers; raises JournalError when it cannot be opened."""
        limits = self.settings.journal
        options = JournalOptions(
            segment_bytes=limits.segment_bytes,
            max_bytes=limits.max_bytes,
            retention_s=limits.retention_h * 3600,
        )
        return Hub(Journal.open(self.folder, schema, options=options))

    def follow(self, upstream: str, consumer: Consumer) -> Follower:
        """A follower of the service `upstream`, under this service's name; SettingsError when it would refuse."""
        name = f"{self.name}-{self.port}"
        target = target_of(self.settings, upstream)
        self.access.require_for(upstream, target)
        if self.access.exposes_token(target):
            self.telemetry.warning("clear_text", f"the token and the data go in clear text to {target}; TLS is off")
        return Follower(
            upstream,
            target,
            self.access,
            venue=SERVICES[upstream].venue,
            consumer_name=name,
            consumer=consumer,
            telemetry=self.telemetry,
        )


@dataclass(slots=True)
class Service:
    """A built service: `runs` go on until it ends, then `closes` are awaited in order."""

    component: Component
    hub: Hub | None = None
    runs: list[Callable[[], Coroutine[Any, Any, None]]] = field(default_factory=list)
    closes: list[Callable[[], Coroutine[Any, Any, object]]] = field(default_factory=list)


def main(name: str, build: Callable[[Environment], Service], *, host: str | None, port: int | None) -> None:
    """Run the service `name` until SIGINT or SIGTERM; exits 1 with the reason when it cannot run."""
    try:
        settings = load()
        set_up_logging(settings.log_level)
        chosen = port if port is not None else port_of(settings, name)
        asyncio.run(_serve(name, build, settings, host or settings.server.host, chosen))
    except* (RavenError, OSError) as errors:
        for error in _leaves(errors):
            sys.stderr.write(f"{name}: {error}\n")
        raise SystemExit(1) from None


def _leaves(group: BaseExceptionGroup[RavenError | OSError]) -> Sequence[BaseException]:
    leaves: list[BaseException] = []
    for error in group.exceptions:
        leaves.extend(_leaves(error) if isinstance(error, BaseExceptionGroup) else [error])
    return leaves


async def _serve(name: str, build: Callable[[Environment], Service], settings: Settings, host: str, port: int) -> None:
    folder = settings.data / f"{name}-{port}"
    lock = _lock(folder)
    telemetry = Telemetry(name)
    access = Access.of(settings)
    environment = Environment(name, port, settings, access, folder, telemetry, WantedFile(folder / "wanted.json"))
    service = build(environment)
    control = ControlService(
        name, service.component, environment.wanted, telemetry, hub=service.hub, simulated=settings.simulated
    )
    server = Server(
        host, port, control, service.hub, access=access,
        refused=lambda reason: telemetry.add("refused_calls", reason=reason),
    )  # fmt: skip
    _warn_of_exposure(telemetry, access, host)
    await server.start()
    try:
        _serve_metrics(telemetry, metrics_host(settings, host), port + METRICS_PORT_OFFSET)
    except RavenError:
        await server.stop()
        raise
    telemetry.info("started", f"{name} listens on {host}:{server.port}", data=folder)
    gc.freeze()  # what was built lives as long as the service: never walk it again
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    runs: list[asyncio.Future[Any]] = [asyncio.ensure_future(run()) for run in service.runs]
    if service.hub is not None:
        runs.append(asyncio.ensure_future(_keep_retention(service.hub, telemetry)))
    runs.append(asyncio.ensure_future(_restore(control)))
    runs.append(asyncio.ensure_future(stop.wait()))
    try:
        await _until_first_ends(runs)
    finally:
        for run in runs:
            run.cancel()
        await asyncio.gather(*runs, return_exceptions=True)
        async with AsyncExitStack() as stack:  # each is closed, whatever another raises
            stack.callback(lock.release)
            if service.hub is not None:
                stack.push_async_callback(asyncio.to_thread, service.hub.journal.close)
            stack.push_async_callback(server.stop)
            for close in reversed(service.closes):
                stack.push_async_callback(close)
        telemetry.info("stopped", f"{name} stopped")


def _lock(folder: Path) -> FolderLock:
    try:
        return FolderLock(folder / "service.lock")
    except BlockingIOError as error:
        raise RavenError(
            f"another process holds {folder}",
            hint="the service is already running; choose another --port or data folder",
        ) from error
    except OSError as error:
        raise RavenError(
            f"the data folder {folder} cannot be written: {error.strerror}",
            hint="set `data` to a writable folder",
        ) from error


def metrics_host(settings: Settings, host: str) -> str:
    """Where a service bound to `host` serves its metrics, which ask nobody for a token."""
    return settings.server.metrics_host or (host if is_local(host) else "127.0.0.1")


def _warn_of_exposure(telemetry: Telemetry, access: Access, host: str) -> None:
    """Say once what other machines can do or see that they perhaps should not."""
    if not access.token and not is_local(host):
        telemetry.warning(
            "no_token",
            f"listening on {host} without a token: other machines can read the data; Control and durable "
            "subscriptions are refused to them (set security.token; `raven token` makes one)",
        )
    elif access.exposes_token(host):
        telemetry.warning("clear_text", f"listening on {host} without TLS: the token and the data go in clear text")


def _serve_metrics(telemetry: Telemetry, host: str, port: int) -> None:
    try:
        telemetry.serve(host, port)
    except OSError as error:
        raise RavenError(
            f"cannot serve metrics on {host}:{port}: {error.strerror}", hint="choose another --port"
        ) from error


async def _restore(control: ControlService) -> None:
    await control.restore()
    await asyncio.Event().wait()


async def _until_first_ends(runs: Sequence[asyncio.Future[Any]]) -> None:
    """Until told to stop; an error of any run ends the service."""
    done, _ = await asyncio.wait(runs, return_when=asyncio.FIRST_COMPLETED)
    for run in done:
        run.result()


async def _keep_retention(hub: Hub, telemetry: Telemetry) -> None:
    warned = False
    while True:
        result = await asyncio.to_thread(hub.journal.enforce_retention)
        if result.lost_rows:
            telemetry.add("dropped_unacknowledged_rows", result.lost_rows)
            telemetry.error(
                "journal_overrun",
                f"the journal reached its limit: {result.lost_rows} rows were dropped before "
                f"{', '.join(result.lost_by)} had them",
                gaps=result.gaps,
            )
        disk = hub.journal.disk()
        telemetry.set("journal_bytes", disk.journal_bytes)
        if disk.warn and not warned:
            telemetry.warning(
                "disk", f"the disk of {hub.journal.path} is {disk.fraction:.0%} full", free=disk.free_bytes
            )
        warned = disk.warn
        await asyncio.sleep(RETENTION_EVERY_S)
