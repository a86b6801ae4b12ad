"""Beside a journal's segments: who it is (`journal.json`), how it was left (`state.json`), the lock."""

from __future__ import annotations

import re
import uuid
from pathlib import Path
from typing import Final, TypeVar

import msgspec
import pyarrow as pa

from raven.errors import JournalError, JournalLockedError
from raven.files import FolderLock, read_file, write_atomically

FORMAT: Final = 1
IDENTITY_FILE: Final = "journal.json"
STATE_FILE: Final = "state.json"
LOCK_FILE: Final = "lock"
_SEGMENT_NAME: Final = re.compile(r"\d{20}\.arrows")

FileT = TypeVar("FileT", bound=msgspec.Struct)


class Identity(msgspec.Struct, frozen=True):
    """`journal.json`: made once, never changed. `created_us`: UTC, microseconds."""

    format: int
    id: str
    kind: str
    venue: str
    schema_version: str
    created_us: int


class State(msgspec.Struct, frozen=True):
    """`state.json`: whether the last writer closed cleanly, the next free sequence, consumers' positions."""

    clean: bool
    next_sequence: int
    consumers: dict[str, int]


def segment_path(folder: Path, first_sequence: int) -> Path:
    """The file of the segment that begins with `first_sequence`."""
    return folder / f"{first_sequence:020}.arrows"


def segment_paths(folder: Path) -> list[Path]:
    """The segment files, oldest first."""
    return sorted(path for path in folder.iterdir() if _SEGMENT_NAME.fullmatch(path.name))


def lock_folder(folder: Path) -> FolderLock:
    """Hold the folder alone; raises JournalLockedError when another process does."""
    try:
        return FolderLock(folder / LOCK_FILE)
    except BlockingIOError as error:
        holder = (folder / LOCK_FILE).read_text() or "unknown"
        raise JournalLockedError(
            f"the journal {folder} is in use by process {holder}",
            hint="stop that service first, or give this one another port or data folder",
        ) from error
    except OSError as error:
        raise JournalError(
            f"the journal {folder} cannot be opened: {error}",
            hint="check the data folder and its permissions",
        ) from error


def read_identity(folder: Path) -> Identity:
    """Who the journal is; raises JournalError when it is none, damaged, or of another format version."""
    identity = _read(
        folder / IDENTITY_FILE, Identity, "put it back from a backup, or move the folder away to begin anew"
    )
    if identity is None:
        raise JournalError(f"{folder} is not a journal: it holds no {IDENTITY_FILE}")
    if identity.format != FORMAT:
        raise _other_version(folder, f"its format is {identity.format}, this Raven's is {FORMAT}")
    return identity


def open_identity(folder: Path, schema: pa.Schema, now_us: int) -> Identity:
    """Who the journal is, made now if new; raises JournalError when it holds another stream than `schema`."""
    kind, venue, version = (_from_metadata(schema, key) for key in ("kind", "venue", "schema_version"))
    wanted = Identity(
        format=FORMAT,
        id=uuid.uuid4().hex,
        kind=kind,
        venue=venue,
        schema_version=version,
        created_us=now_us,
    )
    if not (folder / IDENTITY_FILE).exists() and not segment_paths(folder):
        write_atomically(folder / IDENTITY_FILE, msgspec.json.format(msgspec.json.encode(wanted)) + b"\n")
        return wanted
    identity = read_identity(folder)
    if identity.schema_version != wanted.schema_version:
        raise _other_version(
            folder,
            f"its schema version is {identity.schema_version!r}, this Raven's is {wanted.schema_version!r}",
        )
    if (identity.kind, identity.venue) != (wanted.kind, wanted.venue):
        raise JournalError(
            f"the journal {folder} holds {identity.kind!r} of venue {identity.venue!r}, "
            f"not {wanted.kind!r} of venue {wanted.venue!r}",
            hint="give each service a folder of its own",
        )
    return identity


def read_state(folder: Path) -> State | None:
    """How the last writer left the journal, None if there never was one; raises JournalError when damaged."""
    return _read(
        folder / STATE_FILE,
        State,
        "delete it to go on: numbering leaps ahead and consumers' holds begin anew when they connect",
    )


def write_state(folder: Path, state: State) -> None:
    """Replace the state durably; raises OSError when the disk does not take it."""
    write_atomically(folder / STATE_FILE, msgspec.json.encode(state))


def _read(path: Path, kind: type[FileT], hint: str) -> FileT | None:
    try:
        return msgspec.json.decode(read_file(path), type=kind)
    except FileNotFoundError:
        return None
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise JournalError(f"{path} cannot be read: {error}", hint=hint) from error


def _from_metadata(schema: pa.Schema, key: str) -> str:
    return str((schema.metadata or {}).get(f"raven.{key}".encode(), b"").decode())


def _other_version(folder: Path, why: str) -> JournalError:
    return JournalError(
        f"{folder} is a journal of another version: {why}",
        hint="run the Raven that wrote it, or move the folder away to begin anew",
    )
