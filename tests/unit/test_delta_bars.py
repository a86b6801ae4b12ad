"""The Delta stores of bars: the compliance suite, and what is Delta's own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import polars as pl
import pyarrow as pa
import pytest
from deltalake import DeltaTable

from raven.batches.batch import Cursor
from raven.errors import InputError, StoreError
from raven.sinks.delta import DeltaBarStore, Upkeep, scan_bars
from raven.sinks.store import BAR_SCHEMAS, BarFlush, BarKind, BarStore
from tests.unit.store_compliance import FUTURES, SPOT, BarStoreCompliance, some_bars


class TestCompliance(BarStoreCompliance):
    child = (
        "from raven.sinks.delta import DeltaBarStore, Upkeep\n"
        "store = DeltaBarStore(where, 'time_bars', Upkeep(retention_h=0, small_files=3, settled_s=0))"
    )

    def make(self, where: Path, kind: BarKind) -> BarStore:
        return DeltaBarStore(where, kind, Upkeep(retention_h=0, small_files=3, settled_s=0))

    def stored_bars(self, where: Path, kind: BarKind) -> pl.DataFrame:
        return pl.scan_delta(where / kind).collect()


Opened = Callable[..., DeltaBarStore]


@pytest.fixture
def opened() -> Iterator[Opened]:
    stores: list[DeltaBarStore] = []

    def open_one(where: Path, kind: BarKind, upkeep: Upkeep | None = None) -> DeltaBarStore:
        stores.append(DeltaBarStore(where, kind, upkeep))
        stores[-1].open()
        return stores[-1]

    yield open_one
    for store in stores:
        store.close()


def operations(where: Path, kind: BarKind = "time_bars") -> list[str]:
    return [entry["operation"] for entry in reversed(DeltaTable(where / kind).history())]


def test_both_kinds_have_tables_of_their_own(tmp_path: Path) -> None:
    stores = [DeltaBarStore(tmp_path, kind) for kind in BAR_SCHEMAS]
    for store in stores:
        store.open()
        store.write(BarFlush([some_bars(store.kind, range(3))]))
        store.close()
        table = DeltaTable(tmp_path / store.kind)
        wanted = BAR_SCHEMAS[store.kind].append(pa.field("date", pa.date32(), nullable=False))
        assert pa.schema(table.schema().to_arrow()) == wanted
        assert table.metadata().partition_columns == ["venue", "date"]
        assert table.count() == 3


def test_bars_above_all_stored_are_appended_and_others_merged(tmp_path: Path, opened: Opened) -> None:
    store = opened(tmp_path, "time_bars")
    store.write(BarFlush([some_bars("time_bars", range(3))]))
    store.write(BarFlush([some_bars("time_bars", range(3, 5)), some_bars("time_bars", [0], symbol="ETHUSDT")]))
    store.close()
    store.open()  # what is stored is known without reading it
    store.write(BarFlush([some_bars("time_bars", range(5, 6))]))
    assert operations(tmp_path) == ["CREATE TABLE", "WRITE", "WRITE", "WRITE"]
    store.write(BarFlush([some_bars("time_bars", range(5, 7), ticks=9)]))
    assert operations(tmp_path)[-1] == "MERGE"


def test_a_merge_opens_only_the_files_that_can_hold_its_bars(tmp_path: Path, opened: Opened) -> None:
    store = opened(tmp_path, "tick_imbalance_bars")
    for number in range(0, 4_000, 200):
        store.write(BarFlush([some_bars("tick_imbalance_bars", [number, number + 1])]))
    store.write(BarFlush([some_bars("tick_imbalance_bars", [3_801], ticks=9)]))
    metrics = DeltaTable(tmp_path / "tick_imbalance_bars").history(1)[0]["operationMetrics"]
    assert metrics["num_target_files_scanned"] == 1
    assert metrics["num_target_rows_updated"] == 1


def test_a_settled_day_is_sorted_and_stays_mergeable(tmp_path: Path, opened: Opened) -> None:
    store = opened(tmp_path, "time_bars", Upkeep(settled_s=0))
    for spec in ("5m", "1m"):
        for symbol in ("ETHUSDT", "BTCUSDT"):
            store.write(BarFlush([some_bars("time_bars", range(9), symbol=symbol, spec=spec)]))
    assert store.maintain() == {"sorted_days": 1}
    (file,) = DeltaTable(tmp_path / "time_bars").file_uris()
    rows = pl.read_parquet(file, hive_partitioning=False)
    assert rows.equals(rows.sort("symbol", "spec", "open_time"))
    assert store.write(BarFlush([some_bars("time_bars", range(9), spec="5m", ticks=9)])).replaced == 9
    assert store.maintain() == {"sorted_days": 1}  # a replaced row changes no count, but the order
    assert store.rows() == 36 == scan_bars(tmp_path).select(pl.len()).collect().item()


def test_nulls_and_bars_without_ids_are_kept(tmp_path: Path, opened: Opened) -> None:
    store = opened(tmp_path, "time_bars", Upkeep(settled_s=0))
    bars = some_bars("time_bars", range(4)).with_columns(
        first_trade_id=pl.lit(None, pl.Int64), last_trade_id=pl.lit(None, pl.Int64), complete=pl.lit(None, pl.Boolean)
    )
    store.write(BarFlush([bars]))
    store.maintain()
    assert scan_bars(tmp_path).collect().sort("open_time").equals(bars)
    assert scan_bars(tmp_path).filter(pl.col("first_trade_id").is_null()).collect().height == 4


def test_figures_that_are_not_numbers_do_not_hide_a_file(tmp_path: Path, opened: Opened) -> None:
    store = opened(tmp_path, "tick_imbalance_bars", Upkeep(settled_s=0))
    odd = pl.when(pl.col("first_trade_id") == 0).then(float("nan")).otherwise(float("inf"))
    bars = some_bars("tick_imbalance_bars", range(3)).with_columns(theta=odd, threshold=-odd)
    store.write(BarFlush([bars]))
    store.maintain()
    assert scan_bars(tmp_path, "tick_imbalance_bars").collect().sort("open_time").equals(bars)
    infinite = scan_bars(tmp_path, "tick_imbalance_bars").filter(pl.col("theta") == float("inf")).collect()
    assert infinite.height == 2


def test_a_scan_gives_what_was_asked_for(tmp_path: Path, opened: Opened) -> None:
    store = opened(tmp_path, "time_bars")
    wanted = some_bars("time_bars", range(3_000), symbol="币安人生USDT", spec="5m")
    others = [some_bars("time_bars", range(5)), some_bars("time_bars", range(5), venue=FUTURES)]
    store.write(BarFlush([wanted, *others], {"up": Cursor("j", 1)}))
    store.close()
    found = scan_bars(tmp_path, venue=SPOT, symbol="币安人生USDT", spec="5m").collect()
    assert found.columns == wanted.columns
    assert found.sort("open_time").equals(wanted)
    assert scan_bars(tmp_path, venue=FUTURES).collect().equals(others[1])
    edge = wanted["open_time"][1_500]
    later = scan_bars(tmp_path, symbol="币安人生USDT", start=edge).collect()
    sooner = scan_bars(tmp_path, symbol="币安人生USDT", end=edge).collect()
    assert (sooner.height, later.height) == (1_500, 1_500)


def test_a_scan_without_a_table_or_of_no_kind_says_so(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="no time_bars are stored in"):
        scan_bars(tmp_path)
    with pytest.raises(InputError, match="not a kind of bars"):
        scan_bars(tmp_path, "renko")  # type: ignore[arg-type]
