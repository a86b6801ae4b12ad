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
from raven.control.folders import WANTED, consumer_name, folder_of, left_behind, lock, take_along
from raven.control.handler import ControlService
from raven.control.plan import SERVICES, port_of, target_of
from raven.control.wanted import WantedFile
from raven.errors import InputError, RavenError, in_a_command
from raven.files import keep_private
from raven.journal import Journal, JournalOptions
from raven.rpc.access import Access, is_local
from raven.rpc.connections import ENOUGH_FILES
from raven.rpc.consumer import Consumer
from raven.rpc.follower import Follower
from raven.rpc.hub import Hub
from raven.rpc.server import Server
from raven.rpc.subscriptions import SubscriptionTable
from raven.services.preload import preload
from raven.services.upkeep import bound_connections, keep_journal, keep_wanted, report_health, watch_disk
from raven.settings import MAX_PORT, METRICS_PORT_OFFSET, LogLevel, Settings, load
from raven.telemetry import MetricsServer, Telemetry, catch_loop_problems, catch_problems, set_up_logging

REPLAY_KEY = "replay"

HostOption = Annotated[str | None, typer.Option(help="Address to bind.")]
PortOption = Annotated[
    int | None, typer.Option(help="gRPC port; metrics at port + 1000.", min=1, max=MAX_PORT - METRICS_PORT_OFFSET)
]

LogLevelOption = Annotated[LogLevel | None, typer.Option(help="Least level that is logged; default: the setting.")]


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
    freeing: dict[str, asyncio.Lock] = field(default_factory=dict)  # by upstream

    def open_hub(self, schema: pa.Schema, *, replay: str = "") -> Hub:
        """The service's own journal and its subscribers; `replay` says what is replayed into it, if anything.

        Raises JournalError when it cannot be opened, InputError when something else was put into it: what is
        collected and what is replayed never mix.
        """
        limits = self.settings.journal
        options = JournalOptions(
            segment_bytes=limits.segment_bytes,
            max_bytes=limits.max_bytes,
            retention_s=limits.retention_h * 3600,
        )
        journal = Journal.open(self.folder, schema, options=options)
        held = journal.last_segment_metadata.get(REPLAY_KEY, "")
        if journal.last_sequence and held != replay:
            journal.close()
            what, instead = (f"a replay of {one}" if one else "what was collected live" for one in (held, replay))
            raise InputError(
                f"the journal {self.folder} holds {what}, not {instead}",
                hint="choose another data folder, or remove that one if it is not needed any more",
            )
        if replay:
            journal.set_segment_metadata({REPLAY_KEY: replay})
        return Hub(journal, is_replay=bool(replay), telemetry=self.telemetry)

    def follow(self, upstream: str, consumer: Consumer, *, store: str = "", key: str = "") -> Follower:
        """A follower of the service `upstream`, under this service's name; SettingsError when it would refuse.

        `store`: of a sink, whose place in the upstream's journal is kept under a name of its own; `key` as of Follower.
        """
        name = consumer_name(self.folder)
        target = target_of(self.settings, upstream)
        self.access.require_for(upstream, target)
        if self.access.exposes_token(target):
            self.telemetry.warning("clear_text", f"the token and the data go in clear text to {target}; TLS is off")
        return Follower(
            upstream,
            target,
            self.access,
            venue=SERVICES[upstream].venue,
            requester=name,
            consumer_name=f"{name}-{store}" if store else name,
            key=key,
            consumer=consumer,
            telemetry=self.telemetry,
            freeing=self.freeing.setdefault(upstream, asyncio.Lock()),
        )


@dataclass(slots=True)
class Service:
    """A built service: `runs` go on until it ends, then `closes` are awaited in order.

    `facts` is what it knows of its symbols, for the metrics; `tables` are the folders it writes beside its own.
    """

    component: Component
    hub: Hub | None = None
    runs: list[Callable[[], Coroutine[Any, Any, None]]] = field(default_factory=list)
    closes: list[Callable[[], Coroutine[Any, Any, object]]] = field(default_factory=list)
    facts: SubscriptionTable | None = None
    tables: Sequence[Path] = ()


def main(
    name: str, build: Callable[[Environment], Service], *, host: str | None, port: int | None,
    log_level: LogLevel | None = None, settings: Settings | None = None,
) -> None:  # fmt: skip
    """Run the service `name` until SIGINT or SIGTERM; exits 1 with the reason when it cannot run.

    `settings`: other ones than those in force.
    """
    is_own = settings is None
    try:
        settings = settings or load()
    except RavenError as error:
        sys.stderr.write(f"{name}: {error}\n")
        raise SystemExit(1) from None
    keep_private(group_reads=settings.group_reads)
    preload()
    set_up_logging(log_level or settings.log_level)
    telemetry = Telemetry(name)
    catch_problems(telemetry)
    try:
        chosen = port if port is not None else port_of(settings, name)
        folder = folder_of(settings.data, name, chosen)
        if is_own and port is None:  # with --port it may be one of several
            tell_move(take_along(folder), folder, telemetry)
        with in_a_command():
            asyncio.run(_serve(name, build, settings, host or settings.server.host, chosen, folder, telemetry))
    except KeyboardInterrupt:  # before there was anything to stop
        raise SystemExit(130) from None
    except Exception as group:  # noqa: BLE001 - the last place that can say why the service ends
        for leaf in _leaves(group):
            if isinstance(leaf, (RavenError, OSError)):
                telemetry.error("failed", str(leaf))
            else:
                telemetry.unexpected("crashed", f"{name} ends because of an unexpected error", leaf)
        raise SystemExit(1) from None


def _leaves(error: Exception) -> Sequence[Exception]:
    if isinstance(error, ExceptionGroup):
        return [leaf for part in error.exceptions for leaf in _leaves(part)]
    return [error]


async def _serve(
    name: str, build: Callable[[Environment], Service], settings: Settings, host: str, port: int, folder: Path,
    telemetry: Telemetry,
) -> None:  # fmt: skip
    catch_loop_problems(asyncio.get_running_loop(), telemetry)
    stop = _stop_on_signal()
    async with AsyncExitStack() as stack:  # each is closed, whatever another raises
        stack.callback(lock(folder).release)
        tell_left_behind(folder, telemetry)
        access = Access.of(settings)
        wanted = WantedFile(folder / WANTED, telemetry)
        environment = Environment(name, port, settings, access, folder, telemetry, wanted)
        service = build(environment)
        control = ControlService(
            name, service.component, wanted, telemetry, hub=service.hub, simulated=settings.simulated
        )
        if service.hub is not None:
            stack.push_async_callback(asyncio.to_thread, service.hub.journal.close)
        server = Server(
            host, port, control, service.hub, access=access,
            refused=lambda reason: telemetry.add("refused_calls", reason=reason),
        )  # fmt: skip
        stack.push_async_callback(server.stop)
        for close in reversed(service.closes):
            stack.push_async_callback(close)
        _warn_of_exposure(telemetry, access, host)
        _warn_of_file_limit(telemetry, server)
        await server.start()
        if service.facts is not None:
            telemetry.read_at_scrape("last_trade_age_s", service.facts.ages_s)
        address = metrics_host(settings, host)
        metrics = stack.enter_context(_serve_metrics(telemetry, address, port + METRICS_PORT_OFFSET))
        telemetry.info("started", f"{name} listens on {host}:{server.port}", data=folder, metrics_port=metrics.port)
        gc.freeze()  # what was built lives as long as the service: never walk it again
        await _run(service, control, environment, server, stop)
    telemetry.info("stopped", f"{name} stopped")


def _stop_on_signal() -> asyncio.Event:
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    return stop


async def _run(
    service: Service, control: ControlService, environment: Environment, server: Server, stop: asyncio.Event
) -> None:
    """Run the service and what goes on beside it until told to stop; an error of any part is raised."""
    telemetry = environment.telemetry
    parts = [run() for run in service.runs]
    if service.hub is not None:
        parts.append(keep_journal(service.hub.journal, telemetry))
    parts += [
        watch_disk([environment.folder, *service.tables], telemetry),
        keep_wanted(environment.wanted),
        bound_connections(server, telemetry),
        _restore(control),
    ]
    parts.append(report_health(lambda: control.status().healthy, telemetry))
    runs: list[asyncio.Future[Any]] = [asyncio.ensure_future(part) for part in (*parts, stop.wait())]
    try:
        done, _ = await asyncio.wait(runs, return_when=asyncio.FIRST_COMPLETED)
        for run in done:
            run.result()
    finally:
        for run in runs:
            run.cancel()
        await asyncio.gather(*runs, return_exceptions=True)


def tell_move(before: Path | None, folder: Path, telemetry: Telemetry) -> None:
    """Say that the folder was taken along from `before`, if it was."""
    if before is not None:
        telemetry.info(
            "port_changed", f"the port was changed: the folder {before}, with all that it holds, is {folder} now"
        )


def tell_left_behind(folder: Path, telemetry: Telemetry) -> None:
    """Name other folders of this service that hold something and are in no process's hands, and how to go on."""
    for path in left_behind(folder):
        telemetry.warning(
            "left_behind",
            f"{path} holds what was recorded or wanted at another port, and no process uses it; to go on with it "
            f"here, stop this service and `mv {folder} {folder}.aside && mv {path} {folder}`",
        )


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


def _warn_of_file_limit(telemetry: Telemetry, server: Server) -> None:
    if server.file_limit < ENOUGH_FILES:
        telemetry.warning(
            "few_files",
            f"this process may open {server.file_limit} files and connections, and takes {server.max_connections} "
            f"connections; raise its limit (ulimit -n, LimitNOFILE) to {ENOUGH_FILES} or more",
        )


def _serve_metrics(telemetry: Telemetry, host: str, port: int) -> MetricsServer:
    try:
        return telemetry.serve(host, port)
    except OSError as error:
        raise RavenError(
            f"cannot serve metrics on {host}:{port}: {error.strerror}", hint="choose another --port"
        ) from error


async def _restore(control: ControlService) -> None:
    await control.restore()
    await asyncio.Event().wait()
