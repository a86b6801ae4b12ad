"""What `raven doctor` says of the databases, on real ones."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from adbc_driver_postgresql import dbapi

from raven.cli.checks.finding import Check, Finding, Level, run_checks
from raven.cli.checks.stores import stores
from raven.settings import Settings, load
from raven.sinks.stores import What
from tests.databases.bars import read
from tests.servers.influx import AnyInflux, Bucket
from tests.servers.postgres import AnyPostgres
from tests.unit.test_binance_endpoints import closed_port


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("RUN_MODE", raising=False)


def look(settings: Settings, what: What) -> Finding:
    """The one finding, as the command comes to it: in bounded time."""
    found = run_checks([Check("store", lambda: stores(settings, what))])
    assert len(found) == 1, found
    return found[0]


class TestInflux:
    def look(self, place: Bucket, **changes: Any) -> Finding:
        given = {"url": place.url, "token": place.token, "org": place.org, "bucket": place.name}
        return look(load(influx=given | changes), "trades")

    def test_one_that_takes_trades_is_left_as_it_was(self, bucket: Bucket, tmp_path: Path) -> None:
        finding = self.look(bucket)
        assert finding.level is Level.OK, finding
        assert finding.found == f"{bucket.url} takes trades into the bucket {bucket.name}"
        assert bucket.query("SELECT * FROM trades").is_empty()
        assert list(tmp_path.iterdir()) == []

    def test_a_wrong_token(self, bucket: Bucket) -> None:
        finding = self.look(bucket, token="wrong")
        assert finding.level is Level.FAILED
        assert "influx.token" in finding.fix

    def test_a_bucket_that_there_is_not(self, bucket: Bucket) -> None:
        finding = self.look(bucket, bucket="nowhere")
        assert finding.level is Level.FAILED
        assert "make the bucket" in finding.fix

    def test_a_server_that_there_is_not(self, bucket: Bucket) -> None:
        finding = self.look(bucket, url=f"http://127.0.0.1:{closed_port()}")
        assert finding.level is Level.FAILED
        assert "refused" in finding.found

    def test_a_server_that_hangs(self, own_influx: Callable[..., AnyInflux]) -> None:
        server = own_influx()
        bucket = server.create_bucket()
        server.pause()
        try:
            finding = self.look(bucket)
        finally:
            server.resume()
        assert finding.level is Level.FAILED
        assert "timed out" in finding.found


class TestTimescale:
    def look(self, url: str) -> Finding:
        return look(load(timescale={"url": url}), "bars")

    def test_one_that_takes_bars(self, url: str) -> None:
        finding = self.look(url)
        assert finding.level is Level.OK, finding
        extension = "SELECT 1 AS one FROM pg_extension WHERE extname = 'timescaledb'"
        wanted = "no TimescaleDB" if read(url, extension).is_empty() else ", TimescaleDB 2."
        assert wanted in finding.found
        assert "tables of version 1" in finding.found

    def test_tables_that_are_not_there(self, empty: str) -> None:
        finding = self.look(empty)
        assert finding.level is Level.FAILED
        assert "raven init-db" in finding.fix
        assert read(empty, "SELECT tablename FROM pg_tables WHERE schemaname = 'public'").is_empty()

    def test_a_table_of_somebody_else(self, url: str) -> None:
        with dbapi.connect(url, autocommit=True) as connection, connection.cursor() as cursor:
            cursor.execute("ALTER TABLE tick_imbalance_bars DROP COLUMN theta")
        finding = self.look(url)
        assert finding.level is Level.FAILED
        assert "theta is missing" in finding.found

    def test_a_database_that_there_is_not(self, server: AnyPostgres) -> None:
        finding = self.look(server.url("nowhere"))
        assert finding.level is Level.FAILED
        assert "create the database" in finding.fix

    def test_a_wrong_password_shows_neither(self, server: AnyPostgres) -> None:
        scheme, _, rest = server.url().partition("://")
        user, _, place = rest.rpartition("@")
        finding = self.look(f"{scheme}://{user.partition(':')[0]}:wr0ng@{place}")
        assert finding.level is Level.FAILED
        assert "the right password" in finding.fix
        assert "wr0ng" not in f"{finding}"

    def test_a_server_that_hangs(self, own_postgres: Callable[..., AnyPostgres]) -> None:
        server = own_postgres()
        server.pause()
        try:
            finding = self.look(server.url())
        finally:
            server.resume()
        assert finding.level is Level.FAILED
        assert "timeout" in finding.found or "no answer" in finding.found
