"""PostgreSQL servers for tests, with and without TimescaleDB."""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import subprocess
from abc import ABC, abstractmethod
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import trustme

from tests.servers.install import POSTGRES, has_debian, has_docker
from tests.servers.sandbox import Process, Sandbox, free_port, wait_until

_BIN = "/usr/lib/postgresql/17/bin"
_CONF = """
listen_addresses = '127.0.0.1'
unix_socket_directories = ''
shared_buffers = 64MB
max_connections = 60
max_worker_processes = 24
max_locks_per_transaction = 128
min_wal_size = 32MB
max_wal_size = 256MB
log_line_prefix = ''
"""
_TIMESCALE_CONF = """
shared_preload_libraries = 'timescaledb'
timescaledb.telemetry_level = off
timescaledb.max_background_workers = 16
"""


class AnyPostgres(ABC):
    """What tests ask of a PostgreSQL server: `managed` ones are started here, others stand behind a proxy.

    `kill`, `stop` and `pause` are of the server for a managed one, and of the way to it for another.
    """

    managed: bool
    port: int

    @abstractmethod
    def url(self, database: str = "postgres", *, port: int | None = None) -> str:
        """`postgresql://user:password@127.0.0.1:port/database` of the superuser; `port` is that of a proxy between."""

    @abstractmethod
    def start(self) -> None:
        """Start it, on the same port as before, and wait until it answers."""

    @abstractmethod
    def stop(self) -> None:
        """Stop it: clients are told, what was committed is kept."""

    @abstractmethod
    def kill(self) -> None:
        """Kill it at once with all its backends (SIGKILL), as a crash does."""

    @abstractmethod
    def pause(self) -> None:
        """Let it hang: connections are taken by the system, nothing answers; `resume` ends that."""

    @abstractmethod
    def resume(self) -> None:
        """Go on after `pause`."""

    @abstractmethod
    def fill_disk(self, leave_bytes: int = 0) -> None:
        """Fill its disk but for `leave_bytes`; `free_disk` gives the space back."""

    @abstractmethod
    def free_disk(self) -> None:
        """Give back what `fill_disk` took."""

    @abstractmethod
    def serve_tls(self, certificate: trustme.LeafCert) -> None:
        """Show `certificate` to who asks for TLS, from a restart on, which this is."""

    @abstractmethod
    def close(self) -> None:
        """End it for good, with its data."""

    def restart(self) -> None:
        """Stop and start."""
        self.stop()
        self.start()

    def create_database(self, name: str | None = None) -> str:
        """Make an empty database (of an unused name where none is given) and return its URL."""
        name = f"raven_{secrets.token_hex(6)}" if name is None else name
        self.psql(f'CREATE DATABASE "{name}"')
        return self.url(name)

    def drop_database(self, url: str) -> None:
        """Remove a database by its URL, with its connections."""
        self.psql(f'DROP DATABASE "{urlsplit(url).path[1:]}" WITH (FORCE)')

    def psql(self, script: str | Path, database: str = "postgres", *options: str) -> str:
        """Run statements, or a script file, with psql, ending at the first error; prints unaligned rows, `|` between.

        `database` is a name or a whole URL. RuntimeError with what psql says on an error.
        """
        url = database if "://" in database else self.url(database)
        text = script.read_text() if isinstance(script, Path) else script
        command = [*_psql(), "--no-psqlrc", "--quiet", "--no-align", "--tuples-only", "--set=ON_ERROR_STOP=1"]
        done = subprocess.run([*command, *options, url], input=text, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise RuntimeError(done.stderr)
        return done.stdout.strip()


class Postgres(AnyPostgres):
    """A cluster of its own on a disk of its own, made and started here; `timescale=False` knows no extension."""

    managed = True

    def __init__(self, *, timescale: bool = True, disk_mb: int = 4096, folder: Path | None = None) -> None:
        self.port = free_port()
        self._sandbox = Sandbox(POSTGRES.root, disk_mb, folder)
        self._process: Process | None = None
        self.password = secrets.token_hex(8)
        try:
            self._make_cluster(timescale=timescale)
            self.start()
        except BaseException:
            self.close()
            raise

    def url(self, database: str = "postgres", *, port: int | None = None) -> str:
        return f"postgresql://raven:{self.password}@127.0.0.1:{self.port if port is None else port}/{database}"

    def start(self) -> None:
        process = Process(self._sandbox, "postgres", f"{_BIN}/postgres", "-D", "/data/cluster")
        self._process = process
        ready = "database system is ready to accept connections"
        wait_until(lambda: ready in process.log() or not process.is_running(), "PostgreSQL is ready")
        if not process.is_running():
            raise RuntimeError(f"PostgreSQL did not start:\n{process.log()}")

    def stop(self) -> None:
        self._end(signal.SIGINT)  # the fast shutdown: sessions end, nothing is awaited

    def kill(self) -> None:
        self._end(signal.SIGKILL)

    def pause(self) -> None:
        self._running().signal(signal.SIGSTOP, to_all=True)

    def resume(self) -> None:
        self._running().signal(signal.SIGCONT, to_all=True)

    def fill_disk(self, leave_bytes: int = 0) -> None:
        self._sandbox.fill(leave_bytes)

    def free_disk(self) -> None:
        self._sandbox.free()

    def serve_tls(self, certificate: trustme.LeafCert) -> None:
        conf = self._sandbox.data / "cluster/postgresql.conf"
        owner = conf.stat()
        for name, pem in (("key", certificate.private_key_pem), ("crt", certificate.cert_chain_pems[0])):
            path = conf.with_name(f"server.{name}")
            pem.write_to_path(path)
            os.chown(path, owner.st_uid, owner.st_gid)
            path.chmod(0o600)
        with conf.open("a") as settings:
            settings.write("ssl = on\n")
        self.restart()

    def close(self) -> None:
        self.kill()
        self._sandbox.close()

    def is_running(self) -> bool:
        """Whether the server has not ended by itself."""
        return self._process is not None and self._process.is_running()

    def log(self) -> str:
        """What it has written since its last start."""
        return self._running().log()

    def memory_bytes(self) -> int:
        """The memory of all its processes, what they share counted once."""
        return self._running().memory_bytes()

    def _make_cluster(self, *, timescale: bool) -> None:
        (self._sandbox.data / "password").write_text(self.password)
        auth = ["--username=raven", "--auth=scram-sha-256", "--pwfile=/data/password"]
        text = ["--encoding=UTF8", "--locale=C.UTF-8"]
        self._sandbox.run("postgres", f"{_BIN}/initdb", "--pgdata=/data/cluster", *auth, *text, "--no-sync")
        with (self._sandbox.data / "cluster/postgresql.conf").open("a") as conf:
            conf.write(f"{_CONF}port = {self.port}\n{_TIMESCALE_CONF if timescale else ''}")

    def _running(self) -> Process:
        assert self._process is not None, "the server is not started"
        return self._process

    def _end(self, number: signal.Signals) -> None:
        if self._process is not None:
            self._process.end(number)
            self._process = None


def _psql() -> list[str]:
    """The psql at hand: this machine's, the one beside the servers, or a container's."""
    if has_debian() and POSTGRES.is_complete():
        return ["chroot", str(POSTGRES.root), f"{_BIN}/psql"]
    if shutil.which("psql") is not None:
        return ["psql"]
    if has_docker():
        return ["docker", "run", "--rm", "--interactive", "--network=host", "postgres:17", "psql"]
    if os.environ.get("CI") == "true":
        pytest.fail("no psql on this machine")
    pytest.skip("no psql on this machine")
