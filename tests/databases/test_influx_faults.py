"""What goes wrong between the store and InfluxDB, and what the store makes of it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import polars as pl
import pytest
import trustme
from polars.testing import assert_frame_equal

from raven.batches.batch import Cursor
from raven.sinks.dead_letters import FOLDER, DeadLetters
from raven.sinks.influx import InfluxTradeStore, scan_trades
from raven.sinks.influx.delivery import MOST_REFUSED_ROWS
from raven.sinks.refusals import MOST_IN_A_ROW
from raven.sinks.store import StoreRefusedError, StoreUnavailableError, TradeFlush, WriteResult
from tests.databases.front import Front, Reply
from tests.databases.influx_stores import held, letters_in, make_store, settings_of
from tests.servers.influx import AnyInflux, Bucket
from tests.unit.store_compliance import SPOT, as_stored, some_trades

Opened = Callable[..., InfluxTradeStore]


@pytest.fixture
def front(bucket: Bucket) -> Iterator[Front]:
    made = Front(bucket.url)
    yield made
    made.close()


@contextmanager
def opened(bucket: Bucket, where: Path, **changes: object) -> Iterator[InfluxTradeStore]:
    store = make_store(settings_of(bucket, **changes), where)
    store.open()
    try:
        yield store
    finally:
        store.close()


@contextmanager
def opened_behind(front: Front, bucket: Bucket, where: Path, **changes: object) -> Iterator[InfluxTradeStore]:
    with opened(bucket, where, url=front.url, **changes) as store:
        front.requests.clear()
        yield store


@pytest.fixture
def fronted(bucket: Bucket, front: Front, tmp_path: Path) -> Iterator[InfluxTradeStore]:
    """A store behind `front`, open."""
    with opened_behind(front, bucket, tmp_path) as store:
        yield store


def assert_held(bucket: Bucket, *expected: pl.DataFrame) -> None:
    wanted = as_stored(SPOT, pl.concat(expected))
    found = held(settings_of(bucket)).sort("venue", "symbol", "trade_id")
    assert_frame_equal(found.select(wanted.columns), wanted, check_exact=True)


def flush(trades: pl.DataFrame, sequence: int = 1) -> TradeFlush:
    return TradeFlush([(SPOT, trades)], {"up": Cursor("j", sequence)})


def spoil(bucket: Bucket, day: str) -> None:
    """Let a day's shard hold `price` as an integer: a trade of that day is a field type conflict from now on."""
    time_ns = int(pl.select(pl.lit(day).str.to_datetime(time_unit="ns")).item().timestamp()) * 10**9
    assert bucket.write(f"trades,venue=X,symbol=X,side=buy price=1i {time_ns}\n")[0] == 204


# rows


def test_one_bad_row_in_ten_thousand_is_one_dead_letter(bucket: Bucket, front: Front, tmp_path: Path) -> None:
    trades = some_trades("BTCUSDT", 0, 10_000)
    bad = pl.lit("2025-01-15T12:00:00").str.to_datetime(time_unit="us", time_zone="UTC")
    trades = trades.with_columns(ts_event=pl.when(pl.col("trade_id") == 7_777).then(bad).otherwise("ts_event"))
    spoil(bucket, "2025-01-15T00:00:00")
    with opened(bucket, tmp_path, url=front.url) as store:
        assert store.write(flush(trades)) == WriteResult(rows=9_999, dead=1)
        assert store.rows() == 9_999
        assert store.position("up") == Cursor("j", 1)
        assert len(front.requests) < 40
        letters = letters_in(tmp_path)
        assert letters["trade_id"].to_list() == [7_777]
        assert "field type conflict" in letters["reason"].item()
        assert "(HTTP 4" in letters["reason"].item()
        good = trades.filter(pl.col("trade_id") != 7_777)
        found = bucket.query("SELECT trade_id, quantity FROM trades WHERE venue = 'BINANCE_SPOT'")
        assert found["trade_id"].to_list() == good["trade_id"].to_list()
        assert found["quantity"].to_list() == good["quantity"].to_list()

        # sent again while the fault lasts, and when it is mended
        (letter,) = DeadLetters(tmp_path / FOLDER).read()
        another = make_store(settings_of(bucket), tmp_path)  # not open, as that of `raven deadletters --resend`
        (refusal,) = another.resend(letter.rows)
        assert refusal.row == 0
        assert "field type conflict" in refusal.reason
        bucket.clear()
        assert another.resend(letter.rows) == []
        another.close()
    assert_held(bucket, trades.filter(pl.col("trade_id") == 7_777))


def test_rows_that_lines_cannot_hold_never_reach_the_server(
    fronted: InfluxTradeStore, bucket: Bucket, front: Front, tmp_path: Path
) -> None:
    good = some_trades("BTCUSDT", 0, 50)
    odd = [some_trades(symbol, 0, 2) for symbol in ("A\\", "A\\,B", "A\\ B", "A\\=B", "A\nB", "A\tB", "")]
    infinite = some_trades("ETHUSDT", 0, 3).with_columns(price=pl.lit(float("inf")))
    nan = some_trades("LTCUSDT", 0, 3).with_columns(quantity=pl.lit(float("nan")))
    assert fronted.write(flush(pl.concat([*odd, infinite, good, nan]))) == WriteResult(rows=50, dead=20)
    assert len(front.requests) == 1
    assert_held(bucket, good)
    letters = letters_in(tmp_path)
    assert letters.height == 20
    assert letters["reason"].str.starts_with("InfluxDB holds no").all()
    assert fronted.write(flush(pl.concat([*odd, infinite, good, nan]))) == WriteResult(duplicates=70)


def test_bad_rows_are_found_in_whatever_request_they_lie(bucket: Bucket, front: Front, tmp_path: Path) -> None:
    trades = some_trades("BTCUSDT", 0, 2_000)
    bad = [0, 1, 99, 100, 1_234, 1_999]
    names = [f"trade_id={number}i".encode() for number in bad]
    front.judge = lambda request: (
        Reply(400, '{"message":"bad line"}') if any(name in request.body for name in names) else None
    )
    with opened_behind(front, bucket, tmp_path, request_rows=100) as store:
        assert store.write(flush(trades)) == WriteResult(rows=1_994, dead=6)
    assert letters_in(tmp_path)["trade_id"].to_list() == bad
    assert_held(bucket, trades.filter(~pl.col("trade_id").is_in(bad)))


def test_a_quiet_market_does_not_turn_a_fault_of_the_bucket_into_dead_letters(
    fronted: InfluxTradeStore, bucket: Bucket, tmp_path: Path
) -> None:
    trades = some_trades("BTCUSDT", 0, 30)
    spoil(bucket, "2024-08-09T00:00:00")
    for row in range(MOST_IN_A_ROW):
        assert fronted.write(flush(trades[row : row + 1], row)).dead == 1
    for _ in range(2):
        with pytest.raises(StoreRefusedError, match=r"every row is refused: .*field type conflict.*mend the bucket"):
            fronted.write(flush(trades[MOST_IN_A_ROW : MOST_IN_A_ROW + 1], 99))
    assert fronted.position("up") == Cursor("j", MOST_IN_A_ROW - 1)
    bucket.clear()
    assert fronted.write(flush(trades[MOST_IN_A_ROW:], 99)).rows == 30 - MOST_IN_A_ROW
    for letters in DeadLetters(tmp_path / FOLDER).read():
        assert fronted.resend(letters.rows) == []
    assert_held(bucket, trades)


@pytest.mark.parametrize("blocked", ["dead_letters", "influx-trades.json.new"])
def test_a_refused_row_that_cannot_be_noted_for_a_while_is_no_fault_of_the_bucket(
    fronted: InfluxTradeStore, bucket: Bucket, tmp_path: Path, blocked: str
) -> None:
    spoil(bucket, "2024-08-09T00:00:00")
    obstacle = tmp_path / blocked
    obstacle.mkdir() if blocked.endswith(".new") else obstacle.touch()
    for _ in range(MOST_IN_A_ROW + 2):
        with pytest.raises(StoreUnavailableError, match=r"cannot be kept|cannot be written"):
            fronted.write(flush(some_trades("BTCUSDT", 0, 1)))
    obstacle.rmdir() if blocked.endswith(".new") else obstacle.unlink()
    assert fronted.write(flush(some_trades("BTCUSDT", 0, 1))) == WriteResult(dead=1)
    assert letters_in(tmp_path).height == 1
    assert fronted.position("up") is not None


def test_so_many_refused_rows_are_a_fault_of_the_bucket(
    fronted: InfluxTradeStore, bucket: Bucket, front: Front, tmp_path: Path
) -> None:
    trades = some_trades("BTCUSDT", 0, 5_000)
    spoil(bucket, "2024-08-09T00:00:00")
    for _ in range(2):
        with pytest.raises(StoreRefusedError, match=r"more than 100 rows .* field type conflict"):
            fronted.write(flush(trades))
    assert len(front.requests) == 2  # the server's own count spares the search
    assert not DeadLetters(tmp_path / FOLDER).read()
    assert fronted.position("up") is None
    bucket.clear()
    assert fronted.write(flush(trades)).rows == 5_000
    assert_held(bucket, trades)


def test_so_many_are_found_where_the_server_does_not_count(fronted: InfluxTradeStore, front: Front) -> None:
    front.judge = lambda _: Reply(400, '{"code":"invalid","message":"unable to parse"}')
    with pytest.raises(StoreRefusedError, match=r"more than 100 rows .* unable to parse"):
        fronted.write(flush(some_trades("BTCUSDT", 0, 2_000)))
    assert len(front.requests) < 3 * MOST_REFUSED_ROWS


# the token, the bucket, the server


def test_a_wrong_token_is_one_clear_error_and_no_search(own_influx: Callable[..., AnyInflux], tmp_path: Path) -> None:
    server = own_influx()
    bucket = server.create_bucket()
    front = Front(server.url)
    trades = some_trades("BTCUSDT", 0, 1_000)
    try:
        with opened_behind(front, bucket, tmp_path, request_rows=100) as store:
            right = server.token
            server.set_token("another")
            for tries in (1, 2):
                with pytest.raises(StoreRefusedError, match=r"unauthorized.*401.*influx\.token"):
                    store.write(flush(trades))
                assert len(front.requests) == tries
            with pytest.raises(StoreRefusedError, match="401"):
                make_store(settings_of(bucket, token="wrong"), tmp_path / "other").open()
            server.set_token(right)
            assert store.write(flush(trades)).rows == 1_000
        assert_held(bucket, trades)
        assert not DeadLetters(tmp_path / FOLDER).read()
    finally:
        front.close()


def test_a_missing_bucket_is_a_clear_error_until_it_is_made(influx: AnyInflux, bucket: Bucket, tmp_path: Path) -> None:
    store = make_store(settings_of(bucket, bucket=f"{bucket.name}_missing"), tmp_path)
    with pytest.raises(StoreRefusedError, match=r"not found.*404.*influx\.bucket"):
        store.open()
    made = influx.create_bucket(f"{bucket.name}_missing")
    try:
        store.open()
        store.write(flush(some_trades("BTCUSDT", 0, 5)))
        influx.delete_bucket(made.name)
        with pytest.raises(StoreRefusedError, match=r"not found.*404"):
            store.write(flush(some_trades("BTCUSDT", 5, 5), 2))
        influx.create_bucket(made.name)
        assert store.write(flush(some_trades("BTCUSDT", 5, 5), 2)).rows == 5
        assert_held(made, some_trades("BTCUSDT", 5, 5))
    finally:
        store.close()
        influx.delete_bucket(made.name)


def test_the_probe_leaves_nothing_behind(bucket: Bucket, tmp_path: Path) -> None:
    with opened(bucket, tmp_path):
        assert bucket.query("SHOW MEASUREMENTS").is_empty()


def test_a_probe_that_must_hold_points_is_passed(bucket: Bucket, front: Front, tmp_path: Path) -> None:
    front.replies.append(Reply(400, '{"code":"invalid","message":"writing requires points"}'))
    with opened(bucket, tmp_path, url=front.url) as store:
        assert store.write(flush(some_trades("BTCUSDT", 0, 5))).rows == 5


def test_what_is_no_influxdb_is_told(bucket: Bucket, front: Front, tmp_path: Path) -> None:
    store = make_store(settings_of(bucket, url=front.url), tmp_path)
    for reply in (Reply(200, "<html>a page</html>"), Reply(302, "", {"Location": "/login"}), Reply(405, "no")):
        front.replies.append(reply)
        with pytest.raises(StoreRefusedError, match=rf"HTTP {reply.status}.*influx\.url"):
            store.open()


def test_a_server_that_refuses_hangs_and_comes_back(own_influx: Callable[..., AnyInflux], tmp_path: Path) -> None:
    server = own_influx()
    bucket = server.create_bucket()
    parts = [some_trades("BTCUSDT", first, 100) for first in range(0, 400, 100)]
    with opened(bucket, tmp_path, timeout_s=1.0) as store:
        store.write(flush(parts[0]))
        server.kill()
        with pytest.raises(StoreUnavailableError, match="does not answer") as refused:
            store.write(flush(parts[1], 2))
        assert not isinstance(refused.value, StoreRefusedError)
        with pytest.raises(StoreUnavailableError, match="does not answer"):
            make_store(settings_of(bucket), tmp_path / "other").open()
        server.start()
        store.write(flush(parts[1], 2))
        server.pause()
        began = time.monotonic()
        with pytest.raises(StoreUnavailableError, match="does not answer within"):
            store.write(flush(parts[2], 3))
        assert time.monotonic() - began < 10
        server.resume()
        store.write(flush(parts[2], 3))
        server.restart()
        store.write(flush(parts[3], 4))
        assert store.position("up") == Cursor("j", 4)
    assert_held(bucket, *parts)


def test_a_full_disk_is_said_in_words(own_influx: Callable[..., AnyInflux], tmp_path: Path) -> None:
    server = own_influx(disk_mb=64)
    bucket = server.create_bucket()
    with opened(bucket, tmp_path) as store:
        store.write(flush(some_trades("BTCUSDT", 0, 100)))
        server.fill_disk()
        sequence = 1
        with pytest.raises(StoreUnavailableError, match=r"no space left.*free some space"):  # noqa: PT012
            while sequence < 10_000:
                sequence += 1
                store.write(flush(some_trades("BTCUSDT", sequence * 100, 100), sequence))
        assert store.position("up") == Cursor("j", sequence - 1)
        server.free_disk()
        server.restart()
        assert store.write(flush(some_trades("BTCUSDT", sequence * 100, 100), sequence)).rows == 100
    assert held(settings_of(bucket)).height == store.rows()


# answers of a server under load, or of what stands before it


def test_429_says_how_long_it_wants_to_be_left_alone(fronted: InfluxTradeStore, bucket: Bucket, front: Front) -> None:
    trades = some_trades("BTCUSDT", 0, 100)
    front.replies.append(Reply(429, '{"code":"too many requests","message":"slow down"}', {"Retry-After": "17"}))
    with pytest.raises(StoreUnavailableError, match="slow down") as error:
        fronted.write(flush(trades))
    assert error.value.retry_after_s == 17
    assert not isinstance(error.value, StoreRefusedError)
    assert len(front.requests) == 1
    assert fronted.write(flush(trades)).rows == 100
    assert_held(bucket, trades)


@pytest.mark.parametrize("status", [500, 502, 503, 504, 408])
def test_a_passing_fault_is_tried_again(fronted: InfluxTradeStore, bucket: Bucket, front: Front, status: int) -> None:
    trades = some_trades("BTCUSDT", 0, 100)
    front.replies.append(Reply(status, "<html>gateway</html>"))
    with pytest.raises(StoreUnavailableError, match=f"HTTP {status}") as error:
        fronted.write(flush(trades))
    assert not isinstance(error.value, StoreRefusedError)
    assert fronted.write(flush(trades)).rows == 100
    assert_held(bucket, trades)


def test_a_request_too_large_is_halved(own_influx: Callable[..., AnyInflux], tmp_path: Path) -> None:
    server = own_influx(max_body_bytes=20_000)
    bucket = server.create_bucket()
    trades = some_trades("BTCUSDT", 0, 10_000)
    with opened(bucket, tmp_path) as store:
        assert store.write(flush(trades)) == WriteResult(rows=10_000)
    assert_held(bucket, trades)


def test_trades_beyond_the_retention_are_counted_and_the_others_stored(influx: AnyInflux, tmp_path: Path) -> None:
    bucket = influx.create_bucket(retention_s=7 * 86_400)
    now_us = int(time.time() * 1e6)
    young = some_trades("BTCUSDT", 1_000, 50, start_us=now_us - 3_600_000_000)
    old = some_trades("BTCUSDT", 0, 30)
    try:
        with opened(bucket, tmp_path) as store:
            both = pl.concat([old, young])
            assert store.write(flush(both)) == WriteResult(rows=50, dropped=30)
            assert store.write(flush(both, 2)) == WriteResult(duplicates=80)
            assert [refusal.row for refusal in store.resend(as_stored(SPOT, both).select(_columns()))] == list(
                range(30)
            )
        assert_held(bucket, young)
        assert not DeadLetters(tmp_path / FOLDER).read()
    finally:
        influx.delete_bucket(bucket.name)


def test_422_with_a_count_and_without(fronted: InfluxTradeStore, bucket: Bucket, front: Front) -> None:
    said = "partial write: dropped 4 points outside retention policy of duration 1h0m0s dropped=4"
    front.replies.append(Reply(422, f'{{"code":"unprocessable entity","message":"{said}"}}'))
    assert fronted.write(flush(some_trades("BTCUSDT", 0, 10))) == WriteResult(rows=6, dropped=4)
    old = [f"trade_id={number}i".encode() for number in range(10, 14)]
    front.judge = lambda request: (
        Reply(422, '{"message":"points beyond retention policy"}') if any(one in request.body for one in old) else None
    )
    assert fronted.write(flush(some_trades("BTCUSDT", 10, 10), 2)) == WriteResult(rows=6, dropped=4)
    assert bucket.query("SELECT count(trade_id) FROM trades")["count"].to_list() == [6]


def test_tls_spoken_to_a_plain_port_is_a_matter_of_settings(bucket: Bucket, tmp_path: Path) -> None:
    store = make_store(settings_of(bucket, url=bucket.url.replace("http://", "https://")), tmp_path)
    with pytest.raises(StoreRefusedError, match=r"does not answer.*influx\.url"):
        store.open()


def test_certificates_are_checked_as_the_settings_say(bucket: Bucket, tmp_path: Path) -> None:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    front = Front(bucket.url, authority.issue_cert("127.0.0.1"))
    try:
        with pytest.raises(StoreRefusedError, match=r"certificate verify failed.*influx\.tls_ca"):
            make_store(settings_of(bucket, url=front.url), tmp_path).open()
        missing = settings_of(bucket, url=front.url, tls_ca=str(tmp_path / "none.pem"))
        with pytest.raises(StoreRefusedError, match=r"none\.pem"):
            make_store(missing, tmp_path).open()
        for number, trusting in enumerate(({"tls_ca": str(tmp_path / "ca.pem")}, {"verify_tls": False})):
            with opened(bucket, tmp_path, url=front.url, **trusting) as store:
                assert store.write(flush(some_trades("BTCUSDT", number * 5, 5))).rows == 5
            assert scan_trades(settings_of(bucket, url=front.url, **trusting)).collect().height == (number + 1) * 5
    finally:
        front.close()


def _columns() -> list[str]:
    return ["venue", "symbol", "trade_id", "ts_event", "ts_recv", "price", "quantity", "side", "origin"]


@pytest.mark.parametrize("count", [1_000, 10_000])
def test_a_replay_of_old_trades_is_settled_in_a_few_requests(influx: AnyInflux, tmp_path: Path, count: int) -> None:
    bucket = influx.create_bucket(retention_s=30 * 86_400)
    front = Front(bucket.url)
    try:
        with opened(bucket, tmp_path, url=front.url) as store:
            began = len(front.requests)
            assert store.write(flush(some_trades("BTCUSDT", 0, count))) == WriteResult(dropped=count)
            assert len(front.requests) - began <= 5
        assert not DeadLetters(tmp_path / FOLDER).read()
    finally:
        front.close()
        influx.delete_bucket(bucket.name)
