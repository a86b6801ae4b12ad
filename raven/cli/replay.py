"""`raven replay`: yesterday once more, through the services."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final, Literal

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskProgressColumn, TextColumn

from raven.cli import output
from raven.cli.interruption import interruptible
from raven.cli.simulate import parse_speed
from raven.clock import utc
from raven.control.folders import folder_of
from raven.control.plan import VENUES, port_of, resolve_venue
from raven.errors import InputError
from raven.settings import MAX_PORT, METRICS_PORT_OFFSET, expanded, load

if TYPE_CHECKING:
    from raven.sources.replay import Recording
    from raven.sources.replay.source import Report

MOST_NAMED: Final = 5


OnBadOption = Annotated[
    Literal["raise", "skip"],
    typer.Option(help="At bad rows, and at two trades with one id: end, or leave them out and count them by reason."),
]


def replay(
    path: Annotated[
        list[Path],
        typer.Argument(help="Journal folders, or archives, captures, Parquet: all that import takes, in any order."),
    ],
    venue: Annotated[
        str, typer.Option(help=f"Of files that do not tell theirs: {', '.join(VENUES)}, or spot or futures.")
    ] = "",
    symbol: Annotated[list[str] | None, typer.Option("--symbol", "-s", help="Replay only these; repeat.")] = None,
    start: Annotated[str, typer.Option(help="Replay trades from this time on, such as 2026-01-31T12:00 (UTC).")] = "",
    end: Annotated[str, typer.Option(help="Replay trades before this time.")] = "",
    speed: Annotated[
        str, typer.Option(help="1 for the pace it was recorded at, N for N times as fast, max for at once.")
    ] = "1",
    on_bad: OnBadOption = "raise",
    once: Annotated[bool, typer.Option("--once", help="End when every consumer has acknowledged all of it.")] = False,
    host: Annotated[str | None, typer.Option(help="Address to bind.")] = None,
    port: Annotated[
        int | None,
        typer.Option(help="gRPC port; default: that of the venue's source.", min=1, max=MAX_PORT - METRICS_PORT_OFFSET),
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(
            parser=expanded, metavar="PATH", help="Data folder; default `replay` below the one in the settings."
        ),
    ] = None,
) -> None:
    """Stream recordings in the place of their venue's source, for aggregators and sinks with data folders apart.

    It begins when the first symbol is wanted. A replay that is started again goes on where it was.
    """
    from raven.services.replay import serve, settings_of_replay  # noqa: PLC0415 - other commands need not load it
    from raven.sources.recordings.paths import expand  # noqa: PLC0415
    from raven.sources.replay import Choice, open_recording  # noqa: PLC0415

    chosen = Choice(frozenset(name.strip().upper() for name in symbol or ()), _us(start), _us(end))
    pace = parse_speed(speed)
    settings = settings_of_replay(load(), data)
    paths = expand(path)
    scratch = next(one for one in (settings.data, *settings.data.parents) if one.is_dir())
    with interruptible("nothing was replayed"), output.progress("reading", enabled=True):
        recording = open_recording(
            paths, venue=resolve_venue(venue) if venue else None, choice=chosen, speed=pace, on_bad=on_bad,
            folder=scratch,
        )  # fmt: skip
    name = VENUES[recording.venue]
    folder = folder_of(settings.data, name, port or port_of(settings, name))
    if folder.resolve() in {one.resolve() for one in paths}:
        raise InputError(f"{folder} is where this replay is journaled", hint="choose another --data")
    more = len(recording.symbols) - MOST_NAMED
    listed = ", ".join(recording.symbols[:MOST_NAMED]) + (f" and {output.count(more)} more" if more > 0 else "")
    output.console.print(
        f"Replaying {recording.name} as {name}: {listed}, {_shown(recording.first_us)} to {_shown(recording.last_us)}"
    )
    for sentence in recording.left_out.sentences():
        output.console.print(sentence, markup=False)
    output.console.print("It begins when a symbol is wanted. In the terminals of its consumers, and of ravenctl:")
    output.console.print(f"export RAVEN__DATA={settings.data}", soft_wrap=True)
    if settings.influx.url or settings.timescale.url.get_secret_value():
        output.console.print("export RAVEN__STORES=delta  # else what is replayed goes into your databases, too")
    with _progress(recording) as report:
        serve(recording, settings, host=host, port=port, speed=pace, once=once, report=report)


def _us(time_: str) -> int | None:
    return int(utc(time_).timestamp() * 1e6) if time_ else None


def _shown(time_us: int) -> str:
    return datetime.fromtimestamp(time_us / 1e6, UTC).strftime("%Y-%m-%d %H:%M:%S")


class _Line:
    """A line that tells rows, the recorded time, and how fast that goes by."""

    def __init__(self, bar: Progress, recording: Recording) -> None:
        self._bar = bar
        self._first_us = recording.first_us
        total_us = max(1, recording.last_us - recording.first_us)
        self._task = bar.add_task("replay", total=total_us, rows=0, at="waiting for a symbol", speed=0.0)
        self._rows = 0
        self._began: tuple[float, int] | None = None

    def report(self, rows: int, at_us: int) -> None:
        """Show what one batch adds."""
        began_s, began_us = self._began = self._began or (time.monotonic(), at_us)
        self._rows += rows
        speed = (at_us - began_us) / 1e6 / max(1e-3, time.monotonic() - began_s)
        self._bar.update(self._task, completed=at_us - self._first_us, rows=self._rows, at=_shown(at_us), speed=speed)


@contextmanager
def _progress(recording: Recording) -> Iterator[Report]:
    """A line on standard error, of a terminal only."""
    errors = Console(stderr=True)
    if not errors.is_terminal:
        yield lambda rows, at_us: None  # noqa: ARG005
        return
    columns = (
        SpinnerColumn(),
        TextColumn("{task.fields[rows]:,} rows  {task.fields[at]}  x{task.fields[speed]:,.1f}"),
        BarColumn(),
        TaskProgressColumn(),
    )
    with Progress(*columns, console=errors, transient=True) as bar:
        yield _Line(bar, recording).report
