"""Missing trades are fetched in time, each symbol on its own: the source against an exchange that misbehaves."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import polars as pl
import pytest

from raven.batches.released import GivenUp, Missing
from raven.sources.binance import protocol as protocols
from raven.sources.binance.heal import MOST_PAGES_AHEAD, pages
from raven.sources.binance.protocol import VenueProtocol
from raven.sources.binance.source import BinanceSource
from raven.sources.simulated import FUTURES, SPOT, RecordedMarket, SimulatedExchange
from raven.sources.simulated.faults import given_faults
from raven.sources.simulated.served import ExchangeOptions
from tests.unit.collecting import begin, collecting, recorded, rows_of, total, until
from tests.unit.simulated_clients import made

SYMBOLS: Final = ("BTCUSDT", "ETHUSDT", "币安人生USDT")
COUNT: Final = 700
RATE: Final = 1_500.0
COLUMNS: Final = ("symbol", "trade_id", "ts_event", "price", "quantity", "side")
ROOTS: Final = {"BINANCE_SPOT": (SPOT, ""), "BINANCE_FUTURES": (FUTURES, "/market")}


def market(
    count: int = COUNT, rate: float = RATE, protocol: VenueProtocol = protocols.SPOT
) -> tuple[pl.DataFrame, RecordedMarket]:
    """Trades of each symbol, and a market that plays them; spot's times are microseconds, over REST too."""
    trades = pl.concat([made(symbol, count, first_id=1_000) for symbol in SYMBOLS])
    if protocol is protocols.SPOT:
        trades = trades.with_columns(pl.col("ts_event") + pl.duration(microseconds=pl.col("trade_id") % 997))
    return trades, RecordedMarket(trades, speed=1.0, rate=rate)


@asynccontextmanager
async def playing(
    played: RecordedMarket, faults: Sequence[str] = (), *, protocol: VenueProtocol = protocols.SPOT, **options: Any
) -> AsyncIterator[tuple[SimulatedExchange, str]]:
    """The exchange with these faults, and where its WebSocket is for the venue."""
    venue, root = ROOTS[protocol.venue]
    chosen = ExchangeOptions(faults=given_faults(faults), **options)
    exchange = SimulatedExchange(played, port=0, options=chosen, venue=venue)
    await exchange.start()
    try:
        yield exchange, exchange.ws_url + root
    finally:
        await exchange.stop()


def collect_all(source: BinanceSource) -> None:
    source.want({symbol: source.last_id(symbol) for symbol in SYMBOLS})


def check_whole(folder: Path, expected: pl.DataFrame, venue: str = "BINANCE_SPOT") -> pl.DataFrame:
    """Every trade is there once, of each symbol in the order of its ids, and no gap was given up."""
    trades, metas = recorded(folder, venue)
    assert not any(meta.gaps for meta in metas)
    for symbol in SYMBOLS:
        own = trades.filter(pl.col("symbol") == symbol).select(COLUMNS)
        whole = expected.filter(pl.col("symbol") == symbol).select(COLUMNS)
        assert own.equals(whole.tail(own.height)), symbol
        assert own.height >= whole.height - 100, f"{symbol}: the play began before its stream was open"
    return trades


FAULTS: Final = {
    "skip": ["skip@0.4:7", "skip@0.8:1", "skip@0.81:1"],
    "reorder": ["reorder@0.4:9", "reorder@0.7:5"],
    "repeat": ["repeat@0.4:9", "repeat@0.7:5"],
    "garble": ["garble@0.4:9", "garble@0.7:1"],
    "drop": ["drop@0.4"],
    "shutdown": ["shutdown@0.3:500ms"],
    "429": ["skip@0.4:3", "429@0.3:1s"],
    "500": ["skip@0.4:3", "500@0.3:2"],
    "slow": ["skip@0.4:3", "slow@0.3:2,700ms"],
}


@pytest.mark.parametrize(
    ("name", "protocol"),
    [*((name, protocols.SPOT) for name in FAULTS), *((name, protocols.FUTURES) for name in ("skip", "drop"))],
    ids=lambda value: value if isinstance(value, str) else value.venue,
)
async def test_whatever_happens_every_trade_is_there_once_and_in_order(
    tmp_path: Path, name: str, protocol: VenueProtocol
) -> None:
    expected, played = market(protocol=protocol)
    async with (
        playing(played, FAULTS[name], protocol=protocol) as (exchange, url),
        collecting(tmp_path, url, exchange.rest_url, protocol=protocol, hold_max_s=20) as source,
    ):
        collect_all(source)
        await exchange.finished()
        await until(lambda: all(source.last_id(symbol) == 999 + COUNT for symbol in SYMBOLS))
        await until(lambda: source._hold.held == ())
        healed, duplicates = total(source, "healed_rows"), total(source, "duplicate_rows")
    trades = check_whole(tmp_path, expected, protocol.venue)
    assert trades.filter(pl.col("origin") == 1).height == healed
    assert total_of(trades, name, healed, duplicates)


def total_of(trades: pl.DataFrame, name: str, healed: int, duplicates: int) -> bool:
    """Whether the fault left the traces it must: healed rows, or none where what was missing came by itself."""
    if name == "repeat":
        return (healed, duplicates) == (0, 14)
    if name == "shutdown":
        return duplicates + healed > 0  # what overlaps, or on a slow machine what fell between
    if name == "reorder":
        return healed == 0
    return 0 < healed < trades.height


async def test_a_symbol_that_waits_is_named_and_keeps_no_other_waiting(tmp_path: Path) -> None:
    expected, played = market()
    async with (
        playing(played, ["slow@0.2:3,900ms", "skip@0.3:4,ETHUSDT"]) as (exchange, url),
        collecting(tmp_path, url, exchange.rest_url, hold_max_s=20) as source,
    ):
        collect_all(source)
        await until(lambda: source._hold.held == ("ETHUSDT",))
        facts = source.facts.of("BINANCE_SPOT", "ETHUSDT")
        assert facts.waits_for == 4
        shown = source.facts.subscription("BINANCE_SPOT", "ETHUSDT", connected=True, wanted_by=[])
        assert shown.message == "waits for 4 missing trades"
        others = source.facts.of("BINANCE_SPOT", "BTCUSDT").rows
        await until(lambda: source.facts.of("BINANCE_SPOT", "BTCUSDT").rows > others + 100)
        assert source._hold.held == ("ETHUSDT",), "its rows still wait"
        await exchange.finished()
        await until(lambda: source._hold.held == ())
        assert (facts.healed, facts.waits_for, facts.gaps) == (4, 0, 0)
    check_whole(tmp_path, expected)
    trades, metas = recorded(tmp_path)
    # the first batches may come before the acknowledgement: no symbol counts as carried then
    carried = next(number for number, meta in enumerate(metas) if meta.held == ())
    assert {meta.held for meta in metas[carried:]} == {(), ("ETHUSDT",)}
    assert all(meta.watermark_us is not None for meta in metas if meta.held)
    healed = trades.filter(pl.col("origin") == 1)
    assert healed.get_column("symbol").unique().to_list() == ["ETHUSDT"]
    after = trades.filter(pl.col("symbol") == "ETHUSDT", pl.col("trade_id") > healed.get_column("trade_id").max())
    assert (healed.get_column("ts_recv").min() > after.get_column("ts_recv")[0]) is True, (
        "received later than those after"
    )


async def test_what_cannot_be_fetched_in_time_is_a_recorded_gap_and_it_goes_on(tmp_path: Path) -> None:
    _, played = market()
    async with (
        playing(played, ["slow@0.2:50,20s", "skip@0.3:4,ETHUSDT"]) as (exchange, url),
        collecting(tmp_path, url, exchange.rest_url, hold_max_s=0.4) as source,
    ):
        collect_all(source)
        await exchange.finished()
        await until(lambda: all(source._hold.last_ids.get(symbol) == 999 + COUNT for symbol in SYMBOLS))
        assert (total(source, "gaps"), total(source, "missing_ids"), total(source, "healed_rows")) == (1, 4, 0)
        assert source.facts.of("BINANCE_SPOT", "ETHUSDT").missing_ids == 4
    trades, metas = recorded(tmp_path)
    (gap,) = [gap for meta in metas for gap in meta.gaps]
    assert (gap.symbol, gap.missing_ids, gap.final, gap.reason) == ("ETHUSDT", 4, True, GivenUp.NOT_RECEIVED)
    own = trades.filter(pl.col("symbol") == "ETHUSDT").get_column("trade_id").to_list()
    assert own == [number for number in range(own[0], 1_000 + COUNT) if not gap.after_id < number < gap.before_id]
    assert trades.filter(pl.col("symbol") != "ETHUSDT").height >= 2 * COUNT - 200


async def test_ids_the_exchange_does_not_have_are_not_waited_for(tmp_path: Path) -> None:
    trades = made("BTCUSDT", 300).filter(~pl.col("trade_id").is_in([*range(100, 120), 200]))
    async with (
        playing(RecordedMarket(trades, speed=None)) as (exchange, url),
        collecting(tmp_path, url, exchange.rest_url, hold_max_s=600) as source,
    ):
        begin(source, "BTCUSDT")
        await until(lambda: rows_of(source) == trades.height)
    stored, metas = recorded(tmp_path)
    assert stored.get_column("trade_id").to_list() == trades.get_column("trade_id").to_list()
    gaps = [(gap.after_id, gap.before_id, gap.reason) for meta in metas for gap in meta.gaps]
    assert gaps == [(99, 120, GivenUp.ABSENT), (199, 201, GivenUp.ABSENT)]


async def test_a_restart_heals_what_was_traded_meanwhile(tmp_path: Path) -> None:
    expected, played = market(count=3_000, rate=9_000.0)
    async with playing(played) as (exchange, url):
        async with collecting(tmp_path, url, exchange.rest_url) as source:
            before = {symbol: source.last_id(symbol) for symbol in SYMBOLS}
            collect_all(source)
            await until(lambda: all(source.last_id(symbol) is not None for symbol in SYMBOLS))
        await asyncio.sleep(0.3)
        async with collecting(tmp_path, url, exchange.rest_url, hold_max_s=20) as source:
            source.want(before)  # the same session, as remembered from before the restart
            await until(lambda: total(source, "healed_rows") > 0)
            await exchange.finished()
            await until(lambda: all(source._hold.last_ids.get(symbol) == 3_999 for symbol in SYMBOLS))
            assert total(source, "healed_rows") > 1_000
    trades = check_whole(tmp_path, expected)
    assert trades.filter(pl.col("origin") == 1).height > 1_000


async def test_what_waits_is_published_when_its_session_ends(tmp_path: Path) -> None:
    _, played = market()
    async with (
        playing(played, ["slow@0.2:50,20s", "skip@0.3:4,ETHUSDT"]) as (exchange, url),
        collecting(tmp_path, url, exchange.rest_url, hold_max_s=60) as source,
    ):
        collect_all(source)
        await until(lambda: source._hold.held == ("ETHUSDT",) and source._hold.held_rows > 20)
        came = source.last_id("ETHUSDT")
        await source.leave(["ETHUSDT"])
        newest = source.last_id("ETHUSDT")
        assert total(source, "gaps") == 1
    trades, metas = recorded(tmp_path)
    assert came <= newest == trades.filter(pl.col("symbol") == "ETHUSDT").get_column("trade_id").max()
    assert [gap.reason for meta in metas for gap in meta.gaps] == [GivenUp.STOPPED]


async def test_one_refusal_while_many_symbols_heal_brings_no_ban_and_costs_no_trade(tmp_path: Path) -> None:
    """The exchange bans who goes on asking after a refusal: what was under way at that moment is all it meets."""
    names = [f"S{number}USDT" for number in range(16)]
    trades = pl.concat([made(symbol, 400, first_id=1_000) for symbol in names])
    faults = [*(f"skip@0.4:3,{symbol}" for symbol in names), "429@0.3:1s"]
    async with (
        playing(RecordedMarket(trades, speed=1.0, rate=4_000.0), faults) as (exchange, url),
        collecting(tmp_path, url, exchange.rest_url, hold_max_s=20) as source,
    ):
        source.want(dict.fromkeys(names))
        await until(lambda: any(link.name == "rest" for link in source.links()))
        (link,) = [link for link in source.links() if link.name == "rest"]
        assert (link.connected, link.needed) == (False, True)
        assert link.error.startswith("answers 429; no request is sent for")
        await exchange.finished()
        await until(lambda: source._hold.held == () and all(source.last_id(name) == 1_399 for name in names))
        assert total(source, "healed_rows") >= 3 * len(names)
        assert "rest" not in [link.name for link in source.links()]
    found, metas = recorded(tmp_path)
    assert not any(meta.gaps for meta in metas)
    assert found.select("symbol", "trade_id").is_duplicated().sum() == 0
    for name in names:
        own = found.filter(pl.col("symbol") == name).get_column("trade_id")
        assert own.to_list() == list(range(own[0], 1_400)), name


async def test_pages_are_asked_for_as_far_as_the_exchange_has_come(tmp_path: Path) -> None:
    """A long outage is fetched whole, and what lies beyond the newest trade is not asked for page by page."""
    gap = Missing("BTCUSDT", 10, 10_000_000, 0)
    assert [page.first_id for page in pages([gap], 1_000, {})] == [11]
    assert [page.first_id for page in pages([gap], 1_000, {"BTCUSDT": 2_500})] == [11, 1_011, 2_011]
    assert len(list(pages([gap], 1_000, {"BTCUSDT": 10**9}))) == MOST_PAGES_AHEAD
    trades = made("BTCUSDT", 9_000, first_id=1)
    async with (
        playing(RecordedMarket(trades, speed=1.0, rate=3_000.0), ["skip@0.3:5000"]) as (exchange, url),
        collecting(tmp_path, url, exchange.rest_url, hold_max_s=60) as source,
    ):
        begin(source, "BTCUSDT")
        await exchange.finished()
        await until(lambda: source._hold.last_ids.get("BTCUSDT") == 9_000)
        assert total(source, "healed_rows") == 5_000
        assert total(source, "rest_requests") < 40
    check = recorded(tmp_path)[0].get_column("trade_id")
    assert check.to_list() == list(range(check[0], 9_001))
