"""Under what name a bucket is read, and what is said where it cannot be."""

from __future__ import annotations

import json
from pathlib import Path
from urllib.parse import parse_qsl, urlencode, urlsplit

import pytest

from raven.batches.batch import Cursor
from raven.cli.checks import stores as checks
from raven.cli.checks.finding import Level
from raven.errors import StoreError
from raven.settings import Settings
from raven.sinks.influx import scan_trades
from raven.sinks.store import TradeFlush
from tests.databases.front import Front, Reply, Request
from tests.databases.influx_stores import make_store, settings_of
from tests.servers.influx import Bucket
from tests.unit.store_compliance import SPOT, some_trades

UNKNOWN = Reply(
    200, '{"results":[{"statement_id":0,"error":"database not found: x"}]}', {"Content-Type": "application/json"}
)
BUCKET_ID = "91040e1bf6671dfd"


class Mapped(Front):
    """An InfluxDB 2 with one bucket, `mapped` to a database and a policy; `api` is what it tells of its buckets."""

    def __init__(self, bucket: Bucket, mapped: tuple[str, str] | None, api: Reply | None = None) -> None:
        super().__init__(bucket.url)
        self.bucket, self.mapped, self.api = bucket, mapped, api
        self.asked: set[tuple[str, str]] = set()
        self.judge = self._judge
        self.route = self._route

    def _judge(self, request: Request) -> Reply | None:
        path, query = urlsplit(request.path).path, dict(parse_qsl(urlsplit(request.path).query))
        if path.startswith("/api/v2/buckets"):
            return self.api
        if path != "/query":
            return None
        self.asked.add((query["db"], query.get("rp", "")))
        return None if (query["db"], query.get("rp", "")) == self.mapped else UNKNOWN

    def _route(self, path: str) -> str:
        """The engine here knows one database: what is mapped to the bucket is asked of that."""
        place = urlsplit(path)
        query = {name: value for name, value in parse_qsl(place.query) if name != "rp"}
        key = "db" if place.path == "/query" else "bucket"
        return f"{place.path}?{urlencode({**query, key: self.bucket.name})}"


@pytest.fixture
def filled(bucket: Bucket, tmp_path: Path) -> Bucket:
    store = make_store(settings_of(bucket), tmp_path)
    store.open()
    assert store.unreadable == ""
    store.write(TradeFlush([(SPOT, some_trades("BTCUSDT", 0, 10))], {"up": Cursor("j", 1)}))
    store.close()
    return bucket


@pytest.mark.parametrize(
    ("name", "mapped"),
    [
        ("plain", ("plain", "")),
        ("db/autogen", ("db", "autogen")),
        ("a/b/c", ("a", "b/c")),
        ("a/b", ("a/b", "")),  # a mapping of somebody's own, or an InfluxDB 1.x
        ("/a", ("/a", "")),
    ],
)
def test_a_name_with_a_slash_is_a_database_and_a_policy(filled: Bucket, name: str, mapped: tuple[str, str]) -> None:
    front = Mapped(filled, mapped)
    try:
        assert scan_trades(settings_of(filled, url=front.url, bucket=name)).collect().height == 10
        assert mapped in front.asked
    finally:
        front.close()


@pytest.mark.parametrize("name", ["mine", "a/b"])
def test_an_id_is_read_under_the_name_of_its_bucket(filled: Bucket, name: str) -> None:
    database, _, policy = name.partition("/")
    front = Mapped(filled, (database, policy), Reply(200, json.dumps({"id": BUCKET_ID, "name": name})))
    try:
        assert scan_trades(settings_of(filled, url=front.url, bucket=BUCKET_ID)).collect().height == 10
        assert front.asked == {(database, policy)}
    finally:
        front.close()


@pytest.mark.parametrize(
    ("api", "cause", "advice"),
    [
        (Reply(200, '{"buckets":[]}'), "may not read the bucket mine", "the right to read"),
        (
            Reply(404, '{"code":"not found","message":"bucket \\"mine\\" not found"}'),
            "may not read the bucket mine",
            "right",
        ),
        (
            Reply(200, json.dumps({"buckets": [{"id": BUCKET_ID, "name": "mine"}]})),
            "is mapped to no database",
            BUCKET_ID,
        ),
        (Reply(404, '{"code":"not found","message":"path not found"}'), "database not found: x", "influx.bucket"),
        (
            Reply(401, '{"code":"unauthorized","message":"unauthorized access"}'),
            "database not found: x",
            "may influx.token",
        ),
    ],
)
async def test_why_a_bucket_that_is_written_cannot_be_read(
    filled: Bucket, tmp_path: Path, api: Reply, cause: str, advice: str
) -> None:
    front = Mapped(filled, None, api)
    settings = settings_of(filled, url=front.url, bucket="mine")
    try:
        with pytest.raises(StoreError, match=cause) as told:
            scan_trades(settings)
        assert advice in told.value.hint
        store = make_store(settings, tmp_path / "other")
        store.open()
        try:
            assert cause in store.unreadable
            assert store.write(TradeFlush([(SPOT, some_trades("ETHUSDT", 0, 5))])).rows == 5
        finally:
            store.close()
        [finding] = await checks.stores(Settings(data=tmp_path, influx=settings), "trades")
        assert finding.level is Level.WARNING
        assert "takes trades into the bucket mine" in finding.found
        assert cause in finding.found
    finally:
        front.close()
