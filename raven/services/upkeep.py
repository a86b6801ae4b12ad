"""What a running service does beside its work, every few seconds: keep its files in order, and tell how it is."""

from __future__ import annotations

import asyncio
import shutil
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from raven.control.wanted import WantedFile
from raven.errors import RavenError
from raven.journal import Journal
from raven.rpc.server import Server
from raven.telemetry import Telemetry
from raven.telemetry.disk import WINDOW_S, seconds_until_full

RETENTION_EVERY_S: Final = 10.0
HEALTH_EVERY_S: Final = 2.0
SAVE_EVERY_S: Final = 2.0
BOUND_EVERY_S: Final = 1.0


async def report_health(is_healthy: Callable[[], bool], telemetry: Telemetry) -> None:
    """Put the gauge `healthy` every few seconds, until cancelled."""
    while True:
        telemetry.set("healthy", is_healthy())
        await asyncio.sleep(HEALTH_EVERY_S)


async def keep_wanted(wanted: WantedFile) -> None:
    """Write again, every few seconds, what is wanted and could not be written, until cancelled."""
    while True:
        await asyncio.sleep(SAVE_EVERY_S)
        if wanted.problem:
            wanted.save()


async def bound_connections(server: Server, telemetry: Telemetry) -> None:
    """Close, every second, the newest connections of an address that holds too many, until cancelled."""
    connections = server.connections()
    while True:
        await asyncio.sleep(BOUND_EVERY_S)
        with suppress(OSError):  # it will be seen the next time
            found = connections.bound()
            telemetry.set("connections", found.held)
            for host, closed in found.closed.items():
                telemetry.add("refused_calls", closed, reason="connections")
                telemetry.warning("connections_closed", f"{host} holds too many connections: the newest are closed")
            if found.held >= server.max_connections:
                telemetry.warning(
                    "connections_full", f"all {server.max_connections} connections are taken: others are refused"
                )


async def watch_disk(folder: Path, telemetry: Telemetry) -> None:
    """Put the gauges of the disk that holds `folder` every few seconds, until cancelled."""
    samples: deque[tuple[float, int]] = deque(maxlen=int(WINDOW_S / RETENTION_EVERY_S))
    while True:
        with _going_on("disk", telemetry):
            free_bytes = (await asyncio.to_thread(shutil.disk_usage, folder)).free
            samples.append((time.monotonic(), free_bytes))
            telemetry.set("disk_free_bytes", free_bytes)
            telemetry.set("disk_left_s", seconds_until_full(samples))
        await asyncio.sleep(RETENTION_EVERY_S)


async def keep_journal(journal: Journal, telemetry: Telemetry) -> None:
    """Drop what need not be kept, and tell what is kept and for whom, until cancelled.

    What the disk refuses of that is told and tried again: nothing that is collected waits for it.
    """
    warned = False
    while True:
        with _going_on(f"journal {journal.path}", telemetry):
            await _retain(journal, telemetry)
            warned = await _measure(journal, telemetry, warned=warned)
        await asyncio.sleep(RETENTION_EVERY_S)


@contextmanager
def _going_on(what: str, telemetry: Telemetry) -> Iterator[None]:
    """Tell of what fails within, which is tried again later."""
    try:
        yield
    except (RavenError, OSError) as error:
        telemetry.warning("upkeep_failed", f"{what}: {error}; it is tried again, and collecting goes on")


async def _retain(journal: Journal, telemetry: Telemetry) -> None:
    result = await asyncio.to_thread(journal.enforce_retention)
    if result.lost_rows:
        telemetry.add("dropped_unacknowledged_rows", result.lost_rows)
        telemetry.error(
            "journal_overrun",
            f"the journal reached its limit: {result.lost_rows} rows were dropped before "
            f"{', '.join(result.lost_by)} had them; raise journal.max_bytes, or forget a consumer that is gone",
            rows=result.lost_rows, consumers=result.lost_by, gaps=result.gaps,
        )  # fmt: skip


async def _measure(journal: Journal, telemetry: Telemetry, *, warned: bool) -> bool:
    """Put the journal's gauges; whether the disk is fuller than it should be, which is logged when it becomes so."""
    disk = await asyncio.to_thread(journal.disk)
    telemetry.set("journal_bytes", disk.journal_bytes)
    consumers = await asyncio.to_thread(journal.consumers)
    telemetry.replace("consumer_behind_bytes", {(consumer.name,): consumer.behind_bytes for consumer in consumers})
    if disk.warn and not warned:
        telemetry.warning("disk", f"the disk of {journal.path} is {disk.fraction:.0%} full", free_bytes=disk.free_bytes)
    return disk.warn
