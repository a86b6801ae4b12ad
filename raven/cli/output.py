"""Terminal output for people (tables, units, colours off when piped) and JSON for machines."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from typing import Annotated, Any

import typer
from google.protobuf.message import Message
from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.text import Text

from raven.cli.tables import Layout, sentence, table_lines
from raven.errors import RavenError, in_a_command
from raven.rpc.pb import control_pb2

PIPED_WIDTH = 100_000  # where nobody looks on, a line is never broken
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
    """A state in coloured words."""
    words, colour = STATES[state]
    return f"[{colour}]{words}[/]"


def state_word(state: int) -> str:
    """A state as one coloured word or two, for tables."""
    words, colour = STATES[state]
    return f"[{colour}]{words.partition(' for ')[0]}[/]"


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


def width() -> int | None:
    """How wide what is printed may be; None: it goes into a pipe or file, where each row is one line."""
    return console.width if console.is_terminal else None


def print_lines(lines: Iterable[Text]) -> None:
    """Lines as they are, which know the width already."""
    for line in lines:
        console.print(line, soft_wrap=True)


def table(layout: Layout, rows: Sequence[Sequence[str]]) -> None:
    """A table on standard output, as wide as there is room."""
    print_lines(table_lines(layout, rows, width()))


def say(markup: str, *, indent: int = 2) -> None:
    """A sentence on standard output, broken between words, all lines but the first indented."""
    print_lines(sentence(markup, width(), indent=indent))


def count(number: float) -> str:
    """A number with thousands separators."""
    return f"{number:,.0f}"


def counted(number: int, noun: str) -> str:
    """A number of things, in words that fit one of them, too: `1 row`, `2 rows`."""
    return f"{count(number)} {noun}{'' if number == 1 else 's'}"


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
