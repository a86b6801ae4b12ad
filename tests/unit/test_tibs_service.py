"""`raven_tibs`: which bars its flags and settings ask for, and several bar types over one stream."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest
from polars.testing import assert_frame_equal

import raven
from raven.aggregators.aggregator import Aggregator
from raven.batches.batch import BatchMeta
from raven.batches.ipc import decode
from raven.batches.schema import TIB_SCHEMA, TRADE_SCHEMA, stream_schema, to_frame, to_record_batch
from raven.cli.figures import theta_or_buys
from raven.errors import InputError, in_a_command
from raven.journal import Journal
from raven.rpc.hub import Hub
from raven.services.tibs import kernels
from raven.settings import TibsSettings
from raven.telemetry import Telemetry
from tests.unit.samples import spot, trades

SCHEMA = stream_schema(TIB_SCHEMA, kind="tick_imbalance_bars", venue="")
VENUE = "BINANCE_SPOT"
ASKED = TibsSettings(tick_bars=[7], volume_bars=[12.5], dollar_bars=[3000])


def specs(settings: TibsSettings, **flags: object) -> list[str]:
    return [kernel.spec for kernel in kernels(settings, flags)]


def test_tick_imbalance_bars_alone_unless_asked() -> None:
    assert specs(TibsSettings()) == ["tib-100-0.7-0.1-0.1-50-1000"]
    assert specs(TibsSettings(), initial_size=50.0, tick_bars=None) == ["tib-50-0.7-0.1-0.1-50-1000"]


def test_every_size_once_and_flags_win_over_settings() -> None:
    settings = TibsSettings(tick_bars=[500], volume_bars=[1.0], imbalance_bars=False)
    assert specs(settings) == ["tick-500", "volume-1"]
    given = specs(settings, tick_bars=[100.0, 200.0, 100.0], dollar_bars=[1e6, 1000000.0])
    assert given == ["tick-100", "tick-200", "volume-1", "dollar-1000000"]
    assert specs(settings, imbalance_bars=True)[0].startswith("tib-")


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"imbalance_bars": False}, "no bars are left to build"),
        ({"tick_bars": [0.0]}, "--tick-bars must be a whole number above 0"),
        ({"volume_bars": [1.0, -2.0]}, "--volume-bars must be above 0"),
        ({"dollar_bars": [float("nan")]}, "--dollar-bars must be a finite number"),
        ({"initial_size": 0.0}, "--initial-size must be above 0"),
    ],
)
def test_wrong_values_are_refused(flags: dict[str, object], message: str) -> None:
    with in_a_command(), pytest.raises(InputError, match=message):
        kernels(TibsSettings(), flags)


async def test_all_bar_types_of_one_stream_and_late_rows_counted_once(tmp_path: Path) -> None:
    frame = trades(range(1, 1_001))
    late = frame[500:510].with_columns(pl.col("ts_event").reverse())
    frame = pl.concat([frame[:500], late, frame[510:]])
    telemetry = Telemetry("test")
    with Journal.open(tmp_path / "journal", SCHEMA) as journal:
        aggregator = Aggregator(
            kernels(ASKED, {}), Hub(journal), tmp_path / "checkpoint.arrow", venues={"binance_spot": VENUE},
            schema=SCHEMA, telemetry=telemetry, joined=lambda *_: None,
        )  # fmt: skip
        aggregator.want("binance_spot", spot("BTCUSDT"))
        for number, start in enumerate(range(0, 1_000, 37)):
            batch = to_record_batch(frame[start : start + 37], TRADE_SCHEMA)
            await aggregator.take("binance_spot", batch, BatchMeta("upstream", number + 1))
        published = pl.concat([to_frame(decode(entry.payload)[0]) for entry in journal.read()])
    assert telemetry.totals["late_rows"] == 9
    for spec, expected in {
        "tib-100-0.7-0.1-0.1-50-1000": raven.tick_imbalance_bars(frame, venue=VENUE),
        "tick-7": raven.tick_bars(frame, 7, venue=VENUE),
        "volume-12.5": raven.volume_bars(frame, 12.5, venue=VENUE),
        "dollar-3000": raven.dollar_bars(frame, 3000, venue=VENUE),
    }.items():
        bars = published.filter(spec=spec)
        assert bars.height > 5
        assert_frame_equal(bars, expected, rel_tol=1e-12)


def test_the_live_table_shows_what_a_bar_closed_at() -> None:
    frame = trades(range(1, 1_001))
    assert theta_or_buys(raven.tick_bars(frame, 500).row(0, named=True)) == "+300 / 500"
    assert theta_or_buys(raven.dollar_bars(frame, 50_000).row(0, named=True)).endswith(" / 50,000")
    assert theta_or_buys(raven.tick_imbalance_bars(frame).row(0, named=True)) == "+40 / +40.0"
