"""The USD-M futures source on recorded frames: its trades, its bars, and what it leaves alone."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from websockets.asyncio.server import ServerConnection

from raven.bars.time_bars import TimeBarKernel
from raven.batches.batch import TradeBatch
from raven.batches.schema import TRADE_SCHEMA
from raven.journal import Journal
from raven.sources.binance.protocol import FUTURES
from raven.sources.binance.source import trade_stream
from raven.sources.recordings import read_capture, read_trades
from raven.sources.simulated import FUTURES as SIMULATED_FUTURES
from raven.sources.simulated import RecordedMarket, SimulatedExchange
from tests.unit.collecting import begin, collecting, recorded, rows_of, serving, total, until

CAPTURE = "cryptofeed_BINANCE_FUTURES.jsonl.zst"
RAW_TRADES = "ws_raw_usdm_ethusdt_20240808.gz"
VENUE = "BINANCE_FUTURES"
COLUMNS = ("symbol", "trade_id", "ts_event", "price", "quantity", "side")


@pytest.fixture
async def collected(tmp_path: Path, shared_data: Path) -> pl.DataFrame:
    """What the source journals of the recorded aggregate trades, played to it by the simulated exchange."""
    trades = read_trades(shared_data / CAPTURE)
    exchange = SimulatedExchange(RecordedMarket(trades, speed=None), port=0, venue=SIMULATED_FUTURES)
    await exchange.start()
    try:
        url = f"{exchange.ws_url}/market"
        async with collecting(tmp_path, url, exchange.rest_url, protocol=FUTURES) as source:
            source.want(dict.fromkeys(trades.get_column("symbol").unique().to_list()))
            await until(lambda: rows_of(source) == trades.height)
            assert source.venue == VENUE
    finally:
        await exchange.stop()
    return recorded(tmp_path, VENUE)[0]


async def test_recorded_aggregate_trades_arrive_as_they_were(collected: pl.DataFrame, shared_data: Path) -> None:
    expected = read_trades(shared_data / CAPTURE)
    assert collected.height == 91
    for symbol in expected.get_column("symbol").unique():
        own = expected.filter(pl.col("symbol") == symbol).sort("trade_id")
        assert collected.filter(pl.col("symbol") == symbol).select(COLUMNS).equals(own.select(COLUMNS))


def covered_klines(path: Path) -> Iterator[tuple[dict[str, Any], list[int]]]:
    """The recorded 1m klines whose trades were all recorded too, and the ids of those."""
    events = [json.loads(frame)["data"] for frame in read_capture(path)[0]]
    spans = [(event["s"], event["a"], event["f"], event["l"]) for event in events if event["e"] == "aggTrade"]
    for kline in (event["k"] for event in events if event["e"] == "kline"):
        own = [(first, last, number) for symbol, number, first, last in spans
               if symbol == kline["s"] and first >= kline["f"] and last <= kline["L"]]  # fmt: skip
        if own and sum(last - first + 1 for first, last, _ in own) == kline["n"]:
            yield kline, [number for *_, number in own]


async def test_bars_equal_the_exchanges_own_where_all_trades_were_recorded(
    collected: pl.DataFrame, shared_data: Path
) -> None:
    kernel, equal = TimeBarKernel(every_us=60_000_000), 0
    for kline, ids in covered_klines(shared_data / CAPTURE):
        trades = collected.filter(pl.col("symbol") == kline["s"], pl.col("trade_id").is_in(ids))
        state, _ = kernel.step(kernel.initial(), TradeBatch(VENUE, trades.select(TRADE_SCHEMA.names)))
        bar = kernel.open_bars(state, VENUE).row(0, named=True)
        assert (bar["venue"], bar["total_ticks"]) == (VENUE, len(ids))
        assert bar["open_time"] == datetime.fromtimestamp(kline["t"] / 1000, UTC)
        ours = [bar[name] for name in ("open", "high", "low", "close", "volume")]
        assert ours == pytest.approx([float(kline[key]) for key in "ohlcv"], rel=1e-12)
        equal += 1
    assert equal == 15


async def test_raw_trades_are_never_taken_for_its_own(tmp_path: Path, shared_data: Path) -> None:
    frames = [frame for frame in read_capture(shared_data / RAW_TRADES)[0] if b'"e":"trade"' in frame]
    aggregate = {"e": "aggTrade", "s": "ETHUSDT", "a": 7, "p": "1.5", "q": "2", "f": 1, "l": 3, "T": 1_723_161_300_000,
                 "m": True}  # fmt: skip

    async def script(socket: ServerConnection) -> None:
        for frame in frames[:5_000]:
            await socket.send(frame)
        await socket.send(json.dumps({"stream": "ethusdt@aggTrade", "data": aggregate}, separators=(",", ":")))
        await socket.wait_closed()

    async with serving(script) as url, collecting(tmp_path, url, protocol=FUTURES) as source:
        begin(source, "ETHUSDT")
        await until(lambda: rows_of(source) == 1)
        assert total(source, "ignored_frames") == 5_000
        assert total(source, "dead_frames") == 0
    trades, _ = recorded(tmp_path, VENUE)
    assert trades.select("trade_id", "side").rows() == [(7, -1)]


def test_a_venues_journal_is_not_anothers(tmp_path: Path) -> None:
    with Journal.open(tmp_path, trade_stream(VENUE)):
        pass
    with pytest.raises(Exception, match="BINANCE"), Journal.open(tmp_path, trade_stream("BINANCE_SPOT")):
        pass
