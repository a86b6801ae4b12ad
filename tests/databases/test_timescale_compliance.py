"""The stores of bars in PostgreSQL keep what every store has to keep, with and without TimescaleDB."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import polars as pl
import pytest

from raven.sinks.store import BarKind, BarStore
from tests.databases.bars import made, store_on, stored
from tests.servers.postgres import AnyPostgres
from tests.unit.store_compliance import BarStoreCompliance


class TestCompliance(BarStoreCompliance):
    child = "from tests.databases.bars import store_on\nstore = store_on((where / 'url').read_text(), where)"

    @pytest.fixture(autouse=True)
    def _on(self, server: AnyPostgres) -> Iterator[None]:
        self.server = server
        self.made: set[str] = set()
        yield
        for url in self.made:
            server.drop_database(url)

    def make(self, where: Path, kind: BarKind) -> BarStore:
        return store_on(self.url(where), where, kind)

    def stored_bars(self, where: Path, kind: BarKind) -> pl.DataFrame:
        return stored(self.url(where), kind)

    def url(self, where: Path) -> str:
        url = made(self.server, where)
        self.made.add(url)
        return url

    def spawn(self, where, loop):
        self.url(where)
        return super().spawn(where, loop)
