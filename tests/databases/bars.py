"""What the tests of the bar tables share: databases with the tables in them, stores on them, what they hold."""

from __future__ import annotations

from pathlib import Path

import polars as pl
from adbc_driver_postgresql import dbapi

from raven.settings import TimescaleSettings
from raven.sinks.dead_letters import DeadLetters
from raven.sinks.encode import BARS
from raven.sinks.store import BAR_SCHEMAS, BarKind
from raven.sinks.timescale import TimescaleBarStore
from raven.sinks.timescale.schema import init_db
from tests.servers.postgres import AnyPostgres

SCRIPT = Path(__file__).parents[2] / "sql" / "create_bars_table.sql"


def made(server: AnyPostgres, where: Path) -> str:
    """The URL of a database with Raven's tables that belongs to the folder `where`; the same one for the same folder."""
    note = where / "url"
    if not note.exists():
        url = server.create_database()
        init_db(url, timeout_s=30)
        note.write_text(url)
    return note.read_text()


def store_on(url: str, where: Path, kind: BarKind = "time_bars", *, timeout_s: float = 30) -> TimescaleBarStore:
    """A store, not yet open, with its dead letters in `where`."""
    return TimescaleBarStore(
        TimescaleSettings(url=url, timeout_s=timeout_s), kind, writer="tests", dead_letters=DeadLetters(where)
    )


def read(url: str, statement: str) -> pl.DataFrame:
    """What a statement gives, read by nothing of ours."""
    with dbapi.connect(url) as connection, connection.cursor() as cursor:
        cursor.execute(statement)
        frame = pl.from_arrow(cursor.fetch_arrow_table())
    assert isinstance(frame, pl.DataFrame)
    return frame


def stored(url: str, kind: BarKind = "time_bars") -> pl.DataFrame:
    """All rows of a table, in the order of their identity."""
    rows = read(url, f"SELECT * FROM {kind}")
    assert rows.columns == BAR_SCHEMAS[kind].names
    return rows.sort(BARS[kind].identity)
