"""The statements of the store and the connection string, made of a table's layout. Pure.

Names come from the layout, which is ours; values are never part of a statement.
"""

# ruff: noqa: S608 - see above
from __future__ import annotations

import math
import re
from typing import Final
from urllib.parse import SplitResult, parse_qsl, unquote, urlencode, urlsplit

from raven.errors import SettingsError
from raven.sinks.encode import Layout

STAGING: Final = "raven_staging"
BEGIN: Final = "BEGIN"
COMMIT: Final = "COMMIT"
PIECE: Final = "SAVEPOINT piece"
PIECE_DONE: Final = "RELEASE SAVEPOINT piece"
PIECE_UNDONE: Final = "ROLLBACK TO SAVEPOINT piece"
EMPTY_STAGING: Final = f"TRUNCATE {STAGING}"
DECOMPRESSION: Final = "timescaledb.max_tuples_decompressed_per_dml_transaction"
UNBOUND_DECOMPRESSION: Final = (
    f"SELECT CASE WHEN current_setting('{DECOMPRESSION}', true) IS NOT NULL"
    f" THEN set_config('{DECOMPRESSION}', '0', false) END"
)
"""In this session a write may decompress what it needs: bars that come again for compressed chunks, of many symbols at
once, are beyond the server's usual limit of rows. A flush bounds it. Servers without the setting are left alone."""
POSITIONS: Final = "SELECT upstream, journal_id, sequence FROM raven_positions WHERE writer = $1 AND table_name = $2"
MOVE_POSITIONS: Final = (
    "INSERT INTO raven_positions (writer, table_name, upstream, journal_id, sequence) VALUES ($1, $2, $3, $4, $5)"
    " ON CONFLICT (writer, table_name, upstream) DO UPDATE"
    " SET journal_id = excluded.journal_id, sequence = excluded.sequence, updated_at = now()"
)
ESTIMATED_ROWS: Final = (
    "SELECT coalesce(sum(greatest(reltuples, 0)), 0)::bigint AS rows FROM pg_class WHERE oid = to_regclass($1)"
    " OR oid IN (SELECT inhrelid FROM pg_inherits WHERE inhparent = to_regclass($1))"
)
"""Of the table and its chunks, as of the server's last look at them."""

_NEVER: Final = re.compile(r"%(?![0-9A-Fa-f]{2})|%00|[\s\0-\x1f\ud800-\udfff]")
_HOST: Final = r"(\[[^][]+\]|[^][:]*)(:\d*)?"
_HOSTS: Final = re.compile(f"{_HOST}(,{_HOST})*")
_SECRET_OPTIONS: Final = ("password", "secret")
"""How the names of options end that hold one."""


def conninfo(url: str, timeout_s: float) -> str:
    """`url` with what a connection of ours is to be like, where it does not say otherwise.

    Raises SettingsError, without showing it, when special characters of a password would be taken for something else.
    """
    parts = urlsplit(url)
    if _is_misread(url, parts):
        raise SettingsError(
            "timescale.url cannot be read: it has special characters where they mean something else",
            hint="write those of the password as %XX: @ is %40, / is %2F, # is %23, % is %25, & is %26, a blank is %20;"
            " an option that holds a password comes last",
        )
    wanted = {
        "application_name": "raven",
        "connect_timeout": str(max(2, math.ceil(timeout_s))),
        "keepalives_idle": "30",
        "keepalives_interval": "10",
        "keepalives_count": "3",
        "tcp_user_timeout": str(round(timeout_s * 1e3)),
    }
    given = dict(parse_qsl(parts.query, keep_blank_values=True))
    added = urlencode({name: value for name, value in wanted.items() if name not in given})
    query = "&".join(part for part in (parts.query, added) if part)
    return parts._replace(query=query).geturl()


def _is_misread(url: str, parts: SplitResult) -> bool:
    """Whether the driver would refuse `url` with an error that quotes a part of it, perhaps of the password.

    It names options that it does not know: one after a password may be what follows an `&` in it.
    """
    options = parts.query.split("&") if parts.query else []
    names = [unquote(option.partition("=")[0]) for option in options]
    return bool(
        _NEVER.search(url)
        or parts.fragment
        or parts.netloc.count("@") > 1
        or "@" in parts.path + parts.query
        or not _HOSTS.fullmatch(parts.netloc.rpartition("@")[2])
        or any(option.count("=") != 1 for option in options)
        or any(name.endswith(_SECRET_OPTIONS) for name in names[:-1])
    )


def session_settings(timeout_s: float) -> str:
    """Lets the server give up before we do, and let go of what we left behind; what was committed is on its disk."""
    limits = {
        "statement_timeout": timeout_s * 0.9,
        "lock_timeout": timeout_s * 0.5,
        "idle_in_transaction_session_timeout": timeout_s,
    }
    calls = [f"set_config('{name}', '{max(1, round(limit_s * 1e3))}', false)" for name, limit_s in limits.items()]
    durable = (
        "CASE current_setting('synchronous_commit') WHEN 'off' THEN set_config('synchronous_commit', 'on', false) END"
    )
    return f"SELECT {', '.join([*calls, durable])}"


def conflict_columns(layout: Layout) -> list[str]:
    """The columns of the table's unique index; a hypertable wants its time among them."""
    return list(dict.fromkeys([*layout.identity, layout.time]))


def make_staging(layout: Layout) -> str:
    """The temporary table that a flush is copied into; its rows live as long as their transaction."""
    return (
        f"CREATE TEMPORARY TABLE {STAGING} ON COMMIT DELETE ROWS"
        f" AS SELECT {_columns(layout.schema.names)} FROM {layout.name} WITH NO DATA"
    )


def upsert(layout: Layout) -> str:
    """From staging into the table, by higher revision; gives how many rows were `inserted` and `replaced`.

    A row that was inserted has no transaction that locked it (xmax); one that was updated has ours.
    """
    key = conflict_columns(layout)
    changed = ", ".join(
        f"{_quoted(name)} = excluded.{_quoted(name)}" for name in layout.schema.names if name not in key
    )
    columns = _columns(layout.schema.names)
    return (
        f"WITH stored AS (INSERT INTO {layout.name} AS bar ({columns}) SELECT {columns} FROM {STAGING}"
        f" ON CONFLICT ({_columns(key)}) DO UPDATE SET {changed} WHERE excluded.revision > bar.revision"
        " RETURNING bar.xmax = 0 AS is_new)"
        " SELECT count(*) FILTER (WHERE is_new) AS inserted, count(*) FILTER (WHERE NOT is_new) AS replaced FROM stored"
    )


def select(layout: Layout, columns: list[str], conditions: list[str], limit: int | None) -> str:
    """Rows of the table; `conditions` name columns and parameters."""
    where = f" WHERE {' AND '.join(conditions)}" if conditions else ""
    limited = "" if limit is None else f" LIMIT {int(limit)}"
    return f"SELECT {_columns(columns)} FROM {layout.name}{where}{limited}"


def one_row(layout: Layout, columns: list[str]) -> str:
    """Whether there is a row with these values, the statement's parameters, in `columns`."""
    conditions = [f"{_quoted(name)} = ${number}" for number, name in enumerate(columns, 1)]
    return select(layout, list(layout.group), conditions, 1)


def distinct_groups(layout: Layout) -> str:
    """The groups of the table's rows."""
    return f"SELECT DISTINCT {_columns(list(layout.group))} FROM {layout.name}"


def count_groups(layout: Layout) -> str:
    """Of each group how many rows there are, and their first and last time."""
    group, time = _columns(list(layout.group)), _quoted(layout.time)
    return (
        f"SELECT {group}, count(*) AS rows, min({time}) AS first_time, max({time}) AS last_time"
        f" FROM {layout.name} GROUP BY {group}"
    )


def _columns(names: list[str]) -> str:
    return ", ".join(map(_quoted, names))


def _quoted(name: str) -> str:
    return f'"{name}"'
