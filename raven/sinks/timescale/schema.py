"""The tables in the database: made by sql/create_bars_table.sql, and looked at before anything is written."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Any, Final

import pyarrow as pa

from raven.errors import StoreError
from raven.sinks.encode import BARS, Layout
from raven.sinks.store import StoreRefusedError
from raven.sinks.timescale.errors import INIT_DB
from raven.sinks.timescale.session import Session, session
from raven.sinks.timescale.sql import conflict_columns

SCHEMA_VERSION: Final = 1
"""What sql/create_bars_table.sql makes; that says how the next one follows."""

SCRIPT: Final = "create_bars_table.sql"

_TYPES: Final = {
    pa.string(): "text",
    pa.int64(): "bigint",
    pa.float64(): "double precision",
    pa.bool_(): "boolean",
    pa.timestamp("us", tz="UTC"): "timestamp with time zone",
}

_COLUMNS: Final = """
    SELECT attname::text AS name, format_type(atttypid, atttypmod) AS type, attnotnull AS not_null,
           atthasdef OR attidentity <> '' AS has_default
    FROM pg_attribute WHERE attrelid = to_regclass($1) AND attnum > 0 AND NOT attisdropped
"""
_UNIQUE: Final = """
    SELECT string_agg(attname::text, ' ' ORDER BY attname::text COLLATE "C") AS columns
    FROM pg_index JOIN pg_attribute ON attrelid = indrelid AND attnum = ANY (indkey)
    WHERE indrelid = to_regclass($1) AND indisunique AND indisvalid AND indpred IS NULL AND indexprs IS NULL
    GROUP BY indexrelid
"""
_IS_THERE: Final = "SELECT to_regclass($1) IS NOT NULL AS found"
_SERVER: Final = """
    SELECT current_database()::text AS database, current_setting('server_version') AS postgresql,
           (SELECT extversion FROM pg_extension WHERE extname = 'timescaledb') AS timescaledb,
           current_setting('timescaledb.license', true) AS license
"""
_HYPERTABLES: Final = """
    SELECT hypertable_name::text AS name, compression_enabled AS compressed
    FROM timescaledb_information.hypertables
    WHERE format('%I.%I', hypertable_schema, hypertable_name)::regclass
          IN (to_regclass('time_bars'), to_regclass('tick_imbalance_bars'))
    ORDER BY 1
"""


@dataclass(frozen=True, slots=True)
class DatabaseFacts:
    """What `init_db` and `examine` find.

    `timescaledb` and `license` are None in plain PostgreSQL. `hypertables` are those of Raven's tables that are one,
    `compressed` those of them that are compressed after a while.
    """

    database: str
    postgresql: str
    timescaledb: str | None
    license: str | None
    hypertables: tuple[str, ...]
    compressed: tuple[str, ...]
    version: int


def script() -> Path:
    """Where sql/create_bars_table.sql lies: in the checkout, or where the package was installed."""
    checkout = Path(__file__).parents[3] / "sql" / SCRIPT
    if checkout.exists():
        return checkout
    try:
        installed = distribution("raven-market-data").files or ()
    except PackageNotFoundError:
        installed = ()
    found = next((Path(str(file.locate())) for file in installed if file.name == SCRIPT), None)
    if found is None or not found.exists():
        raise StoreError(f"{SCRIPT} is not part of this installation", hint="install Raven again")
    return found


def init_db(url: str, *, timeout_s: float) -> DatabaseFacts:
    """Make the tables of all bars, or bring them up to date, and check them; `timeout_s` bounds the connecting.

    Raises StoreError when the server cannot be reached, or refuses.
    """
    statements = "".join(
        line for line in script().read_text().splitlines(keepends=True) if not line.startswith("\\")
    )  # psql's own
    with session(url, timeout_s=timeout_s, patient=True) as opened:
        opened.script(statements)
        return _checked(opened)


def examine(url: str, *, timeout_s: float) -> DatabaseFacts:
    """Check the tables of all bars and change nothing; an answer is waited for `timeout_s`.

    Raises StoreUnavailableError when the server cannot be reached, StoreRefusedError when something needs mending.
    """
    with session(url, timeout_s=timeout_s) as opened:
        return _checked(opened)


def _checked(opened: Session) -> DatabaseFacts:
    for layout in BARS.values():
        check(opened, layout)
    return _facts(opened)


def check(opened: Session, layout: Layout) -> None:
    """Raises StoreRefusedError when the table of `layout`, its unique index or the version is not as it has to be."""
    _check_version(opened)
    wrong = [*_wrong_columns(opened, layout), *_wrong_index(opened, layout)]
    if wrong:
        raise StoreRefusedError(f"the table {layout.name} is not Raven's: {'; '.join(wrong)}", hint=INIT_DB)


def is_there(opened: Session, name: str) -> bool:
    """Whether the database has a table `name`, whatever it is like."""
    return bool(_one(opened.run(_IS_THERE, (name,)))["found"])


def _check_version(opened: Session) -> None:
    for name in (*(layout.name for layout in BARS.values()), "raven_positions", "raven_schema"):
        if not is_there(opened, name):
            raise StoreRefusedError(f"the database has no table {name}", hint=INIT_DB)
    version = _version(opened)
    if version < SCHEMA_VERSION:
        raise StoreRefusedError(
            f"the tables are of version {version}, this version of Raven needs {SCHEMA_VERSION}", hint=INIT_DB
        )
    if version > SCHEMA_VERSION:
        raise StoreRefusedError(
            f"the tables are of version {version}, this version of Raven knows {SCHEMA_VERSION}",
            hint="use the version of Raven that made them, or a newer one",
        )


def _version(opened: Session) -> int:
    rows = opened.run("SELECT version FROM raven_schema")
    return int(_one(rows)["version"]) if rows.num_rows else 0


def _wrong_columns(opened: Session, layout: Layout) -> list[str]:
    found = {row["name"]: row for row in opened.run(_COLUMNS, (layout.name,)).to_pylist()}
    wrong = []
    for field in layout.schema:
        column, wanted = found.pop(field.name, None), _TYPES[field.type]
        if column is None:
            wrong.append(f"{field.name} is missing")
        elif column["type"] != wanted:
            wrong.append(f"{field.name} is {column['type']}, not {wanted}")
        elif column["not_null"] and field.nullable:
            wrong.append(f"{field.name} must not be null")
        elif not column["not_null"] and not field.nullable:
            wrong.append(f"{field.name} may be null")
    return wrong + [
        f"{name} is unknown, and has no default"
        for name, row in found.items()
        if row["not_null"] and not row["has_default"]
    ]


def _wrong_index(opened: Session, layout: Layout) -> list[str]:
    wanted = conflict_columns(layout)
    found = [row["columns"] for row in opened.run(_UNIQUE, (layout.name,)).to_pylist()]
    return [] if " ".join(sorted(wanted)) in found else [f"no unique index on {', '.join(wanted)}"]


def _facts(opened: Session) -> DatabaseFacts:
    server = _one(opened.run(_SERVER))
    tables = opened.run(_HYPERTABLES).to_pylist() if server["timescaledb"] else []
    return DatabaseFacts(
        **server,
        hypertables=tuple(row["name"] for row in tables),
        compressed=tuple(row["name"] for row in tables if row["compressed"]),
        version=_version(opened),
    )


def _one(rows: pa.Table) -> dict[str, Any]:
    found: dict[str, Any] = rows.to_pylist()[0]
    return found
