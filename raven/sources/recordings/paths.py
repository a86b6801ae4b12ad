"""The files that a user names, also by pattern."""

from __future__ import annotations

import glob
from collections.abc import Iterable
from pathlib import Path

from raven.errors import InputError


def expand(paths: Iterable[str | Path]) -> list[Path]:
    """The paths, those with `*`, `?` or `[…]` replaced by what matches, sorted; `~` is the home folder.

    Raises InputError when nothing matches. A name that exists is itself, whatever letters it has.
    """
    found: list[Path] = []
    for path in paths:
        named = Path(path).expanduser()
        if named.exists() or not glob.has_magic(str(named)):
            found.append(named)
            continue
        matching = sorted(glob.glob(str(named), recursive=True))  # noqa: PTH207 - Path.glob takes no absolute pattern
        if not matching:
            raise InputError(f"no file matches {path}", hint="is the folder right?")
        found += map(Path, matching)
    return found
