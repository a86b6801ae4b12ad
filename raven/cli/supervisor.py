"""Runs the services of `raven up` as child processes: starts, restarts with backoff, stops upstream first."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from raven.cli.child_log import ChildLog
from raven.clock import Backoff

STOP_S: Final = 10.0
SETTLED_S: Final = 30.0
FAILING_AFTER: Final = 3
FIRST_WAIT_S: Final = 0.5
MOST_WAIT_S: Final = 60.0
LOG_CHECK_S: Final = 2.0


@dataclass(slots=True)
class Child:
    """One process: what it runs, where its log goes, how often it had to be started again.

    Children of a lower `stage` are stopped before those of a higher one. `failures` counts the ends in a row that came
    before it had settled.
    """

    name: str
    command: Sequence[str]
    log: ChildLog
    stage: int = 0
    restarts: int = 0
    failures: int = 0
    last_exit: str = ""
    process: asyncio.subprocess.Process | None = None
    backoff: Backoff = field(default_factory=lambda: Backoff(FIRST_WAIT_S, MOST_WAIT_S))

    @property
    def is_running(self) -> bool:
        """Whether there is a process now."""
        return self.process is not None and self.process.returncode is None

    @property
    def is_failing(self) -> bool:
        """Whether it ends again and again, soon after each start."""
        return self.failures >= FAILING_AFTER

    def signal(self, number: signal.Signals) -> None:
        """Send a signal if there is a process."""
        if self.process is not None and self.process.returncode is None:
            self.process.send_signal(number)


class Supervisor:
    """Keeps the children running until `stop`; `environment` is added to each child's own.

    `announce` gets a line whenever a child ends or settles again.
    """

    def __init__(
        self, children: Sequence[Child], environment: Mapping[str, str], announce: Callable[[str], None]
    ) -> None:
        self.children = list(children)
        self._environment = {**os.environ, **environment}
        self._announce = announce
        self._stopping = asyncio.Event()
        self._tasks: dict[str, asyncio.Task[None]] = {}

    def start(self) -> None:
        """Start all children; each is kept running by a task of its own."""
        self._tasks = {child.name: asyncio.create_task(self._keep(child)) for child in self.children}

    async def run(self) -> None:
        """Keep the logs small until cancelled."""
        while True:
            await asyncio.sleep(LOG_CHECK_S)
            for child in self.children:
                child.log.rotate()

    async def _keep(self, child: Child) -> None:
        while not self._stopping.is_set():
            try:
                await self._spawn(child)
                why = await self._until_ended(child)
            except OSError as error:
                why = f"cannot be started: {error}"
            if self._stopping.is_set():
                return
            child.restarts += 1
            child.failures += 1
            child.last_exit = why
            wait_s = child.backoff.next_s()
            failing = f" (failing: ended {child.failures} times in a row)" if child.is_failing else ""
            self._announce(f"{child.name} {why}; starting again in {wait_s:.1f} s{failing}")
            await _wait(self._stopping, wait_s)

    async def _spawn(self, child: Child) -> None:
        with child.log.open() as log:
            # a session of its own: Ctrl-C reaches the supervisor alone, which stops the children in order
            child.process = await asyncio.create_subprocess_exec(
                *child.command, stdin=asyncio.subprocess.PIPE, stdout=log, stderr=log,
                env=self._environment, start_new_session=True,
            )  # fmt: skip
        if self._stopping.is_set():
            child.signal(signal.SIGTERM)

    async def _until_ended(self, child: Child) -> str:
        """Why the child's process ended; it has settled when it runs for a while."""
        assert child.process is not None
        ended = asyncio.ensure_future(child.process.wait())
        await asyncio.wait({ended}, timeout=SETTLED_S)
        if not ended.done() and child.failures:
            child.failures = 0
            child.backoff.reset()
            self._announce(f"{child.name} runs again")
        return f"{exit_text(await ended)}; its last log line: {child.log.last_line()}"

    async def stop(self) -> list[str]:
        """End the children stage by stage, each with time to finish; names of those that had to be killed."""
        self._stopping.set()
        killed = []
        for stage in sorted({child.stage for child in self.children}):
            members = [child for child in self.children if child.stage == stage and child.name in self._tasks]
            for child in members:
                child.signal(signal.SIGTERM)
            if members:
                await asyncio.wait([self._tasks[child.name] for child in members], timeout=STOP_S)
            killed += [child.name for child in members if child.is_running]
            for child in members:
                child.signal(signal.SIGKILL)
        await asyncio.gather(*self._tasks.values())
        return killed

    def kill(self) -> None:
        """End every child at once."""
        self._stopping.set()
        for child in self.children:
            child.signal(signal.SIGKILL)


def child_command(module: str, *arguments: str) -> list[str]:
    """The command that runs a module of Raven with this Python, tied to the life of the process that starts it."""
    return [sys.executable, "-m", "raven.cli.child", module, *arguments]


def exit_text(code: int) -> str:
    """How a process ended, by its return code."""
    if code >= 0:
        return f"ended with exit code {code}"
    try:
        return f"was killed by {signal.Signals(-code).name}"
    except ValueError:
        return f"was killed by signal {-code}"


async def _wait(event: asyncio.Event, timeout_s: float) -> None:
    try:
        async with asyncio.timeout(timeout_s):
            await event.wait()
    except TimeoutError:
        return
