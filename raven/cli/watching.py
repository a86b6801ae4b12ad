"""`ravenctl status --watch`: the tables of status on a screen of their own, asked anew until Ctrl-C."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Final, TypeAlias

from rich.text import Text

from raven.cli import output
from raven.cli.live import is_live, show_live
from raven.cli.tables import fewer
from raven.errors import UpstreamError
from raven.rpc.pb import control_pb2

ASK_EVERY_S: Final = 2.0

Answers: TypeAlias = Mapping[str, control_pb2.StatusResponse | UpstreamError]
Lines: TypeAlias = Callable[[Answers, int | None], Sequence[Text]]


def watch_status(ask: Callable[[], Answers], lines: Lines) -> Answers:
    """Show `lines` of what `ask` answers, every two seconds until Ctrl-C; the last answers.

    Where there is no terminal to draw on, each answer is printed below the one before.
    """
    return asyncio.run(_watch(ask, lines))


async def _watch(ask: Callable[[], Answers], lines: Lines) -> Answers:
    stop, results = asyncio.Event(), await asyncio.to_thread(ask)
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)

    def view(width: int, height: int) -> list[Text]:
        head = Text(f"{datetime.now(UTC):%H:%M:%S} UTC, Ctrl-C stops", style="dim")
        return fewer([head, *lines(results, width)], height, "on a taller terminal, or by `ravenctl status`")

    async def keep_asking() -> None:
        nonlocal results
        while not stop.is_set():
            if not is_live():
                output.print_lines([Text(f"{datetime.now(UTC):%H:%M:%S} UTC"), *lines(results, output.width()), Text()])
            await asyncio.sleep(ASK_EVERY_S)
            results = await asyncio.to_thread(ask)

    asking = asyncio.ensure_future(keep_asking())
    stopped = asyncio.ensure_future(show_live(view, stop) if is_live() else stop.wait())
    try:
        await asyncio.wait({asking, stopped}, return_when=asyncio.FIRST_COMPLETED)
        for task in (asking, stopped):
            if task.done():
                task.result()
    finally:
        stop.set()
        asking.cancel()
        await asyncio.gather(asking, stopped, return_exceptions=True)
    return results
