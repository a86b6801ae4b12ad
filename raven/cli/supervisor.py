"""Runs the services of `raven up` as child processes: starts, restarts with backoff, stops upstream first."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from raven.clock import Backoff
from raven.telemetry.logs import message_of

STOP_S: Final = 10.0
SETTLED_S: Final = 30.0
TAIL_BYTES: Final = 2000


@dataclass(slots=True)
class Child:
    """One process: what it runs, where its log goes, how often it had to be started again."""

    name: str
    command: Sequence[str]
    log: Path
    restarts: int = 0
    last_exit: str = ""
    process: asyncio.subprocess.Process | None = None
    backoff: Backoff = field(default_factory=Backoff)


class Supervisor:
    """Keeps the children running until `stop`; `environment` is added to each child's own."""

    def __init__(self, children: Sequence[Child], environment: Mapping[str, str]) -> None:
        self.children = list(children)
        self._environment = {**os.environ, **environment}
        self._stopping = False

    async def run(self) -> None:
        """Start all children and keep each running, until cancelled."""
        async with asyncio.TaskGroup() as group:
            for child in self.children:
                group.create_task(self._keep(child))

    async def _keep(self, child: Child) -> None:
        while not self._stopping:
            began = asyncio.get_running_loop().time()
            await self._spawn(child)
            assert child.process is not None
            code = await child.process.wait()
            if self._stopping:
                return
            child.restarts += 1
            child.last_exit = f"exit code {code}: {last_line(child.log)}"
            if asyncio.get_running_loop().time() - began > SETTLED_S:
                child.backoff.reset()
            await asyncio.sleep(child.backoff.next_s())

    async def _spawn(self, child: Child) -> None:
        child.log.parent.mkdir(parents=True, exist_ok=True)
        with child.log.open("ab") as log:
            # a session of its own: Ctrl-C reaches the supervisor alone, which stops the children in order
            child.process = await asyncio.create_subprocess_exec(
                *child.command, stdin=asyncio.subprocess.DEVNULL, stdout=log, stderr=log,
                env=self._environment, start_new_session=True,
            )  # fmt: skip

    async def stop(self) -> list[str]:
        """End the children in their order, each with time to finish; names of those that had to be killed."""
        self._stopping = True
        killed = []
        for child in self.children:
            process = child.process
            if process is None or process.returncode is not None:
                continue
            process.send_signal(signal.SIGTERM)
            try:
                async with asyncio.timeout(STOP_S):
                    await process.wait()
            except TimeoutError:
                process.kill()
                await process.wait()
                killed.append(child.name)
        return killed


def module_command(module: str, *arguments: str) -> list[str]:
    """The command that runs a module of Raven with this Python."""
    return [sys.executable, "-m", module, *arguments]


def last_line(log: Path) -> str:
    """The last line of a log, for a message about its end."""
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - TAIL_BYTES))
        lines = file.read().decode(errors="replace").strip().splitlines()
    return message_of(lines[-1]) if lines else "no output"
