"""The simulated exchange as public clients meet it that nobody here wrote: they take it for Binance.

Each is pointed at the local port by the options it has for that, collects trades from its streams, asks REST, and
must have seen what was played, id for id.
"""

from __future__ import annotations

import asyncio
import warnings
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from binance_common.configuration import ConfigurationRestAPI, ConfigurationWebSocketStreams
from binance_sdk_derivatives_trading_usds_futures.derivatives_trading_usds_futures import DerivativesTradingUsdsFutures
from binance_sdk_spot.spot import Spot

from raven.sources.simulated import FUTURES, SPOT, GeneratedMarket, SimulatedExchange
from raven.sources.simulated.names import symbol_names
from tests.unit.simulated_clients import running

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)  # of names it imports
    from binance import AsyncClient, BinanceSocketManager
    from binance.enums import FuturesType

pytestmark = [
    pytest.mark.e2e,
    # their warnings are their own
    pytest.mark.filterwarnings("default"),
]

TRADES = 300
SYMBOLS = symbol_names(12)
Row = tuple[int, float, float]


@pytest.fixture(autouse=True)
def _direct(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


def market() -> GeneratedMarket:
    return GeneratedMarket(SYMBOLS, seed=5, trades_per_second=100)


@asynccontextmanager
async def both_venues() -> AsyncIterator[SimulatedExchange]:
    async with running(market(), venue=SPOT, beside=[(FUTURES, market())]) as (exchange, _):
        yield exchange


def assert_as_played(rows: list[Row], symbol: str = "BTCUSDT") -> None:
    """The rows (id, price, quantity) are trades of the market, none of them missing."""
    first_id = rows[0][0]
    played = market().trades(symbol, first_id, first_id + len(rows))
    assert rows == played.select("trade_id", "price", "quantity").rows()


async def collected(wait_for: Callable[[], Any], rows: list[Row], read: Callable[[Any], Row]) -> None:
    async with asyncio.timeout(30):
        while len(rows) < TRADES:
            rows.append(read(await wait_for()))


# --- python-binance ----------------------------------------------------------------------------------------------


@asynccontextmanager
async def python_binance(exchange: SimulatedExchange) -> AsyncIterator[tuple[AsyncClient, BinanceSocketManager]]:
    class Client(AsyncClient):
        API_URL = f"{exchange.rest_url}/api"
        FUTURES_URL = f"{exchange.rest_url}/fapi"

    class Sockets(BinanceSocketManager):
        STREAM_URL = f"{exchange.ws_url}/"
        FSTREAM_URL = f"{exchange.ws_url}/"

    made = await Client.create()
    try:
        yield made, Sockets(made, max_queue_size=10_000)
    finally:
        await made.close_connection()


async def test_python_binance_on_spot():
    async with both_venues() as exchange, python_binance(exchange) as (rest, sockets):
        rows: list[Row] = []
        async with sockets.trade_socket("BTCUSDT") as stream:
            await collected(stream.recv, rows, lambda frame: (frame["t"], float(frame["p"]), float(frame["q"])))
        assert_as_played(rows)
        several: list[Any] = []
        async with sockets.multiplex_socket(["ethusdt@trade", "bnbusdt@aggTrade"]) as stream, asyncio.timeout(30):
            while {frame["stream"] for frame in several} != {"ethusdt@trade", "bnbusdt@aggTrade"}:
                several.append(await stream.recv())
        info = await rest.get_exchange_info()
        assert [entry["symbol"] for entry in info["symbols"]] == list(SYMBOLS)
        old = await rest.get_historical_trades(symbol="BTCUSDT", fromId=rows[0][0], limit=TRADES)
        assert [(row["id"], float(row["price"]), float(row["qty"])) for row in old] == rows
        bars = await rest.get_klines(symbol="BTCUSDT", interval="1m", limit=3)
        assert bars[0][8] == bars[1][8] == 60 * 100
        assert (await rest.get_symbol_info("币安人生USDT"))["quoteAsset"] == "USDT"


async def test_python_binance_on_futures():
    async with both_venues() as exchange, python_binance(exchange) as (rest, sockets):
        rows: list[Row] = []
        async with sockets.aggtrade_futures_socket("BTCUSDT", futures_type=FuturesType.USD_M) as stream:
            await collected(
                stream.recv,
                rows,
                lambda frame: (frame["data"]["a"], *map(float, (frame["data"]["p"], frame["data"]["q"]))),
            )
        assert_as_played(rows)
        old = await rest.futures_aggregate_trades(symbol="BTCUSDT", fromId=rows[0][0], limit=TRADES)
        assert [(row["a"], float(row["p"]), float(row["q"])) for row in old] == rows
        info = await rest.futures_exchange_info()
        assert {entry["contractType"] for entry in info["symbols"]} == {"PERPETUAL"}
        assert len(await rest.futures_klines(symbol="BTCUSDT", interval="1m", limit=5)) == 5


# --- binance-sdk-spot, binance-sdk-derivatives-trading-usds-futures --------------------------------------------


async def sdk_stream(streams: Any, name: str, symbol: str, read: Callable[[Any], Row]) -> list[Row]:
    """What the SDK's stream `name` gives for a symbol."""
    got: asyncio.Queue[Any] = asyncio.Queue()
    rows: list[Row] = []
    connection = await streams.create_connection()
    try:
        handle = await getattr(connection, name)(symbol=symbol.lower())
        handle.on("message", got.put_nowait)
        await collected(got.get, rows, read)
        await handle.unsubscribe()
    finally:
        await connection.close_connection(close_session=True)
    return rows


async def test_binance_sdk_on_spot():
    async with both_venues() as exchange:
        sdk = Spot(
            config_rest_api=ConfigurationRestAPI(base_path=exchange.rest_url, timeout=10_000),
            config_ws_streams=ConfigurationWebSocketStreams(stream_url=exchange.ws_url),
        )
        rows = await sdk_stream(
            sdk.websocket_streams, "trade", "BTCUSDT", lambda trade: (trade.t, float(trade.p), float(trade.q))
        )
        assert_as_played(rows)

        def ask() -> None:
            info = sdk.rest_api.exchange_info().data()
            assert [entry.symbol for entry in info.symbols] == list(SYMBOLS)
            old = sdk.rest_api.historical_trades("BTCUSDT", from_id=rows[0][0], limit=TRADES).data()
            assert [(row.id, float(row.price), float(row.qty)) for row in old] == rows
            bars = sdk.rest_api.klines("BTCUSDT", interval="1m", limit=3).data()
            assert len(bars) == 3
            reply = sdk.rest_api.time()
            assert reply.data().server_time > 10**12
            limits = {limit.rateLimitType: limit.count for limit in reply.rate_limits}
            assert limits["REQUEST_WEIGHT"] > 20

        await asyncio.to_thread(ask)


async def test_binance_sdk_on_futures():
    async with both_venues() as exchange:
        sdk = DerivativesTradingUsdsFutures(
            config_rest_api=ConfigurationRestAPI(base_path=exchange.rest_url, timeout=10_000),
            config_ws_streams=ConfigurationWebSocketStreams(stream_url=exchange.ws_url),
        )
        rows = await sdk_stream(
            sdk.websocket_streams,
            "aggregate_trade_streams",
            "BTCUSDT",
            lambda trade: (trade.a, float(trade.p), float(trade.q)),
        )
        assert_as_played(rows)

        def ask() -> None:
            info = sdk.rest_api.exchange_information().data()
            assert [entry.symbol for entry in info.symbols] == list(SYMBOLS)
            old = sdk.rest_api.compressed_aggregate_trades_list("BTCUSDT", from_id=rows[0][0], limit=TRADES).data()
            assert [(row.a, float(row.p), float(row.q)) for row in old] == rows
            assert len(sdk.rest_api.kline_candlestick_data("BTCUSDT", interval="1m", limit=3).data()) == 3

        await asyncio.to_thread(ask)
