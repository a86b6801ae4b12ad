"""Instruments and selections: names, patterns, venues."""

from __future__ import annotations

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from raven.batches.instrument import Instrument, symbol_problem
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
        ("***USDT", ["BTCUSDT", "ETHUSDT", "币安人生USDT", "1000SATSUSDT"]),
        ("[BE]TCUSDT*", []),
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


@pytest.mark.timeout(20)
@pytest.mark.parametrize("pattern", ["*" * 60 + "X", "*U" * 31 + "X", "*?" * 31 + "X", "?" * 63 + "X"])
def test_no_pattern_takes_long(pattern: str) -> None:
    assert not symbol_problem(pattern)
    names = [*NAMES, "U" * 64]
    assert not any(Instrument(SPOT, pattern).matches(name) for name in names * 50)
    many = Selection(Instrument(SPOT, f"{pattern[:-3]}{number:02}X") for number in range(100))
    assert many.filter(pl.DataFrame({"symbol": names}), SPOT).is_empty()


@pytest.mark.parametrize("symbol", ["", "A" * 65, "*" * 65, "A\\B", "A B", "A\x1bB", "A\nB", "A\u2028B"])
def test_what_no_symbol_can_be(symbol: str) -> None:
    assert symbol_problem(symbol)
    assert len(symbol_problem(symbol)) < 200
