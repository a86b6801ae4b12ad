"""The script that makes the tables: any number of times, either way, on either sort of server; and who checks them."""

from __future__ import annotations

import json
import re
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from raven.cli.raven import main
from raven.sinks.store import BAR_SCHEMAS, BarFlush, StoreRefusedError
from raven.sinks.timescale.schema import init_db, script
from tests.databases.bars import SCRIPT, read, store_on, stored
from tests.unit.store_compliance import some_bars

CATALOGUE = """
    SELECT c.relname::text AS relation, c.relkind::text AS kind, a.attname::text AS name, a.attnum::bigint AS place,
           format_type(a.atttypid, a.atttypmod) AS type, a.attnotnull AS not_null,
           col_description(c.oid, a.attnum) AS meaning, pg_get_expr(d.adbin, d.adrelid) AS fallback,
           CASE c.relkind WHEN 'i' THEN pg_get_indexdef(c.oid) ELSE obj_description(c.oid) END AS definition
    FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0
    LEFT JOIN pg_attrdef d ON d.adrelid = c.oid AND d.adnum = a.attnum
    WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'i') ORDER BY 1, 4
"""


def has_timescale(url: str) -> bool:
    return not read(url, "SELECT 1 AS one FROM pg_extension WHERE extname = 'timescaledb'").is_empty()


def hypertables(url: str) -> set[str]:
    if not has_timescale(url):
        return set()
    return set(read(url, "SELECT hypertable_name::text AS name FROM timescaledb_information.hypertables")["name"])


def test_psql_and_init_db_make_the_same_tables_any_number_of_times(server, empty):
    server.psql(SCRIPT, empty)
    once = read(empty, CATALOGUE)
    version = read(empty, "SELECT * FROM raven_schema")
    for _ in range(2):
        server.psql(SCRIPT, empty)
        init_db(empty, timeout_s=30)
    assert read(empty, CATALOGUE).equals(once)
    assert read(empty, "SELECT * FROM raven_schema").equals(version)
    other = server.create_database()
    try:
        for _ in range(3):
            init_db(other, timeout_s=30)
        assert read(other, CATALOGUE).equals(once)
        assert hypertables(other) == hypertables(empty) == (set(BAR_SCHEMAS) if has_timescale(empty) else set())
    finally:
        server.drop_database(other)


def test_columns_are_those_of_the_schema_and_say_what_they_are(url):
    catalogue = read(url, CATALOGUE)
    types = {"string": "text", "int64": "bigint", "double": "double precision", "bool": "boolean"}
    for table, schema in BAR_SCHEMAS.items():
        columns = catalogue.filter(relation=table)
        assert columns["name"].to_list() == schema.names
        assert columns["type"].to_list() == [types.get(str(each.type), "timestamp with time zone") for each in schema]
        assert columns["not_null"].to_list() == [not each.nullable for each in schema]
    tables = catalogue.filter(kind="r")
    assert set(tables["relation"]) == {*BAR_SCHEMAS, "raven_positions", "raven_schema"}
    assert tables["meaning"].null_count() == 0
    assert tables["definition"].null_count() == 0


def test_a_timescale_server_gives_hypertables_of_a_week_a_chunk(postgres, database):
    facts = init_db(database, timeout_s=30)
    assert facts.timescaledb is not None
    assert set(facts.hypertables) == set(BAR_SCHEMAS)
    assert facts.compressed == (facts.hypertables if facts.license == "timescale" else ())
    chunks = postgres.psql("SELECT DISTINCT time_interval FROM timescaledb_information.dimensions", database)
    assert chunks == "7 days"
    indexes = postgres.psql(
        "SELECT indexname FROM pg_indexes WHERE schemaname = 'public' AND tablename LIKE '%_bars' ORDER BY 1", database
    )
    assert indexes.split() == ["tick_imbalance_bars_identity", "tick_imbalance_bars_latest", "time_bars_identity"]


def test_the_apache_edition_has_no_compression_and_the_script_does_not_ask_for_it(postgres, database):
    if init_db(database, timeout_s=30).license == "timescale":
        pytest.skip("the community edition has it")
    asking = SCRIPT.read_text().replace("IS DISTINCT FROM 'timescale'", "IS NULL")
    with pytest.raises(RuntimeError, match='functionality not supported under the current "apache" license'):
        postgres.psql(asking, database)
    init_db(database, timeout_s=30)


@pytest.mark.parametrize("kind", list(BAR_SCHEMAS))
def test_the_latest_bars_of_a_symbol_are_read_from_an_index(server, url, tmp_path, kind):
    store = store_on(url, tmp_path, kind)
    store.open()
    store.write(BarFlush([some_bars(kind, range(20_000), symbol=symbol) for symbol in ("BTCUSDT", "ETHUSDT")]))
    store.close()
    server.psql(f"ANALYZE {kind}", url)
    plan = server.psql(
        f"EXPLAIN SELECT * FROM {kind} WHERE venue = 'BINANCE_SPOT' AND symbol = 'BTCUSDT' AND spec = '1m'"
        " ORDER BY open_time DESC LIMIT 10",
        url,
    )
    assert "Index Scan" in plan
    assert "Sort" not in plan
    assert "Seq Scan" not in plan


def test_tables_that_were_there_before_the_extension_become_hypertables_with_their_rows(postgres, database, tmp_path):
    plain = SCRIPT.read_text().replace("timescaledb.disable_load", "no.such_setting")
    postgres.psql(plain, database)
    assert hypertables(database) == set()
    store = store_on(database, tmp_path)
    store.open()
    bars = some_bars("time_bars", range(0, 40_000, 100))
    store.write(BarFlush([bars]))
    init_db(database, timeout_s=30)
    assert hypertables(database) == set(BAR_SCHEMAS)
    assert stored(database).equals(bars)
    assert store.write(BarFlush([some_bars("time_bars", [0, 7], ticks=9)])).replaced == 1
    store.close()


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        ("DROP TABLE tick_imbalance_bars", "no table tick_imbalance_bars"),
        ("DROP TABLE raven_positions", "no table raven_positions"),
        ("DROP TABLE raven_schema", "no table raven_schema"),
        ("DROP INDEX time_bars_identity", "no unique index on venue, symbol, spec, open_time"),
        ("UPDATE raven_schema SET version = 0", "of version 0"),
        ("DELETE FROM raven_schema", "of version 0"),
    ],
)
def test_what_is_missing_or_older_is_refused_until_init_db_has_run(server, url, tmp_path, damage, said):
    server.psql(damage, url)
    store = store_on(url, tmp_path)
    with pytest.raises(StoreRefusedError, match=said) as caught:
        store.open()
    assert "raven init-db" in caught.value.hint
    init_db(url, timeout_s=30)
    store.open()
    assert store.write(BarFlush([some_bars("time_bars", range(3))])).rows == 3
    store.close()


def test_an_older_table_that_forbids_null_is_mended(server, url, tmp_path):
    server.psql(
        "ALTER TABLE tick_imbalance_bars ALTER expected_size SET NOT NULL; UPDATE raven_schema SET version = 0", url
    )
    init_db(url, timeout_s=30)
    store = store_on(url, tmp_path, "tick_imbalance_bars")
    store.open()
    bars = some_bars("tick_imbalance_bars", range(3)).with_columns(expected_size=None)
    assert store.write(BarFlush([bars.cast(some_bars("tick_imbalance_bars", []).schema)])).rows == 3
    store.close()


def test_a_newer_schema_is_refused_by_the_script_and_by_the_store(server, url, tmp_path):
    server.psql("UPDATE raven_schema SET version = 7", url)
    before = read(url, CATALOGUE)
    with pytest.raises(RuntimeError, match=r"version 7, and this script makes version 1(.|\n)*newer one"):
        server.psql(SCRIPT, url)
    with pytest.raises(StoreRefusedError, match="version 7") as caught:
        init_db(url, timeout_s=30)
    assert "newer" in caught.value.hint
    with pytest.raises(StoreRefusedError, match="version 7") as caught:
        store_on(url, tmp_path).open()
    assert "newer" in caught.value.hint
    assert read(url, CATALOGUE).equals(before)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("DROP COLUMN vwap", "vwap is missing"),
        ("ALTER vwap TYPE numeric", "vwap is numeric, not double precision"),
        ("ALTER total_ticks TYPE double precision", "total_ticks is double precision, not bigint"),
        ("ALTER close_time TYPE timestamp", "close_time is timestamp without time zone"),
        ("ALTER close_time TYPE bigint USING 0", "close_time is bigint, not timestamp with time zone"),
        ("ALTER complete SET NOT NULL", "complete must not be null"),
        ("ALTER vwap DROP NOT NULL", "vwap may be null"),
        (
            "ADD COLUMN mine int NOT NULL DEFAULT 1; ALTER TABLE time_bars ALTER mine DROP DEFAULT",
            "mine is unknown, and has no default",
        ),
    ],
)
def test_another_table_of_that_name_is_refused(server, url, tmp_path, change, said):
    server.psql(f"ALTER TABLE time_bars {change}", url)
    with pytest.raises(StoreRefusedError, match=said):
        store_on(url, tmp_path).open()
    other = store_on(url, tmp_path, "tick_imbalance_bars")
    other.open()
    other.close()


def test_a_column_of_ones_own_does_no_harm(server, url, tmp_path):
    mine = "ADD COLUMN note text, ADD COLUMN seen timestamptz NOT NULL DEFAULT '2026-01-01 00:00+00'"
    server.psql(f"ALTER TABLE time_bars {mine}", url)
    store = store_on(url, tmp_path)
    store.open()
    assert store.write(BarFlush([some_bars("time_bars", range(3))])).rows == 3
    store.close()
    init_db(url, timeout_s=30)


def run_init_db(monkeypatch, capsys, url: str, *options: str) -> tuple[int, str, str]:
    monkeypatch.setenv("RAVEN__TIMESCALE__URL", url)
    monkeypatch.setenv("RAVEN__TIMESCALE__TIMEOUT_S", "5")
    monkeypatch.setattr("sys.argv", ["raven", "init-db", *options])
    with pytest.raises(SystemExit) as ended:
        main()
    told = capsys.readouterr()
    return int(ended.value.code or 0), told.out, told.err


def test_the_command_says_what_there_is(monkeypatch, capsys, tmp_path, empty):
    monkeypatch.chdir(tmp_path)
    code, out, _ = run_init_db(monkeypatch, capsys, empty, "--json")
    facts = json.loads(out)
    assert code == 0
    assert facts["version"] == 1
    assert facts["database"] == urlsplit(empty).path[1:]
    assert set(facts["hypertables"]) == hypertables(empty)
    code, out, _ = run_init_db(monkeypatch, capsys, empty)
    assert code == 0
    assert ("plain tables" in out) != has_timescale(empty)


def test_wrong_uses_of_the_command_get_one_clear_line(monkeypatch, capsys, tmp_path, server, empty):
    monkeypatch.chdir(tmp_path)
    password = urlsplit(empty).password
    assert password is not None
    server.psql("CREATE ROLE raven_lowly LOGIN PASSWORD 'lowly'", empty)
    place = empty.rpartition("@")[2]
    uses = {
        "": "timescale.url is not set",
        empty.replace(password, "wrong"): "password authentication failed.*set the right password",
        empty + "_none": "does not exist.*create the database",
        f"postgresql://raven:{password}@127.0.0.1:1/raven": "refused.*is it running",
        f"postgresql://raven_lowly:lowly@{place}": "permission denied.*grant",
        f"postgresql://raven:{password}/@{place}": "special characters",
        f"postgresql://raven:{password}@@{place}": "special characters",
        f"{empty}?sslmode=require": "SSL.*sslmode",
        f"{empty}?nonsense=1": "nonsense.*timescale.url",
        empty.replace("postgresql", "mysql"): "postgresql://",
    }
    try:
        for url, said in uses.items():
            code, out, err = run_init_db(monkeypatch, capsys, url)
            assert (code, out, len(err.splitlines())) == (1, "", 1), err
            assert password not in err
            assert "lowly@" not in err
            assert re.search(said, err), err
    finally:
        server.psql("DROP ROLE raven_lowly")


def test_the_script_lies_beside_the_code():
    assert script() == Path(SCRIPT)
