"""Which requests a flush takes, what is told of them, and those under way when the process is to end."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

import polars as pl
import pytest

from raven.batches.batch import Cursor
from raven.settings import InfluxSettings
from raven.sinks.dead_letters import DeadLetters
from raven.sinks.encode import encode_trades
from raven.sinks.influx import InfluxTradeStore
from raven.sinks.influx.delivery import Delivery, deliver
from raven.sinks.influx.lines import POINT_NS
from raven.sinks.influx.responses import Answer
from raven.sinks.store import StoreUnavailableError, TradeFlush, WriteResult
from tests.unit.influx_answers import RETENTION
from tests.unit.samples import trades

PROGRAM = """
import time
from raven.sinks.encode import encode_trades
from raven.sinks.influx.delivery import deliver
from raven.sinks.influx.responses import Answer
from raven.sinks.store import TradeFlush
from raven.tasks import OneThread
from tests.unit.samples import trades

asked = []

def write(lines):
    asked.append(lines)
    time.sleep(0 if len(asked) == 1 else 600)
    return Answer(204)

rows = encode_trades(TradeFlush([("BINANCE_SPOT", trades(range(100)))]))
OneThread("store").submit(lambda: list(deliver(rows, write, request_rows=10, request_bytes=10_000)))
while len(asked) < 3:
    time.sleep(0.01)
"""


@pytest.mark.slow
def test_a_server_that_hangs_holds_up_no_exit() -> None:
    subprocess.run([sys.executable, "-c", PROGRAM], check=True, timeout=60)


class Server:
    """Answers as an InfluxDB of a version does whose bucket keeps points from `keeps_ns` on; `bad` are ids it refuses."""

    def __init__(self, said: Callable[[int], Answer], *, keeps_ns: int = 0, bad: frozenset[int] = frozenset()) -> None:
        self.said, self.keeps_ns, self.bad = said, keeps_ns, bad
        self.requests = 0
        self.held: set[int] = set()

    def write(self, lines: memoryview) -> Answer:
        self.requests += 1
        points = [
            (int(line.split(b"trade_id=")[1].split(b"i")[0]), int(line.split()[-1]))
            for line in bytes(lines).splitlines()
        ]
        wrong = [trade_id for trade_id, _ in points if trade_id in self.bad]
        if wrong:
            return Answer(400, b'{"code":"invalid","message":"unable to parse it"}')
        kept = {trade_id for trade_id, time_ns in points if time_ns >= self.keeps_ns}
        self.held |= kept
        return self.said(len(points) - len(kept)) if len(kept) < len(points) else Answer(204)


def rows_of(count: int) -> pl.DataFrame:
    """Trades of two symbols in turn, so that they do not lie in the order of time."""
    both = [trades(range(first, count, 2), symbol) for first, symbol in ((0, "ZZZUSDT"), (1, "AAAUSDT"))]
    return encode_trades(TradeFlush([("BINANCE_SPOT", rows) for rows in both]))


def time_ns_of(rows: pl.DataFrame, trade_id: int) -> int:
    return rows.filter(trade_id=trade_id).select(POINT_NS).item()


def total(parts: Iterable[Delivery]) -> Delivery:
    done = Delivery()
    for part in parts:
        done.add(part)
    return done


@pytest.mark.parametrize("version", list(RETENTION))
@pytest.mark.parametrize(("count", "old"), [(1_000, 1_000), (10_000, 10_000), (10_000, 3_217), (25_000, 1)])
def test_rows_too_old_are_counted_exactly_in_a_few_requests(version: str, count: int, old: int) -> None:
    rows = rows_of(count)
    keeps_ns = time_ns_of(rows, old) if old < count else 2**62
    server = Server(RETENTION[version], keeps_ns=keeps_ns)
    done = total(deliver(rows, server.write, request_rows=10_000, request_bytes=2**22))
    assert (done.rows, done.too_old, done.refused) == (count, old, [])
    assert server.requests <= 5
    assert server.held == set(range(old, count))


@pytest.mark.parametrize(("count", "old"), [(1_000, 1_000), (10_000, 10_000), (10_000, 3_217), (10_000, 1)])
def test_a_server_that_does_not_count_is_asked_by_halves(count: int, old: int) -> None:
    rows = rows_of(count)
    keeps_ns = time_ns_of(rows, old) if old < count else 2**62
    server = Server(lambda _: Answer(422, b'{"message":"points beyond retention policy"}'), keeps_ns=keeps_ns)
    told: list[dict[str, int]] = []
    done = total(
        deliver(
            rows,
            server.write,
            request_rows=10_000,
            request_bytes=2**22,
            report=lambda _, **numbers: told.append(numbers),
        )
    )
    assert done.too_old == old
    assert server.requests <= 16
    assert server.held == set(range(old, count))
    assert told[0].keys() == {"settled", "of", "requests"}
    assert told[0]["of"] == count


def test_bad_rows_among_rows_too_old() -> None:
    rows = rows_of(10_000)
    bad = frozenset({17, 4_000, 9_998})
    server = Server(RETENTION["2.7.12"], keeps_ns=time_ns_of(rows, 5_000), bad=bad)
    done = total(deliver(rows, server.write, request_rows=10_000, request_bytes=2**22))
    assert sorted(rows["trade_id"][one.row] for one in done.refused) == sorted(bad)
    assert done.too_old == 5_000 - 2
    assert server.held == set(range(5_000, 10_000)) - bad
    assert done.is_search


def test_what_a_search_has_settled_is_not_done_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = InfluxTradeStore(
        InfluxSettings(url="http://127.0.0.1:1", token="t", org="o", bucket="b", request_rows=1_000),
        tmp_path, dead_letters=DeadLetters(tmp_path / "dead"),
    )  # fmt: skip
    server = Server(RETENTION["2.7.12"], bad=frozenset({3, 500, 2_500}))
    monkeypatch.setattr(store._client, "write", server.write)
    flush = TradeFlush([("BINANCE_SPOT", trades(range(5_000)))], {"up": Cursor("j", 1)})
    refusing, server.said = server.write, RETENTION["2.7.12"]
    asked = 0

    def write_and_fail(lines: memoryview) -> Answer:
        nonlocal asked
        asked += b"trade_id=4000i" in bytes(lines)
        return Answer(503) if asked else refusing(lines)

    monkeypatch.setattr(store._client, "write", write_and_fail)
    with pytest.raises(StoreUnavailableError):
        store.write(flush)
    assert store.last_ids("BINANCE_SPOT", ["BTCUSDT"]) == {"BTCUSDT": 2_999}
    assert store.position("up") is None
    monkeypatch.setattr(store._client, "write", server.write)
    server.requests = 0
    assert store.write(flush) == WriteResult(rows=4_997, dead=3)
    assert server.requests == 2
    assert store.position("up") == Cursor("j", 1)
    assert sum(one.rows.height for one in DeadLetters(tmp_path / "dead").read()) == 3
    assert server.held == set(range(5_000)) - server.bad
    store.close()
