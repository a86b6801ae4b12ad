"""A thousand symbols on the simulated exchange, a process of its own, read over several connections."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import aiohttp
import pytest
from websockets.asyncio.client import connect

from raven.sources.simulated.names import NOT_TRADING
from tests.e2e.cluster import Cluster

pytestmark = pytest.mark.e2e

CONNECTIONS = 4
TRADES = 30_000


async def test_a_thousand_symbols_over_several_connections_with_faults_that_lose_nothing(tmp_path: Path):
    cluster = Cluster(tmp_path)
    cluster.simulate(
        "--symbols", "1000", "--rate", "5", "--faults", "6", "--fault-span", "5", "--fault-kinds", "stall,repeat,reorder"
    )  # fmt: skip
    address = f"127.0.0.1:{cluster.exchange_port}"
    last: dict[str, set[int]] = {}
    try:
        async with aiohttp.ClientSession(f"http://{address}") as session:
            async with session.get("/api/v3/exchangeInfo") as reply:
                listed = {entry["symbol"]: entry["status"] for entry in (await reply.json())["symbols"]}
            assert len(listed) == 1_000
            assert [symbol for symbol, status in listed.items() if status != "TRADING"] == [NOT_TRADING]
            symbols = list(listed)

            async def read(number: int) -> None:
                mine = [f"{symbol.lower()}@trade" for symbol in symbols[number::CONNECTIONS]]
                async with connect(f"ws://{address}/stream", proxy=None, max_queue=None) as ws:
                    await ws.send(json.dumps({"method": "SUBSCRIBE", "params": mine, "id": 1}))
                    assert json.loads(await ws.recv()) == {"result": None, "id": 1}
                    for _ in range(TRADES // CONNECTIONS):
                        trade = json.loads(await ws.recv())["data"]
                        last.setdefault(trade["s"], set()).add(trade["t"])

            async with asyncio.timeout(120):
                await asyncio.gather(*(read(number) for number in range(CONNECTIONS)))
            async with session.get("/simulated/faults") as reply:
                (report,) = await reply.json()
        assert report["counts"] == {"stall": 2, "repeat": 2, "reorder": 2}
        assert len(last) > 990
        assert NOT_TRADING not in last
        assert "币安人生USDT" in last
        holes = {symbol: max(ids) - min(ids) + 1 - len(ids) for symbol, ids in last.items()}
        assert not any(holes.values()), {symbol: hole for symbol, hole in holes.items() if hole}
    finally:
        cluster.stop()
