"""What this machine offers: a data folder that can be written, room on its disk, free ports."""

from __future__ import annotations

import asyncio
import errno
import os
import shutil
import socket
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from raven.cli import output
from raven.cli.checks.finding import CONNECT_S, Finding, Level
from raven.control.folders import folder_of
from raven.control.plan import SERVICES, WILDCARDS, port_of
from raven.errors import AccessError, UpstreamError
from raven.journal.folder import segment_paths
from raven.rpc.access import Access, address
from raven.rpc.client import Client
from raven.services.runtime import metrics_host
from raven.settings import METRICS_PORT_OFFSET, Settings

LEAST_FREE_BYTES: Final = 256 * 2**20
USED_PART: Final = 0.6
"""The part of the disk's room that journals should not exceed: beyond it services warn."""
PROBE: Final = b"raven" * 2**10


async def data_folder(settings: Settings) -> Sequence[Finding]:
    """Whether services can write their data."""
    folder = settings.data.absolute()
    problem = await asyncio.to_thread(write_problem, folder)
    if problem:
        fix = "set `data` to a folder on a disk with room that the user of the services can write"
        return [Finding("data folder", Level.FAILED, f"{folder} cannot be written: {problem}", fix)]
    return [Finding("data folder", Level.OK, f"{folder} can be written")]


def write_problem(folder: Path) -> str:
    """What keeps a file from being written in `folder`, or in the nearest one above that there is; empty: nothing."""
    try:
        with tempfile.TemporaryFile(dir=nearest_folder(folder)) as file:
            file.write(PROBE)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        return error.strerror or str(error)
    return ""


def nearest_folder(folder: Path) -> Path:
    """`folder`, or where there is none yet the nearest one above it that there is."""
    return next(path for path in (folder, *folder.parents) if path.exists())


async def disk(settings: Settings, services: Sequence[str]) -> Sequence[Finding]:
    """Whether the journals of `services` find the room that they may take."""
    folder = settings.data.absolute()
    journals = [folder_of(folder, name, port_of(settings, name)) for name in services if has_journal(name)]
    free_bytes, used_bytes = await asyncio.to_thread(_room, folder, journals)
    return [judge_disk(free_bytes, used_bytes, len(journals), settings.journal.max_bytes)]


def has_journal(name: str) -> bool:
    """Whether a service publishes, and so keeps a journal."""
    return any(name in plan.upstreams for plan in SERVICES.values())


def judge_disk(free_bytes: int, used_bytes: int, journals: int, max_bytes: int) -> Finding:
    """`used_bytes`: what `journals` journals, each of which may grow to `max_bytes`, hold already."""
    found = f"{output.size(free_bytes)} free"
    if free_bytes < LEAST_FREE_BYTES:
        return Finding("disk", Level.FAILED, found, "free some space, or set `data` to a folder on another disk")
    if not journals:
        return Finding("disk", Level.OK, found)
    most_bytes = journals * max_bytes
    found += f"; journals take up to {output.size(most_bytes)} while a consumer is away"
    if free_bytes + used_bytes < most_bytes:
        fitting = int(USED_PART * (free_bytes + used_bytes) / journals)
        return Finding("disk", Level.WARNING, found, f"set journal.max_bytes to {fitting} or less, or free some space")
    return Finding("disk", Level.OK, found)


def _room(folder: Path, journals: Sequence[Path]) -> tuple[int, int]:
    segments = [segment for journal in journals if journal.is_dir() for segment in segment_paths(journal)]
    return shutil.disk_usage(nearest_folder(folder)).free, sum(path.stat().st_size for path in segments)


async def ports(settings: Settings, access: Access, name: str) -> Sequence[Finding]:
    """Whether the ports of a service are free, or held by that very service."""
    host, port = settings.server.host, port_of(settings, name)
    grpc_problem = await asyncio.to_thread(bind_problem, host, port)
    metrics = metrics_host(settings, host), port + METRICS_PORT_OFFSET
    metrics_problem = await asyncio.to_thread(bind_problem, *metrics)
    if grpc_problem == errno.EADDRINUSE:
        holder = await who_listens(address("127.0.0.1" if host in WILDCARDS else host, port), access)
        return [judge_holder(name, address(host, port), holder)]
    for (bound, number), problem in (((host, port), grpc_problem), (metrics, metrics_problem)):
        if problem:
            return [judge_port(name, address(bound, number), problem)]
    return [Finding(f"ports of {name}", Level.OK, f"{port} and {metrics[1]} are free")]


def judge_holder(name: str, where: str, holder: str | AccessError) -> Finding:
    """`holder`: the Raven service that listens `where`; empty: none, or none that says so; or how it refuses us."""
    check, fix = f"ports of {name}", f"stop that, or set server.{SERVICES[name].port_setting} to a free port"
    if holder == name:
        return Finding(check, Level.OK, f"{name} is running at {where}")
    if isinstance(holder, AccessError):
        found = f"{where} is held by another program, or by a service of other settings: {holder.message}"
        return Finding(check, Level.FAILED, found, f"{fix}, or {holder.hint}")
    return Finding(check, Level.FAILED, f"{where} is held by {holder or 'another program'}", fix)


def judge_port(name: str, where: str, problem: int) -> Finding:
    """`problem`: the error number with which nothing can listen `where`."""
    setting = f"server.{SERVICES[name].port_setting}"
    fixes = {
        errno.EADDRINUSE: f"stop the program that holds it, or set {setting} to another port",
        errno.EADDRNOTAVAIL: "set server.host and server.metrics_host to addresses of this machine",
        errno.EACCES: f"set {setting} to a port above 1023",
    }
    found = f"nothing can listen on {where}: {os.strerror(problem)}"
    return Finding(f"ports of {name}", Level.FAILED, found, fixes.get(problem, ""))


def bind_problem(host: str, port: int) -> int:
    """The error number with which nothing can listen at `host` and `port`; 0: something can."""
    try:
        found = socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        for family, kind, protocol, _, where in found:
            with socket.socket(family, kind, protocol) as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                if family == socket.AF_INET6:
                    probe.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
                probe.bind(where)
    except socket.gaierror:
        return errno.EADDRNOTAVAIL
    except OSError as error:
        return error.errno or errno.EIO
    return 0


async def who_listens(target: str, access: Access) -> str | AccessError:
    """The Raven service at `target`; empty: none, or none that says so; or how it refuses us."""
    try:
        async with Client(target, access) as client:
            return (await client.status(timeout_s=CONNECT_S)).service
    except AccessError as error:
        return error
    except UpstreamError:
        return ""
