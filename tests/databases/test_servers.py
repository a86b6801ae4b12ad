"""The servers that the tests of stores run against do what those tests take for granted."""

from __future__ import annotations

import gzip
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, suppress
from http import HTTPStatus
from pathlib import Path

import psutil
import pytest

from tests.servers.external import ExternalPostgres
from tests.servers.influx import Influx
from tests.servers.install import INFLUX, POSTGRES, Packages, has_debian, install
from tests.servers.postgres import Postgres
from tests.servers.sandbox import wait_until

# What only the owner of a server can do; of servers in the environment the rest is tested. Where there are no servers at
# all the fixtures skip, and fail in CI.
managed = pytest.mark.skipif(
    not has_debian() or any(name in os.environ for name in ("RAVEN_TEST_POSTGRES_URL", "RAVEN_TEST_INFLUX_URL")),
    reason="of servers that are started here",
)

PROJECT = Path(__file__).resolve().parents[2]
POINT = "trades,symbol=BTCUSDT price=0.1,trade_id=9223372036854775807i 1700000000123456789"
# What a client that wants TLS asks first; a PostgreSQL answers by one byte.
SSL_REQUEST = (8).to_bytes(4) + (80877103).to_bytes(4)


@managed
def test_set_up_again_does_nothing():
    install()
    before = {packages.release: packages.stamp.stat().st_mtime_ns for packages in (POSTGRES, INFLUX)}
    install()
    assert before == {packages.release: packages.stamp.stat().st_mtime_ns for packages in (POSTGRES, INFLUX)}


def test_a_half_finished_set_up_is_none(tmp_path, monkeypatch):
    monkeypatch.setenv("RAVEN_TEST_SERVERS", str(tmp_path))
    POSTGRES.root.mkdir()
    assert not POSTGRES.is_complete()
    POSTGRES.stamp.write_text(repr(Packages("trixie", ("postgresql-17",))))
    assert not POSTGRES.is_complete()
    POSTGRES.stamp.write_text(repr(POSTGRES))
    assert POSTGRES.is_complete()


@managed
def test_a_server_that_cannot_start_says_why():
    install()
    with pytest.raises(RuntimeError, match="No space left on device"):
        Postgres(disk_mb=8)


def test_a_fresh_database_takes_the_extension(postgres, database):
    assert postgres.psql("SELECT count(*) FROM pg_extension WHERE extname = 'timescaledb'", database) == "0"
    postgres.psql("CREATE EXTENSION timescaledb", database)
    assert postgres.psql("SHOW server_version", database).startswith("17.")
    version = postgres.psql("SELECT extversion FROM pg_extension WHERE extname = 'timescaledb'", database)
    assert version.startswith("2.")


def test_a_hypertable_is_made_and_written(postgres, database, tmp_path):
    script = tmp_path / "hypertable.sql"
    script.write_text(
        "CREATE EXTENSION timescaledb;\n"
        "CREATE TABLE bars (open_time timestamptz NOT NULL, close float8);\n"
        "SELECT create_hypertable('bars', by_range('open_time'));\n"
        "INSERT INTO bars VALUES ('2024-01-01', 1.5), ('2024-03-01', 2.5);\n"
    )
    postgres.psql(script, database)
    assert postgres.psql("SELECT count(*) FROM timescaledb_information.chunks", database) == "2"


def test_a_plain_server_knows_no_extension(plain_postgres):
    url = plain_postgres.create_database()
    with pytest.raises(RuntimeError, match=r"timescaledb.*(shared_preload_libraries|not available)"):
        plain_postgres.psql("CREATE EXTENSION timescaledb", url)
    plain_postgres.drop_database(url)


def test_a_wrong_password_is_refused(postgres, database):
    login, place = database.split("@")
    with pytest.raises(RuntimeError, match="password authentication failed"):
        postgres.psql("SELECT 1", f"{login}x@{place}")


def test_a_script_ends_at_its_first_error(postgres, database):
    with pytest.raises(RuntimeError, match='relation "nothing" does not exist'):
        postgres.psql("SELECT * FROM nothing; CREATE TABLE later (id int)", database)
    with pytest.raises(RuntimeError, match='relation "later" does not exist'):
        postgres.psql("TABLE later", database)


@managed
def test_a_killed_server_keeps_what_was_committed(own_postgres):
    server = own_postgres()
    server.psql("CREATE TABLE rows AS SELECT generate_series(1, 1000) AS id")
    for _ in range(3):
        server.kill()
        with pytest.raises(RuntimeError, match="Connection refused"):
            server.psql("SELECT 1")
        server.start()
    assert server.psql("SELECT count(*) FROM rows") == "1000"
    assert "not properly shut down" in server.log()


@managed
def test_a_paused_server_takes_connections_and_does_not_answer(own_postgres):
    server = own_postgres()
    server.pause()
    with socket.create_connection(("127.0.0.1", server.port), timeout=0.3) as client:
        client.sendall(SSL_REQUEST)
        with pytest.raises(TimeoutError):
            client.recv(1)
        server.resume()
        client.settimeout(30)
        assert client.recv(1) == b"N"
    server.pause()
    server.kill()


@managed
def test_a_full_disk_is_the_servers_error(own_postgres):
    server = own_postgres(disk_mb=160)
    server.psql("CREATE TABLE kept AS SELECT 1 AS id")
    server.fill_disk()
    with pytest.raises(RuntimeError, match="No space left on device"):
        server.psql("CREATE TABLE large AS SELECT generate_series(1, 1000000) AS id")
    server.free_disk()
    server.restart()
    server.psql("CREATE TABLE large AS SELECT generate_series(1, 100000) AS id")
    assert server.psql("SELECT count(*) FROM kept") == "1"


def test_points_are_read_back_exactly(bucket):
    assert bucket.write(POINT) == (HTTPStatus.NO_CONTENT, "")
    assert bucket.query('SELECT symbol, price, trade_id FROM "trades"').to_dicts() == [
        {"time": 1_700_000_000_123_456_789, "symbol": "BTCUSDT", "price": 0.1, "trade_id": 2**63 - 1}
    ]
    grouped = bucket.query('SELECT count(price) FROM "trades" GROUP BY symbol')
    assert grouped.select("symbol", "count").to_dicts() == [{"symbol": "BTCUSDT", "count": 1}]
    assert bucket.query('SELECT * FROM "nothing"').is_empty()


def test_gzip_bodies_are_read(influx, bucket):
    body = gzip.compress(POINT.encode())
    status, _ = influx.write(bucket.name, body, Content_Encoding="gzip")
    assert status == HTTPStatus.NO_CONTENT
    assert bucket.query('SELECT trade_id FROM "trades"').height == 1


def test_a_wrong_token_is_refused(bucket):
    for headers in ({"Authorization": "Token wrong"}, {"Authorization": ""}):
        status, body = bucket.write(POINT, **headers)
        assert status == HTTPStatus.UNAUTHORIZED
        assert json.loads(body)["code"] == "unauthorized"


def test_an_unknown_bucket_is_not_found(influx):
    status, body = influx.write("nothing_here", POINT.encode())
    assert status == HTTPStatus.NOT_FOUND
    assert "nothing_here" in body


def test_a_bad_line_is_named(bucket):
    status, body = bucket.write(f"{POINT}\ntrades,symbol=BAD price=word 1700000000123456789")
    assert status == HTTPStatus.BAD_REQUEST
    assert "trades,symbol=BAD price=word" in body


@managed
def test_points_survive_a_kill(own_influx):
    server = own_influx()
    kept = server.create_bucket()
    kept.write(POINT)
    server.kill()
    with pytest.raises(ConnectionRefusedError):
        kept.write(POINT)
    server.start()
    assert kept.query('SELECT trade_id FROM "trades"').height == 1
    server.restart()
    assert kept.query('SELECT trade_id FROM "trades"').height == 1


@managed
def test_a_paused_influx_does_not_answer(own_influx):
    server = own_influx()
    server.pause()
    with socket.create_connection(("127.0.0.1", server.port), timeout=0.3) as client:
        client.sendall(b"GET /ping HTTP/1.1\r\nHost: localhost\r\n\r\n")
        with pytest.raises(TimeoutError):
            client.recv(1)
        server.resume()
        client.settimeout(30)
        assert client.recv(12) == b"HTTP/1.1 204"


@managed
def test_the_token_changes_on_the_servers_side(own_influx):
    server = own_influx()
    made = server.create_bucket()
    server.set_token("another")
    assert made.write(POINT, Authorization=f"Token {made.token}")[0] == HTTPStatus.UNAUTHORIZED
    assert made.write(POINT)[0] == HTTPStatus.NO_CONTENT


@managed
def test_a_full_disk_of_influx_is_its_error(own_influx):
    server = own_influx(disk_mb=64)
    made = server.create_bucket()
    server.fill_disk()
    status, body = made.write(POINT)
    assert status == HTTPStatus.INTERNAL_SERVER_ERROR
    assert "no space left on device" in body
    server.free_disk()
    assert made.write(POINT)[0] == HTTPStatus.NO_CONTENT


@managed
def test_writes_are_answered_as_told(own_influx):
    server = own_influx()
    made = server.create_bucket()
    server.answer_writes(429, retry_after_s=7)
    for _ in range(3):
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)
        connection.request(
            "POST", f"/api/v2/write?bucket={made.name}&org={made.org}", b"", {"Authorization": f"Token {made.token}"}
        )
        response = connection.getresponse()
        assert (response.status, response.headers["Retry-After"]) == (HTTPStatus.TOO_MANY_REQUESTS, "7")
        connection.close()
    server.answer_writes(None)
    assert made.write(POINT)[0] == HTTPStatus.NO_CONTENT


@managed
def test_a_point_beyond_the_retention_is_refused(own_influx):
    made = own_influx().create_bucket(retention_s=3600)
    status, body = made.write(POINT)
    assert (status, "points beyond retention policy dropped=1" in body) == (HTTPStatus.BAD_REQUEST, True)


@managed
def test_a_large_body_is_refused_where_asked_for(own_influx):
    made = own_influx(max_body_bytes=1000).create_bucket()
    assert made.write(POINT)[0] == HTTPStatus.NO_CONTENT
    assert made.write("\n".join([POINT] * 100))[0] == HTTPStatus.REQUEST_ENTITY_TOO_LARGE


@managed
@pytest.mark.parametrize("server_class", [Postgres, Influx])
def test_no_process_outlives_a_killed_test_run(server_class):
    install()
    script = (
        f"from {server_class.__module__} import {server_class.__name__} as Server\n"
        "import os, psutil, signal\n"
        "server = Server()\n"
        "print(server.port, *[child.pid for child in psutil.Process().children(recursive=True)], flush=True)\n"
        "signal.pause()\n"
    )
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True, cwd=PROJECT) as run:
        try:
            assert run.stdout is not None
            port, *pids = map(int, run.stdout.readline().split())
            left = list(_running(pids))
            assert len(left) >= 3
        finally:
            run.send_signal(signal.SIGKILL)
    wait_until(lambda: not any(process.is_running() for process in left), "all processes have ended", 20)
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port))


def _running(pids: list[int]) -> Iterator[psutil.Process]:
    for pid in pids:
        with suppress(psutil.NoSuchProcess):  # a server's short-lived ones
            yield psutil.Process(pid)


def test_a_proxy_passes_hangs_cuts_loses_answers_and_refuses(influx, bucket, own_proxy):
    proxy = own_proxy(influx.port)
    ping = b"GET /ping HTTP/1.1\r\nHost: localhost\r\n\r\n"

    def connect() -> socket.socket:
        return socket.create_connection(("127.0.0.1", proxy.port), timeout=30)

    def first_byte() -> bytes:
        with connect() as client:
            return client.recv(1)

    def assert_silent(client: socket.socket) -> None:
        client.settimeout(0.3)
        with pytest.raises(TimeoutError):
            client.recv(1)
        client.settimeout(30)

    with connect() as client:
        client.sendall(ping)
        assert client.recv(4096).startswith(b"HTTP/1.1 204")
        proxy.mode = "hang"
        client.sendall(ping)
        assert_silent(client)
        with connect() as other:
            other.sendall(ping)
            assert_silent(other)
        proxy.mode = "pass"
        assert client.recv(4096).startswith(b"HTTP/1.1 204")
        proxy.mode = "cut"
        with pytest.raises(ConnectionResetError):
            client.recv(1)
        with pytest.raises(ConnectionResetError):
            first_byte()
    proxy.mode = "mute"
    with connect() as client:
        target = f"/api/v2/write?bucket={bucket.name}&org={bucket.org}"
        client.sendall(f"POST {target} HTTP/1.1\r\n".encode())
        client.sendall(b"Host: localhost\r\nAuthorization: Token %b\r\n" % bucket.token.encode())
        client.sendall(b"Content-Length: %d\r\n\r\n%b" % (len(POINT), POINT.encode()))
        wait_until(lambda: bucket.query('SELECT trade_id FROM "trades"').height == 1, "the point is written")
        assert_silent(client)
    proxy.mode = "refuse"
    with pytest.raises(ConnectionRefusedError):
        connect()
    proxy.mode = "pass"
    with connect() as client:
        client.sendall(ping)
        assert client.recv(12) == b"HTTP/1.1 204"


def test_a_server_elsewhere_is_broken_on_the_way_to_it(postgres):
    with closing(ExternalPostgres(postgres.url())) as server:
        for end in (server.stop, server.kill):
            end()
            with pytest.raises(RuntimeError, match="Connection refused"):
                server.psql("SELECT 1")
            server.start()
            assert server.psql("SELECT 1") == "1"
        server.pause()
        with socket.create_connection(("127.0.0.1", server.port), timeout=0.3) as client:
            client.sendall(SSL_REQUEST)
            with pytest.raises(TimeoutError):
                client.recv(1)
        server.resume()
        url = server.create_database()
        assert server.psql("SELECT current_database()", url) == url.rpartition("/")[2]
        server.drop_database(url)
