"""What a service knows of each symbol, batch by batch."""

from __future__ import annotations

from datetime import UTC, datetime

import polars as pl

from raven.batches.batch import Gap
from raven.batches.schema import ORIGIN_REST
from raven.rpc.pb import control_pb2
from raven.rpc.subscriptions import SubscriptionTable
from tests.unit.samples import START, trades

VENUE = "BINANCE_SPOT"


def observe(table: SubscriptionTable, rows: pl.DataFrame) -> int:
    return table.observe(VENUE, rows, id_="trade_id", time="ts_event", price="price")


def test_rows_of_many_symbols_in_one_batch() -> None:
    table = SubscriptionTable()
    rows = pl.concat([trades(range(5), "AUSDT"), trades([9, 3], "BUSDT"), trades([7], "AUSDT")])
    before_us = int(datetime.now(UTC).timestamp() * 1e6)
    observe(table, rows)
    a, b = table.of(VENUE, "AUSDT"), table.of(VENUE, "BUSDT")
    assert (a.rows, a.last_id, a.last_price) == (6, 7, 100.0)
    assert a.last_us == int(START.timestamp() * 1e6) + 7 * 250_000
    assert (b.rows, b.last_id) == (2, 3), "the last row, not the largest id"
    assert before_us <= a.first_seen_us <= int(datetime.now(UTC).timestamp() * 1e6)
    first = a.first_seen_us
    observe(table, trades([8], "AUSDT"))
    observe(table, rows.clear())
    assert (a.rows, a.last_id, a.first_seen_us) == (7, 8, first)


def test_healed_rows_are_those_that_came_over_rest() -> None:
    table = SubscriptionTable()
    live, rest = trades(range(3), "AUSDT"), trades(range(3, 5), "AUSDT")
    healed = rest.with_columns(origin=pl.lit(ORIGIN_REST, pl.Int8))
    assert observe(table, pl.concat([live, healed, trades([1], "BUSDT")])) == 2
    assert (table.of(VENUE, "AUSDT").healed, table.of(VENUE, "BUSDT").healed) == (2, 0)


def test_duplicates_gaps_and_late_rows_by_symbol() -> None:
    table = SubscriptionTable()
    rows = pl.concat([trades([1, 1, 2], "AUSDT"), trades([1], "BUSDT"), trades([1, 1], "CUSDT")])
    accepted = pl.concat([trades([1, 2], "AUSDT"), trades([1], "BUSDT")])
    table.observe_duplicates(VENUE, rows, accepted)
    table.observe_gaps(VENUE, [Gap("AUSDT", 2, 5), Gap("AUSDT", 8, 10)])
    table.observe_late(VENUE, [("BUSDT", 4)])
    found = {symbol: table.of(VENUE, symbol) for symbol in ("AUSDT", "BUSDT", "CUSDT")}
    assert {symbol: facts.duplicates for symbol, facts in found.items()} == {"AUSDT": 1, "BUSDT": 0, "CUSDT": 2}
    assert (found["AUSDT"].gaps, found["AUSDT"].missing_ids) == (2, 3)
    assert found["BUSDT"].late == 4


def test_held_symbols_are_those_named_last() -> None:
    table = SubscriptionTable()
    table.observe_held(VENUE, {"AUSDT": 3, "BUSDT": 1})
    table.observe_held(VENUE, {"BUSDT": 2, "CUSDT": 0})
    table.observe_held("BINANCE_FUTURES", {})
    found = {symbol: table.of(VENUE, symbol) for symbol in ("AUSDT", "BUSDT", "CUSDT")}
    assert {symbol: (facts.held, facts.waits_for) for symbol, facts in found.items()} == {
        "AUSDT": (False, 0), "BUSDT": (True, 2), "CUSDT": (True, 0),
    }  # fmt: skip


def test_a_stopped_symbol_starts_from_nothing() -> None:
    table = SubscriptionTable()
    observe(table, trades(range(5)))
    table.observe_held(VENUE, {"BTCUSDT": 1})
    table.forget(VENUE, ["BTCUSDT"])
    assert (table.ages_s(), table.symbols(VENUE)) == ({}, [])
    entry = table.subscription(VENUE, "BTCUSDT", connected=True, wanted_by=["user"])
    assert (entry.rows, entry.state) == (0, control_pb2.SYMBOL_STATE_WAITING)
    table.observe_held(VENUE, {"BTCUSDT": 1})
    assert table.of(VENUE, "BTCUSDT").held, "held before and after, and told anew"
    observe(table, trades([9]))
    assert table.of(VENUE, "BTCUSDT").rows == 1
