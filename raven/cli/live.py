"""A screen of its own for what changes: drawn anew a few times a second, and at once when the terminal is resized.

It is the terminal's alternate screen, so nothing of it is left in what was printed before, and a resize tears nothing.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable, Sequence
from typing import Final

from rich.console import Group
from rich.live import Live
from rich.text import Text

from raven.cli import output

REDRAW_S: Final = 0.25


def is_live() -> bool:
    """Whether standard output is a terminal that can be drawn on."""
    return output.console.is_terminal and not output.console.is_dumb_terminal


async def show_live(
    view: Callable[[int, int], Sequence[Text]], stop: asyncio.Event, *, every_s: float = REDRAW_S
) -> None:
    """Show what `view` gives for the terminal's width and height until `stop`; raises OSError when that is gone."""
    resized = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGWINCH, resized.set)
    console = output.console
    try:
        # what others print is not redirected: it would scroll the screen, and is drawn over at once as it is
        with Live(
            console=console, screen=True, auto_refresh=False, redirect_stdout=False, redirect_stderr=False
        ) as live:
            while not stop.is_set():
                resized.clear()
                lines = view(console.width, console.height)
                live.update(Group(*lines), refresh=True)
                await _first(resized, stop, every_s)
    finally:
        loop.remove_signal_handler(signal.SIGWINCH)


async def _first(resized: asyncio.Event, stop: asyncio.Event, timeout_s: float) -> None:
    """Until one of the events is set, or for as long."""
    waiting = [asyncio.ensure_future(event.wait()) for event in (resized, stop)]
    try:
        await asyncio.wait(waiting, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in waiting:
            task.cancel()
