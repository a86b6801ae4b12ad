"""Fixtures of the real servers; tests/servers/__init__.py lists them."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from tests.servers.external import ExternalInflux, ExternalPostgres
from tests.servers.influx import AnyInflux, Bucket, Influx
from tests.servers.install import has_debian, has_docker, install
from tests.servers.postgres import AnyPostgres, Postgres
from tests.servers.proxy import Proxy


def _postgres(*, timescale: bool = True, **options: object) -> AnyPostgres:
    """A new PostgreSQL server, or the given one behind a new proxy; skips (fails in CI) where there is none."""
    url = os.environ.get("RAVEN_TEST_POSTGRES_URL" if timescale else "RAVEN_TEST_PLAIN_POSTGRES_URL")
    if url:
        return ExternalPostgres(url)
    _require_servers()
    if has_debian():
        return Postgres(timescale=timescale, **options)  # type: ignore[arg-type]
    return ExternalPostgres(f"postgresql://raven:raven-tests@127.0.0.1:{18432 if timescale else 18433}/postgres")


def _influx(**options: object) -> AnyInflux:
    """A new InfluxDB, or the given one behind a new proxy; skips (fails in CI) where there is none."""
    url, *rest = (os.environ.get(f"RAVEN_TEST_INFLUX_{name}", "") for name in ("URL", "TOKEN", "ORG", "BUCKET"))
    if url:
        return ExternalInflux(url, *rest)
    _require_servers()
    if has_debian():
        return Influx(**options)  # type: ignore[arg-type]
    return ExternalInflux("http://127.0.0.1:18086", "raven-tests", "raven", "raven")


def _require_servers() -> None:
    message = install()
    if not has_debian() and not has_docker():
        if os.environ.get("CI") == "true":
            pytest.fail(message)
        pytest.skip(message)


@pytest.fixture(scope="session")
def postgres() -> Iterator[AnyPostgres]:
    """TimescaleDB on PostgreSQL, for everybody."""
    server = _postgres()
    yield server
    server.close()


@pytest.fixture(scope="session")
def plain_postgres() -> Iterator[AnyPostgres]:
    """PostgreSQL without TimescaleDB, for everybody."""
    server = _postgres(timescale=False)
    yield server
    server.close()


@pytest.fixture(scope="session")
def influx() -> Iterator[AnyInflux]:
    """InfluxDB, for everybody."""
    server = _influx()
    yield server
    server.close()


@pytest.fixture
def database(postgres: AnyPostgres) -> Iterator[str]:
    """The URL of an empty database, in which the extension is not yet created."""
    url = postgres.create_database()
    yield url
    postgres.drop_database(url)


@pytest.fixture
def bucket(influx: AnyInflux) -> Iterator[Bucket]:
    """An empty bucket."""
    made = influx.create_bucket()
    yield made
    influx.delete_bucket(made.name)


@pytest.fixture
def own_postgres() -> Iterator[Callable[..., AnyPostgres]]:
    """Makes servers of the test's own: `own_postgres(timescale=True, disk_mb=4096)`, ended with it."""
    with ExitStack() as servers:

        def make(**options: object) -> AnyPostgres:
            server = _postgres(**options)  # type: ignore[arg-type]
            servers.callback(server.close)
            return server

        yield make


@pytest.fixture
def own_influx() -> Iterator[Callable[..., AnyInflux]]:
    """Makes servers of the test's own: `own_influx(disk_mb=4096, max_body_bytes=0)`, ended with it."""
    with ExitStack() as servers:

        def make(**options: object) -> AnyInflux:
            server = _influx(**options)
            servers.callback(server.close)
            return server

        yield make


@pytest.fixture
def own_proxy() -> Iterator[Callable[[int], Proxy]]:
    """Makes proxies before a port of this machine, `own_proxy(server.port)`, which end with the test."""
    with ExitStack() as proxies:

        def make(port: int) -> Proxy:
            proxy = Proxy("127.0.0.1", port)
            proxies.callback(proxy.close)
            return proxy

        yield make
