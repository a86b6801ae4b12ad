"""Where a bucket is read: InfluxQL knows databases and retention policies, to which InfluxDB 2 maps its buckets."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any, Final, NamedTuple

from raven.errors import StoreError
from raven.sinks.influx.client import Client
from raven.sinks.influx.query import select
from raven.sinks.influx.responses import Answer, message
from raven.sinks.store import StoreUnavailableError

UNKNOWN: Final = re.compile(r"database not found|retention policy not found", re.IGNORECASE)
"""What InfluxDB says of a bucket that is not there, and of one that the token may not read."""

_ID: Final = re.compile(r"[0-9a-f]{16}")
_PROBE: Final = select(["trade_id"], {}, first_ns=None, after_ns=None, rows=1)


class Place(NamedTuple):
    """A database, and a retention policy where it is not the database's own."""

    database: str
    policy: str = ""


def places(bucket: str) -> list[Place]:
    """Under what a bucket of this name may be read: `a/b` is policy b of database a; an InfluxDB 1.x takes it whole."""
    database, _, policy = bucket.partition("/")
    return [Place(database, policy), Place(bucket)] if database and policy else [Place(bucket)]


def find(client: Client, bucket: str) -> tuple[Place, bool]:
    """Where the bucket (a name, or an id) is read, and whether any trade is there.

    Raises StoreError with the true cause when it cannot be read, StoreUnavailableError when nobody answers.
    """
    named = _name_of(client, bucket) if _ID.fullmatch(bucket) else ""
    for place in [*(places(named) if named else []), *places(bucket)]:
        try:
            return place, first_time(client, place, _PROBE) is not None
        except UnknownPlaceError as error:
            said = error
    raise _unreadable(client, named or bucket, said)


def why_unreadable(client: Client, bucket: str) -> str:
    """Why what is written into the bucket cannot be read back; empty: it can."""
    try:
        find(client, bucket)
    except StoreError as error:
        return str(error)
    return ""


class UnknownPlaceError(StoreError):
    """InfluxDB does not know this database, or does not show it to us."""


def first_time(client: Client, place: Place, text: str) -> int | None:
    """The time (ns) of the first point that a query finds, None: it finds none."""
    found = series(client, place, text)
    return int(found[0]["values"][0][0]) if found else None


def series(client: Client, place: Place, text: str) -> list[dict[str, Any]]:
    """The series that a query gives; asked in JSON, which tells of errors that CSV leaves out.

    Raises StoreError when the server does not answer, or not as an InfluxDB does.
    """
    answer = asked(client, place, text, accept="application/json")
    try:
        results = json.loads(answer.body)["results"]
    except (ValueError, KeyError, TypeError) as error:
        raise StoreError(
            f"InfluxDB cannot be read: {message(answer)}", hint="is influx.url the address of an InfluxDB?"
        ) from error
    for result in results:
        if "error" in result:
            kind: Callable[..., StoreError] = UnknownPlaceError if UNKNOWN.search(result["error"]) else StoreError
            raise kind(f"InfluxDB cannot be read: {result['error']}", hint="is influx.bucket the right one?")
    return [found for result in results for found in result.get("series", ())]


def asked(client: Client, place: Place, text: str, *, accept: str) -> Answer:
    """The answer to a query. Raises StoreError when it is none, StoreUnavailableError when nobody answers."""
    answer = client.query(text, place.database, place.policy, accept=accept)
    if answer.status == 200:
        return answer
    if answer.status is None:
        raise StoreUnavailableError(message(answer))
    said = message(answer)
    kind: Callable[..., StoreError] = UnknownPlaceError if UNKNOWN.search(said) else StoreError
    raise kind(
        f"InfluxDB cannot be read: {said} (HTTP {answer.status})",
        hint="check influx.token (it needs the right to read), influx.org and influx.bucket",
    )


def _unreadable(client: Client, bucket: str, said: StoreError) -> StoreError:
    """InfluxDB says "database not found" of three faults: what it tells of its buckets parts them."""
    found = _buckets(client.buckets(bucket))
    if found is None:
        return StoreError(said.message, hint="is influx.bucket the right one, and may influx.token read it?")
    if found:
        return StoreError(
            f"InfluxDB cannot be read: the bucket {bucket} is mapped to no database",
            hint=f"map it: influx v1 dbrp create --bucket-id {found[0]} --db NAME --rp autogen --default",
        )
    return StoreError(
        f"InfluxDB cannot be read: the token in influx.token may not read the bucket {bucket}, or there is none",
        hint="give the token the right to read the bucket, too",
    )


def _name_of(client: Client, bucket_id: str) -> str:
    """The name of the bucket of that id; empty when it is not told: it may be a name itself."""
    answer = client.bucket(bucket_id)
    document = _document(answer)
    return str(document.get("name", "")) if answer.status == 200 else ""


def _buckets(answer: Answer) -> list[str] | None:
    """The ids of the buckets that are shown to us; None: the server does not tell."""
    if answer.status == 404 and "bucket" in message(answer):
        return []
    found = _document(answer).get("buckets")
    return [str(one.get("id", "")) for one in found] if answer.status == 200 and isinstance(found, list) else None


def _document(answer: Answer) -> dict[str, Any]:
    try:
        document = json.loads(answer.body)
    except ValueError:
        return {}
    return document if isinstance(document, dict) else {}
