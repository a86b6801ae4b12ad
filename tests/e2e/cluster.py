"""Real processes of Raven on ports and folders of their own, for tests and benchmarks."""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import polars as pl

from raven.control.plan import SERVICES
from raven.rpc.access import Access
from raven.rpc.client import Client
from raven.rpc.pb import control_pb2

MODULES = {name: plan.module for name, plan in SERVICES.items()}


def is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def free_base() -> int:
    """A port with the next 19 and those 1000 above free."""
    for _ in range(200):
        base = random.randrange(12_000, 28_000)
        if all(is_free(base + i) and is_free(base + 1000 + i) for i in range(10)):
            return base
    raise RuntimeError("no free ports")


def wait_until(condition: Callable[[], Any], timeout_s: float, what: str) -> Any:
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        found = condition()
        if found:
            return found
        time.sleep(0.1)
    raise AssertionError(f"not within {timeout_s} s: {what}")


class Cluster:
    """Services and a simulated exchange; `stop` ends every process it started."""

    def __init__(self, folder: Path, *, data: str = "data", **environment: str) -> None:
        self.folder = folder
        self.python = sys.executable  # of what `run` starts
        base = free_base()
        self.ports = {name: base + i for i, name in enumerate(MODULES)}
        self.exchange_port = base + 9
        self.data = folder / data
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self.environment = {
            **{key: value for key, value in os.environ.items() if not key.startswith("RAVEN__")},
            **{f"RAVEN__SERVER__{SERVICES[name].port_setting.upper()}": str(port) for name, port in self.ports.items()},
            "RAVEN__DATA": str(self.data),
            "RAVEN__BINANCE_SPOT__WEBSOCKET_URL": f"ws://127.0.0.1:{self.exchange_port}",
            "RAVEN__BINANCE_SPOT__REST_URL": f"http://127.0.0.1:{self.exchange_port}",
            "RAVEN__BINANCE_FUTURES__WEBSOCKET_URL": f"ws://127.0.0.1:{self.exchange_port}/market",
            "RAVEN__BINANCE_FUTURES__REST_URL": f"http://127.0.0.1:{self.exchange_port}",
            "RAVEN__DELTA__FLUSH_S": "1",
            **environment,
        }

    def run(self, name: str, *command: str) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / f"{name}.log").open("ab") as log:
            self.processes[name] = subprocess.Popen(
                [self.python, "-m", *command], stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                env=self.environment, cwd=self.folder,
            )  # fmt: skip

    def start(self, *names: str) -> None:
        """Start services (all by default) and wait until they answer."""
        for name in names or MODULES:
            self.run(name, MODULES[name])
        for name in names or MODULES:
            wait_until(lambda name=name: self.answers(name), 60, f"{name} answers; log:\n{self.log(name)}")

    def answers(self, name: str) -> bool:
        process = self.processes[name]
        assert process.poll() is None, f"{name} ended with {process.returncode}:\n{self.log(name)}"
        with socket.socket() as probe:
            probe.settimeout(0.5)
            return probe.connect_ex(("127.0.0.1", self.ports[name])) == 0

    def simulate(self, *arguments: str) -> None:
        self.run("simulate", "raven.cli.raven", "simulate", "--port", str(self.exchange_port), *arguments)
        wait_until(lambda: not is_free(self.exchange_port), 60, f"the exchange listens; log:\n{self.log('simulate')}")

    def replay(self, *arguments: str, name: str = "binance_spot") -> None:
        """Replay recordings in the place of the source `name`; the cluster's data folder must be named replay."""
        self.run(name, "raven.cli.raven", "replay", *arguments)
        wait_until(lambda: self.answers(name), 60, f"the replay answers; log:\n{self.log(name)}")

    def ctl(self, *arguments: str, code: int | None = 0) -> Any:
        """Run ravenctl with --json; its parsed output."""
        done = subprocess.run(
            [sys.executable, "-m", "raven.cli.ravenctl", *arguments, "--json"],
            capture_output=True, text=True, env=self.environment, cwd=self.folder, timeout=120, check=False,
        )  # fmt: skip
        assert code is None or done.returncode == code, (
            f"{arguments} ended with {done.returncode}: {done.stdout}{done.stderr}"
        )
        assert done.stdout, f"{arguments} printed nothing: {done.stderr}"
        return json.loads(done.stdout)

    def status(self, name: str) -> control_pb2.StatusResponse:
        async def ask() -> control_pb2.StatusResponse:
            async with Client(f"127.0.0.1:{self.ports[name]}", Access()) as client:
                return await client.status()

        return asyncio.run(ask())

    def counter(self, name: str, counter: str) -> int:
        return self.status(name).counters.get(counter, 0)

    def kill(self, name: str) -> None:
        """End a process at once (-9)."""
        self.processes[name].kill()
        self.processes[name].wait()

    def terminate(self, name: str, timeout_s: float = 20) -> int:
        process = self.processes[name]
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
        return process.wait(timeout_s)

    def log(self, name: str) -> str:
        path = self.folder / f"{name}.log"
        return path.read_text() if path.exists() else ""

    def table(self, name: str) -> pl.DataFrame:
        path = self.data / "delta" / name
        if not path.exists():
            return pl.DataFrame()
        return pl.scan_delta(str(path)).collect()

    def rows(self, name: str) -> int:
        return self.table(name).height

    def stop(self, names: Sequence[str] = ()) -> None:
        for name in names or list(self.processes):
            process = self.processes.pop(name)
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
                try:
                    process.wait(20)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()


@contextmanager
def cluster(folder: Path, *, data: str = "data", **environment: str) -> Iterator[Cluster]:
    """A cluster that is ended whatever happens."""
    made = Cluster(folder, data=data, **environment)
    try:
        yield made
    finally:
        made.stop()
