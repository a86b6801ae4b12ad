"""`raven token`: a fresh token for `[security]`."""

from __future__ import annotations

import re
import secrets
import sys
import tomllib
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from raven.cli import output
from raven.errors import InputError, SettingsError
from raven.files import write_atomically

TOKEN_BYTES: Final = 32
LOCAL: Final = Path("local.toml")
HEADER: Final = re.compile(r"^[ \t]*\[[ \t]*security[ \t]*\][^\n]*$", re.MULTILINE)


def token(
    write: Annotated[bool, typer.Option("--write", help="Put it into local.toml, for its owner's eyes only.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Make a fresh token that services and ravenctl on all machines share."""
    made = secrets.token_urlsafe(TOKEN_BYTES)
    if write:
        write_token(LOCAL, made)
    if json:
        output.print_json({"token": made, "written_to": str(LOCAL.absolute()) if write else None})
    elif write:
        output.console.print(f"A fresh token is in {LOCAL.absolute()}; set the same on the other machines.")
    else:
        sys.stdout.write(
            f"{made}\n\n"
            "Set it on every machine, in local.toml\n\n"
            f'    [security]\n    token = "{made}"\n\n'
            f"or in the environment: RAVEN__SECURITY__TOKEN={made}\n"
        )


def write_token(path: Path, made: str) -> None:
    """Add the token to the settings file `path` and leave all else as it is; mode 600.

    Raises InputError when there is a token already, SettingsError when the file cannot be read or written.
    """
    path = path.resolve()  # a link stays one
    try:
        text = path.read_text() if path.exists() else ""
        before = tomllib.loads(text)
    except (OSError, ValueError) as error:
        raise SettingsError(f"{path} cannot be read: {error}", hint="mend it first") from error
    if before.get("security", {}).get("token"):
        raise InputError(
            f"{path} has a token already",
            hint="take it out first; services with the old one and the new one refuse each other",
        )
    added = _with_line(text, f'token = "{made}"')
    if not _adds_only(added, before, made):
        raise InputError(f"{path} sets security in a way of its own", hint="add what `raven token` prints by hand")
    try:
        write_atomically(path, added.encode(), private=True)
    except OSError as error:
        raise SettingsError(f"{path} cannot be written: {error.strerror}") from error


def _with_line(text: str, line: str) -> str:
    """`text` with `line` first in its table [security], which is added when there is none."""
    header = HEADER.search(text)
    if header is not None:
        return f"{text[: header.end()]}\n{line}{text[header.end() :]}"
    gap = "" if not text else "\n" if text.endswith("\n") else "\n\n"
    return f"{text}{gap}[security]\n{line}\n"


def _adds_only(text: str, before: dict[str, Any], made: str) -> bool:
    """Whether `text` says what was said before, and the token."""
    try:
        after = tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        return False
    return after == {**before, "security": {**before.get("security", {}), "token": made}}
