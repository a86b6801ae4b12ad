"""Bars in PostgreSQL: exact values, rows that the server refuses, dead letters sent again, positions by writer."""

from __future__ import annotations

import math
from concurrent.futures import ThreadPoolExecutor

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from raven.batches.batch import Cursor
from raven.errors import InputError, SettingsError
from raven.settings import TimescaleSettings
from raven.sinks.dead_letters import DeadLetters
from raven.sinks.refusals import MOST_IN_A_ROW
from raven.sinks.store import BAR_SCHEMAS, BarFlush, Refusal, StoreRefusedError, StoreUnavailableError, WriteResult
from raven.sinks.timescale import TimescaleBarStore
from raven.sinks.timescale.schema import init_db
from tests.databases.bars import made, read, store_on, stored
from tests.unit.store_compliance import SPOT, some_bars

FLOATS = [
    0.0, -0.0, 0.1, math.pi, 5e-324, 2.2250738585072014e-308, 1.7976931348623157e308, -1.7976931348623157e308,
    math.inf, -math.inf, math.nan, 9007199254740993.0,
]  # fmt: skip
INTS = [0, 1, -1, 7, 2**31, 2**53 + 1, 2**63 - 1, -(2**63)]


@pytest.fixture(params=list(BAR_SCHEMAS))
def kind(request):
    return request.param


@pytest.fixture
def store(url, tmp_path, kind):
    store = store_on(url, tmp_path, kind)
    store.open()
    yield store
    store.close()


def letters(store: TimescaleBarStore) -> pl.DataFrame:
    return pl.concat(letter.rows for letter in store._dead_letters.read())


def test_figures_are_stored_to_the_bit(store, url, kind):
    columns = [name for name, dtype in some_bars(kind, []).schema.items() if dtype == pl.Float64]
    bars = some_bars(kind, range(len(FLOATS))).with_columns(
        pl.Series(name, FLOATS[shift:] + FLOATS[:shift]) for shift, name in enumerate(columns)
    )
    store.write(BarFlush([bars]))
    found = stored(url, kind)
    assert_frame_equal(found, bars, check_exact=True)
    bits = pl.col(columns).reinterpret(signed=True)
    assert found.select(bits).equals(bars.select(bits))


def test_integers_and_nulls_are_stored_exactly(store, url, kind):
    free = ["buy_ticks", "sell_ticks", "total_ticks", "last_trade_id", "revision"]
    bars = some_bars(kind, range(len(INTS))).with_columns(pl.Series(name, INTS) for name in free)
    store.write(BarFlush([bars]))
    nulls = some_bars(kind, range(100, 103)).with_columns(
        last_trade_id=pl.lit(None, pl.Int64), complete=pl.Series([None, True, False])
    )
    store.write(BarFlush([nulls]))
    assert_frame_equal(stored(url, kind), pl.concat([bars, nulls]), check_exact=True)


def test_times_far_away_are_stored_exactly_or_are_dead_letters(url, tmp_path):
    us = [
        -210_866_803_200_000_000,
        -62_135_596_800_000_001,
        -1,
        0,
        1,
        253_402_300_800_000_000,
        9_223_371_331_199_999_999,
    ]
    lost_us = [-(2**63), -(2**63) + 5, -(2**62), -210_866_803_200_000_001]
    bars = some_bars("time_bars", range(len(us + lost_us))).with_columns(
        open_time=pl.Series(us + lost_us).cast(pl.Datetime("us", "UTC"))
    )
    store = store_on(url, tmp_path)
    store.open()
    assert store.write(BarFlush([bars])) == WriteResult(rows=len(us), dead=len(lost_us))
    store.close()
    assert_frame_equal(stored(url), bars[: len(us)].sort("open_time"), check_exact=True)
    assert sorted(letters(store)["open_time"].to_physical()) == sorted(lost_us)
    assert set(letters(store)["reason"].str.contains("timestamp out of range")) == {True}


def test_the_server_reads_times_and_numbers_as_they_are_meant(url, tmp_path):
    store = store_on(url, tmp_path)
    store.open()
    store.write(BarFlush([some_bars("time_bars", [0]).with_columns(volume=pl.lit(7.0))]))
    store.close()
    found = read(
        url, "SELECT open_time::text AS opened, volume::text AS volume, total_ticks::text AS ticks FROM time_bars"
    )
    assert found["opened"].str.starts_with("2024-08-09 0").all()
    assert found.select("volume", "ticks").row(0) == ("7", "3")


def test_numbers_of_another_type_are_refused_before_they_are_sent(store, url, kind):
    bars = some_bars(kind, range(3))
    for name, dtype in (("volume", pl.Int64), ("open_time", pl.Int64), ("total_ticks", pl.Float64)):
        with pytest.raises(InputError, match=name):
            store.write(BarFlush([bars.with_columns(pl.col(name).cast(dtype))]))
    assert stored(url, kind).is_empty()


def test_one_bad_row_among_ten_thousand_is_set_aside_with_the_servers_reason(store, url, kind):
    bars = some_bars(kind, range(10_000))
    bars = bars.with_columns(
        symbol=pl.when(pl.col("first_trade_id") == 123_400).then(pl.lit("A\0B")).otherwise("symbol")
    )
    result = store.write(BarFlush([bars], {"up": Cursor("j", 1)}))
    assert result == WriteResult(rows=9_999, dead=1)
    assert stored(url, kind).height == 9_999
    assert store.position("up") == Cursor("j", 1)
    letter = letters(store)
    assert letter.select(bars.columns).equals(bars.filter(symbol="A\0B"))
    assert letter["reason"].item() == 'column symbol: invalid byte sequence for encoding "UTF8": 0x00 (SQLSTATE 22021)'


def test_what_constraints_and_triggers_of_ones_own_refuse_are_dead_letters(server, store, url, kind):
    server.psql(f"ALTER TABLE {kind} ADD CONSTRAINT sane CHECK (volume < 1000)", url)
    bars = some_bars(kind, range(50)).with_columns(
        volume=pl.when(pl.int_range(50) % 7 == 3).then(5000.0).otherwise("volume")
    )
    assert store.write(BarFlush([bars])) == WriteResult(rows=43, dead=7)
    assert stored(url, kind).equals(bars.filter(pl.col("volume") < 1000))
    assert letters(store)["reason"].str.contains("sane").all()
    huge = some_bars(kind, range(3), symbol="".join(chr(0x4E00 + number * 7919 % 20_000) for number in range(4_000)))
    assert store.write(BarFlush([huge, some_bars(kind, [50])])) == WriteResult(rows=1, dead=3)


def test_a_table_that_refuses_everything_is_at_fault_not_the_rows(server, store, url, kind):
    server.psql(f"ALTER TABLE {kind} ADD CONSTRAINT mad CHECK (volume < 0) NOT VALID", url)
    flush = BarFlush([some_bars(kind, range(500))], {"up": Cursor("j", 1)})
    for _ in range(2):
        with pytest.raises(StoreRefusedError, match=r"more than 100 rows.*mad") as caught:
            store.write(flush)
        assert "constraints" in caught.value.hint
    assert sum(one.rows.height for one in store._dead_letters.read()) == 0
    assert store.position("up") is None
    server.psql(f"ALTER TABLE {kind} DROP CONSTRAINT mad", url)
    assert store.write(flush) == WriteResult(rows=500)


def test_bar_after_bar_refused_is_a_fault_of_the_table_too(server, store, url, kind):
    server.psql(f"ALTER TABLE {kind} ADD CONSTRAINT mad CHECK (volume < 0) NOT VALID", url)
    for number in range(MOST_IN_A_ROW):
        flush = BarFlush([some_bars(kind, [number])], {"up": Cursor("j", number)})
        assert store.write(flush) == WriteResult(dead=1)
    flush = BarFlush([some_bars(kind, [99])], {"up": Cursor("j", 99)})
    for _ in range(2):
        with pytest.raises(StoreRefusedError, match=r"every row is refused.*mad"):
            store.write(flush)
    assert store.position("up") == Cursor("j", MOST_IN_A_ROW - 1)
    server.psql(f"ALTER TABLE {kind} DROP CONSTRAINT mad", url)
    assert store.write(flush) == WriteResult(rows=1)


def test_dead_letters_are_sent_again_and_those_still_refused_are_told(server, store, url, kind):
    server.psql(f"ALTER TABLE {kind} ADD CONSTRAINT sane CHECK (total_ticks < 9)", url)
    bad = [some_bars(kind, range(4), ticks=20), some_bars(kind, range(2), symbol="A\0", ticks=2)]
    assert store.write(BarFlush(bad, {"up": Cursor("j", 1)})) == WriteResult(dead=6)
    (letter,) = store._dead_letters.read()
    rows = letter.rows.select(BAR_SCHEMAS[kind].names)
    assert len(store.resend(rows)) == 6
    server.psql(f"ALTER TABLE {kind} DROP CONSTRAINT sane", url)
    refusals = store.resend(rows)
    assert [rows[refusal.row]["symbol"].item() for refusal in refusals] == ["A\0", "A\0"]
    store._dead_letters.settle(letter, refusals)
    assert sum(one.rows.height for one in store._dead_letters.read()) == 2
    assert stored(url, kind).equals(bad[0])
    assert store.position("up") == Cursor("j", 1)
    assert store.rows() == 4


def test_of_what_is_sent_again_the_newest_revision_counts(store, url, kind):
    store.write(BarFlush([some_bars(kind, range(2), ticks=5)]))
    rows = pl.concat([some_bars(kind, range(3), ticks=9), some_bars(kind, range(3), ticks=4)])
    assert store.resend(rows) == []
    assert stored(url, kind).equals(some_bars(kind, range(3), ticks=9))
    (refusal,) = store.resend(pl.concat([rows, some_bars(kind, [1], symbol="\0")]))
    assert refusal == Refusal(6, refusal.reason)


def test_nothing_is_stored_while_refused_rows_cannot_be_kept(store, url, kind, tmp_path):
    flush = BarFlush([some_bars(kind, range(3)), some_bars(kind, [9], symbol="\0")])
    blocked = tmp_path / "file"
    blocked.write_text("")
    good, store._dead_letters = store._dead_letters, DeadLetters(blocked / "sub")
    with pytest.raises(Exception, match="cannot be kept"):
        store.write(flush)
    assert stored(url, kind).is_empty()
    store._dead_letters = good
    assert store.write(flush) == WriteResult(rows=3, dead=1)


def test_a_refused_bar_that_cannot_be_kept_for_a_while_is_no_fault_of_the_table(store, kind, tmp_path):
    flush = BarFlush([some_bars(kind, [9], symbol="\0")], {"up": Cursor("j", 1)})
    blocked = tmp_path / "file"
    blocked.write_text("")
    good, store._dead_letters = store._dead_letters, DeadLetters(blocked / "sub")
    for _ in range(MOST_IN_A_ROW + 2):
        with pytest.raises(StoreUnavailableError, match="cannot be kept"):
            store.write(flush)
    store._dead_letters = good
    assert store.write(flush) == WriteResult(dead=1)
    assert store.position("up") == Cursor("j", 1)


def test_each_writer_and_table_has_positions_of_its_own(url, tmp_path):
    stores = [
        TimescaleBarStore(TimescaleSettings(url=url), kind, writer=writer, dead_letters=DeadLetters(tmp_path))
        for writer in ("one", "two")
        for kind in BAR_SCHEMAS
    ]
    for number, store in enumerate(stores):
        store.open()
        store.write(
            BarFlush([some_bars(store.kind, range(3))], {"up": Cursor("j", number), "O'Neill\n": Cursor("", 1)})
        )
    for number, store in enumerate(stores):
        store.close()
        assert store.position("up") == Cursor("j", number)
        assert store.position("O'Neill\n") == Cursor("", 1)
        assert store.rows() >= 0
        store.close()
    assert read(url, "SELECT count(*) AS n FROM raven_positions")["n"].item() == 8
    assert stored(url).height == 3


def test_two_writers_of_the_same_bars_leave_the_highest_revision(url, tmp_path):
    def write(ticks: int) -> WriteResult:
        store = store_on(url, tmp_path)
        store.open()
        try:
            return store.write(BarFlush([some_bars("time_bars", range(500), ticks=ticks)]))
        finally:
            store.close()

    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(write, [3, 7, 5, 6]))
    assert sum(result.rows - result.replaced for result in results) == 500
    assert stored(url).equals(some_bars("time_bars", range(500), ticks=7))


def test_a_schema_of_ones_own_may_hold_the_tables(server, empty, tmp_path):
    server.psql("CREATE SCHEMA bars", empty)
    url = f"{empty}?options=-csearch_path%3Dbars"
    init_db(url, timeout_s=30)
    init_db(url, timeout_s=30)
    store = store_on(url, tmp_path)
    store.open()
    assert store.write(BarFlush([some_bars("time_bars", range(3))])).rows == 3
    store.close()
    assert read(empty, "SELECT * FROM bars.time_bars").height == 3
    with pytest.raises(StoreRefusedError, match="no table"):
        store_on(empty, tmp_path).open()


def test_a_url_that_would_be_misread_is_refused_without_showing_it(tmp_path):
    with pytest.raises(SettingsError, match="special characters") as caught:
        store_on("postgresql://raven:pa@ss%@127.0.0.1/raven", tmp_path)
    assert "pa@" not in str(caught.value)


def test_a_store_knows_its_rows_after_a_look_at_the_catalogue(server, url, tmp_path, kind):
    store = store_on(url, tmp_path, kind)
    store.open()
    store.write(BarFlush([some_bars(kind, range(0, 30_000, 10))]))
    assert store.rows() == 3_000
    store.close()
    server.psql(f"ANALYZE {kind}", url)
    store.open()
    assert store.rows() == 3_000
    store.write(BarFlush([some_bars(kind, range(5), symbol="NEW"), some_bars(kind, [0], ticks=9)]))
    assert store.rows() == 3_005
    store.close()
    assert SPOT in set(stored(url, kind)["venue"])


def test_what_a_write_may_decompress_is_not_limited_in_its_own_session(postgres, plain_postgres, tmp_path):
    setting = "timescaledb.max_tuples_decompressed_per_dml_transaction"
    for name, server in (("timescaledb", postgres), ("plain", plain_postgres)):
        (tmp_path / name).mkdir()
        url = made(server, tmp_path / name)
        store = store_on(url, tmp_path / name)
        store.open()
        try:
            asked = f"SELECT current_setting('{setting}', true) AS value"
            (found,) = store._session.run(asked).column("value").to_pylist()
            (usual,) = read(url, asked)["value"]
            assert (found, usual) == (("0", "100000") if name == "timescaledb" else (None, None))
            assert store.write(BarFlush([some_bars("time_bars", range(3))])).rows == 3
        finally:
            store.close()
            server.drop_database(url)
