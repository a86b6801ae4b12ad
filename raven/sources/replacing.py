"""The folder of an imported journal: made beside its place, put there when it is whole, or nothing is."""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

import pyarrow as pa

from raven.clock import now_us
from raven.errors import InputError, JournalError
from raven.journal import JournalReader
from raven.journal.folder import (
    IDENTITY_FILE,
    LOCK_FILE,
    STATE_FILE,
    lock_folder,
    open_identity,
    read_state,
    segment_paths,
)
from raven.journal.writer import disk_error, sync_folder

_OWN: Final = frozenset({IDENTITY_FILE, STATE_FILE, LOCK_FILE})


class Replacement:
    """`folder`: where the new journal is made. `is_there`: whether `target` holds a journal with batches."""

    def __init__(self, target: Path, folder: Path) -> None:
        self.target = target
        self.folder = folder
        self.is_there = JournalReader.is_journal(target) and bool(segment_paths(target))

    def begin_with_what_is_there(self) -> None:
        """Let the new journal begin with all of the one that is there: the same files, which are never written again.

        That one was closed cleanly (see `is_sealed`).
        """
        for path in segment_paths(self.target):
            try:
                os.link(path, self.folder / path.name)
            except OSError:  # of a file system that knows no links
                shutil.copy2(path, self.folder)
        for name in (IDENTITY_FILE, STATE_FILE):
            shutil.copy2(self.target / name, self.folder)

    @property
    def is_sealed(self) -> bool:
        """Whether the journal that is there was closed cleanly, so that none of its files will change."""
        state = read_state(self.target)
        return state is not None and state.clean

    def put_in_place(self) -> None:
        """Let `folder` be `target`; raises JournalError when the disk refuses, with the old one in place."""
        old = _replaced(self.target)
        try:
            if self.target.exists():
                self.folder.chmod(self.target.stat().st_mode & 0o7777)
                self.target.rename(old)
                try:
                    self.folder.rename(self.target)
                except BaseException:
                    old.rename(self.target)
                    raise
            else:
                self.folder.rename(self.target)
            sync_folder(self.target.parent)
        except OSError as error:
            raise disk_error(error, "putting in place the journal", self.target) from error
        shutil.rmtree(old, ignore_errors=True)


@contextmanager
def replacing(target: Path, schema: pa.Schema) -> Iterator[Replacement]:
    """A folder beside `target` for a journal of `schema`; unless it was put in place, nothing is left of it after.

    Meanwhile the journal at `target`, where there is one, is locked. Raises InputError when `target` is something
    else, or what a service writes: only recordings of the past, which nobody follows, are written anew. Raises
    JournalError when the journal there is of another stream or in use, or the disk refuses.
    """
    target = target.resolve()
    made = _make_parents(target.parent)
    try:
        with _held(target.with_name(f".{target.name}.importing")) as folder:
            _recover(target)
            _require_importable(target)
            if not JournalReader.is_journal(target):
                yield Replacement(target, folder)
                return
            lock = lock_folder(target)
            try:
                open_identity(target, schema, now_us())
                yield Replacement(target, folder)
            finally:
                lock.release()
    finally:
        for parent in made:
            with suppress(OSError):  # something is in it
                parent.rmdir()


def _make_parents(parent: Path) -> list[Path]:
    """Make the folders down to `parent`; those that were not there, the innermost first."""
    missing = [one for one in (parent, *parent.parents) if not one.exists()]
    try:
        parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise JournalError(f"the folder {parent} cannot be made: {error.strerror or error}") from error
    return missing


@contextmanager
def _held(folder: Path) -> Iterator[Path]:
    """An empty folder held by this process alone, what an import that was killed left in it gone; removed at last."""
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    except OSError as error:
        raise JournalError(f"{folder} cannot be made: {error.strerror or error}") from error
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            is_held = _is_at(descriptor, folder)  # else another import ended between the two
        except BlockingIOError:
            is_held = False
        if not is_held:
            raise JournalError(f"another import works at {folder}", hint="wait for it to end")
        try:
            _empty(folder)
            yield folder
        finally:
            if _is_at(descriptor, folder):  # else it was put in place, and what is there now is another's
                shutil.rmtree(folder, ignore_errors=True)
    finally:
        os.close(descriptor)


def _is_at(descriptor: int, folder: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), folder.stat())
    except FileNotFoundError:
        return False


def _empty(folder: Path) -> None:
    for path in folder.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()


def _replaced(target: Path) -> Path:
    return target.with_name(f".{target.name}.replaced")


def _recover(target: Path) -> None:
    """What an import that was killed between its two renames left: the old journal, or only its name."""
    old = _replaced(target)
    if not old.exists():
        return
    if target.exists():
        shutil.rmtree(old, ignore_errors=True)
    else:
        old.rename(target)


def _require_importable(target: Path) -> None:
    if not target.exists():
        return
    if not target.is_dir():
        raise InputError(f"{target} is a file", hint="name a folder for the journal")
    segments = set(segment_paths(target))
    others = sorted(path.name for path in target.iterdir() if path.name not in _OWN and path not in segments)
    if not JournalReader.is_journal(target):
        if others or segments:
            raise InputError(f"{target} is a folder with other things in it: {', '.join(others[:5])}",
                hint="name a new folder, or one that was imported into before")  # fmt: skip
        return
    state = read_state(target)
    consumers = sorted(state.consumers) if state is not None else []
    if others or consumers:
        what = f"consumers follow it: {', '.join(consumers[:5])}" if consumers else f"{', '.join(others[:5])} is in it"
        raise InputError(
            f"{target} is the journal of a service ({what})",
            hint="import into a folder of its own; both can be read together",
        )
