"""Several machines: network namespaces on one switch, each with an address, a folder and processes of its own."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.e2e.cluster import wait_until

BIN = Path(sys.executable).parent
ROOT = Path(__file__).resolve().parents[2]


def ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True, text=True)


def require_namespaces() -> None:
    """Missing tool or rights are a failure in CI, a skip elsewhere."""
    name = f"raven-probe-{uuid.uuid4().hex[:8]}"
    try:
        ip("netns", "add", name)
        ip("netns", "del", name)
    except (OSError, subprocess.CalledProcessError) as error:
        why = f"no network namespaces: {getattr(error, 'stderr', '') or error}"
        if os.environ.get("CI") == "true":
            pytest.fail(why)
        pytest.skip(why)


class Machine:
    """One network namespace; what runs on it runs in `folder` and reaches the others only over the network."""

    def __init__(self, namespace: str, address: str, folder: Path, environment: Mapping[str, str]) -> None:
        self.address = address
        self.folder = folder
        self._namespace = namespace
        self._environment = {
            **{key: value for key, value in os.environ.items() if not key.startswith("RAVEN__") and key != "RUN_MODE"},
            "PATH": f"{BIN}:{os.environ['PATH']}",
            **environment,
        }
        self._running: list[subprocess.Popen[bytes]] = []
        folder.mkdir(parents=True)

    def shell(self, command: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """Run a command to its end."""
        return subprocess.run(
            self._command(command), cwd=self.folder, env={**self._environment, **environment},
            capture_output=True, text=True, timeout=120, check=False,
        )  # fmt: skip

    def succeeds(self, command: str, **environment: str) -> str:
        """Run a command that has to end well; its standard output."""
        done = self.shell(command, **environment)
        assert done.returncode == 0, f"on {self.address}: {command}\n{done.stdout}{done.stderr}\n{self.log()}"
        return done.stdout

    def fails(self, command: str, **environment: str) -> str:
        """Run a command that has to fail with exit code 1 and one line; its standard error."""
        done = self.shell(command, **environment)
        assert done.returncode == 1, f"on {self.address}: {command} ended with {done.returncode}\n{done.stdout}"
        assert len(done.stderr.splitlines()) == 1, done.stderr
        return done.stderr

    def background(self, command: str, **environment: str) -> None:
        """Run commands that go on, until `stop`."""
        with (self.folder / "log").open("ab") as log:
            process = subprocess.Popen(
                self._command(f"{command}\nwait"), cwd=self.folder, env={**self._environment, **environment},
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip
        self._running.append(process)

    def listens(self, *ports: int, host: str = "127.0.0.1") -> None:
        """Wait until something accepts connections on each port."""
        tries = "; ".join(f"socket.create_connection(('{host}', {port}), 1).close()" for port in ports)
        wait_until(
            lambda: self.shell(f'python -c "import socket; {tries}"').returncode == 0,
            60, f"{self.address} listens on {ports}:\n{self.log()}",
        )  # fmt: skip

    def log(self) -> str:
        path = self.folder / "log"
        return path.read_text() if path.exists() else ""

    def stop(self) -> None:
        """End what runs in the background, and wait for it."""
        for process in self._running:
            os.killpg(process.pid, signal.SIGTERM)
        for process in self._running:
            try:
                process.wait(20)
                wait_until(lambda process=process: not _group_lives(process.pid), 20, "the processes end")
            except (subprocess.TimeoutExpired, AssertionError):
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        self._running.clear()

    def _command(self, command: str) -> list[str]:
        return ["ip", "netns", "exec", self._namespace, "bash", "-c", command]


def _group_lives(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


@contextmanager
def network(folder: Path, *addresses: str, **environment: str) -> Iterator[dict[str, Machine]]:
    """Machines with these addresses, by address; every process and namespace is gone afterwards."""
    require_namespaces()
    run = f"raven-{os.getpid()}-{uuid.uuid4().hex[:6]}"
    namespaces = [f"{run}-switch", *(f"{run}-{number}" for number in range(len(addresses)))]
    machines: dict[str, Machine] = {}
    try:
        for namespace in namespaces:
            ip("netns", "add", namespace)
            ip("-n", namespace, "link", "set", "lo", "up")
        switch, *hosts = namespaces
        ip("-n", switch, "link", "add", "bridge", "type", "bridge")
        ip("-n", switch, "link", "set", "bridge", "up")
        for number, (namespace, address) in enumerate(zip(hosts, addresses, strict=True)):
            cable = f"cable{number}"
            ip("link", "add", "eth0", "netns", namespace, "type", "veth", "peer", "name", cable, "netns", switch)
            ip("-n", switch, "link", "set", cable, "master", "bridge", "up")
            ip("-n", namespace, "address", "add", f"{address}/24", "dev", "eth0")
            ip("-n", namespace, "link", "set", "eth0", "up")
            machines[address] = Machine(namespace, address, folder / address, environment)
        yield machines
    finally:
        for machine in machines.values():
            machine.stop()
        for namespace in namespaces:
            subprocess.run(["ip", "netns", "del", namespace], check=False, capture_output=True)


def carry(source: Machine, target: Machine, *names: str) -> None:
    """Copy files from one machine to another, as a reader would with tools of their own."""
    for name in names:
        shutil.copy(source.folder / name, target.folder / name)
