"""A journal with everything in it that nobody may store, through the sinks into the real databases."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from raven.sinks.dead_letters import FOLDER
from raven.sinks.store import BAR_SCHEMAS, BarKind
from tests.databases.bars import store_on, stored
from tests.databases.influx_stores import held, make_store, settings_of
from tests.servers.influx import Bucket
from tests.unit import bad_journals as bad
from tests.unit.store_compliance import SPOT, as_stored
from tests.unit.test_bad_journals import assert_bar_letters, assert_trade_letters, store_bars, store_trades


async def test_trades_into_influxdb(bucket: Bucket, tmp_path: Path) -> None:
    await store_trades(make_store(settings_of(bucket), tmp_path), tmp_path)
    assert_trade_letters(tmp_path, "influx")
    found = held(settings_of(bucket)).sort("trade_id")
    assert_frame_equal(found, as_stored(SPOT, bad.good_trades()).select(found.columns), check_exact=True)


@pytest.mark.parametrize("kind", list(BAR_SCHEMAS))
async def test_bars_into_timescale(url: str, tmp_path: Path, kind: BarKind) -> None:
    await store_bars(store_on(url, tmp_path / FOLDER, kind), tmp_path)
    assert_bar_letters(tmp_path, "timescale", kind)
    found: pl.DataFrame = stored(url, kind)
    assert_frame_equal(found, bad.good_bars(kind).select(found.columns), check_exact=True)
