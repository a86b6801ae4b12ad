"""The folder of each service below the data folder: `<data>/<service>-<port>/`, and what a changed port does to it.

A service whose port was changed in the settings takes its folder along, where it is plain which one that is: what it
recorded, what it is wanted to collect and its positions are no other service's. Else it tells what lies beside it.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from raven.control.wanted import WantedFile
from raven.errors import RavenError
from raven.files import FolderLock, write_atomically

LOCK: Final = "service.lock"
WANTED: Final = "wanted.json"
NAME: Final = "consumer"
"""Holds the name under which upstreams know the service, where that is not the folder's."""


def folder_of(data: Path, name: str, port: int) -> Path:
    """Where the service `name` keeps its data when it listens on `port`."""
    return data / f"{name}-{port}"


def lock(folder: Path) -> FolderLock:
    """Hold the folder of a service, made where there is none; raises RavenError when that cannot be."""
    try:
        return FolderLock(folder / LOCK)
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


def left_behind(folder: Path) -> list[Path]:
    """Other folders of the same service that hold recordings or wishes, and that no process holds."""
    name = folder.name.rpartition("-")[0]
    found = (path for path in sorted(folder.parent.glob(f"{name}-*")) if path.name[len(name) + 1 :].isdigit())
    return [path for path in found if path != folder and _holds_something(path) and not _is_held(path)]


def take_along(folder: Path) -> Path | None:
    """Make the one folder that was left behind the service's own, if it has none yet; the path that it had.

    Upstreams go on knowing the service by the name that it had.
    """
    found = left_behind(folder)
    if folder.exists() or len(found) != 1:
        return None
    with suppress(OSError), _held(found[0]):  # a service that has just begun there keeps it
        name = consumer_name(found[0])
        write_atomically(found[0] / NAME, name.encode())
        found[0].rename(folder)
        return found[0]
    return None


def consumer_name(folder: Path) -> str:
    """The name under which upstreams know the service of `folder`; no other folder beside it has the same."""
    own = folder / NAME
    if own.exists():
        return own.read_text()
    others = [path.read_text() for path in folder.parent.glob(f"*/{NAME}")]
    if folder.name not in others:
        return folder.name
    name = f"{folder.name}-{secrets.token_hex(3)}"  # another took the plain one along to another port
    write_atomically(own, name.encode())
    return name


def _holds_something(folder: Path) -> bool:
    if any(folder.glob("*.arrows")):
        return True
    try:
        wanted = WantedFile(folder / WANTED)
    except RavenError:  # damaged, but there
        return True
    return bool(wanted.entries or wanted.ending)


def _is_held(folder: Path) -> bool:
    try:
        with _held(folder):
            return False
    except OSError:
        return True


@contextmanager
def _held(folder: Path) -> Iterator[None]:
    held = FolderLock(folder / LOCK)
    try:
        yield
    finally:
        held.release()
