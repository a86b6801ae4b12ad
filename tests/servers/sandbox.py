"""Processes of a Debian folder (a chroot) in namespaces of their own, which end with the process that started them.

A `Sandbox` has a mount namespace in which the chroot's `/data` is a small disk of its own (tmpfs), held by one sleeping
process; each `Process` in it is the first of a PID namespace. So nothing is mounted on the host, a kill of the first
process ends its whole tree at once, and when the test run dies, be it by SIGKILL, the kernel ends the first processes
(PR_SET_PDEATHSIG), their trees, and with the last of them the disk.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil

# The death signal is sent when the *thread* ends that started the process: it must live as long as the test run.
_SPAWNER = ThreadPoolExecutor(1, "spawner")
_LEASH = ["setpriv", "--pdeathsig", "KILL"]
_DATA = "data"


def free_port() -> int:
    """A free TCP port below those the system gives to outgoing connections, so that it stays free over a restart."""
    while True:
        port = random.randint(18_000, 32_000)
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            with contextlib.suppress(OSError):
                probe.bind(("127.0.0.1", port))
                return port


def wait_until(is_true: Callable[[], bool], what: str, timeout_s: float = 60) -> None:
    """Wait for a condition, looked at every 10 ms; TimeoutError with `what` was awaited."""
    deadline = time.monotonic() + timeout_s
    while not is_true():
        if time.monotonic() > deadline:
            raise TimeoutError(f"not within {timeout_s} s: {what}")
        time.sleep(0.01)


class Sandbox:
    """A Debian folder `root` with a disk of `disk_mb` at /data; a `folder` given is that disk instead (a real one)."""

    def __init__(self, root: Path, disk_mb: int, folder: Path | None = None) -> None:
        self.root = root
        disk = root / _DATA
        disk.mkdir(exist_ok=True)
        mount = f"-t tmpfs -o size={disk_mb}m,mode=0777 tmpfs" if folder is None else f"--bind '{folder}'"
        script = (
            f"set -e; mount --rbind /dev '{root}/dev'; mount --rbind /proc '{root}/proc'; "
            f"mount -t tmpfs tmpfs '{root}/dev/shm'; mount {mount} '{disk}'; echo ready; exec sleep infinity"
        )
        command = [*_LEASH, "unshare", "--mount", "--propagation", "private", "sh", "-c", script]
        self._holder = _spawn(command, stdout=subprocess.PIPE)
        assert self._holder.stdout is not None
        if self._holder.stdout.readline() != b"ready\n":
            self.close()
            raise RuntimeError(f"cannot set up the disk of a test server in {root}: see the messages above")
        self.data = Path(f"/proc/{self._holder.pid}/root{disk}")  # the disk as seen from here

    def command(self, user: str, *command: str) -> list[str]:
        """The command line which runs a command of the chroot as a user of it, its end tied to this process."""
        inside = ["nsenter", "--target", str(self._holder.pid), "--mount"]
        apart = ["unshare", "--pid", "--ipc", "--fork", "--kill-child=KILL", "chroot", str(self.root)]
        # A change of user clears the death signal: setpriv sets it again after the change.
        return [*_LEASH, *inside, *apart, *_LEASH, f"--reuid={user}", f"--regid={user}", "--clear-groups", *command]

    def run(self, user: str, *command: str) -> None:
        """Run a command to its end; RuntimeError with its output where it fails."""
        done = subprocess.run(self.command(user, *command), capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise RuntimeError(f"{' '.join(command)} failed: {done.stdout}{done.stderr}")

    def fill(self, leave_bytes: int = 0) -> None:
        """Leave no more than `leave_bytes` on the disk."""
        usage = os.statvfs(self.data)
        with (self.data / "filler").open("ab") as filler:
            size = usage.f_bavail * usage.f_frsize - leave_bytes
            if size > 0:
                os.posix_fallocate(filler.fileno(), 0, size)

    def free(self) -> None:
        """Give the filled space back."""
        (self.data / "filler").unlink(missing_ok=True)

    def close(self) -> None:
        """End what holds the disk; call it after the last process in it has ended."""
        self._holder.kill()
        self._holder.wait()
        if self._holder.stdout is not None:
            self._holder.stdout.close()


class Process:
    """A running command of a sandbox with everything it started."""

    def __init__(self, sandbox: Sandbox, user: str, *command: str, env: dict[str, str] | None = None) -> None:
        self._log = tempfile.TemporaryFile("a+b")  # noqa: SIM115 - open as long as the process
        line = sandbox.command(user, *command)
        self._outer = _spawn(line, stdout=self._log, stderr=subprocess.STDOUT, env={**os.environ, **(env or {})})

    def log(self) -> str:
        """What it has printed."""
        size = os.fstat(self._log.fileno()).st_size
        return os.pread(self._log.fileno(), size, 0).decode(errors="replace")

    def is_running(self) -> bool:
        """Whether it has not ended."""
        return self._outer.poll() is None

    def processes(self) -> list[psutil.Process]:
        """The first process and everything below it, from the top."""
        return psutil.Process(self._outer.pid).children(recursive=True) if self.is_running() else []

    def memory_bytes(self) -> int:
        """The memory of all its processes, what they share counted once."""
        total = 0
        for process in self.processes():
            with contextlib.suppress(psutil.NoSuchProcess):
                total += process.memory_full_info().pss
        return total

    def signal(self, number: signal.Signals, *, to_all: bool) -> None:
        """Send a signal to the first process or to all."""
        for process in self.processes()[: None if to_all else 1]:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.send_signal(number)

    def end(self, number: signal.Signals, timeout_s: float = 30) -> None:
        """Send the first process a signal and wait until it and all below have ended; SIGKILL leaves no choice."""
        if number != signal.SIGKILL:  # which a paused process takes as it is
            self.signal(signal.SIGCONT, to_all=True)
        self.signal(number, to_all=False)
        try:
            self._outer.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self.signal(signal.SIGKILL, to_all=False)
            self._outer.wait()
            raise
        finally:
            self._log.close()


def _spawn(command: list[str], **options: object) -> subprocess.Popen[bytes]:
    popen: Callable[..., subprocess.Popen[bytes]] = subprocess.Popen
    return _SPAWNER.submit(popen, command, stdin=subprocess.DEVNULL, start_new_session=True, **options).result()
