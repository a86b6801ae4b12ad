"""`raven config`: the settings in force and where each comes from."""

from __future__ import annotations

from typing import Annotated, Final

import typer
from rich.markup import escape

from raven.cli import output
from raven.cli.tables import Layout
from raven.errors import InputError
from raven.settings import nearest, origins

SETTINGS: Final = Layout(
    "Settings, each a default where nothing else is named", ("key", "value", "from"), wraps=("value",), below="from"
)


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
        [
            entry.key,
            escape(shown(entry.value)),
            "" if entry.source == "default" else escape(entry.source),
        ]
        for entry in found
    ]
    output.table(SETTINGS, rows)


def shown(value: object) -> str:
    """A value as a settings file or a variable would hold it, without quotes."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return ",".join(shown(item) for item in value)
    return "" if value is None else str(value)
