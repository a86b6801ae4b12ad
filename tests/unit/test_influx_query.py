"""InfluxQL that leads to the trades asked for, whatever the names hold."""

from __future__ import annotations

import re
from datetime import UTC, datetime

from hypothesis import given
from hypothesis import strategies as st

from raven.sinks.influx.query import after_ns, epoch_us, first_ns, identifier, literal, select


def read(text: str, quote: str) -> str:
    """A slow reader of quoted text in InfluxQL: a backslash escapes the quote, itself, and n."""
    assert text[0] == text[-1] == quote
    inner = text[1:-1]
    assert not re.search(rf"(?<!\\)(\\\\)*{quote}", inner)
    return re.sub(r"\\(.)", lambda found: "\n" if found[1] == "n" else found[1], inner)


@given(text=st.text())
def test_quoted_text_is_read_back(text: str) -> None:
    assert read(identifier(text), '"') == text
    assert read(literal(text), "'") == text


@given(time_us=st.integers(-(10**15), 10**15), bound_us=st.integers(-(10**15), 10**15), below=st.integers(0, 999_999))
def test_the_span_of_points_holds_all_trades_of_the_span_of_times(time_us: int, bound_us: int, below: int) -> None:
    point_ns = time_us // 1000 * 1_000_000 + below
    if time_us >= bound_us:
        assert point_ns >= first_ns(bound_us)
    else:
        assert point_ns < after_ns(bound_us)


def test_a_query_names_what_it_wants() -> None:
    text = select(["price"], {"venue": "O'X"}, first_ns=1, after_ns=2, rows=3)
    assert text == (
        'SELECT "price" FROM "trades" WHERE "venue" = \'O\\\'X\' AND time >= 1 AND time < 2 ORDER BY time LIMIT 3'
    )
    assert select(["a", "b"], {}, first_ns=None, after_ns=None, rows=1) == (
        'SELECT "a", "b" FROM "trades" ORDER BY time LIMIT 1'
    )


def test_times_beyond_those_of_influxdb_are_its_first_and_last() -> None:
    assert first_ns(-(10**18)) == -(2**63) + 2
    assert after_ns(10**18) == 2**63 - 2


def test_times_are_exact() -> None:
    assert epoch_us(datetime(2262, 1, 1, 0, 0, 0, 1, tzinfo=UTC)) == 9_214_646_400_000_001
    assert epoch_us(datetime(1969, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC)) == -1
