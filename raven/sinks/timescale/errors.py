"""What PostgreSQL's errors mean to a writer: try again, mend something first, or this row never. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

from raven.errors import StoreError
from raven.sinks.store import StoreRefusedError, StoreUnavailableError

INIT_DB: Final = "run `raven init-db`, or sql/create_bars_table.sql with psql"
WAITS: Final = "what is not stored yet waits in the journals"

Verdict = Literal["retry", "mend", "row"]


class RowRefusedError(StoreRefusedError):
    """The server refuses what a row holds; one of those that were written."""


@dataclass(frozen=True, slots=True)
class Fault:
    """`retry`: it may work later. `mend`: not before somebody does what `hint` says. `row`: never with this row."""

    verdict: Verdict
    hint: str = ""


_BY_SQLSTATE: Final = {
    "22P03": Fault("mend", f"a column is of another type than it was: {INIT_DB}"),
    "23502": Fault("mend", "the table has a column of somebody else's that must not be null: give it a default"),
    "25006": Fault("retry", "the server takes no writes now: is it a standby, or default_transaction_read_only set?"),
    "28P01": Fault("mend", "set the right password in timescale.url"),
    "3D000": Fault("mend", f"create the database, then {INIT_DB}"),
    "42501": Fault("mend", "let an administrator grant the user of timescale.url this right"),
    "42P01": Fault("mend", INIT_DB),
    "42703": Fault("mend", INIT_DB),
    "42P10": Fault("mend", f"the unique index is missing: {INIT_DB}"),
    "53100": Fault("retry", f"the disk of the database is full: free some space there; {WAITS}"),
    "53200": Fault("retry", "the database is out of memory"),
    "53300": Fault("retry", "the server has no connection left: close others, or raise its max_connections"),
    "53400": Fault(
        "mend",
        "let the user of timescale.url set timescaledb.max_tuples_decompressed_per_dml_transaction, or raise it: bars "
        "came again for compressed chunks",
    ),
    "54000": Fault("row"),
    "55P03": Fault("retry", "somebody else holds a lock on these rows or this table"),
    "57014": Fault("retry", "the server was not done in time: is it overloaded, or is the table locked?"),
    "P0001": Fault("row"),
}
"""The exact codes come before their classes."""

_BY_CLASS: Final = {
    "0A": Fault("mend", "the server cannot do this: is it older than PostgreSQL 13?"),
    "22": Fault("row"),
    "23": Fault("row"),
    "28": Fault("mend", "let this user in from this machine: pg_hba.conf, and the user in timescale.url"),
    "3F": Fault("mend", INIT_DB),
    "42": Fault("mend", INIT_DB),
    "55": Fault("mend"),
}
"""What is in neither is tried again: lost connections (08), deadlocks (40), shutdowns (57), failing disks (58), …"""

_BY_MESSAGE: Final = tuple(
    (re.compile(pattern), fault)
    for pattern, fault in (
        ("password authentication failed|no password supplied", _BY_SQLSTATE["28P01"]),
        ('database ".*" does not exist', _BY_SQLSTATE["3D000"]),
        ('role ".*" does not exist|not permitted to log in', Fault("mend", "set the right user in timescale.url")),
        ("permission denied", _BY_SQLSTATE["42501"]),
        ("unexpected eof|SSL SYSCALL|SSL connection has been closed", Fault("retry")),
        (  # not of a connection that stood: it was made with these settings
            "^connection to server .*(SSL|certificate)|sslmode|sslrootcert",
            Fault("mend", "sslmode and its files in timescale.url must fit"),
        ),
        ("pg_hba.conf", _BY_CLASS["28"]),
        ("^(invalid|missing|unrecognized) ", Fault("mend", "mend timescale.url")),
        ("too many (clients|connections)|connection slots", _BY_SQLSTATE["53300"]),
        ("No space left on device", _BY_SQLSTATE["53100"]),
        ("timeout expired", Fault("retry", "the server does not answer: is it overloaded, or behind a firewall?")),
        (
            "refused|translate host|o route to host|unreachable",
            Fault("retry", "is it running, is timescale.url right?"),
        ),
    )
)
"""Of a connection that could not be made, or was lost, there is no code: the server's English words have to do."""


def classify(sqlstate: str | None, message: str) -> Fault:
    """What to do about an error of the server (with its SQLSTATE) or of the connection (None)."""
    if sqlstate:
        return _BY_SQLSTATE.get(sqlstate) or _BY_CLASS.get(sqlstate[:2]) or Fault("retry")
    return next((fault for pattern, fault in _BY_MESSAGE if pattern.search(message)), Fault("retry"))


def explain(sqlstate: str | None, message: str, details: Sequence[tuple[str, Any]]) -> StoreError:
    """The driver's error as one of Raven's: what the server said, and what to do."""
    told = {_text(name): _text(value) for name, value in details}
    text = told.get("PG_DIAG_MESSAGE_PRIMARY", "") or _plain(message)
    fault = classify(sqlstate, text)
    column = re.search(r"column (\w+)", told.get("PG_DIAG_CONTEXT", ""))
    said = [f"column {column[1]}" if column else "", text, told.get("PG_DIAG_MESSAGE_DETAIL", "")]
    shown = ": ".join(part for part in said if part) + (f" (SQLSTATE {sqlstate})" if sqlstate else "")
    hint = "; ".join(part for part in (told.get("PG_DIAG_MESSAGE_HINT", ""), fault.hint) if part)
    return _ERRORS[fault.verdict](shown, hint=hint)


_ERRORS: Final[dict[Verdict, type[StoreUnavailableError]]] = {
    "retry": StoreUnavailableError,
    "mend": StoreRefusedError,
    "row": RowRefusedError,
}


def _text(value: Any) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)


def _plain(message: str) -> str:
    """The first line that says something, without what the driver puts before it."""
    line = next((line for line in message.splitlines() if line.strip()), "the connection failed")
    return " ".join(re.sub(r"^\w+: (\[libpq\] )?(Failed to [\w ]+: )?", "", line).split())
