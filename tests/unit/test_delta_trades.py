"""The Delta store of trades: the compliance suite, and what is Delta's own."""

from __future__ import annotations

import errno
import json
import os
import resource
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from urllib.parse import unquote

import polars as pl
import pyarrow as pa
import pytest
from deltalake import DeltaTable
from hypothesis import given
from hypothesis import strategies as st

from raven.batches.batch import Cursor
from raven.errors import InputError, StoreError
from raven.sinks.delta import DeltaTradeStore, Upkeep, scan_trades
from raven.sinks.delta.positions import decode_position, encode_positions, transaction_name
from raven.sinks.store import StoreUnavailableError, TradeFlush, TradeStore, WriteResult
from tests.unit.store_compliance import (
    FUTURES,
    ODD_SYMBOLS,
    SPOT,
    TradeStoreCompliance,
    as_stored,
    ltc_trades,
    some_trades,
)

EAGER = Upkeep(retention_h=0, small_files=3, settled_s=0)


class TestCompliance(TradeStoreCompliance):
    child = (
        "from raven.sinks.delta import DeltaTradeStore, Upkeep\n"
        "store = DeltaTradeStore(where, Upkeep(retention_h=0, small_files=3, settled_s=0))"
    )

    def make(self, where: Path) -> TradeStore:
        return DeltaTradeStore(where, EAGER)

    def stored(self, where: Path) -> pl.DataFrame:
        return pl.scan_delta(where / "trades").collect()


Opened = Callable[..., DeltaTradeStore]


@pytest.fixture
def opened() -> Iterator[Opened]:
    stores: list[DeltaTradeStore] = []

    def open_one(where: Path, upkeep: Upkeep | None = None) -> DeltaTradeStore:
        stores.append(DeltaTradeStore(where, upkeep))
        stores[-1].open()
        return stores[-1]

    yield open_one
    for store in stores:
        store.close()


@pytest.fixture
def store(tmp_path: Path, opened: Opened) -> DeltaTradeStore:
    return opened(tmp_path)


def write_some(store: DeltaTradeStore, commits: int, *, first: int = 0) -> None:
    for number in range(first, first + commits):
        trades = [(SPOT, some_trades(name, number * 20, 20)) for name in ("ETHUSDT", "BTCUSDT")]
        store.write(TradeFlush(trades, {"up": Cursor("j", number)}))


def log_files(where: Path, pattern: str = "*.json") -> list[Path]:
    return sorted((where / "trades" / "_delta_log").glob(pattern))


# shape


def test_the_table_has_the_columns_and_partitions_of_the_contract(store: DeltaTradeStore, tmp_path: Path) -> None:
    write_some(store, 1)
    table = DeltaTable(tmp_path / "trades")
    assert table.metadata().partition_columns == ["venue", "date"]
    timestamp = pa.timestamp("us", tz="UTC")
    fields = {
        "venue": pa.string(),
        "symbol": pa.string(),
        "trade_id": pa.int64(),
        "ts_event": timestamp,
        "ts_recv": timestamp,
        "price": pa.float64(),
        "quantity": pa.float64(),
        "side": pa.string(),
        "origin": pa.int8(),
        "date": pa.date32(),
    }
    wanted = pa.schema([pa.field(name, kind, nullable=False) for name, kind in fields.items()])
    assert pa.schema(table.schema().to_arrow()) == wanted
    assert (tmp_path / "trades" / f"venue={SPOT}" / "date=2024-08-09").is_dir()


def test_a_flush_is_sorted_by_symbol_and_id(store: DeltaTradeStore, tmp_path: Path) -> None:
    parts = [(SPOT, some_trades(name, first, 500)) for first in (500, 0) for name in ("ETHUSDT", "BTCUSDT")]
    store.write(TradeFlush(parts))
    (file,) = DeltaTable(tmp_path / "trades").file_uris()
    rows = pl.read_parquet(file, hive_partitioning=False)
    assert rows.equals(rows.sort("symbol", "trade_id"))
    assert rows.height == 2_000


def test_an_unchanged_position_commits_nothing(store: DeltaTradeStore, tmp_path: Path) -> None:
    flush = TradeFlush([(SPOT, some_trades("BTCUSDT", 0, 5))], {"up": Cursor("j", 1)})
    store.write(flush)
    version = DeltaTable(tmp_path / "trades").version()
    store.write(flush)
    store.write(TradeFlush())
    assert DeltaTable(tmp_path / "trades").version() == version


@given(journal_id=st.text(max_size=40), sequence=st.integers(0, 2**63 - 1))
def test_any_cursor_survives_its_transactions(journal_id: str, sequence: int) -> None:
    older = encode_positions({"up": Cursor("x" * 50, 1)})
    transactions = older | encode_positions({"up": Cursor(journal_id, sequence), "u": Cursor("other", 2)})
    assert all(0 <= version < 2**63 for version in transactions.values())
    assert decode_position("up", transactions.get) == Cursor(journal_id, sequence)


def test_transaction_names_are_distinct_for_distinct_parts() -> None:
    pairs = [(left, right) for left in ODD_SYMBOLS for right in ODD_SYMBOLS] + [("a/b", "c"), ("a", "b/c")]
    assert len({transaction_name(*pair) for pair in pairs}) == len(pairs)


# one writer, and tables that are not ours


def test_a_second_writer_is_refused_and_told_who(store: DeltaTradeStore, tmp_path: Path) -> None:
    second = DeltaTradeStore(tmp_path)
    with pytest.raises(StoreError, match=f"process {os.getpid()}") as caught:
        second.open()
    assert "one writer" in caught.value.hint
    assert not isinstance(caught.value, StoreUnavailableError)
    store.close()
    second.open()
    second.close()


def test_a_lock_that_could_not_be_written_is_let_go_of(tmp_path: Path) -> None:
    store = DeltaTradeStore(tmp_path)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, limits[1]))
    try:
        with pytest.raises(StoreError, match="cannot be opened") as caught:
            store.open()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    store.open()
    assert caught.value.__cause__ is not None
    store.close()


def test_a_store_that_is_not_open_says_so(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="is not open"):
        DeltaTradeStore(tmp_path).write(TradeFlush([(SPOT, some_trades("BTCUSDT", 0, 1))]))


def test_a_folder_of_other_things_is_refused(tmp_path: Path) -> None:
    (tmp_path / "trades").mkdir()
    (tmp_path / "trades" / "notes.txt").write_text("mine")
    for _ in range(2):  # the lock is let go of
        with pytest.raises(StoreError, match="is not a Delta table") as caught:
            DeltaTradeStore(tmp_path).open()
        assert "another data folder" in caught.value.hint


def test_a_file_in_the_way_is_refused(tmp_path: Path) -> None:
    (tmp_path / "trades").write_text("")
    with pytest.raises(StoreError, match="is not a Delta table"):
        DeltaTradeStore(tmp_path).open()
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="cannot be opened") as caught:
        DeltaTradeStore(tmp_path / "file").open()
    assert "permissions" in caught.value.hint


def test_a_table_of_other_columns_or_partitions_is_refused(tmp_path: Path) -> None:
    for folder, partition in (("a", ["venue"]), ("b", ["venue", "date"])):
        schema = pa.schema([pa.field("venue", pa.string()), pa.field("date", pa.date32()), pa.field("x", pa.int8())])
        DeltaTable.create(tmp_path / folder / "trades", schema, partition_by=partition)
        with pytest.raises(StoreError, match=r"symbol is missing.*x is unknown") as caught:
            DeltaTradeStore(tmp_path / folder).open()
        assert ("partitioned by venue" in str(caught.value)) == (folder == "a")


def test_a_path_that_readers_cannot_open_is_refused(tmp_path: Path) -> None:
    for name in ("with space", "ü", "50%", "[x]"):
        with pytest.raises(StoreError, match="cannot hold a Delta table"):
            DeltaTradeStore(tmp_path / name).open()


def test_a_relative_folder_will_do(tmp_path: Path, opened: Opened, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    store = opened(Path("data/delta"))
    write_some(store, 1)
    store.close()
    assert scan_trades(Path("data/delta")).collect().height == 40


# failures


def test_a_write_that_fails_can_be_repeated(store: DeltaTradeStore, tmp_path: Path) -> None:
    write_some(store, 2)
    flush = TradeFlush([(SPOT, some_trades("BTCUSDT", 40, 20_000))], {"up": Cursor("j", 2)})
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, limits[1]))
    try:
        for _ in range(2):
            with pytest.raises(StoreUnavailableError, match="could not be written") as caught:
                store.write(flush)
            assert "free some space" in caught.value.hint
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert pl.scan_delta(tmp_path / "trades").collect().height == 80
    assert store.position("up") == Cursor("j", 1)
    assert store.write(flush) == WriteResult(20_000)
    assert store.rows() == 20_080
    assert store.position("up") == Cursor("j", 2)


def test_a_failure_after_the_commit_does_not_store_it_twice(
    store: DeltaTradeStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("raven.sinks.delta.table.CHECKPOINT_COMMITS", 5)
    obstacle = tmp_path / "trades" / "_delta_log" / f"{5:020}.checkpoint.parquet"
    obstacle.mkdir()
    (obstacle / "x").touch()
    write_some(store, 4)
    with pytest.raises(StoreUnavailableError):
        write_some(store, 1, first=4)
    (obstacle / "x").unlink()
    obstacle.rmdir()
    assert store.position("up") == Cursor("j", 4)
    trades = [(SPOT, some_trades("ETHUSDT", 4 * 20, 20))]
    assert store.write(TradeFlush(trades, {"up": Cursor("j", 4)})) == WriteResult(0, 20)
    assert scan_trades(tmp_path).collect().height == 5 * 40 == store.rows()


def test_what_write_returned_for_is_on_the_disk(
    store: DeltaTradeStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: set[Path] = set()
    fsync = os.fsync

    def noted(descriptor: int) -> None:
        synced.add(Path(f"/proc/self/fd/{descriptor}").readlink())
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", noted)
    before = set((tmp_path / "trades").rglob("*"))
    write_some(store, 1)
    new = set((tmp_path / "trades").rglob("*")) - before
    assert len(new) == 4  # a partition's two folders, a data file, a commit
    assert synced >= new | {path.parent for path in new}


def test_a_commit_that_could_not_be_synced_is_synced_before_it_counts(
    store: DeltaTradeStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fsync, synced = os.fsync, set()
    is_failing = True

    def failing(descriptor: int) -> None:
        if is_failing:
            raise OSError(errno.EIO, "Input/output error")
        synced.add(Path(f"/proc/self/fd/{descriptor}").readlink())
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", failing)
    for _ in range(4):
        with pytest.raises(StoreUnavailableError, match="Input/output error"):
            write_some(store, 1)
    is_failing = False
    write_some(store, 1)
    assert synced >= {*(tmp_path / "trades").rglob("*.parquet"), *log_files(tmp_path)}
    assert scan_trades(tmp_path).collect().height == 40 == store.rows()


@pytest.mark.parametrize("damage", ["cut", "empty", "no data file", "short data file"])
def test_a_torn_commit_is_cut_off_and_comes_again(tmp_path: Path, opened: Opened, damage: str) -> None:
    store = opened(tmp_path)
    write_some(store, 3)
    store.close()
    newest = log_files(tmp_path)[-1]
    added = [json.loads(line)["add"] for line in newest.read_text().splitlines() if line.startswith('{"add')]
    data = tmp_path / "trades" / unquote(added[0]["path"])
    if damage == "cut":
        newest.write_bytes(newest.read_bytes()[:-30])
    elif damage == "empty":
        newest.write_bytes(b"")
    elif damage == "no data file":
        data.unlink()
    else:
        data.write_bytes(data.read_bytes()[:-1])
    store.open()
    assert store.cut == (newest.name,)
    assert store.position("up") == Cursor("j", 1)
    write_some(store, 1, first=2)
    assert store.position("up") == Cursor("j", 2)
    store.close()
    assert scan_trades(tmp_path, symbol="BTCUSDT").collect()["trade_id"].sort().to_list() == list(range(60))
    store.open()
    assert store.cut == ()


def test_a_torn_checkpoint_is_set_aside(tmp_path: Path, opened: Opened, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("raven.sinks.delta.table.CHECKPOINT_COMMITS", 5)
    store = opened(tmp_path)
    write_some(store, 6)
    store.close()
    (checkpoint,) = log_files(tmp_path, "*.checkpoint.parquet")
    checkpoint.write_bytes(checkpoint.read_bytes()[:100])
    store.open()
    assert store.cut == (checkpoint.name,)
    assert store.position("up") == Cursor("j", 5)
    assert store.rows() == 6 * 40
    store.close()
    assert scan_trades(tmp_path).collect().height == 6 * 40


def test_what_a_killed_writer_had_begun_is_removed(tmp_path: Path, opened: Opened) -> None:
    store = opened(tmp_path)
    write_some(store, 1)
    store.close()
    (folder,) = (tmp_path / "trades").glob("venue=*/date=*")
    staged = [folder / "part-1.parquet#3", tmp_path / "trades" / "_delta_log" / f"{9:020}.json#1"]
    for path in staged:
        path.write_text("begun")
    store.open()
    store.close()
    assert not any(path.exists() for path in staged)


# maintenance


def test_small_files_of_a_day_still_written_are_merged(tmp_path: Path, opened: Opened) -> None:
    store = opened(tmp_path, Upkeep(small_files=10))
    write_some(store, 10)
    assert store.maintain() == {}
    write_some(store, 5, first=10)
    assert store.maintain() == {"merged_files": 15}
    table = DeltaTable(tmp_path / "trades")
    assert len(table.file_uris()) == 1
    assert table.count() == 600
    assert len(list((tmp_path / "trades").glob("venue=*/date=*/*.parquet"))) == 16  # for readers that began before


def test_a_settled_day_is_sorted_once_and_again_when_rows_came(tmp_path: Path, opened: Opened) -> None:
    store = opened(tmp_path, Upkeep(settled_s=0))
    write_some(store, 6)
    assert store.maintain() == {"sorted_days": 1}
    assert store.maintain() == {}
    (file,) = DeltaTable(tmp_path / "trades").file_uris()
    rows = pl.read_parquet(file, hive_partitioning=False)
    assert rows.equals(rows.sort("symbol", "trade_id"))
    assert rows.height == 240
    write_some(store, 1, first=6)
    assert store.maintain() == {"sorted_days": 1}
    store.close()
    store.open()
    assert store.maintain() == {}
    assert store.position("up") == Cursor("j", 6)
    assert store.rows() == 280


def test_a_day_that_cannot_be_sorted_is_left_as_it_was(
    tmp_path: Path, opened: Opened, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("raven.sinks.delta.sort.FILE_ROWS", 1)  # so that a file is there when the next one fails
    store = opened(tmp_path, Upkeep(settled_s=0))
    store.write(TradeFlush([(SPOT, some_trades("AUSDT", 0, 5)), (SPOT, some_trades("BTCUSDT", 0, 20_000))]))
    before = set((tmp_path / "trades").rglob("*"))
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, limits[1]))
    try:
        with pytest.raises(StoreUnavailableError, match="could not be maintained") as caught:
            store.maintain()
        assert "free some space" in caught.value.hint
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert set((tmp_path / "trades").rglob("*")) == before
    assert store.maintain() == {"sorted_days": 1}
    assert scan_trades(tmp_path, symbol="BTCUSDT").collect()["trade_id"].to_list() == list(range(20_000))


def test_a_large_day_is_sorted_into_ranges_of_symbols(
    tmp_path: Path, opened: Opened, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("raven.sinks.delta.sort.FILE_ROWS", 100)
    store = opened(tmp_path, Upkeep(settled_s=0))
    names = ["AUSDT", "BUSDT", "CUSDT", *ODD_SYMBOLS]
    for first in (0, 40):
        store.write(TradeFlush([(SPOT, some_trades(name, first, 40)) for name in reversed(names)]))
    before = scan_trades(tmp_path).collect()
    store.maintain()
    store.close()
    files = [pl.read_parquet(file) for file in DeltaTable(tmp_path / "trades").file_uris()]
    spans = sorted((file["symbol"].min(), file["symbol"].max()) for file in files)
    assert len(spans) > 5
    assert all(left[1] < right[0] for left, right in pairwise(spans))
    after = scan_trades(tmp_path).collect()
    assert after.sort("symbol", "trade_id").equals(before.sort("symbol", "trade_id"))
    for name in names:  # a file is skipped by its statistics only when it holds none of the symbol
        assert scan_trades(tmp_path, symbol=name).collect()["trade_id"].sort().to_list() == list(range(80))


def test_the_log_and_what_left_the_table_are_deleted_after_the_retention(tmp_path: Path, opened: Opened) -> None:
    store = opened(tmp_path, EAGER)
    write_some(store, 30)
    done = store.maintain()
    assert (done["merged_files"], done["sorted_days"]) == (30, 1)
    assert done["deleted_files"] == 31
    assert len(log_files(tmp_path)) == 1
    assert len(list((tmp_path / "trades").glob("venue=*/date=*/*.parquet"))) == 1
    assert store.position("up") == Cursor("j", 29)
    store.close()
    store.open()
    assert store.position("up") == Cursor("j", 29)
    assert store.last_ids(SPOT, ["BTCUSDT"]) == {"BTCUSDT": 599}


def test_a_file_of_a_killed_writer_is_deleted(tmp_path: Path, opened: Opened) -> None:
    store = opened(tmp_path, EAGER)
    write_some(store, 1)
    store.maintain()
    (folder,) = (tmp_path / "trades").glob("venue=*/date=*")
    orphan = folder / "part-0.parquet"
    orphan.write_text("never committed")
    assert store.maintain() == {"deleted_files": 1}
    assert not orphan.exists()


# reading


@pytest.mark.slow
def test_readers_see_whole_flushes_while_the_table_is_written_and_maintained(tmp_path: Path, opened: Opened) -> None:
    store = opened(tmp_path, Upkeep(small_files=5, settled_s=0))
    write_some(store, 1)
    done = threading.Event()
    reads: list[int] = []
    wrong: list[pl.DataFrame] = []

    def read() -> None:
        while not done.is_set():
            rows = (
                pl.scan_delta(tmp_path / "trades")
                .group_by("symbol")
                .agg(rows=pl.len(), ids=pl.col("trade_id").n_unique(), last=pl.col("trade_id").max())
            )
            found = rows.collect()
            reads.append(found["rows"].sum())
            whole = (pl.col("rows") == pl.col("ids")) & (pl.col("rows") == pl.col("last") + 1)
            if found.height != 2 or found["rows"].n_unique() != 1 or not found.select(whole.all()).item():
                wrong.append(found)

    reader = threading.Thread(target=read)
    reader.start()
    try:
        for first in range(1, 41, 8):
            write_some(store, 8, first=first)
            store.maintain()
    finally:
        done.set()
        reader.join()
    store.close()
    assert not wrong
    assert len(set(reads)) > 3
    assert scan_trades(tmp_path).collect().height == 41 * 40


@pytest.mark.slow
def test_a_scan_gives_what_was_asked_for(store: DeltaTradeStore, tmp_path: Path, shared_data: Path) -> None:
    ltc = ltc_trades(shared_data)
    bits = list(ltc.iter_slices(3_000))
    for number, part in enumerate(bits):
        futures = some_trades("BTCUSDT", number * 10, 10)
        store.write(TradeFlush([(SPOT, part), (FUTURES, futures)]))
    everything = as_stored(SPOT, ltc)
    assert scan_trades(tmp_path, venue=SPOT).collect().sort("trade_id").select(everything.columns).equals(everything)
    assert scan_trades(tmp_path, symbol="BTCUSDT").collect()["venue"].unique().to_list() == [FUTURES]
    assert scan_trades(tmp_path, venue=SPOT, symbol="BTCUSDT").collect().is_empty()
    # half-open to the microsecond, at every edge of every file
    for part in bits:
        for edge in (part["ts_event"].min(), part["ts_event"].max()):
            for instant in (edge, edge + timedelta(microseconds=1), edge - timedelta(microseconds=1)):  # type: ignore[operator]
                after = ltc.filter(pl.col("ts_event") >= instant).height
                assert scan_trades(tmp_path, symbol="LTCUSDT", start=instant).select(pl.len()).collect().item() == after
                before = scan_trades(tmp_path, symbol="LTCUSDT", end=instant).select(pl.len()).collect().item()
                assert before == ltc.height - after


def test_edges_between_milliseconds_are_kept(tmp_path: Path, opened: Opened) -> None:
    store = opened(tmp_path, Upkeep(settled_s=0))
    instants = [datetime(2024, 8, 9, 12, 0, 0, us, UTC) for us in (0, 1, 499, 999, 1_000, 1_001, 999_999)]
    for number, instant in enumerate(instants):
        store.write(TradeFlush([(SPOT, some_trades("X", number, 1).with_columns(ts_event=pl.lit(instant)))]))
    for _ in range(2):
        for number, instant in enumerate(instants):
            assert scan_trades(tmp_path, start=instant).collect().height == len(instants) - number
            assert scan_trades(tmp_path, end=instant).collect().height == number
        store.maintain()


def test_times_are_utc_text_or_datetime_and_days_are_half_open(store: DeltaTradeStore, tmp_path: Path) -> None:
    midnight = datetime(2024, 8, 9, tzinfo=UTC)
    store.write(TradeFlush([(SPOT, some_trades("X", 0, 2_000, start_us=int(midnight.timestamp() * 1e6) - 1_500_000))]))
    same = [midnight, midnight.replace(tzinfo=None), "2024-08-09", "2024-08-09T00:00:00Z", "2024-08-09T02:00:00+02:00"]
    for instant in same:
        assert scan_trades(tmp_path, end=instant).collect().height == 1_000
        assert scan_trades(tmp_path, start=instant).collect().height == 1_000
        assert scan_trades(tmp_path, start=instant, end=instant).collect().is_empty()
    with pytest.raises(InputError, match="is not a time"):
        scan_trades(tmp_path, start="yesterday")


def test_a_scan_opens_only_the_files_of_its_partitions(store: DeltaTradeStore, tmp_path: Path) -> None:
    day_us = 86_400_000_000
    for number in range(3):
        trades = some_trades("X", number, 1, start_us=1_723_161_600_000_000 + number * day_us)
        store.write(TradeFlush([(SPOT, trades)]))
    for path in (tmp_path / "trades").glob("venue=*/date=2024-08-09/*.parquet"):
        path.unlink()
    assert scan_trades(tmp_path, start="2024-08-10").collect().height == 2
    assert scan_trades(tmp_path, start="2024-08-10", end="2024-08-11").collect().height == 1


def test_a_scan_without_a_table_says_so(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="no trades are stored in") as caught:
        scan_trades(tmp_path)
    assert "delta" in caught.value.hint


def test_what_is_scanned_ends_before_the_time_given(tmp_path: Path, store: DeltaTradeStore) -> None:
    write_some(store, 1)
    times = scan_trades(tmp_path).select("ts_event").collect()["ts_event"]
    day = times.min().replace(hour=0, minute=0, second=0, microsecond=0)
    microsecond, edges = timedelta(microseconds=1), (datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC))
    for end in (times.max(), times.max() + microsecond, day, day + timedelta(days=1), *edges):
        assert scan_trades(tmp_path, end=end).collect().height == times.filter(times < end).len(), end
