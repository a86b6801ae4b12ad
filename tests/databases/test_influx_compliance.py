"""The InfluxDB store passes the suite of all stores of trades, on a real server."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import polars as pl
import pytest

from raven.settings import InfluxSettings
from raven.sinks.store import TradeStore
from tests.databases.influx_stores import held, make_store, settings_of
from tests.servers.influx import AnyInflux, Bucket
from tests.unit.store_compliance import TradeStoreCompliance


class TestCompliance(TradeStoreCompliance):
    unstorable = frozenset({"\n\t"})
    child = (
        "import json\n"
        "from raven.settings import InfluxSettings\n"
        "from tests.databases.influx_stores import make_store\n"
        "store = make_store(InfluxSettings(**json.loads((where / 'settings.json').read_text())), where)"
    )

    @pytest.fixture(autouse=True)
    def _server(self, influx: AnyInflux) -> Iterator[None]:
        self.server = influx
        self.buckets: dict[Path, Bucket] = {}
        yield
        for bucket in self.buckets.values():
            influx.delete_bucket(bucket.name)

    def settings(self, where: Path) -> InfluxSettings:
        if where not in self.buckets:
            self.buckets[where] = self.server.create_bucket()
        return settings_of(self.buckets[where])

    def make(self, where: Path) -> TradeStore:
        return make_store(self.settings(where), where)

    def spawn(self, where: Path, loop: str) -> subprocess.Popen[str]:
        given = self.settings(where)
        token = given.token.get_secret_value()
        plain = given.model_dump_json().replace('"**********"', f'"{token}"')
        (where / "settings.json").write_text(plain)
        return super().spawn(where, loop)

    def stored(self, where: Path) -> pl.DataFrame:
        return held(self.settings(where))
