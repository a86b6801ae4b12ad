"""The help of the public functions: its examples run and print what they say, and its columns are those that come."""

from __future__ import annotations

import asyncio
import doctest
import inspect
import re
import threading
import zipfile
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest

import raven
from raven.batches.batch import BatchMeta
from raven.batches.schema import TIB_DTYPES, TIME_BAR_DTYPES, TRADE_DTYPES, TRADE_SCHEMA, stream_schema, to_record_batch
from raven.journal import Journal
from raven.rpc.access import Access
from raven.rpc.hub import Hub
from raven.rpc.server import Server
from raven.sinks.contents import CONTENTS
from raven.sinks.delta import DeltaBarStore, DeltaTradeStore
from raven.sinks.encode import TRADES
from raven.sinks.store import BarFlush, TradeFlush
from raven.sources.importing import import_files
from raven.sources.simulated import GeneratedMarket
from tests.unit.test_rpc import Handler

ARCHIVE = "BTCUSDT-trades-2026-01-05.zip"
SPOT = "BINANCE_SPOT"
STORED_TRADES = dict(pl.from_arrow(TRADES.schema.empty_table()).schema)  # type: ignore[union-attr]
COLUMNS = {
    "read_trades": TRADE_DTYPES,
    "iter_trades": TRADE_DTYPES,
    "replay": TRADE_DTYPES,
    "live": TRADE_DTYPES,
    "scan_trades": STORED_TRADES,
    "scan_bars": TIB_DTYPES,
    "stored": dict(CONTENTS),
    "time_bars": TIME_BAR_DTYPES,
    "tick_imbalance_bars": TIB_DTYPES,
    "tick_bars": TIB_DTYPES,
    "volume_bars": TIB_DTYPES,
    "dollar_bars": TIB_DTYPES,
}
TYPES: dict[str, pl.DataType] = {
    "String": pl.String(), "Boolean": pl.Boolean(), "Int8": pl.Int8(), "Int64": pl.Int64(), "Float64": pl.Float64(),
    "Datetime[us, UTC]": pl.Datetime("us", "UTC"),
}  # fmt: skip
FUNCTIONS = [name for name in raven.__all__ if inspect.isfunction(getattr(raven, name))]


def make_archive(path: Path) -> None:
    """An hour of seeded trades as the exchange's archives hold them."""
    start, market = datetime(2026, 1, 5, tzinfo=UTC), GeneratedMarket(["BTCUSDT"], seed=1, trades_per_second=2)
    first_id, stop_id = (
        market.id_at("BTCUSDT", int((start + timedelta(hours=hour)).timestamp()) * 1_000_000) for hour in (0, 1)
    )
    rows = market.trades("BTCUSDT", first_id, stop_id).select(
        "trade_id",
        "price",
        "quantity",
        quote=pl.col("price") * pl.col("quantity"),
        time="time_us",
        maker=pl.when("is_sell").then(pl.lit("True")).otherwise(pl.lit("False")),
        best=pl.lit("True"),
    )
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(f"{path.stem}.csv", rows.write_csv(include_header=False))


def store_all(root: Path, trades: pl.DataFrame) -> None:
    store = DeltaTradeStore(root)
    store.open()
    store.write(TradeFlush([(SPOT, trades)]))
    store.close()
    for kind, bars in (
        ("time_bars", raven.time_bars(trades, "1m", venue=SPOT)),
        ("tick_imbalance_bars", raven.tick_bars(trades, 500, venue=SPOT)),
    ):
        bar_store = DeltaBarStore(root, kind)
        bar_store.open()
        bar_store.write(BarFlush([bars]))
        bar_store.close()


def serve(folder: Path, trades: pl.DataFrame, ready: threading.Event, over: threading.Event, ports: list[int]) -> None:
    """Publishes `trades` as a source does, until it is `over`."""

    async def run() -> None:
        schema = stream_schema(TRADE_SCHEMA, kind="trades", venue=SPOT)
        with Journal.open(folder / "source", schema) as journal:
            hub = Hub(journal)
            server = Server("127.0.0.1", 0, Handler(), hub, access=Access())
            await server.start()
            await hub.publish(to_record_batch(trades, schema), BatchMeta())
            ports.append(server.port)
            ready.set()
            await asyncio.to_thread(over.wait)
            await server.stop()

    asyncio.run(run())


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Where the examples run: an archive, a journal made of it, stores that hold it, and a service that publishes it."""
    folder = tmp_path_factory.mktemp("examples")
    make_archive(folder / ARCHIVE)
    trades = raven.read_trades(folder / ARCHIVE)
    import_files([folder / ARCHIVE], into=folder / "recording", data=folder)
    store_all(folder / "data" / "delta", trades)
    ready, over, ports = threading.Event(), threading.Event(), list[int]()
    service = threading.Thread(target=serve, args=(folder, trades, ready, over, ports))
    service.start()
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert ready.wait(60)
        patch.setenv("RAVEN__SERVER__PORT_BINANCE_SPOT", str(ports[0]))
        yield folder
    over.set()
    service.join()


def test_all_functions_are_here() -> None:
    assert set(FUNCTIONS) == set(COLUMNS)


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize("name", FUNCTIONS)
def test_the_example_prints_what_it_says(name: str) -> None:
    told = getattr(raven, name).__doc__
    example = doctest.DocTestParser().get_doctest(told, {"raven": raven, "pl": pl}, name, __file__, 0)
    assert any(f"raven.{name}(" in step.source for step in example.examples)
    assert any(step.want for step in example.examples)
    printed: list[str] = []
    result = doctest.DocTestRunner(verbose=False).run(example, out=printed.append)
    assert result.failed == 0, "".join(printed)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_the_columns_are_listed_with_their_types_and_units(name: str) -> None:
    paragraphs = str(inspect.getdoc(getattr(raven, name))).split("\n\n")
    told = next(" ".join(text.split()) for text in paragraphs if text.startswith("Columns: "))
    listed = re.findall(r"([a-z_]+(?:, [a-z_]+)*) \((\w+(?:\[us, UTC\])?)(?:, ([^()]+))?\)", told)
    types = {column: TYPES[dtype] for columns, dtype, _ in listed for column in columns.split(", ")}
    assert types == COLUMNS[name]
    assert all(unit for _, dtype, unit in listed if dtype == "Float64")
