"""`raven config`: the settings in force and where each comes from."""

from __future__ import annotations

from typing import Annotated

import typer

from raven.cli import output
from raven.errors import InputError
from raven.settings import nearest, origins


def config(
    key: Annotated[
        str, typer.Argument(help="A key such as server.port_tibs, a section, or a part of a name. Default: all.")
    ] = "",
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Print the settings in force and where each comes from; secrets are hidden."""
    every = origins()
    found = [entry for entry in every if entry.key == key] or [entry for entry in every if key.lower() in entry.key]
    if not found:
        raise InputError(f"there is no setting {key}", hint=nearest(key, [entry.key for entry in every]))
    if json:
        output.print_json([entry._asdict() for entry in found])
        return
    rows = [
        [entry.key, str(entry.value), "[dim]default[/]" if entry.source == "default" else entry.source]
        for entry in found
    ]
    output.table("Settings", ("key", "value", "from"), rows)
