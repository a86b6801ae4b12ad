"""Databases for the tests of bars: each runs on TimescaleDB and on plain PostgreSQL."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.databases.bars import made
from tests.servers.postgres import AnyPostgres


@pytest.fixture(params=["timescaledb", "plain"])
def server(request: pytest.FixtureRequest) -> AnyPostgres:
    """A server of either sort, for everybody."""
    name = "postgres" if request.param == "timescaledb" else "plain_postgres"
    return request.getfixturevalue(name)  # type: ignore[no-any-return]


@pytest.fixture
def empty(server: AnyPostgres) -> Iterator[str]:
    """The URL of a database without tables."""
    url = server.create_database()
    yield url
    server.drop_database(url)


@pytest.fixture
def url(server: AnyPostgres, tmp_path: Path) -> Iterator[str]:
    """The URL of a database with empty tables."""
    url = made(server, tmp_path)
    yield url
    server.drop_database(url)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """All of this folder waits for servers: it runs beside what else is slow."""
    for item in items:
        if item.path.is_relative_to(Path(__file__).parent):
            item.add_marker(pytest.mark.slow)
