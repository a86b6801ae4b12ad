"""What a bucket holds: which venues and symbols, told by its index, and how many trades of each, counted."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import polars as pl

from raven.settings import InfluxSettings
from raven.sinks.contents import CONTENTS
from raven.sinks.encode import TRADES
from raven.sinks.influx.client import Client
from raven.sinks.influx.place import Place, find, series
from raven.sinks.influx.query import count, edge, tag_values

DAY_NS: Final = 86_400 * 10**9
_COUNTED: Final = {
    **dict.fromkeys(("venue", "symbol"), pl.String()),
    **dict.fromkeys(("rows", "first_time", "last_time"), pl.Int64()),
}


def groups(settings: InfluxSettings) -> pl.DataFrame:
    """The venues and symbols of the trades in the bucket; its index tells, no trade is read.

    Raises StoreError when the server does not answer, or not with trades.
    """
    client = Client(settings)
    try:
        place, _ = find(client, settings.bucket)
        found = [
            (venue, symbol)
            for venue in _tag_values(client, place, "venue", {})
            for symbol in _tag_values(client, place, "symbol", {"venue": venue})
        ]
    finally:
        client.close()
    return pl.DataFrame(found, schema=dict.fromkeys(TRADES.group, pl.String()), orient="row")


def contents(settings: InfluxSettings) -> pl.DataFrame:
    """How many trades of each venue and symbol the bucket holds, the first and the last ts_event; see CONTENTS.

    The server counts, a day at a time, so that no answer is long in coming. Raises StoreError as `groups`.
    """
    client = Client(settings)
    try:
        place, _ = find(client, settings.bucket)
        rows = [row for day in _days(client, place) for row in _counted(client, place, day)]
        days = pl.DataFrame(rows, _COUNTED, orient="row")
    finally:
        client.close()
    time = pl.col("first_time", "last_time")
    return (
        days.group_by("venue", "symbol")
        .agg(pl.col("rows").sum(), pl.col("first_time").min(), pl.col("last_time").max())
        .with_columns(pl.lit(None, pl.String).alias("spec"), time.cast(pl.Datetime("us")).dt.replace_time_zone("UTC"))
        .select(CONTENTS.names())
    )


def _tag_values(client: Client, place: Place, tag: str, equal: dict[str, str]) -> list[str]:
    return [value for found in series(client, place, tag_values(tag, equal)) for _, value in found["values"]]


def _days(client: Client, place: Place) -> Iterator[range]:
    """The days, in nanoseconds, from the first trade to the last."""
    first, last = (
        [found["values"][0][0] for found in series(client, place, edge(which))] for which in ("first", "last")
    )
    if first and last:
        for start in range(first[0] // DAY_NS * DAY_NS, last[0] + 1, DAY_NS):
            yield range(start, start + DAY_NS)


def _counted(client: Client, place: Place, day: range) -> Iterator[tuple[str, str, int, int, int]]:
    for found in series(client, place, count(day.start, day.stop)):
        _, rows, first_us, last_us = found["values"][0]
        yield found["tags"]["venue"], found["tags"]["symbol"], rows, first_us, last_us
