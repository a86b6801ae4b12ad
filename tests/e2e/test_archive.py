"""The 12-hour archive through every service: the exchange's own figures come out."""

from __future__ import annotations

import json
from pathlib import Path

import polars as pl
import pytest

from tests.e2e.conftest import TIBS, TRADES, Tables

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]

NINE_FIGURES = [
    "open",
    "high",
    "low",
    "close",
    "volume",
    "quote_volume",
    "total_ticks",
    "buy_volume",
    "buy_quote_volume",
]


def official_klines(path: Path) -> pl.DataFrame:
    """The nine figures of the exchange's 1h klines, beside their open time in milliseconds."""
    rows = [
        [kline[0], *(float(kline[i]) for i in (1, 2, 3, 4, 5, 7, 8, 9, 10))] for kline in json.loads(path.read_text())
    ]
    return pl.DataFrame(rows, schema=["open_ms", *NINE_FIGURES], orient="row")


def test_rolled_up_bars_equal_the_official_klines(undisturbed: Tables, shared_data: Path) -> None:
    hours = undisturbed.time_bars.group_by_dynamic("open_time", every="1h").agg(
        pl.col("open").first(), pl.col("high").max(), pl.col("low").min(), pl.col("close").last(),
        pl.col("volume", "quote_volume", "total_ticks", "buy_volume", "buy_quote_volume").sum(),
    )  # fmt: skip
    official = official_klines(shared_data / "BTCUSDT-1h-official-2019-04-01_00h-12h.json")
    assert hours.get_column("open_time").dt.epoch("ms").to_list() == official.get_column("open_ms").to_list()
    assert official.height == 12
    for figure in NINE_FIGURES:  # to the eight decimals the exchange prints
        assert (
            hours.get_column(figure).cast(pl.Float64).round(8).to_list()
            == official.get_column(figure).round(8).to_list()
        )


def test_every_bar_but_the_first_and_last_is_complete(undisturbed: Tables) -> None:
    bars = undisturbed.time_bars
    assert bars.height == 720
    assert bars.get_column("complete").to_list() == [False, *[True] * 718, False]
    assert (
        bars.get_column("revision").to_list() == (2 * bars["total_ticks"] + bars["complete"].cast(pl.Int64)).to_list()
    )


def test_every_trade_is_stored_once(undisturbed: Tables) -> None:
    ids = undisturbed.trades.get_column("trade_id")
    assert ids.len() == ids.n_unique() == TRADES
    assert ids[-1] - ids[0] + 1 == TRADES


def test_the_default_tick_imbalance_bars(undisturbed: Tables) -> None:
    tibs = undisturbed.tibs
    assert tibs.height == TIBS
    assert tibs.get_column("total_ticks").sum() == 102_372
    assert tibs.get_column("open_time").n_unique() == 349
    assert tibs.get_column("complete").to_list() == [False, *[True] * 369]
