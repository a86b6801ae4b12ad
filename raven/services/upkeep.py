"""What a running service does beside its work, every few seconds: keep its files in order, and tell how it is."""

from __future__ import annotations

import asyncio
import os
import shutil
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from raven.control.wanted import WantedFile
from raven.errors import RavenError
from raven.journal import Journal
from raven.rpc.server import Server
from raven.telemetry import Telemetry
from raven.telemetry.disk import WINDOW_S, daily_growth_bytes, seconds_until_full

RETENTION_EVERY_S: Final = 10.0
HEALTH_EVERY_S: Final = 2.0
SAVE_EVERY_S: Final = 2.0
DISK_EVERY_S: Final = 10.0
MEASURE_EVERY_S: Final = 60.0
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


async def watch_disk(folders: Sequence[Path], telemetry: Telemetry) -> None:
    """Put the gauges of the data in `folders` and of the disk that holds the first, every few seconds, until cancelled.

    How they grow is told once that was seen for a while.
    """
    most = int(WINDOW_S / MEASURE_EVERY_S) + 1
    free: deque[tuple[float, int]] = deque(maxlen=most)
    taken: deque[tuple[float, int]] = deque(maxlen=most)
    while True:
        with _going_on("disk", telemetry):
            now_s, free_bytes = time.monotonic(), (await asyncio.to_thread(shutil.disk_usage, folders[0])).free
            telemetry.set("disk_free_bytes", free_bytes)
            if not taken or now_s - taken[-1][0] >= MEASURE_EVERY_S:
                data_bytes = await asyncio.to_thread(bytes_below, folders)
                free.append((now_s, free_bytes))
                taken.append((now_s, data_bytes))
                telemetry.set("data_bytes", data_bytes)
                telemetry.set("disk_left_s", seconds_until_full(free))
                growth = daily_growth_bytes(taken)
                if growth is not None:
                    telemetry.set("data_daily_growth_bytes", growth)
        await asyncio.sleep(DISK_EVERY_S)


def bytes_below(folders: Iterable[Path]) -> int:
    """What the files in `folders` and below take; a folder or file that is not there, or goes meanwhile, nothing."""
    total = 0
    open_folders = [str(folder) for folder in folders]
    while open_folders:
        try:
            with os.scandir(open_folders.pop()) as entries:
                for entry in entries:
                    if entry.is_dir(follow_symlinks=False):
                        open_folders.append(entry.path)
                    else:
                        total += _size(entry)
        except OSError:
            continue
    return total


def _size(entry: os.DirEntry[str]) -> int:
    try:
        return entry.stat(follow_symlinks=False).st_size
    except OSError:
        return 0


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
