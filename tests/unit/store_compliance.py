"""What every store has to keep, whatever it is built on. A store's tests inherit from these classes."""

from __future__ import annotations

import gzip
import random
import subprocess
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from pathlib import Path

import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from raven.batches.batch import Cursor
from raven.batches.schema import TRADE_DTYPES, TRADE_SCHEMA, polars_schema, to_record_batch
from raven.errors import InputError
from raven.sinks.store import BAR_KEYS, BAR_SCHEMAS, BarFlush, BarKind, BarStore, TradeFlush, TradeStore, WriteResult

SPOT, FUTURES = "BINANCE_SPOT", "BINANCE_FUTURES"
ODD_SYMBOLS = [
    "币安人生USDT",
    "O'BRIEN\"USDT",
    "A,B=C USDT",
    "A/B\\C",
    "100%USDT",
    "%2F",
    "A%2FB",
    "{}#?&;",
    "--",
    " ",
    "Ω" * 40,
    "Ω" * 40 + "Z",
    "\n\t",
]
ONE_BY_ONE = settings(max_examples=10, deadline=None, suppress_health_check=list(HealthCheck))


def ltc_trades(shared_data: Path) -> pl.DataFrame:
    """29,000 recorded trades of one symbol, as somebody's collector stored them."""
    files = sorted(shared_data.glob("LTCUSDT_2025-06-21_*_trades__*.csv.gz"))[:3]
    rows = pl.concat([pl.read_csv(gzip.decompress(file.read_bytes())) for file in files])
    event = pl.from_epoch("timestamp", time_unit="ms").dt.replace_time_zone("UTC").dt.cast_time_unit("us")
    return rows.select(
        symbol=pl.lit("LTCUSDT"),
        trade_id="tradeId",
        ts_event=event,
        ts_recv=event + pl.duration(microseconds=pl.col("tradeId") % 977),
        price=pl.col("price").cast(pl.Float64),
        quantity=pl.col("quantity").cast(pl.Float64),
        side=pl.when(side="buy").then(1).otherwise(-1).cast(pl.Int8),
        origin=pl.lit(0, dtype=pl.Int8),
    )


def some_trades(symbol: str, first_id: int, count: int, *, start_us: int = 1_723_161_600_000_000) -> pl.DataFrame:
    """`count` trades of `symbol`, 1.5 ms apart by id, so that the same id is always the same trade."""
    ids = pl.int_range(first_id, first_id + count, eager=True).alias("trade_id")
    event = pl.from_epoch(start_us + pl.col("trade_id") * 1_500, time_unit="us").dt.replace_time_zone("UTC")
    return (
        pl.DataFrame(ids)
        .select(
            symbol=pl.lit(symbol),
            trade_id="trade_id",
            ts_event=event,
            ts_recv=event + pl.duration(microseconds=7),
            price=60_000 + pl.col("trade_id") / 8,
            quantity=1 / (pl.col("trade_id") + 3),
            side=pl.when(pl.col("trade_id") % 3 == 0).then(1).otherwise(-1),
            origin=pl.col("trade_id") % 3,
        )
        .cast(TRADE_DTYPES)  # type: ignore[arg-type]
    )


def as_stored(venue: str, trades: pl.DataFrame) -> pl.DataFrame:
    """What a store gives back for `trades`: with the venue, the side spelt out, in order."""
    side = pl.when(pl.col("side") > 0).then(pl.lit("buy")).otherwise(pl.lit("sell"))
    return trades.select(pl.lit(venue).alias("venue"), pl.exclude("side"), side.alias("side")).sort(
        "venue", "symbol", "trade_id"
    )


class StoreCompliance(ABC):
    """What both kinds of stores share: how a test gets at one."""

    child = ""
    """Python that binds `store` to a store on the folder `where`; run in another process, to be killed there."""

    @abstractmethod
    def stored(self, where: Path) -> pl.DataFrame:
        """All rows of the table on `where`, columns in any order, rows too."""

    def spawn(self, where: Path, loop: str) -> subprocess.Popen[str]:
        code = f"import sys\nfrom pathlib import Path\nwhere = Path(sys.argv[1])\n{self.child}\n{loop}"
        return subprocess.Popen(
            [sys.executable, "-c", code, str(where)],
            stdout=subprocess.PIPE,
            text=True,
            env={"PYTHONPATH": str(Path(__file__).parents[2]), "PATH": "", "POLARS_MAX_THREADS": "1"},
        )


class TradeStoreCompliance(StoreCompliance):
    """A store of trades: exactly once by id, rows and positions together."""

    unstorable: frozenset[str] = frozenset()
    """Those of ODD_SYMBOLS that the store cannot hold: their rows are dead letters, and spoil no others."""

    @abstractmethod
    def make(self, where: Path) -> TradeStore:
        """A store on the folder `where`, not yet open; made twice for one folder, it is the same table."""

    @pytest.fixture
    def store(self, tmp_path: Path) -> Iterator[TradeStore]:
        store = self.make(tmp_path)
        store.open()
        yield store
        store.close()

    def assert_stored(self, where: Path, *expected: tuple[str, pl.DataFrame]) -> None:
        wanted = pl.concat([as_stored(venue, trades) for venue, trades in expected])
        found = self.stored(where).sort("venue", "symbol", "trade_id")
        assert_frame_equal(found.select(wanted.columns), wanted.sort("venue", "symbol", "trade_id"), check_exact=True)

    def test_an_empty_store_knows_nothing(self, store: TradeStore, tmp_path: Path) -> None:
        assert store.position("binance_spot") is None
        assert store.last_ids(SPOT, ["BTCUSDT"]) == {}
        assert store.rows() == 0
        assert self.stored(tmp_path).is_empty()

    def test_what_was_written_is_read_back(self, store: TradeStore, tmp_path: Path, shared_data: Path) -> None:
        trades = ltc_trades(shared_data)
        at = Cursor("a1b2", 7)
        parts = list(trades.iter_slices(4_999))
        batches = [(SPOT, to_record_batch(part, TRADE_SCHEMA)) for part in parts]
        assert store.write(TradeFlush(batches, {"binance_spot": at})) == WriteResult(rows=trades.height)
        self.assert_stored(tmp_path, (SPOT, trades))
        assert store.position("binance_spot") == at
        assert store.last_ids(SPOT, ["LTCUSDT"]) == {"LTCUSDT": trades["trade_id"].max()}
        assert store.rows() == trades.height

    def test_the_same_flush_again_changes_nothing(self, store: TradeStore, tmp_path: Path) -> None:
        flush = TradeFlush([(SPOT, some_trades("BTCUSDT", 5, 50))], {"binance_spot": Cursor("j", 1)})
        store.write(flush)
        assert store.write(flush) == WriteResult(rows=0, duplicates=50)
        self.assert_stored(tmp_path, (SPOT, some_trades("BTCUSDT", 5, 50)))
        assert store.rows() == 50

    def test_of_an_overlap_only_new_ids_are_stored(self, store: TradeStore, tmp_path: Path) -> None:
        store.write(TradeFlush([(SPOT, some_trades("BTCUSDT", 0, 60)), (SPOT, some_trades("ETHUSDT", 0, 10))]))
        again = [(SPOT, some_trades("BTCUSDT", 40, 60)), (SPOT, some_trades("ETHUSDT", 10, 5))]
        assert store.write(TradeFlush(again)) == WriteResult(rows=45, duplicates=20)
        self.assert_stored(tmp_path, (SPOT, some_trades("BTCUSDT", 0, 100)), (SPOT, some_trades("ETHUSDT", 0, 15)))

    def test_an_id_twice_in_one_flush_is_stored_once(self, store: TradeStore, tmp_path: Path) -> None:
        flush = TradeFlush([(SPOT, some_trades("BTCUSDT", 0, 20)), (SPOT, some_trades("BTCUSDT", 10, 20))])
        assert store.write(flush) == WriteResult(rows=30, duplicates=10)
        self.assert_stored(tmp_path, (SPOT, some_trades("BTCUSDT", 0, 30)))

    def test_venues_have_ids_of_their_own(self, store: TradeStore, tmp_path: Path) -> None:
        spot, futures = some_trades("BTCUSDT", 1_000, 30), some_trades("BTCUSDT", 1, 30)
        mixed = [(SPOT, spot[20:]), (FUTURES, futures[:10]), (SPOT, spot[:20]), (FUTURES, futures[10:])]
        positions = {"binance_spot": Cursor("s", 4), "binance_futures": Cursor("f", 9)}
        assert store.write(TradeFlush(mixed, positions)) == WriteResult(rows=60)
        self.assert_stored(tmp_path, (SPOT, spot), (FUTURES, futures))
        assert store.last_ids(SPOT, ["BTCUSDT"]) == {"BTCUSDT": 1_029}
        assert store.last_ids(FUTURES, ["BTCUSDT", "NONE"]) == {"BTCUSDT": 30}
        assert {name: store.position(name) for name in positions} == positions

    def test_all_is_there_after_reopening(self, store: TradeStore, tmp_path: Path) -> None:
        store.write(TradeFlush([(SPOT, some_trades("BTCUSDT", 0, 10))], {"up": Cursor("j" * 32, 2**40)}))
        store.close()
        store.close()
        again = self.make(tmp_path)
        again.open()
        try:
            assert again.position("up") == Cursor("j" * 32, 2**40)
            assert again.rows() == 10
            assert again.write(TradeFlush([(SPOT, some_trades("BTCUSDT", 5, 10))])) == WriteResult(5, 5)
            assert again.last_ids(SPOT, ["BTCUSDT"]) == {"BTCUSDT": 14}
        finally:
            again.close()
        self.assert_stored(tmp_path, (SPOT, some_trades("BTCUSDT", 0, 15)))

    def test_opening_twice_does_no_harm(self, store: TradeStore, tmp_path: Path) -> None:
        flush = TradeFlush([(SPOT, some_trades("BTCUSDT", 0, 10))], {"up": Cursor("j", 1)})
        store.write(flush)
        store.open()
        assert store.position("up") == Cursor("j", 1)
        assert store.write(flush) == WriteResult(duplicates=10)
        self.assert_stored(tmp_path, (SPOT, some_trades("BTCUSDT", 0, 10)))

    def test_a_position_moves_without_rows(self, store: TradeStore, tmp_path: Path) -> None:
        for cursor in (Cursor("one", 5), Cursor("one", 6), Cursor("another journal", 1), Cursor("", 0)):
            assert store.write(TradeFlush((), {"up": cursor})) == WriteResult()
            assert store.position("up") == cursor
        store.write(TradeFlush([(SPOT, some_trades("BTCUSDT", 0, 0))], {"up": Cursor("one", 3)}))
        assert store.position("up") == Cursor("one", 3)  # back, as after a symbol joined
        assert self.stored(tmp_path).is_empty()

    def test_a_refused_flush_leaves_everything_as_it_was(self, store: TradeStore, tmp_path: Path) -> None:
        good = some_trades("BTCUSDT", 0, 10)
        store.write(TradeFlush([(SPOT, good)], {"up": Cursor("j", 1)}))
        more = some_trades("BTCUSDT", 10, 10)
        bad: list[tuple[str, pl.DataFrame]] = [
            (SPOT, more.drop("price")),
            (SPOT, more.with_columns(pl.col("price").cast(pl.String))),
            (SPOT, more.with_columns(price=pl.lit(None, pl.Float64))),
            (SPOT, more.with_columns(side=pl.lit(0, pl.Int8))),
            ("not/a venue", more),
        ]
        for item in bad:
            with pytest.raises(InputError):
                store.write(TradeFlush([(SPOT, more), item], {"up": Cursor("j", 2)}))
        self.assert_stored(tmp_path, (SPOT, good))
        assert store.position("up") == Cursor("j", 1)
        assert store.write(TradeFlush([(SPOT, more)])) == WriteResult(10)

    def test_symbols_may_hold_any_character(self, store: TradeStore, tmp_path: Path) -> None:
        trades = {symbol: some_trades(symbol, index, 3) for index, symbol in enumerate(ODD_SYMBOLS)}
        kept = [(SPOT, rows) for symbol, rows in trades.items() if symbol not in self.unstorable]
        dead = 3 * len(self.unstorable)
        flush = TradeFlush([(SPOT, rows) for rows in trades.values()])
        assert store.write(flush) == WriteResult(3 * len(kept), dead=dead)
        assert store.write(flush) == WriteResult(0, 3 * len(ODD_SYMBOLS))
        self.assert_stored(tmp_path, *kept)
        assert store.last_ids(SPOT, ODD_SYMBOLS) == {symbol: index + 2 for index, symbol in enumerate(ODD_SYMBOLS)}

    def test_a_flush_may_span_days(self, store: TradeStore, tmp_path: Path) -> None:
        midnight_us = 1_723_161_600_000_000
        trades = some_trades("BTCUSDT", 0, 2_000, start_us=midnight_us - 1_500_000)
        store.write(TradeFlush([(SPOT, trades)]))
        self.assert_stored(tmp_path, (SPOT, trades))
        assert trades["ts_event"].dt.date().n_unique() == 2

    def test_maintenance_changes_no_row_and_no_position(self, store: TradeStore, tmp_path: Path) -> None:
        for sequence in range(12):
            batches = [(SPOT, some_trades(name, sequence * 10, 10)) for name in ("BTCUSDT", "ADAUSDT")]
            store.write(TradeFlush(batches, {"up": Cursor("j", sequence)}))
        store.maintain()
        store.maintain()
        self.assert_stored(tmp_path, *((SPOT, some_trades(name, 0, 120)) for name in ("BTCUSDT", "ADAUSDT")))
        assert store.position("up") == Cursor("j", 11)
        assert store.rows() == 240
        result = store.write(TradeFlush([(SPOT, some_trades("ADAUSDT", 100, 30))], {"up": Cursor("j", 12)}))
        assert result == WriteResult(10, 20)

    @ONE_BY_ONE
    @given(
        flushes=st.lists(
            st.lists(
                st.tuples(
                    st.sampled_from([SPOT, FUTURES]),
                    st.sampled_from(["BTCUSDT", "币安人生USDT"]),
                    st.integers(0, 40),
                    st.integers(0, 15),
                ),
                max_size=4,
            ),
            max_size=5,
        )
    )
    def test_any_flushes_store_what_a_slow_model_stores(
        self, tmp_path_factory: pytest.TempPathFactory, flushes: list[list[tuple[str, str, int, int]]]
    ) -> None:
        where = tmp_path_factory.mktemp("model")
        store = self.make(where)
        store.open()
        model: dict[tuple[str, str], set[int]] = {}
        for flush in flushes:
            ids = [((venue, symbol), first + step) for venue, symbol, first, count in flush for step in range(count)]
            last = {key: max(known, default=-1) for key, known in model.items()}
            new = {(key, trade_id) for key, trade_id in ids if trade_id > last.get(key, -1)}
            for key, trade_id in new:
                model.setdefault(key, set()).add(trade_id)
            result = store.write(
                TradeFlush([(venue, some_trades(symbol, first, count)) for venue, symbol, first, count in flush])
            )
            assert result == WriteResult(rows=len(new), duplicates=len(ids) - len(new))
        store.close()
        found = self.stored(where)
        expected = sorted((*key, trade_id) for key, known in model.items() for trade_id in known)
        assert sorted(found.select("venue", "symbol", "trade_id").iter_rows()) == expected

    @pytest.mark.slow
    def test_a_writer_killed_again_and_again_stores_each_row_once(self, tmp_path: Path) -> None:
        kill_and_restart(lambda: self.spawn(tmp_path, TRADE_WRITER), kills=self.kills)
        self.assert_stored(tmp_path, *((SPOT, some_trades(name, 0, 40 * 50)) for name in ("BTCUSDT", "ETHUSDT")))
        store = self.make(tmp_path)
        store.open()
        try:
            assert store.position("up") == Cursor("journal", 39)
        finally:
            store.close()

    kills = 3


class BarStoreCompliance(StoreCompliance):
    """A store of bars: one row per identity, the highest revision, rows and positions together."""

    @abstractmethod
    def make(self, where: Path, kind: BarKind) -> BarStore:
        """A store of `kind` on the folder `where`, not yet open."""

    @abstractmethod
    def stored_bars(self, where: Path, kind: BarKind) -> pl.DataFrame:
        """All rows of the table of `kind`."""

    def stored(self, where: Path) -> pl.DataFrame:
        return self.stored_bars(where, "time_bars")

    @pytest.fixture(params=list(BAR_SCHEMAS))
    def kind(self, request: pytest.FixtureRequest) -> BarKind:
        return request.param  # type: ignore[no-any-return]

    @pytest.fixture
    def store(self, tmp_path: Path, kind: BarKind) -> Iterator[BarStore]:
        store = self.make(tmp_path, kind)
        store.open()
        yield store
        store.close()

    def assert_stored(self, where: Path, kind: BarKind, *expected: pl.DataFrame) -> None:
        keys = ["venue", "symbol", "spec", BAR_KEYS[kind]]
        wanted = pl.concat(expected).sort(keys)
        assert_frame_equal(self.stored_bars(where, kind).select(wanted.columns).sort(keys), wanted, check_exact=True)

    def test_an_empty_store_knows_nothing(self, store: BarStore, tmp_path: Path, kind: BarKind) -> None:
        assert store.kind == kind
        assert store.position("raven_timebar") is None
        assert store.rows() == 0
        assert self.stored_bars(tmp_path, kind).is_empty()

    def test_what_was_written_is_read_back(
        self, store: BarStore, tmp_path: Path, kind: BarKind, shared_data: Path
    ) -> None:
        bars = ltc_bars(shared_data, kind)
        flush = BarFlush([to_record_batch(bars[:9], BAR_SCHEMAS[kind]), bars[9:]], {"up": Cursor("j", 3)})
        assert store.write(flush) == WriteResult(rows=bars.height)
        self.assert_stored(tmp_path, kind, bars)
        assert store.rows() == bars.height
        assert store.position("up") == Cursor("j", 3)

    def test_the_same_flush_again_moves_only_the_position(self, store: BarStore, tmp_path: Path, kind: BarKind) -> None:
        bars = some_bars(kind, range(20))
        store.write(BarFlush([bars], {"up": Cursor("j", 1)}))
        assert store.write(BarFlush([bars], {"up": Cursor("j", 2)})) == WriteResult(duplicates=20)
        assert store.position("up") == Cursor("j", 2)
        self.assert_stored(tmp_path, kind, bars)

    def test_a_higher_revision_replaces_and_others_are_left(
        self, store: BarStore, tmp_path: Path, kind: BarKind
    ) -> None:
        first, higher = some_bars(kind, range(10), ticks=5), some_bars(kind, range(4, 7), ticks=6)
        lower = some_bars(kind, range(7, 9), ticks=4)
        equal = some_bars(kind, range(9, 10), ticks=5).with_columns(close=pl.lit(-1.0))
        new = some_bars(kind, range(10, 12), ticks=1)
        store.write(BarFlush([first]))
        result = store.write(BarFlush([new, higher, lower, equal], {"up": Cursor("j", 1)}))
        assert result == WriteResult(rows=5, duplicates=3, replaced=3)
        self.assert_stored(tmp_path, kind, first[:4], higher, first[7:], new)
        assert store.rows() == 12
        assert store.position("up") == Cursor("j", 1)

    def test_within_one_flush_the_newest_row_counts(self, store: BarStore, tmp_path: Path, kind: BarKind) -> None:
        versions = [some_bars(kind, range(3), ticks=ticks) for ticks in (4, 9, 6)]
        assert store.write(BarFlush(versions)) == WriteResult(rows=3, duplicates=6)
        self.assert_stored(tmp_path, kind, versions[1])

    def test_a_bar_before_the_newest_is_inserted(self, store: BarStore, tmp_path: Path, kind: BarKind) -> None:
        bars = some_bars(kind, range(10))
        store.write(BarFlush([bars[5:]]))
        assert store.write(BarFlush([bars[:5]])) == WriteResult(rows=5)
        assert store.write(BarFlush([bars])) == WriteResult(duplicates=10)
        self.assert_stored(tmp_path, kind, bars)

    def test_identity_is_venue_symbol_spec_and_key(self, store: BarStore, tmp_path: Path, kind: BarKind) -> None:
        bars = [
            some_bars(kind, range(4), venue=venue, symbol=symbol, spec=spec)
            for venue in (SPOT, FUTURES)
            for symbol in ("BTCUSDT", "ETHUSDT")
            for spec in ("1m", "5m")
        ]
        for flush in (bars[::2], bars[1::2], bars):
            store.write(BarFlush(flush))
        self.assert_stored(tmp_path, kind, *bars)

    def test_bars_may_lie_days_apart(self, store: BarStore, tmp_path: Path, kind: BarKind) -> None:
        numbers = [0, 700, 1439, 1440, 1441, 5000]
        store.write(BarFlush([some_bars(kind, numbers, ticks=1)]))
        assert store.write(BarFlush([some_bars(kind, numbers[::2], ticks=2)])).replaced == 3
        self.assert_stored(
            tmp_path, kind, some_bars(kind, numbers[::2], ticks=2), some_bars(kind, numbers[1::2], ticks=1)
        )

    def test_symbols_and_specs_may_hold_any_character(self, store: BarStore, tmp_path: Path, kind: BarKind) -> None:
        pairs = [*zip(ODD_SYMBOLS, reversed(ODD_SYMBOLS), strict=True), ("a", "b/c"), ("a/b", "c")]
        bars = [some_bars(kind, range(2), symbol=symbol, spec=spec) for symbol, spec in pairs]
        store.write(BarFlush(bars))
        assert store.write(BarFlush(bars)).duplicates == 2 * len(pairs)
        self.assert_stored(tmp_path, kind, *bars)

    def test_a_refused_flush_leaves_everything_as_it_was(self, store: BarStore, tmp_path: Path, kind: BarKind) -> None:
        bars = some_bars(kind, range(3))
        store.write(BarFlush([bars], {"up": Cursor("j", 1)}))
        for bad in (
            bars.drop("vwap"),
            bars.with_columns(pl.lit(None, bars.schema[BAR_KEYS[kind]]).alias(BAR_KEYS[kind])),
            bars.with_columns(venue=pl.lit("../x")),
        ):
            with pytest.raises(InputError):
                store.write(BarFlush([some_bars(kind, range(5, 9)), bad], {"up": Cursor("j", 2)}))
        self.assert_stored(tmp_path, kind, bars)
        assert store.position("up") == Cursor("j", 1)

    def test_maintenance_changes_no_row_and_no_position(self, store: BarStore, tmp_path: Path, kind: BarKind) -> None:
        for number in range(12):
            store.write(BarFlush([some_bars(kind, [number], ticks=3)], {"up": Cursor("j", number)}))
        store.maintain()
        store.write(BarFlush([some_bars(kind, range(5, 14), ticks=4)]))
        store.maintain()
        self.assert_stored(tmp_path, kind, some_bars(kind, range(5), ticks=3), some_bars(kind, range(5, 14), ticks=4))
        assert store.position("up") == Cursor("j", 11)
        assert store.rows() == 14

    def test_all_is_there_after_reopening(self, store: BarStore, tmp_path: Path, kind: BarKind) -> None:
        store.write(BarFlush([some_bars(kind, range(6), ticks=2)], {"up": Cursor("j", 1)}))
        store.close()
        again = self.make(tmp_path, kind)
        again.open()
        try:
            assert again.position("up") == Cursor("j", 1)
            assert again.write(BarFlush([some_bars(kind, range(8), ticks=2)])) == WriteResult(2, 6)
        finally:
            again.close()
        self.assert_stored(tmp_path, kind, some_bars(kind, range(8), ticks=2))

    def test_opening_twice_does_no_harm(self, store: BarStore, tmp_path: Path, kind: BarKind) -> None:
        flush = BarFlush([some_bars(kind, range(5))], {"up": Cursor("j", 1)})
        store.write(flush)
        store.open()
        assert store.position("up") == Cursor("j", 1)
        assert store.write(flush) == WriteResult(duplicates=5)
        self.assert_stored(tmp_path, kind, some_bars(kind, range(5)))

    @ONE_BY_ONE
    @given(
        flushes=st.lists(
            st.lists(st.tuples(st.integers(0, 6), st.integers(1, 4), st.booleans()), max_size=6), max_size=4
        )
    )
    def test_any_flushes_store_what_a_slow_model_stores(
        self, tmp_path_factory: pytest.TempPathFactory, flushes: list[list[tuple[int, int, bool]]]
    ) -> None:
        where = tmp_path_factory.mktemp("model")
        store = self.make(where, "time_bars")
        store.open()
        model: dict[int, pl.DataFrame] = {}
        for flush in flushes:
            bars = [some_bars("time_bars", [number], ticks=ticks, complete=done) for number, ticks, done in flush]
            before = dict(model)
            for (number, _, _), bar in zip(flush, bars, strict=True):
                if number not in model or bar["revision"].item() > model[number]["revision"].item():
                    model[number] = bar
            changed = sum(model[number] is not before.get(number) for number in model)
            replaced = sum(model[number] is not bar for number, bar in before.items())
            assert store.write(BarFlush(bars)) == WriteResult(changed, len(flush) - changed, replaced)
        store.close()
        self.assert_stored(where, "time_bars", some_bars("time_bars", []), *model.values())

    @pytest.mark.slow
    def test_a_writer_killed_again_and_again_stores_each_bar_once(self, tmp_path: Path) -> None:
        kill_and_restart(lambda: self.spawn(tmp_path, BAR_WRITER), kills=self.kills)
        self.assert_stored(
            tmp_path,
            "time_bars",
            some_bars("time_bars", range(20), ticks=2),
            some_bars("time_bars", range(20, 21), ticks=1),
        )

    kills = 2


def some_bars(
    kind: BarKind,
    numbers: range | list[int],
    *,
    venue: str = SPOT,
    symbol: str = "BTCUSDT",
    spec: str = "1m",
    ticks: int = 3,
    complete: bool = True,
) -> pl.DataFrame:
    """Bar `n` is of the n-th minute, its first trade id is 100 n; TIBs open 1 µs after, so that no time is whole."""
    number = pl.col("number")
    opens = pl.from_epoch(
        1_723_161_600_000_000 + number * 60_000_000 + (kind != "time_bars"), time_unit="us"
    ).dt.replace_time_zone("UTC")
    prices = ["open", "high", "low", "close", "vwap", "volume", "quote_volume", "buy_volume", "buy_quote_volume"]
    more = ["theta", "threshold", "expected_size", "expected_imbalance"] if kind != "time_bars" else []
    return (
        pl.DataFrame({"number": list(numbers)}, schema={"number": pl.Int64})
        .select(
            pl.lit(venue).alias("venue"),
            pl.lit(symbol).alias("symbol"),
            pl.lit(spec).alias("spec"),
            opens.alias("open_time"),
            (opens + pl.duration(minutes=1)).alias("close_time"),
            *((number / 8 + ticks + len(name)).alias(name) for name in [*prices, *more]),
            buy_ticks=pl.lit(ticks),
            sell_ticks=pl.lit(0),
            total_ticks=pl.lit(ticks),
            first_trade_id=number * 100,
            last_trade_id=number * 100 + ticks - 1,
            complete=pl.lit(complete),
            revision=pl.lit(2 * ticks + complete),
        )
        .select(BAR_SCHEMAS[kind].names)
        .cast(polars_schema(BAR_SCHEMAS[kind]))  # type: ignore[arg-type]
    )


def ltc_bars(shared_data: Path, kind: BarKind) -> pl.DataFrame:
    """Bars of recorded trades: of a minute, or of 50 trades (several of which open in one millisecond)."""
    trades = ltc_trades(shared_data).unique("trade_id").sort("trade_id")
    every = pl.col("ts_event").dt.truncate("1m") if kind == "time_bars" else pl.int_range(pl.len()) // 50
    buys = pl.col("side") > 0
    quote = pl.col("price") * pl.col("quantity")
    bars = trades.group_by(every.alias("window"), maintain_order=True).agg(
        open_time=pl.col("ts_event").first(),
        close_time=pl.col("ts_event").last(),
        open=pl.col("price").first(),
        high=pl.col("price").max(),
        low=pl.col("price").min(),
        close=pl.col("price").last(),
        volume=pl.col("quantity").sum(),
        quote_volume=quote.sum(),
        buy_volume=pl.col("quantity").filter(buys).sum(),
        buy_quote_volume=quote.filter(buys).sum(),
        buy_ticks=buys.sum(),
        sell_ticks=(~buys).sum(),
        total_ticks=pl.len(),
        first_trade_id=pl.col("trade_id").first(),
        last_trade_id=pl.col("trade_id").last(),
        theta=pl.col("side").cast(pl.Float64).sum(),
    )
    if kind == "time_bars":
        bars = bars.with_columns(open_time="window", close_time=pl.col("window") + pl.duration(minutes=1))
    return (
        bars.with_columns(
            venue=pl.lit(SPOT),
            symbol=pl.lit("LTCUSDT"),
            spec=pl.lit("x"),
            vwap=pl.col("quote_volume") / pl.col("volume"),
            complete=pl.col("first_trade_id") % 2 == 0,
            threshold=-pl.col("theta"),
            expected_size=pl.lit(100.0),
            expected_imbalance=pl.lit(0.4),
        )
        .with_columns(revision=2 * pl.col("total_ticks") + pl.col("complete"))
        .select(BAR_SCHEMAS[kind].names)
        .cast(polars_schema(BAR_SCHEMAS[kind]))  # type: ignore[arg-type]
    )


TRADE_WRITER = """
from tests.unit.store_compliance import *
store.open()
at = store.position("up")
for number in range(0 if at is None else at.sequence + 1, 40):
    again = max(0, number - 1)
    rows = [(SPOT, some_trades(name, again * 50, (number + 1 - again) * 50)) for name in ("ETHUSDT", "BTCUSDT")]
    store.write(TradeFlush(rows, {"up": Cursor("journal", number)}))
    print(number, flush=True)
    if number % 4 == 3:
        store.maintain()
store.close()
"""

BAR_WRITER = """
from tests.unit.store_compliance import *
store.open()
at = store.position("up")
for number in range(0 if at is None else at.sequence + 1, 20):
    bars = [some_bars("time_bars", [number], ticks=2), some_bars("time_bars", [number + 1], ticks=1)]
    store.write(BarFlush(bars, {"up": Cursor("journal", number)}))
    print(number, flush=True)
    if number % 4 == 3:
        store.maintain()
store.close()
"""


def kill_and_restart(start: Callable[[], subprocess.Popen[str]], *, kills: int) -> None:
    """Run a writer that prints a line per commit; kill it `kills` times in the middle; let it finish."""
    moments = random.Random(11)
    for _ in range(kills):
        with start() as writer:
            assert writer.stdout is not None
            writer.stdout.readline()
            time.sleep(moments.uniform(0, 0.1))
            writer.kill()
    with start() as writer:
        writer.communicate()
    assert writer.returncode == 0
