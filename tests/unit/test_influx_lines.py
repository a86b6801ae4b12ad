"""Trades as line protocol, read back by a slow parser that knows nothing of how they were built."""

from __future__ import annotations

import math
import re
import struct
from datetime import UTC, datetime, timedelta

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raven.batches.schema import polars_schema
from raven.sinks.encode import TRADES, encode_trades
from raven.sinks.influx.lines import Lines, encode_lines, unwritable
from raven.sinks.store import TradeFlush
from tests.unit.store_compliance import ODD_SYMBOLS, SPOT, some_trades

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def split(text: str, at: str) -> list[str]:
    """`text` cut at each `at` that no backslash stands before; a backslash before another character is one."""
    parts, current, index = [], "", 0
    while index < len(text):
        if text[index] == "\\" and index + 1 < len(text):
            current += text[index : index + 2]
            index += 2
        elif text[index] == at:
            parts.append(current)
            current = ""
            index += 1
        else:
            current += text[index]
            index += 1
    return [*parts, current]


def unescape(text: str) -> str:
    return re.sub(r"\\([,= ])", r"\1", text)


def parse(line: str) -> tuple[dict[str, str], dict[str, float | int], int]:
    """Tags, fields and time of a line of line protocol."""
    head, fields, time = split(line, " ")
    measurement, *tags = split(head, ",")
    assert measurement == "trades"
    found_tags = {name: unescape(value) for name, value in (split(tag, "=") for tag in tags)}
    found: dict[str, float | int] = {}
    for field in fields.split(","):
        name, value = field.split("=")
        found[name] = int(value[:-1]) if value.endswith("i") else float(value)
    return found_tags, found, int(time)


def text_of(lines: Lines) -> list[str]:
    text = bytes(lines.take(range(len(lines)))).decode()
    assert text == "" or text.endswith("\n")
    return text.split("\n")[:-1]


finite = st.floats(allow_nan=False, allow_infinity=False)
hard = st.sampled_from([5e-324, 1.7976931348623157e308, 1e22, 1e23, -0.0, 0.1, 2**53 + 2.0, 1e-7, 123456789.123456789])
bits = st.integers(0, 2**64 - 1).map(lambda raw: struct.unpack("<d", struct.pack("<Q", raw))[0])
numbers = finite | hard | bits.filter(math.isfinite)
symbols = st.text(st.characters(blacklist_categories=["Cs"]), min_size=0, max_size=8) | st.sampled_from(ODD_SYMBOLS)
times = st.datetimes(datetime(1678, 1, 1), datetime(2261, 1, 1)).map(lambda time: time.replace(tzinfo=UTC))  # noqa: DTZ001
rows = st.tuples(
    symbols,
    st.integers(-(2**63), 2**63 - 1),
    times,
    numbers,
    numbers,
    st.sampled_from(["buy", "sell"]),
    st.integers(0, 2),
)


def frame(given: list[tuple[str, int, datetime, float, float, str, int]]) -> pl.DataFrame:
    named = [
        {
            "venue": SPOT, "symbol": symbol, "trade_id": trade_id, "ts_event": event,
            "ts_recv": event + timedelta(microseconds=7), "price": price, "quantity": quantity, "side": side,
            "origin": origin,
        }
        for symbol, trade_id, event, price, quantity, side, origin in given
    ]  # fmt: skip
    return pl.DataFrame(named, schema=polars_schema(TRADES.schema))


@settings(deadline=None)
@given(given=st.lists(rows, max_size=8), cuts=st.lists(st.integers(0, 8), max_size=2))
def test_an_independent_parser_reads_what_was_encoded(
    given: list[tuple[str, int, datetime, float, float, str, int]], cuts: list[int]
) -> None:
    trades = frame(given)
    kept = trades.filter(
        ~pl.int_range(trades.height, eager=True).is_in([refusal.row for refusal in unwritable(trades)])
    )
    for cut in cuts:
        kept = pl.concat([kept[:cut], kept[cut:]], rechunk=False)
    lines = text_of(encode_lines(kept))
    assert len(lines) == kept.height
    for line, row in zip(lines, kept.iter_rows(named=True), strict=True):
        tags, fields, time_ns = parse(line)
        assert tags == {name: row[name] for name in ("venue", "symbol", "side")}
        event_us = (row["ts_event"] - EPOCH) // timedelta(microseconds=1)
        assert fields == {
            "price": row["price"],
            "quantity": row["quantity"],
            "trade_id": row["trade_id"],
            "ts_event_us": event_us,
            "ts_recv_us": event_us + 7,
            "origin": row["origin"],
        }
        assert math.copysign(1, fields["price"]) == math.copysign(1, row["price"])
        assert time_ns == event_us // 1000 * 1_000_000 + row["trade_id"] % 1_000_000
        assert -(2**63) <= time_ns < 2**63


@settings(deadline=None)
@given(symbol=symbols)
def test_what_is_refused_is_what_lines_cannot_hold(symbol: str) -> None:
    refused = unwritable(frame([(symbol, 1, EPOCH, 1.0, 1.0, "buy", 0)]))
    control = any(ord(letter) < 32 or 127 <= ord(letter) < 160 for letter in symbol)
    assert bool(refused) == (symbol == "" or control or re.search(r"\\([,= ]|\Z)", symbol) is not None)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"symbol": ""}, "no empty symbol"),
        ({"symbol": "A\\"}, "no symbol with a backslash"),
        ({"symbol": "A\n"}, "no control character in symbol"),
        ({"price": math.nan}, "no price"),
        ({"quantity": math.inf}, "no quantity"),
        ({"quantity": -math.inf}, "no quantity"),
        ({"ts_event": datetime(2263, 1, 1, tzinfo=UTC)}, "times of"),
        ({"ts_event": datetime(1676, 1, 1, tzinfo=UTC)}, "times of"),
    ],
)
def test_a_reason_names_what_is_wrong(change: dict[str, object], reason: str) -> None:
    good = frame([("BTCUSDT", row, EPOCH, 1.0, 1.0, "buy", 0) for row in range(3)])
    schema = polars_schema(TRADES.schema)
    bad = good[1:2].with_columns(**{name: pl.lit(value).cast(schema[name]) for name, value in change.items()})
    (refusal,) = unwritable(pl.concat([good[:1], bad, good[2:]]))
    assert refusal.row == 1
    assert reason in refusal.reason


def test_a_time_is_the_same_for_every_precision_of_the_input() -> None:
    exact = encode_trades(TradeFlush([(SPOT, some_trades("BTCUSDT", 0, 1_000))]))
    cut = exact.with_columns(pl.col("ts_event").dt.truncate("1ms"))
    assert [line.split()[-1] for line in text_of(encode_lines(exact))] == [
        line.split()[-1] for line in text_of(encode_lines(cut))
    ]


@settings(deadline=None)
@given(count=st.integers(0, 60), most_bytes=st.integers(1, 5_000))
@pytest.mark.slow
def test_requests_hold_every_row_once_and_keep_their_bounds(count: int, most_bytes: int) -> None:
    lines = encode_lines(encode_trades(TradeFlush([(SPOT, some_trades("BTCUSDT", 0, count))])))
    spans = lines.cut(most_bytes)
    assert [row for span in spans for row in span] == list(range(count))
    for span in spans:
        assert len(span) == 1 or len(lines.take(span)) <= most_bytes
    for span in spans[:-1]:
        assert len(lines.take(range(span.start, span.stop + 1))) > most_bytes


@settings(deadline=None)
@given(mask=st.lists(st.booleans(), min_size=8, max_size=8))
@pytest.mark.slow
def test_rows_left_after_a_filter_are_encoded_like_others(mask: list[bool]) -> None:
    """Their columns lie in chunks of their own, some empty."""
    flushed = encode_trades(TradeFlush([(SPOT, some_trades("BTCUSDT", 0, 8))]))
    every = text_of(encode_lines(flushed))
    left = flushed.filter(pl.Series(mask))
    assert text_of(encode_lines(left)) == [line for line, kept in zip(every, mask, strict=True) if kept]
