"""A database that is down, hangs, is full or was changed: the store says what to do and goes on when it is mended."""

from __future__ import annotations

import contextlib
import random
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import polars as pl
import pytest
import trustme
from adbc_driver_postgresql import dbapi

from raven.batches.batch import Cursor
from raven.settings import TimescaleSettings
from raven.sinks.store import BarFlush, StoreRefusedError, StoreUnavailableError, WriteResult
from raven.sinks.timescale import TimescaleBarStore, scan_bars
from raven.sinks.timescale import store as store_module
from raven.sinks.timescale.schema import init_db
from raven.sinks.timescale.session import Session
from tests.databases.bars import read, store_on, stored
from tests.servers.proxy import Proxy
from tests.servers.sandbox import wait_until
from tests.unit.store_compliance import some_bars

PROJECT = Path(__file__).parents[2]
FIRST = BarFlush([some_bars("time_bars", range(10))], {"up": Cursor("j", 1)})
SECOND = BarFlush([some_bars("time_bars", range(5, 15), ticks=7)], {"up": Cursor("j", 2)})
AFTER_BOTH = pl.concat([some_bars("time_bars", range(5)), some_bars("time_bars", range(5, 15), ticks=7)])


@pytest.fixture
def store(url: str, tmp_path: Path) -> Iterator[TimescaleBarStore]:
    """A store that has written FIRST."""
    store = store_on(url, tmp_path, timeout_s=5)
    store.open()
    store.write(FIRST)
    yield store
    store.close()


def assert_goes_on(store: TimescaleBarStore, url: str) -> None:
    """The same object writes SECOND, and all is as if nothing had been."""
    assert store.write(SECOND) == WriteResult(rows=10, replaced=5)
    assert stored(url).equals(AFTER_BOTH)
    assert store.position("up") == Cursor("j", 2)


def refused(store: TimescaleBarStore, kind: type[StoreUnavailableError], said: str, advice: str) -> None:
    """SECOND is refused, and again: with this error and this advice, and without the password."""
    for _ in range(2):
        with pytest.raises(StoreUnavailableError, match=said) as caught:
            store.write(SECOND)
        assert type(caught.value) is kind
        assert advice in caught.value.hint
        assert str(urlsplit(store._url).password) not in str(caught.value)


def test_a_server_that_is_down_is_waited_for(own_postgres, tmp_path):
    server = own_postgres(timescale=False)
    url = server.create_database("raven")
    init_db(url, timeout_s=30)
    store = store_on(url, tmp_path, timeout_s=5)
    server.stop()
    with pytest.raises(StoreUnavailableError, match="refused") as caught:
        store.open()
    assert "is it running" in caught.value.hint
    server.start()
    store.open()
    store.write(FIRST)
    server.stop()
    with pytest.raises(StoreUnavailableError):
        store.write(SECOND)
    refused(store, StoreUnavailableError, "refused", "is it running")
    server.start()
    assert_goes_on(store, url)
    store.close()


@pytest.mark.parametrize("timescale", [True, False])
def test_a_server_killed_again_and_again_in_the_middle_ends_with_the_same_table(own_postgres, tmp_path, timescale):
    server = own_postgres(timescale=timescale)
    url = server.create_database("raven")
    init_db(url, timeout_s=30)
    moments = random.Random(5)
    done = threading.Event()

    def disturb() -> None:
        for _ in range(3):
            time.sleep(moments.uniform(0.1, 0.6))
            server.kill()
            server.start()
        done.set()

    store = store_on(url, tmp_path, timeout_s=5)
    disturber = threading.Thread(target=disturb)
    disturber.start()
    number, failures = 0, 0
    while not done.is_set() or number < 30:
        bars = [some_bars("time_bars", range(number * 500, number * 500 + 1_000), ticks=ticks) for ticks in (1, 2)]
        try:
            store.write(BarFlush([bars[number % 2]], {"up": Cursor("j", number)}))
            number += 1
        except StoreUnavailableError:
            failures += 1
            time.sleep(0.05)
    disturber.join()
    assert failures > 0
    last = number - 1
    assert store.position("up") == Cursor("j", last)
    store.close()
    found = stored(url)
    assert found.height == (last + 2) * 500
    # an odd flush raises its 1,000 bars; the first 500 belong to no odd one, the last perhaps neither
    raised = found.with_row_index("at").filter(total_ticks=2)["at"]
    first_odd, last_odd = 1, last if last % 2 else last - 1
    assert raised.to_list() == list(range(first_odd * 500, last_odd * 500 + 1_000))


DYING = """
import os, signal, sys
from pathlib import Path
from raven.sinks.timescale import store as module
from raven.sinks.timescale.session import Session
from raven.batches.batch import Cursor
from raven.sinks.store import BarFlush
from tests.databases.bars import store_on
from tests.unit.store_compliance import some_bars

url, where, moment = sys.argv[1:]

class Dying(Session):
    def die(self, now):
        if moment == now:
            os.kill(os.getpid(), signal.SIGKILL)

    def copy_into(self, temporary_table, rows):
        super().copy_into(temporary_table, rows)
        self.die("copied")

    def script(self, statements):
        if statements == "COMMIT":
            self.die("stored")
        super().script(statements)
        if statements == "COMMIT":
            self.die("committed")

module.Session = Dying
store = store_on(url, Path(where))
store.open()
at = store.position("up")
for number in range(0 if at is None else at.sequence + 1, 4):
    store.write(BarFlush([some_bars("time_bars", range(number * 5, number * 5 + 10), ticks=number + 1)], {"up": Cursor("j", number)}))
store.close()
"""


def test_a_writer_killed_between_copy_and_commit_ends_with_the_same_table(url, tmp_path):
    def run(moment: str) -> int:
        command = [sys.executable, "-c", DYING, url, str(tmp_path), moment]
        return subprocess.run(command, env={"PYTHONPATH": str(PROJECT), "PATH": ""}, check=False).returncode

    assert run("copied") == run("stored") == -9
    assert stored(url).is_empty()
    assert run("committed") == -9
    assert stored(url).equals(some_bars("time_bars", range(10), ticks=1))
    assert read(url, "SELECT sequence FROM raven_positions")["sequence"].to_list() == [0]
    for moment in ("copied", "stored", "committed", "stored", "committed"):
        assert run(moment) == -9
    assert run("never") == 0
    newest = [(range(5), 1), (range(5, 10), 2), (range(10, 15), 3), (range(15, 25), 4)]
    assert stored(url).equals(pl.concat(some_bars("time_bars", numbers, ticks=ticks) for numbers, ticks in newest))
    assert read(url, "SELECT sequence FROM raven_positions")["sequence"].to_list() == [3]


def test_a_server_that_hangs_costs_a_call_its_time_and_no_more(own_postgres, tmp_path):
    server = own_postgres(timescale=False)
    url = server.create_database("raven")
    init_db(url, timeout_s=30)
    store = store_on(url, tmp_path, timeout_s=2)
    store.open()
    store.write(FIRST)
    server.pause()
    begun = time.monotonic()
    with pytest.raises(StoreUnavailableError, match="no answer within 2 s") as caught:
        store.write(SECOND)
    assert "overloaded" in caught.value.hint
    with pytest.raises(StoreUnavailableError, match=r"no answer within 2 s|timeout expired"):
        store.write(SECOND)
    assert time.monotonic() - begun < 30
    server.resume()
    assert_goes_on(store, url)
    store.close()


@pytest.mark.parametrize("at", ["WITH stored", "INSERT INTO raven_positions", "COMMIT"])
def test_a_transaction_that_was_given_up_never_commits_by_itself(own_postgres, tmp_path, monkeypatch, at):
    """But for one whose COMMIT was already sent: then the same flush, written again, changes nothing."""
    server = own_postgres(timescale=False)
    url = server.create_database("raven")
    init_db(url, timeout_s=30)

    class Pausing(Session):
        def run(self, statement, parameters=None):
            pause_at(statement)
            return super().run(statement, parameters)

        def script(self, statements):
            pause_at(statements)
            super().script(statements)

    def pause_at(statement: str) -> None:
        if statement.startswith(at) and not paused:
            paused.append(statement)
            server.pause()

    paused: list[str] = []
    store = store_on(url, tmp_path, timeout_s=2)
    store.open()
    store.write(FIRST)
    store.close()
    monkeypatch.setattr(store_module, "Session", Pausing)
    with pytest.raises(StoreUnavailableError, match="no answer"):
        store.write(SECOND)
    server.resume()
    others = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'raven' AND datname = 'raven'"
    wait_until(lambda: server.psql(others) == "0", "the session that was given up is gone")
    if at == "COMMIT":
        # the server may have taken it, or ended the session that was idle for so long
        assert store.write(SECOND) in (WriteResult(duplicates=10), WriteResult(rows=10, replaced=5))
        assert stored(url).equals(AFTER_BOTH)
        assert store.position("up") == Cursor("j", 2)
    else:
        assert stored(url).equals(FIRST.bars[0])
        assert store.position("up") == Cursor("j", 1)
        assert_goes_on(store, url)
    store.close()


def test_a_hanging_server_does_not_hold_up_the_end_of_the_process(url, tmp_path):
    place = urlsplit(url)
    proxy = Proxy(str(place.hostname), int(place.port or 5432))
    code = """
import sys
from pathlib import Path
from raven.sinks.store import BarFlush, StoreUnavailableError
from tests.databases.bars import store_on
from tests.unit.store_compliance import some_bars
store = store_on(sys.argv[1], Path(sys.argv[2]), timeout_s=1)
store.open()
print("open", flush=True)
sys.stdin.readline()
try:
    store.write(BarFlush([some_bars("time_bars", range(3))]))
except StoreUnavailableError as error:
    print(error.message)
"""
    through = place._replace(netloc=f"{place.netloc.rpartition('@')[0]}@127.0.0.1:{proxy.port}").geturl()
    command = [sys.executable, "-c", code, through, str(tmp_path)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env={"PYTHONPATH": str(PROJECT), "PATH": ""}
    ) as child:
        try:
            assert child.stdout is not None
            assert child.stdout.readline() == "open\n"
            proxy.mode = "hang"
            told, _ = child.communicate("\n", timeout=30)
        finally:
            child.kill()
    assert told == "no answer within 1 s\n"
    assert child.returncode == 0
    proxy.close()


@pytest.mark.parametrize("mode", ["cut", "refuse", "hang"])
def test_a_way_that_breaks_and_comes_back(url, tmp_path, mode):
    place = urlsplit(url)
    proxy = Proxy(str(place.hostname), int(place.port or 5432))
    through = place._replace(netloc=f"{place.netloc.rpartition('@')[0]}@127.0.0.1:{proxy.port}").geturl()
    store = store_on(through, tmp_path, timeout_s=2)
    store.open()
    store.write(FIRST)
    proxy.mode = mode
    for _ in range(2):
        with pytest.raises(StoreUnavailableError) as caught:
            store.write(SECOND)
        assert type(caught.value) is StoreUnavailableError
    proxy.mode = "pass"
    assert_goes_on(store, url)
    store.close()
    proxy.close()


@pytest.mark.parametrize("lost", ["cut", "kill", "stop"])
def test_a_tls_connection_that_is_lost_is_made_again(own_postgres, tmp_path, lost):
    server = own_postgres(timescale=False)
    server.serve_tls(trustme.CA().issue_cert("127.0.0.1"))
    url = server.create_database("raven")
    init_db(url, timeout_s=30)
    proxy = Proxy("127.0.0.1", server.port)
    store = store_on(server.url("raven", port=proxy.port) + "?sslmode=require", tmp_path, timeout_s=5)
    store.open()
    store.write(FIRST)
    assert server.psql("SELECT ssl FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) WHERE datname = 'raven'") == "t"
    if lost == "cut":
        proxy.mode = "cut"
    else:
        getattr(server, lost)()
    for _ in range(2):
        with pytest.raises(StoreUnavailableError) as caught:
            store.write(SECOND)
        assert type(caught.value) is StoreUnavailableError, caught.value
    if lost == "cut":
        proxy.mode = "pass"
    else:
        server.start()
    assert_goes_on(store, url)
    store.close()
    proxy.close()


def test_tls_that_does_not_fit_is_a_matter_of_settings(own_postgres, tmp_path):
    server = own_postgres(timescale=False)
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    trustme.CA().cert_pem.write_to_path(tmp_path / "other.pem")
    url = server.create_database("raven")
    init_db(url, timeout_s=30)

    def checking(authorities: str) -> TimescaleBarStore:
        return store_on(f"{url}?sslmode=verify-full&sslrootcert={tmp_path / authorities}", tmp_path, timeout_s=5)

    refused(checking("ca.pem"), StoreRefusedError, "does not support SSL", "sslmode")
    server.serve_tls(authority.issue_cert("127.0.0.1"))
    refused(checking("other.pem"), StoreRefusedError, "certificate verify failed", "sslmode")
    refused(checking("none.pem"), StoreRefusedError, "does not exist", "sslmode")
    store = checking("ca.pem")
    store.write(FIRST)
    assert_goes_on(store, url)
    store.close()


def test_a_wrong_password_is_told_until_it_is_right(server, url, tmp_path):
    server.psql("CREATE ROLE changing SUPERUSER LOGIN PASSWORD 'right-one'", url)
    try:
        place = url.rpartition("@")[2]
        store = store_on(f"postgresql://changing:right-one@{place}", tmp_path, timeout_s=5)
        store.open()
        store.write(FIRST)
        server.psql("ALTER ROLE changing PASSWORD 'other'", url)
        store.close()
        refused(store, StoreRefusedError, "password authentication failed", "set the right password")
        server.psql("ALTER ROLE changing PASSWORD 'right-one'", url)
        assert_goes_on(store, url)
        server.psql("ALTER ROLE changing NOLOGIN", url)
        store.close()
        with pytest.raises(StoreRefusedError, match="not permitted to log in"):
            store.open()
        store.close()
    finally:
        server.psql("DROP ROLE changing", url)


def test_a_database_that_is_not_there_yet(server, url, tmp_path):
    store = store_on(url + "_later", tmp_path, timeout_s=5)
    refused(store, StoreRefusedError, "does not exist", "create the database")
    server.psql(f'CREATE DATABASE "{urlsplit(url).path[1:]}_later"')
    refused(store, StoreRefusedError, "no table", "raven init-db")
    init_db(url + "_later", timeout_s=30)
    store.write(FIRST)
    assert_goes_on(store, url + "_later")
    store.close()
    server.drop_database(url + "_later")


def by_statement(break_it: str, mend_it: str, kind: type[StoreUnavailableError], said: str, advice: str):
    return pytest.param(break_it, mend_it, kind, said, advice, id=break_it[:30])


@pytest.mark.parametrize(
    ("break_it", "mend_it", "kind", "said", "advice"),
    [
        by_statement(
            "ALTER TABLE time_bars RENAME TO away", "ALTER TABLE away RENAME TO time_bars",
            StoreRefusedError, "time_bars", "raven init-db",
        ),
        by_statement(
            "ALTER TABLE time_bars RENAME vwap TO away", "ALTER TABLE time_bars RENAME away TO vwap",
            StoreRefusedError, "vwap", "raven init-db",
        ),
        by_statement(
            "ALTER TABLE raven_positions RENAME TO away", "ALTER TABLE away RENAME TO raven_positions",
            StoreRefusedError, "raven_positions", "raven init-db",
        ),
        by_statement(
            "ALTER INDEX time_bars_identity RENAME TO away; DROP INDEX away",
            "CREATE UNIQUE INDEX time_bars_identity ON time_bars (venue, symbol, spec, open_time)",
            StoreRefusedError, "unique", "raven init-db",
        ),
        by_statement(
            "ALTER TABLE time_bars ADD COLUMN mine int NOT NULL DEFAULT 1; ALTER TABLE time_bars ALTER mine DROP DEFAULT",
            "ALTER TABLE time_bars DROP COLUMN mine",
            StoreRefusedError, "mine", "",
        ),
    ],
)  # fmt: skip
def test_tables_that_change_beneath_a_store(server, url, store, break_it, mend_it, kind, said, advice):
    server.psql(break_it, url)
    refused(store, kind, said, advice)
    server.psql(mend_it, url)
    assert_goes_on(store, url)


def test_a_right_that_is_taken_away(server, url, tmp_path):
    server.psql(
        "CREATE ROLE humble LOGIN PASSWORD 'humble-one'; GRANT ALL ON ALL TABLES IN SCHEMA public TO humble", url
    )
    try:
        store = store_on(f"postgresql://humble:humble-one@{url.rpartition('@')[2]}", tmp_path, timeout_s=5)
        store.open()
        store.write(FIRST)
        server.psql("REVOKE INSERT ON time_bars FROM humble", url)
        refused(store, StoreRefusedError, "permission denied", "grant")
        server.psql("GRANT INSERT ON time_bars TO humble", url)
        assert_goes_on(store, url)
        store.close()
    finally:
        server.psql("DROP OWNED BY humble; DROP ROLE humble", url)


def test_a_server_that_takes_no_writes(server, url, store):
    database = urlsplit(url).path[1:]
    server.psql(f'ALTER DATABASE "{database}" SET default_transaction_read_only = on')
    store.close()
    refused(store, StoreUnavailableError, "read-only", "standby")
    server.psql(f'ALTER DATABASE "{database}" RESET default_transaction_read_only')
    assert_goes_on(store, url)


def test_a_lock_of_somebody_else(url, store):
    with dbapi.connect(url) as other, other.cursor() as cursor:
        cursor.execute("LOCK TABLE time_bars IN EXCLUSIVE MODE")
        with pytest.raises(StoreUnavailableError, match="lock") as caught:
            store.write(SECOND)
        assert type(caught.value) is StoreUnavailableError
        assert "lock" in caught.value.hint
        other.rollback()
    assert_goes_on(store, url)


def test_a_session_that_is_ended_by_an_administrator(server, url, store):
    ended = (
        "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE application_name = 'raven' AND datname = "
    )
    assert server.psql(f"{ended} '{urlsplit(url).path[1:]}'") == "1"
    with pytest.raises(StoreUnavailableError):
        store.write(SECOND)
    assert_goes_on(store, url)


def test_a_server_with_no_connection_left(own_postgres, tmp_path):
    server = own_postgres(timescale=False)
    url = server.create_database("raven")
    init_db(url, timeout_s=30)
    store = store_on(url, tmp_path, timeout_s=5)
    held: list[dbapi.Connection] = []
    with contextlib.suppress(dbapi.OperationalError):
        held.extend(dbapi.connect(url) for _ in range(200))
    with pytest.raises(StoreUnavailableError, match=r"too many clients|connection slots") as caught:
        store.open()
    assert "max_connections" in caught.value.hint
    for connection in held:
        connection.close()
    wait_until(lambda: opens(store), "a connection is free")
    store.write(FIRST)
    assert_goes_on(store, url)
    store.close()


def test_a_full_disk_is_said_to_be_full_and_nothing_is_lost(own_postgres, tmp_path):
    server = own_postgres(timescale=False, disk_mb=160)
    url = server.create_database("raven")
    init_db(url, timeout_s=30)
    store = store_on(url, tmp_path, timeout_s=10)
    store.open()
    store.write(FIRST)
    server.fill_disk()
    big = BarFlush([some_bars("time_bars", range(100, 40_100))])
    told: list[StoreUnavailableError] = []
    for _ in range(3):
        with pytest.raises(StoreUnavailableError) as caught:
            store.write(big)
        told.append(caught.value)
    assert all(type(error) is StoreUnavailableError for error in told)
    assert any("disk of the database is full" in error.hint for error in told), told
    server.free_disk()
    wait_until(lambda: opens(store), "the server has recovered")
    assert store.write(big) == WriteResult(rows=40_000)
    store.write(SECOND)
    assert stored(url).height == 40_015
    assert store.position("up") == Cursor("j", 2)
    store.close()


def test_a_scan_of_a_database_that_is_down_says_so(own_postgres):
    server = own_postgres(timescale=False)
    url = server.create_database("raven")
    with pytest.raises(StoreRefusedError, match="no table") as caught:
        scan_bars(TimescaleSettings(url=url, timeout_s=5))
    assert "raven init-db" in caught.value.hint
    init_db(url, timeout_s=30)
    frame = scan_bars(TimescaleSettings(url=url, timeout_s=5))
    server.stop()
    with pytest.raises(StoreUnavailableError, match="refused"):
        scan_bars(TimescaleSettings(url=url, timeout_s=5))
    with pytest.raises(Exception, match="refused"):
        frame.collect()


def opens(store: TimescaleBarStore) -> bool:
    try:
        store.open()
    except StoreUnavailableError:
        return False
    return True
