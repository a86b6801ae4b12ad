"""Paths as people write them: `~` for their home, and patterns that a shell would have expanded."""

from __future__ import annotations

import glob
from collections.abc import Iterable
from pathlib import Path

from raven.errors import InputError
from raven.settings import expanded


def expand(paths: Iterable[str | Path]) -> list[Path]:
    """Each path in turn; one with `*`, `?` or `[…]` that is no file's name becomes the files that match it, by name.

    Raises InputError when nothing matches.
    """
    found = []
    for given in paths:
        if not isinstance(given, str | Path):
            raise InputError(f"{given!r} is no path", hint="give each path as a str or a Path, several side by side")
        found += _expand(expanded(given))
    return found


def _expand(path: Path) -> list[Path]:
    if not glob.has_magic(str(path)) or path.exists():
        return [path]
    found = sorted(map(Path, glob.glob(str(path), recursive=True)))  # noqa: PTH207 - a Path globs only below itself
    if not found:
        raise InputError(f"no file matches {path}")
    return found
