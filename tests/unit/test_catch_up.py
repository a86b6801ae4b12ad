"""Trades missed by symbols that stay quiet after a lost connection."""

from __future__ import annotations

import asyncio
from http import HTTPStatus
from pathlib import Path

import polars as pl
import pytest

from raven.sources.binance import catch_up
from raven.sources.simulated import RecordedMarket, SimulatedExchange
from tests.unit.collecting import begin, collecting, recorded, until
from tests.unit.exchanges import Exchange
from tests.unit.samples import trades


async def test_a_quiet_symbol_is_asked_for_what_it_missed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(catch_up, "QUIET_S", 0.3)
    busy, quiet = trades(range(1, 41), "BTCUSDT", every_ms=100), trades(range(1, 11), "ETHUSDT", every_ms=100)
    exchange = SimulatedExchange(RecordedMarket(pl.concat([busy, quiet]), speed=1.0), port=0)
    await exchange.start()
    try:
        async with collecting(tmp_path, exchange.ws_url, exchange.rest_url, hold_max_s=20) as source:
            for symbol in ("BTCUSDT", "ETHUSDT"):
                begin(source, symbol)
            await until(lambda: (source.last_id("ETHUSDT") or 0) >= 3)
            before = source.feed.connections_opened
            source.feed.leave(["ETHUSDT", "BTCUSDT"])  # the connection goes, the session does not
            await asyncio.sleep(1.2)  # the last trade of the quiet one falls into it
            source.feed.want(["ETHUSDT", "BTCUSDT"])
            await until(lambda: source.feed.connections_opened > before)
            await until(lambda: source.last_id("ETHUSDT") == 10)
            await until(lambda: source.last_id("BTCUSDT") == 40)
    finally:
        await exchange.stop()
    rows, metas = recorded(tmp_path)
    for symbol, last in (("BTCUSDT", 40), ("ETHUSDT", 10)):
        own = rows.filter(pl.col("symbol") == symbol).get_column("trade_id")
        assert own.to_list() == list(range(own[0], last + 1))
    assert rows.filter(pl.col("symbol") == "ETHUSDT", pl.col("origin") == 1).height > 0
    assert not any(meta.gaps for meta in metas)


async def test_the_watermark_does_not_speak_for_symbols_that_no_connection_carries(tmp_path: Path) -> None:
    async with (
        Exchange().running() as exchange,
        collecting(tmp_path, exchange.url, streams_per_connection=1) as source,
    ):
        for symbol in ("BTCUSDT", "ETHUSDT"):
            begin(source, symbol)
        await until(lambda: source.acknowledged == {"BTCUSDT", "ETHUSDT"})
        await until(lambda: source.last_id("ETHUSDT") is not None)
        [carrier] = [client for client in exchange.clients if client.streams == {"ethusdt@trade"}]
        exchange.status = HTTPStatus.SERVICE_UNAVAILABLE  # it cannot be opened again
        await exchange.drop(carrier)
        await until(lambda: source.feed.unreached == {"ETHUSDT"})
        before = source._hub.last_sequence
        await until(lambda: source._hub.last_sequence > before + 3)
        exchange.status = None
        await until(lambda: source.acknowledged == {"BTCUSDT", "ETHUSDT"})
        back = source._hub.last_sequence
        await until(lambda: source._hub.last_sequence > back + 3)
    _, metas = recorded(tmp_path)
    during = [meta for meta in metas if before + 1 < meta.sequence < back]
    assert during
    assert all(meta.held == ("ETHUSDT",) and meta.watermark_us is not None for meta in during)
    assert metas[-1].watermark_us is None or metas[-1].held == ()
