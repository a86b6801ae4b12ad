"""What can be said about the store in PostgreSQL without a server: errors, statements, connection strings, filters."""

from __future__ import annotations

from datetime import UTC, datetime
from urllib.parse import parse_qs, urlsplit

import polars as pl
import pytest

from raven.errors import SettingsError
from raven.sinks.encode import BARS
from raven.sinks.store import StoreRefusedError, StoreUnavailableError
from raven.sinks.timescale.errors import RowRefusedError, classify, explain
from raven.sinks.timescale.predicates import Comparison, comparisons
from raven.sinks.timescale.session import Session
from raven.sinks.timescale.sql import conflict_columns, conninfo, make_staging, select, session_settings, upsert


@pytest.mark.parametrize(
    ("sqlstate", "verdict", "advice"),
    [
        ("08006", "retry", ""),
        ("0A000", "mend", "PostgreSQL"),
        ("22008", "row", ""),
        ("22021", "row", ""),
        ("22P03", "mend", "raven init-db"),
        ("23502", "mend", "default"),
        ("23505", "row", ""),
        ("23514", "row", ""),
        ("25006", "retry", "standby"),
        ("25P03", "retry", ""),
        ("28000", "mend", "pg_hba.conf"),
        ("28P01", "mend", "password"),
        ("3D000", "mend", "create the database"),
        ("3F000", "mend", "raven init-db"),
        ("40001", "retry", ""),
        ("40P01", "retry", ""),
        ("42501", "mend", "grant"),
        ("42703", "mend", "raven init-db"),
        ("42804", "mend", "raven init-db"),
        ("42P01", "mend", "raven init-db"),
        ("42P10", "mend", "unique index"),
        ("53100", "retry", "disk of the database is full"),
        ("53200", "retry", "memory"),
        ("53300", "retry", "max_connections"),
        ("53400", "mend", "max_tuples_decompressed_per_dml_transaction"),
        ("54000", "row", ""),
        ("55000", "mend", ""),
        ("55P03", "retry", "lock"),
        ("57014", "retry", "in time"),
        ("57P01", "retry", ""),
        ("57P03", "retry", ""),
        ("58030", "retry", ""),
        ("P0001", "row", ""),
        ("XX000", "retry", ""),
    ],
)
def test_what_a_code_of_the_server_asks_for(sqlstate, verdict, advice):
    fault = classify(sqlstate, "password authentication failed")
    assert fault.verdict == verdict
    assert advice in fault.hint


TO_SERVER = 'IO: [libpq] Failed to connect: connection to server at "127.0.0.1", port 5432 failed: '


@pytest.mark.parametrize(
    ("said", "verdict", "advice"),
    [
        ('FATAL:  password authentication failed for user "raven"', "mend", "password"),
        ("fe_sendauth: no password supplied", "mend", "password"),
        ('FATAL:  role "nobody" does not exist', "mend", "right user"),
        ('FATAL:  role "nobody" is not permitted to log in', "mend", "right user"),
        ('FATAL:  database "none" does not exist', "mend", "create the database"),
        ('FATAL:  permission denied for database "raven"', "mend", "grant"),
        ('FATAL:  no pg_hba.conf entry for host "10.0.0.1", user "raven", database "raven"', "mend", "pg_hba.conf"),
        ("server does not support SSL, but SSL was required", "mend", "sslmode"),
        ("SSL error: certificate verify failed", "mend", "sslmode"),
        ('root certificate file "/x/root.crt" does not exist', "mend", "sslmode"),
        ("Connection refused\n\tIs the server running on that host?", "retry", "is it running"),
        ("timeout expired", "retry", "does not answer"),
        ("FATAL:  the database system is starting up", "retry", ""),
        ("FATAL:  the database system is shutting down", "retry", ""),
        ("FATAL:  the database system is in recovery mode", "retry", ""),
        ("FATAL:  sorry, too many clients already", "retry", "max_connections"),
        ("FATAL:  remaining connection slots are reserved for roles with …", "retry", "max_connections"),
        ("FATAL:  could not write init file: No space left on device", "retry", "disk of the database is full"),
        ("server closed the connection unexpectedly", "retry", ""),
        ("SSL error: unexpected eof while reading", "retry", ""),
        ("SSL SYSCALL error: Connection reset by peer", "retry", ""),
        ("SSL connection has been closed unexpectedly", "retry", ""),
        ("FATAL:  Passwort-Authentifizierung fehlgeschlagen", "retry", ""),
    ],
)  # fmt: skip
def test_what_a_connection_that_fails_asks_for(said, verdict, advice):
    error = explain(None, f"{TO_SERVER}{said}\n", [])
    wanted = {"retry": StoreUnavailableError, "mend": StoreRefusedError}[verdict]
    assert type(error) is wanted
    assert advice in error.hint
    assert "\n" not in str(error)
    assert "libpq" not in str(error)
    assert 'at "127.0.0.1", port 5432' in error.message


@pytest.mark.parametrize(
    "said",
    [
        "unexpected eof while reading",
        "decryption failed or bad record mac",
        "ssl/tls alert bad record mac",
        "bad length",
    ],
)
def test_what_breaks_a_tls_connection_that_stood_is_no_matter_of_settings(said):
    error = explain(None, f"IO: [libpq] Failed to execute query 'BEGIN': SSL error: {said}\n", [])
    assert type(error) is StoreUnavailableError
    assert "sslmode" not in error.hint


@pytest.mark.parametrize("said", ['invalid URI query parameter: "x"', 'invalid sslmode value: "maybe"', "missing host"])
def test_a_url_that_the_driver_does_not_understand_is_to_be_mended(said):
    error = explain(None, f"IO: [libpq] Failed to connect: {said}\n", [])
    assert type(error) is StoreRefusedError
    assert error.message == said


def test_an_unknown_host_may_be_known_later():
    said = 'could not translate host name "db" to address: Name or service not known'
    assert type(explain(None, f"IO: [libpq] Failed to connect: {said}\n", [])) is StoreUnavailableError


def test_an_error_says_what_the_server_said_and_where():
    details = [
        (b"PG_DIAG_MESSAGE_PRIMARY", b"invalid byte sequence"),
        (b"PG_DIAG_CONTEXT", b"COPY raven_staging, line 1, column symbol"),
        (b"PG_DIAG_MESSAGE_DETAIL", b"it is 0x00"),
        (b"PG_DIAG_MESSAGE_HINT", b"look at it"),
    ]
    error = explain("22021", "INVALID_DATA: whatever", details)
    assert type(error) is RowRefusedError
    assert str(error) == "column symbol: invalid byte sequence: it is 0x00 (SQLSTATE 22021) (look at it)"
    assert explain("53100", "IO: could not extend file\n", []).message == "could not extend file (SQLSTATE 53100)"
    assert explain(None, "\n", []).message == "the connection failed"


def test_a_connection_says_who_it_is_and_notices_a_dead_host():
    url = conninfo("postgresql://raven:p%40ss@db:5432/raven?sslmode=require&application_name=mine", 7.2)
    parts = urlsplit(url)
    assert parts.netloc == "raven:p%40ss@db:5432"
    assert {name: value for name, (value,) in parse_qs(parts.query).items()} == {
        "sslmode": "require",
        "application_name": "mine",
        "connect_timeout": "8",
        "keepalives_idle": "30",
        "keepalives_interval": "10",
        "keepalives_count": "3",
        "tcp_user_timeout": "7200",
    }
    assert "application_name=raven" in conninfo("postgresql://db/raven", 1)


@pytest.mark.parametrize("password", ["a@b", "a/b", "a#b", "a%b", "100%", "%zz", "1/2", "1?2", "1#2"])
def test_a_password_that_is_not_escaped_is_refused_and_not_shown(password):
    with pytest.raises(SettingsError, match="special characters") as caught:
        conninfo(f"postgresql://raven:{password}@db/raven", 1)
    assert password not in str(caught.value)


QUOTED = [
    "u:{} x@127.0.0.1:1/d", "u:{}%00@127.0.0.1:1/d", "u: {}@127.0.0.1:1/d", "u:{}\tx@127.0.0.1:1/d",
    "u:{}\nx@127.0.0.1:1/d", "u:{}\0x@127.0.0.1:1/d", "u:{}\udce9@127.0.0.1:1/d", "u x:{}@127.0.0.1:1/d", "u:{}@h x:1/d", "u:{}@127.0.0.1:1/d x",
    "u:{}@127.0.0.1:1/d?application_name=a b", "u:{}@127.0.0.1:1/d ", "u:{}@[::1]x:1/d", "u:{}@[::1],[::1/d",
    "u:{}@[::1],[]/d", "u:p@127.0.0.1:1/d?password={} x", "u:p@127.0.0.1:1/d?password={}%00",
    "u:p@127.0.0.1:1/d?password={}=x", "u:p@127.0.0.1:1/d?password:{}", "u:p@127.0.0.1:1/d?password=a&{}=",
    "u:p@127.0.0.1:1/d?pass%77ord=a&{}=", "u:p@127.0.0.1:1/d?password=a&{}", "u:p@127.0.0.1:1/d?sslpassword=a&{}=b",
]  # fmt: skip
"""What the driver's errors quote from, or what it is given cut short or not at all."""


@pytest.mark.parametrize("form", QUOTED)
def test_a_url_that_the_driver_would_quote_from_is_refused_before_it_can(form):
    with pytest.raises(SettingsError, match="special characters") as caught:
        conninfo(f"postgresql://{form.format('hidden')}", 1)
    assert "hidden" not in str(caught.value)


UNDERSTOOD = [
    "u:{}@127.0.0.1:1/d?nonsense=1", "u:{}@127.0.0.1:1/d?sslmode=x", "u:{}@127.0.0.1:1/d?port=x",
    "u:{}@127.0.0.1:1/d?connect_timeout=x", "u:{}@[::1]:1/d", "u:{}%20%26é@127.0.0.1:1/d", "u:p:{}@127.0.0.1:1/d",
    "u@127.0.0.1:1/d?sslmode=require&password={}", "u:p@127.0.0.1:1/d?sslpassword={}", "u:{}@127.0.0.1:1",
    "u:{}@127.0.0.1:1,127.0.0.1:2/d", "u:{}@[::1]:1,127.0.0.1:2/d", "u:{}@/d?host=127.0.0.1&port=1",
]  # fmt: skip


@pytest.mark.parametrize("form", UNDERSTOOD)
def test_what_the_driver_says_of_other_urls_does_not_show_the_password(form):
    with pytest.raises(StoreUnavailableError) as caught:
        Session(f"postgresql://{form.format('hidden')}", timeout_s=10)
    assert "hidden" not in str(caught.value)
    assert "hidden" not in str(caught.value.__cause__)


def test_the_server_gives_up_before_the_client_does():
    assert "set_config('statement_timeout', '27000', false)" in session_settings(30)
    assert "set_config('lock_timeout', '15000', false)" in session_settings(30)
    assert "'0'" not in session_settings(0.0001)  # that would be no limit


def test_statements_name_every_column_and_hold_no_value():
    for kind, key in (("time_bars", ["open_time"]), ("tick_imbalance_bars", ["first_trade_id", "open_time"])):
        layout = BARS[kind]
        assert conflict_columns(layout) == ["venue", "symbol", "spec", *key]
        statement = upsert(layout)
        for name in layout.schema.names:
            assert statement.count(f'"{name}" = excluded."{name}"') == (name not in conflict_columns(layout))
            assert f'"{name}"' in make_staging(layout)
    assert select(BARS["time_bars"], ["open"], [], None) == 'SELECT "open" FROM time_bars'
    assert select(BARS["time_bars"], ["open"], ['"spec" = $1', '"symbol" = $2'], 3).endswith(
        ' WHERE "spec" = $1 AND "symbol" = $2 LIMIT 3'
    )


def test_of_a_filter_only_what_is_understood_goes_to_the_server():
    time = datetime(2024, 1, 1, tzinfo=UTC)
    symbol = pl.col("symbol")
    assert comparisons(None) == []
    assert comparisons((symbol == "BTC") & (pl.col("open_time") < time) & (pl.col("vwap") > 1)) == [
        Comparison("symbol", "=", "BTC"),
        Comparison("open_time", "<", 1_704_067_200_000_000),
    ]
    for no in ((symbol == "BTC") | (symbol == "ETH"), ~(symbol == "BTC"), symbol != "BTC", symbol > "B"):
        assert comparisons(no) == []
    for no in (symbol == "A\0", symbol == pl.col("spec"), symbol.str.to_lowercase() == "btc", pl.col("vwap") == 1.0):
        assert comparisons(no) == []


@pytest.mark.parametrize(
    ("time_us", "is_pushed"),
    [
        (-(2**63) + 1, False),
        (-62_135_596_800_000_001, False),
        (-62_135_596_800_000_000, True),
        (253_402_300_799_999_999, True),
        (253_402_300_800_000_000, False),
        (2**63 - 1, False),
    ],
)
def test_times_that_a_server_may_not_know_are_left_to_polars(time_us, is_pushed):
    seen: list[Comparison] = []

    def rows(_columns, predicate, _rows, _batch):
        seen.extend(comparisons(predicate))
        yield pl.DataFrame(schema=dtypes)

    dtypes = {"open_time": pl.Datetime("us", "UTC")}
    time = pl.lit(time_us).cast(dtypes["open_time"])
    pl.io.plugins.register_io_source(rows, schema=dtypes).filter(pl.col("open_time") >= time).collect()
    assert seen == ([Comparison("open_time", ">=", time_us)] if is_pushed else [])


def test_times_of_a_filter_are_understood_as_polars_hands_them_over():
    seen: list[list[Comparison]] = []

    def rows(_columns, predicate, _rows, _batch):
        seen.append(comparisons(predicate))
        yield pl.DataFrame(schema=dtypes)

    dtypes = {"symbol": pl.String, "open_time": pl.Datetime("us", "UTC")}
    lazy = pl.io.plugins.register_io_source(rows, schema=dtypes)
    time = datetime(2024, 1, 1, tzinfo=UTC)
    lazy.filter(pl.col("open_time") >= time, pl.col("symbol") == "BTC").collect()
    lazy.filter(pl.col("open_time") < pl.lit(time)).collect()
    assert sorted(seen[0], key=lambda each: each.column) == [
        Comparison("open_time", ">=", 1_704_067_200_000_000),
        Comparison("symbol", "=", "BTC"),
    ]
    assert seen[1] == [Comparison("open_time", "<", 1_704_067_200_000_000)]
