"""Terminal output for people (tables, units, colours off when piped) and JSON for machines."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from typing import Annotated, Any

import typer
from google.protobuf.message import Message
from rich.console import Console
from rich.padding import Padding
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from raven.errors import RavenError, in_a_command
from raven.rpc.pb import control_pb2

PIPED_WIDTH = 240
MOST_WIDTH = 100_000
ENUM_PREFIX = "SYMBOL_STATE_"
console = Console(highlight=False, width=None if sys.stdout.isatty() else PIPED_WIDTH)

STATES: dict[int, tuple[str, str]] = {
    control_pb2.SYMBOL_STATE_UNSPECIFIED: ("unknown", "red"),
    control_pb2.SYMBOL_STATE_STREAMING: ("streaming", "green"),
    control_pb2.SYMBOL_STATE_WAITING: ("waiting for the first trade", "yellow"),
    control_pb2.SYMBOL_STATE_CONNECTING: ("connecting", "yellow"),
    control_pb2.SYMBOL_STATE_REFUSED: ("refused", "red"),
    control_pb2.SYMBOL_STATE_STOPPED: ("stopped", "green"),
    control_pb2.SYMBOL_STATE_NOT_WANTED: ("not collected", "yellow"),
    control_pb2.SYMBOL_STATE_KEPT: ("goes on", "yellow"),
    control_pb2.SYMBOL_STATE_NOT_TRADING: ("not trading", "yellow"),
}


def state_text(state: int) -> str:
    """A state as a coloured word."""
    word, colour = STATES[state]
    return f"[{colour}]{word}[/]"


def as_dict(message: Message) -> dict[str, Any]:
    """A protobuf message as plain data, every field by its name: numbers stay numbers, states are words."""
    return {field.name: _plain(field, getattr(message, field.name)) for field in message.DESCRIPTOR.fields}


def _plain(field: Any, value: Any) -> Any:
    if field.message_type is not None and field.message_type.GetOptions().map_entry:
        return dict(value)
    if field.is_repeated:
        return [as_dict(item) if isinstance(item, Message) else item for item in value]
    if field.enum_type is not None:
        return field.enum_type.values_by_number[value].name.removeprefix(ENUM_PREFIX).lower()
    return as_dict(value) if isinstance(value, Message) else value


def print_json(data: Any) -> None:
    """One JSON document on standard output."""
    sys.stdout.write(json.dumps(_finite(data), indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def _finite(data: Any) -> Any:
    """JSON knows no infinity: null stands for it."""
    if isinstance(data, dict):
        return {name: _finite(value) for name, value in data.items()}
    if isinstance(data, list):
        return [_finite(value) for value in data]
    return None if isinstance(data, float) and not math.isfinite(data) else data


def print_version(asked: bool) -> None:
    """The installed version, and the end of the command."""
    if asked:
        console.print(f"Raven {version('raven-market-data')}")
        raise typer.Exit


def options(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", is_eager=True, callback=print_version)
    ] = False,
) -> None:
    """The options of a program beside its commands."""


def new_table(title: str, columns: Sequence[str]) -> Table:
    """A borderless table; a column whose name ends in `>` is right-aligned."""
    view = Table(title=title, title_justify="left", title_style="bold", box=None, pad_edge=False)
    for column in columns:
        view.add_column(column.rstrip(">"), justify="right" if column.endswith(">") else "left", no_wrap=True)
    return view


def table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """A table on standard output; see `new_table`.

    Where it is too wide its empty columns are left out, and where that is not enough each row is a paragraph: nothing
    is cut off.
    """
    used = [at for at in range(len(columns)) if at == 0 or any(row[at] for row in rows)]
    for kept in (range(len(columns)), used):
        view = new_table(title, [columns[at] for at in kept])
        for row in rows:
            view.add_row(*(row[at] for at in kept))
        if console.measure(view, options=console.options.update_width(MOST_WIDTH)).maximum <= console.width:
            console.print(view)
            return
    console.print(f"[bold]{title}[/]")
    for row in rows:
        told = [f"{column.rstrip('>')} {cell}".strip() for column, cell in zip(columns, row, strict=True) if cell]
        console.print(row[0], Padding(", ".join(told[1:]), (0, 0, 0, 2)), sep="\n")


def count(number: float) -> str:
    """A number with thousands separators."""
    return f"{number:,.0f}"


def size(number_bytes: float) -> str:
    """A number of bytes in the unit that suits it."""
    for unit in ("B", "KiB", "MiB"):
        if number_bytes < 1024:
            return f"{number_bytes:.0f} {unit}"
        number_bytes /= 1024
    return f"{number_bytes:.1f} GiB"


def duration(seconds: float) -> str:
    """A duration in words short enough for a table."""
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 120:
        return f"{seconds:.1f} s"
    minutes, seconds = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {seconds:02d} s"


@contextmanager
def progress(verb: str, *, enabled: bool) -> Iterator[Callable[[int], None]]:
    """A line on standard error that counts rows while work goes on; a terminal only."""
    errors = Console(stderr=True)
    if not (enabled and errors.is_terminal):
        yield lambda rows: None  # noqa: ARG005
        return
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description} {task.completed:,.0f} rows"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=errors, transient=True) as bar:
        task = bar.add_task(verb, total=None)
        yield lambda rows: bar.advance(task, rows)


def exit_on_error(program: str, run: Callable[[], None]) -> None:
    """Run a command; Raven's errors become one line on standard error and exit code 1."""
    try:
        with in_a_command():
            run()
    except RavenError as error:
        sys.stderr.write(f"{program}: {error}\n")
        raise SystemExit(1) from None
