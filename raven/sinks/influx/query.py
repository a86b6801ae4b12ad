"""Questions about stored trades in InfluxQL, the language that InfluxDB 1.x and 2 share. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Final, Literal

from raven.sinks.influx.lines import IDS_PER_MS, MEASUREMENT

_MOST_NS: Final = 2**63 - 2
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


def identifier(name: str) -> str:
    """`name` as InfluxQL writes names."""
    return f'"{_escaped(name, chr(34))}"'


def literal(text: str) -> str:
    """`text` as InfluxQL writes strings."""
    return f"'{_escaped(text, chr(39))}'"


def epoch_us(time: datetime) -> int:
    """`time` in microseconds since the epoch, exactly."""
    return (time - _EPOCH) // timedelta(microseconds=1)


def first_ns(start_us: int) -> int:
    """No point of a trade at `start_us` or later lies before this time: a point keeps the millisecond of its trade."""
    return _within(start_us // 1000 * IDS_PER_MS)


def after_ns(end_us: int) -> int:
    """All points of trades before `end_us` lie before this time."""
    return _within(-(-end_us // 1000) * IDS_PER_MS)


def select(
    columns: Sequence[str],
    equal: Mapping[str, str],
    *,
    first_ns: int | None,
    after_ns: int | None,
    rows: int,
    newest: bool = False,
) -> str:
    """The oldest `rows` points of trades with the tags in `equal`, `first_ns` <= time < `after_ns`; or the newest."""
    where = [f"{identifier(tag)} = {literal(value)}" for tag, value in equal.items()]
    where += [f"time >= {first_ns}"] if first_ns is not None else []
    where += [f"time < {after_ns}"] if after_ns is not None else []
    asked = ", ".join(map(identifier, columns))
    condition = f" WHERE {' AND '.join(where)}" if where else ""
    order = f"ORDER BY time{' DESC' if newest else ''} LIMIT {rows}"
    return f"SELECT {asked} FROM {identifier(MEASUREMENT)}{condition} {order}"  # noqa: S608 - escaped


def tag_values(tag: str, equal: Mapping[str, str]) -> str:
    """The values of `tag` of trades with the tags in `equal`."""
    where = " AND ".join(f"{identifier(name)} = {literal(value)}" for name, value in equal.items())
    return f"SHOW TAG VALUES FROM {identifier(MEASUREMENT)} WITH KEY = {identifier(tag)}" + (
        where and f" WHERE {where}"
    )


def edge(which: Literal["first", "last"]) -> str:
    """The time of the `first` or the `last` trade."""
    return f'SELECT {which}("trade_id") FROM {identifier(MEASUREMENT)}'  # noqa: S608 - nothing in it is given


def count(first_ns: int, after_ns: int) -> str:
    """Of each venue and symbol the trades with `first_ns` <= time < `after_ns`: how many, from when to when."""
    return (
        f'SELECT count("trade_id"), min("ts_event_us"), max("ts_event_us") FROM {identifier(MEASUREMENT)}'  # noqa: S608
        f' WHERE time >= {first_ns} AND time < {after_ns} GROUP BY "venue", "symbol"'
    )


def _within(time_ns: int) -> int:
    """The nearest time that InfluxDB knows; no point lies beyond."""
    return min(max(time_ns, -_MOST_NS), _MOST_NS)


def _escaped(text: str, quote: str) -> str:
    return text.replace("\\", "\\\\").replace(quote, f"\\{quote}").replace("\n", "\\n")
