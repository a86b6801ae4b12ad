"""`raven deadletters`: rows that a store refused for what they hold, listed and sent again."""

from __future__ import annotations

from typing import Annotated, Any, Final

import typer
from rich.markup import escape

from raven.cli import output
from raven.cli.tables import Layout
from raven.control.plan import resolve
from raven.settings import load

LETTERS: Final = Layout(
    "Dead letters",
    ("service", "store", "rows>", "first refused", "last refused"),
    leaving=("first refused", "last refused"),
)


def deadletters(
    service: Annotated[
        str, typer.Option("--service", help="Those of this service only: tick_persistence or bar_persistence.")
    ] = "",
    resend: Annotated[
        bool, typer.Option("--resend", help="Write them again; those still refused stay, with the new reason.")
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """List rows that a store refused for what they hold, or send them again once that is mended."""
    from raven.sinks.resend import Sent, folders_of, groups, send_again  # noqa: PLC0415 - others need not load it

    settings = load()
    folders = folders_of(settings.data, resolve(service) if service else "")
    if not resend:
        _show([group for folder in folders for group in groups(folder)], json=json)
        return
    sent = Sent()
    for folder in folders:
        send_again(settings, folder, sent)
    if json:
        output.print_json({"stored": sent.stored, "refused": sent.refused})
    else:
        output.say(
            f"{output.counted(sent.stored, 'row')} stored, {output.count(sent.refused)} refused again and kept"
            if sent.stored or sent.refused
            else "no dead letters"
        )
    raise typer.Exit(1 if sent.refused else 0)


def _show(found: list[dict[str, Any]], *, json: bool) -> None:
    if json:
        output.print_json(found)
    elif not found:
        output.console.print("no dead letters")
    else:
        output.table(LETTERS, [_row(group) for group in found])
        for group in found:
            output.say(_why(group))


def _row(group: dict[str, Any]) -> list[str]:
    names = [group["service"], f"{group['store']}/{group['table']}"]
    span = [group[name][:19].replace("T", " ") for name in ("first", "last")]
    return [*names, output.count(group["rows"]), *span]


def _why(group: dict[str, Any]) -> str:
    """The reason of a group, with one of its rows."""
    example = " ".join(f"{name}={value}" for name, value in group["example"].items())
    place = f"{group['service']}, {group['store']}/{group['table']}"
    told = f"{output.counted(group['rows'], 'row')}: {group['reason']}; for example {example}"
    return f"[yellow]{place}[/]: {escape(told)}"
