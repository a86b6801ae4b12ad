"""InfluxDB servers for tests: the real engine with the v2 write route before it."""

from __future__ import annotations

import http.client
import json
import secrets
import signal
from abc import ABC, abstractmethod
from pathlib import Path
from urllib.parse import urlencode, urlsplit

import polars as pl

from tests.servers.install import INFLUX
from tests.servers.sandbox import Process, Sandbox, free_port, wait_until

# What an InfluxDB 2 does at these routes, for an engine which knows /write?db=…&precision=n and no token.
_NGINX = """
daemon off;
user influxdb;
worker_processes 1;
pid /data/nginx.pid;
error_log stderr;
events {{ worker_connections 256; }}
http {{
    access_log off;
    default_type application/json;
    client_max_body_size {max_body_bytes};
    client_body_temp_path /data/nginx_body;
    proxy_temp_path /data/nginx_proxy;
    fastcgi_temp_path /data/nginx_fastcgi;
    uwsgi_temp_path /data/nginx_uwsgi;
    scgi_temp_path /data/nginx_scgi;
    proxy_http_version 1.1;
    proxy_read_timeout 300s;
    map $http_authorization $is_granted {{ default 0; "Token {token}" 1; }}
    map $arg_precision $unit {{ default n; us u; ms ms; s s; }}
    server {{
        listen 127.0.0.1:{port};
        if ($is_granted = 0) {{ set $refused "$uri"; }}
        if ($uri = /ping) {{ set $refused ""; }}
        if ($refused) {{ return 401 '{{"code":"unauthorized","message":"unauthorized access"}}'; }}
        location = /api/v2/write {{
            {answer}
            proxy_pass http://127.0.0.1:{engine}/write?db=$arg_bucket&precision=$unit;
        }}
        location = /query {{ proxy_pass http://127.0.0.1:{engine}; }}
        location = /ping {{ proxy_pass http://127.0.0.1:{engine}; }}
        location / {{ return 404 '{{"code":"not found","message":"path not found"}}'; }}
    }}
}}
"""


class Bucket:
    """A fresh bucket: what a sink is configured with (`url`, `token`, `org`, `name`), and `query` to read it back."""

    def __init__(self, server: AnyInflux, name: str) -> None:
        self._server = server
        self.url, self.token, self.org, self.name = server.url, server.token, server.org, name

    def query(self, influxql: str) -> pl.DataFrame:
        """See AnyInflux.query."""
        return self._server.query(influxql, self.name)

    def clear(self) -> None:
        """Make it anew, without points and what was known of their fields; InfluxDB 2 drops no measurement."""
        self._server.delete_bucket(self.name)
        self._server.create_bucket(self.name)

    def write(self, lines: str, **headers: str) -> tuple[int, str]:
        """Write lines of ns precision: the status and what the server says."""
        return self._server.write(self.name, lines.encode(), **headers)


class AnyInflux(ABC):
    """What tests ask of an InfluxDB; see AnyPostgres for `managed` and the faults."""

    managed: bool
    port: int
    url: str
    token: str
    org: str

    @abstractmethod
    def start(self) -> None:
        """Start it, on the same port as before, and wait until it answers."""

    @abstractmethod
    def stop(self) -> None:
        """Stop it."""

    @abstractmethod
    def kill(self) -> None:
        """Kill it at once (SIGKILL)."""

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
    def close(self) -> None:
        """End it for good, with its data."""

    @abstractmethod
    def set_token(self, token: str) -> None:
        """Let the server take this token and no other, from the return on."""

    @abstractmethod
    def answer_writes(self, status: int | None, *, retry_after_s: int | None = None) -> None:
        """Let every write be answered by this status and not be made, from the return on; None ends that."""

    @abstractmethod
    def create_bucket(self, name: str | None = None, *, retention_s: int | None = None) -> Bucket:
        """Make an empty bucket (of an unused name where none is given) which keeps points for `retention_s`."""

    @abstractmethod
    def delete_bucket(self, name: str) -> None:
        """Remove a bucket with its points."""

    def restart(self) -> None:
        """Stop and start."""
        self.stop()
        self.start()

    def write(self, bucket: str, body: bytes, **headers: str) -> tuple[int, str]:
        """Write lines of ns precision as one request; header names with `_` for `-`."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        path = f"/api/v2/write?{urlencode({'bucket': bucket, 'org': self.org, 'precision': 'ns'})}"
        return self.request("POST", path, body, named)

    def query(self, influxql: str, bucket: str = "") -> pl.DataFrame:
        """Read by InfluxQL: `time` as Int64 of ns, ints exact, tags of GROUP BY as columns; no row is an empty frame.

        A column of which all values are whole numbers is Int64, be the field a float or an int: JSON keeps no more.
        RuntimeError with what the server says where it fails.
        """
        path = f"/query?{urlencode({'db': bucket, 'q': influxql, 'epoch': 'ns'})}"
        status, text = self.request("POST", path, b"", {})
        results = json.loads(text).get("results") if status == http.HTTPStatus.OK else None
        result = results[0] if results else {"error": text}  # of what it does not know, InfluxDB 2 says nothing: {}
        if "error" in result:
            raise RuntimeError(f"{influxql}: {result['error']}")
        rows = [
            {**series.get("tags", {}), **dict(zip(series["columns"], row, strict=True))}
            for series in result.get("series", [])
            for row in series["values"]
        ]
        return pl.DataFrame(rows, infer_schema_length=None)

    def request(self, method: str, path: str, body: bytes, headers: dict[str, str]) -> tuple[int, str]:
        """One request with the token (unless `headers` say otherwise): the status and the body."""
        place = urlsplit(self.url)
        kind = http.client.HTTPSConnection if place.scheme == "https" else http.client.HTTPConnection
        connection = kind(place.hostname or "", place.port, timeout=60)
        try:
            connection.request(method, path, body, {"Authorization": f"Token {self.token}", **headers})
            response = connection.getresponse()
            return response.status, response.read().decode()
        finally:
            connection.close()


class Influx(AnyInflux):
    """InfluxDB's engine on a disk of its own, behind nginx with the v2 routes, both made and started here.

    The faults befall both, as the one server that they stand for. `max_body_bytes` is the size from which on a request
    is answered by 413 (0: none is). What differs from an InfluxDB 2 and matters to a writer:

    - errors are `{"error": …}` and not `{"code": …, "message": …}`;
    - of a batch with a line that cannot be parsed (400) the other lines are written, an InfluxDB 2 writes none;
    - points beyond the retention and fields of another type are a 400 `partial write: … dropped=N`, and not a 422.
    """

    managed = True

    def __init__(self, *, disk_mb: int = 4096, folder: Path | None = None, max_body_bytes: int = 0) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.org = "raven"
        self.token = secrets.token_hex(16)
        self._engine_port = free_port()
        self._max_body_bytes = max_body_bytes
        self._answer = ""
        self._processes: list[Process] = []
        self._sandbox = Sandbox(INFLUX.root, disk_mb, folder)
        try:
            self.start()
        except BaseException:
            self.close()
            raise

    def start(self) -> None:
        self._configure()
        data = {f"INFLUXDB_{part}_DIR": f"/data/{part.lower()}" for part in ("DATA", "META", "DATA_WAL")}
        settings = {
            "BIND_ADDRESS": "127.0.0.1:0",
            "REPORTING_DISABLED": "true",
            "MONITOR_STORE_ENABLED": "false",
            "HTTP_BIND_ADDRESS": f"127.0.0.1:{self._engine_port}",
            "HTTP_MAX_BODY_SIZE": "0",
            "HTTP_LOG_ENABLED": "false",
            "DATA_QUERY_LOG_ENABLED": "false",
            "DATA_MAX_SERIES_PER_DATABASE": "0",
        }
        env = data | {f"INFLUXDB_{name}": value for name, value in settings.items()}
        self._processes = [
            Process(self._sandbox, "influxdb", "influxd", "-config", "", env=env),
            Process(self._sandbox, "root", "nginx", "-c", "/data/nginx.conf"),
        ]
        wait_until(lambda: not self.is_running() or self._answers(), "InfluxDB answers")
        if not self.is_running():
            raise RuntimeError(f"InfluxDB did not start:\n{self.log()}")

    def stop(self) -> None:
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        self._end(signal.SIGKILL)

    def pause(self) -> None:
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        self._signal(signal.SIGCONT)

    def fill_disk(self, leave_bytes: int = 0) -> None:
        self._sandbox.fill(leave_bytes)

    def free_disk(self) -> None:
        self._sandbox.free()

    def close(self) -> None:
        self.kill()
        self._sandbox.close()

    def set_token(self, token: str) -> None:
        self.token = token
        self._reconfigure()

    def answer_writes(self, status: int | None, *, retry_after_s: int | None = None) -> None:
        self._answer = "" if retry_after_s is None else f"add_header Retry-After {retry_after_s} always;"
        if status is not None:
            self._answer += f""" return {status} '{{"code":"as told","message":"the test wants a {status}"}}';"""
        self._reconfigure()

    def create_bucket(self, name: str | None = None, *, retention_s: int | None = None) -> Bucket:
        name = f"raven_{secrets.token_hex(6)}" if name is None else name
        self.query(f'CREATE DATABASE "{name}"' + ("" if retention_s is None else f" WITH DURATION {retention_s}s"))
        return Bucket(self, name)

    def delete_bucket(self, name: str) -> None:
        self.query(f'DROP DATABASE "{name}"')

    def is_running(self) -> bool:
        """Whether neither part has ended by itself."""
        return bool(self._processes) and all(process.is_running() for process in self._processes)

    def log(self) -> str:
        """What its parts have written since the last start."""
        return "".join(process.log() for process in self._processes)

    def memory_bytes(self) -> int:
        """The memory of all its processes, what they share counted once."""
        return sum(process.memory_bytes() for process in self._processes)

    def _configure(self) -> None:
        text = _NGINX.format(
            port=self.port,
            engine=self._engine_port,
            token=self.token,
            max_body_bytes=self._max_body_bytes,
            answer=self._answer,
        )
        (self._sandbox.data / "nginx.conf").write_text(text)

    def _reconfigure(self) -> None:
        """Let nginx read its file again, and wait until the workers of before have ended."""
        self._configure()
        if self._processes:
            nginx = self._processes[1]
            before = nginx.processes()[1:]
            nginx.signal(signal.SIGHUP, to_all=False)
            wait_until(lambda: not any(worker.is_running() for worker in before), "nginx's old workers have ended")
            wait_until(self._answers, "nginx answers again")

    def _answers(self) -> bool:
        try:
            return self._status("/ping") == http.HTTPStatus.NO_CONTENT
        except OSError:
            return False

    def _status(self, path: str) -> int:
        return self.request("GET", path, b"", {})[0]

    def _signal(self, number: signal.Signals) -> None:
        for process in self._processes:
            process.signal(number, to_all=True)

    def _end(self, number: signal.Signals) -> None:
        for process in reversed(self._processes):
            process.end(number)
        self._processes = []
