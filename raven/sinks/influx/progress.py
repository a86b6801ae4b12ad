"""How far trades are stored in InfluxDB: a small file beside the service, for the database has no transactions.

Written after the points are acknowledged. When the process dies in between, the points are written again, over
themselves.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

import msgspec

from raven.batches.batch import Cursor
from raven.errors import StoreError
from raven.files import read_file, write_atomically
from raven.sinks.store import StoreUnavailableError

FORMAT: Final = 1


class Target(msgspec.Struct, frozen=True):
    """Whose progress it is: that of one bucket."""

    url: str
    org: str
    bucket: str


class Progress(msgspec.Struct):
    """`rows` stored so far, the position of each upstream, and the last id by venue and symbol."""

    target: Target
    rows: int = 0
    positions: dict[str, Cursor] = {}
    last_ids: dict[str, dict[str, int]] = {}
    format: int = FORMAT


def load(path: Path, target: Target) -> Progress:
    """What was saved for `target`; none of it when the file is of another bucket, or there is none.

    Raises StoreError for a file that is damaged or of another format.
    """
    try:
        data = read_file(path)
        found = msgspec.json.decode(data, type=Progress)
    except FileNotFoundError:
        return Progress(target)
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise StoreError(f"{path} cannot be read: {error}", hint=_HINT) from error
    if found.format != FORMAT:
        raise StoreError(f"{path} has format {found.format}, this version of Raven reads {FORMAT}", hint=_HINT)
    return found if found.target == target else Progress(target)


def save(path: Path, progress: Progress) -> None:
    """Replace what was saved. Raises StoreUnavailableError when the disk refuses."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, msgspec.json.encode(progress))
    except OSError as error:
        raise StoreUnavailableError(
            f"{path} cannot be written: {error.strerror}", hint="it says how far trades are stored; free some space"
        ) from error


_HINT: Final = (
    "move it away: what the journals still hold is then written once more, over itself, and no point is there twice"
)
