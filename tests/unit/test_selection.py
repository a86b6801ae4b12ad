"""Instruments and selections: names, patterns, venues."""

from __future__ import annotations

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from raven.batches.instrument import Instrument
from raven.batches.selection import Selection

SPOT, FUTURES = "BINANCE_SPOT", "BINANCE_FUTURES"
NAMES = ["BTCUSDT", "ETHUSDT", "ETHBTC", "币安人生USDT", "BTCUSDT_220325", "1000SATSUSDT"]


@pytest.mark.parametrize(
    ("pattern", "matched"),
    [
        ("*USDT", ["BTCUSDT", "ETHUSDT", "币安人生USDT", "1000SATSUSDT"]),
        ("ETH*", ["ETHUSDT", "ETHBTC"]),
        ("BTC????", ["BTCUSDT"]),
        ("*", NAMES),
        ("BTCUSDT_*", ["BTCUSDT_220325"]),
        ("*.USDT", []),
    ],
)
def test_patterns_match_the_same_names_as_rows(pattern: str, matched: list[str]) -> None:
    instrument = Instrument(SPOT, pattern)
    assert instrument.is_pattern
    assert [name for name in NAMES if instrument.matches(name)] == matched
    rows = pl.DataFrame({"symbol": NAMES})
    assert Selection([instrument]).filter(rows, SPOT).get_column("symbol").to_list() == matched


@given(st.lists(st.sampled_from([*NAMES, "*USDT", "ETH*", "?TC*"]), max_size=4), st.sampled_from([SPOT, FUTURES]))
def test_rows_and_membership_agree(chosen: list[str], venue: str) -> None:
    selection = Selection(Instrument(venue, name) for name in chosen)
    rows = pl.DataFrame({"venue": [SPOT] * len(NAMES) + [FUTURES] * len(NAMES), "symbol": NAMES * 2})
    expected = [row for row in rows.rows() if Instrument(*row) in selection]
    assert selection.filter(rows).rows() == expected


def test_venues_never_mix_and_what_is_discarded_is_gone() -> None:
    selection = Selection([Instrument(SPOT, "BTCUSDT"), Instrument(FUTURES, "*USDT")])
    rows = pl.DataFrame(
        {"venue": [SPOT, FUTURES, SPOT, FUTURES], "symbol": ["BTCUSDT", "BTCUSDT", "ETHUSDT", "ETHUSDT"]}
    )
    assert selection.filter(rows).rows() == [(SPOT, "BTCUSDT"), (FUTURES, "BTCUSDT"), (FUTURES, "ETHUSDT")]
    selection.discard([Instrument(FUTURES, "*USDT")])
    assert selection.filter(rows).rows() == [(SPOT, "BTCUSDT")]
    selection.discard([Instrument(SPOT, "BTCUSDT")])
    assert selection.filter(rows).is_empty()
    assert not len(selection)


def test_a_symbol_that_a_pattern_matches_stays_selected() -> None:
    selection = Selection([Instrument(SPOT, "BTCUSDT"), Instrument(SPOT, "BTC*")])
    selection.discard([Instrument(SPOT, "BTCUSDT")])
    assert Instrument(SPOT, "BTCUSDT") in selection
    assert Instrument(FUTURES, "BTCUSDT") not in selection
