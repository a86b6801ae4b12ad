"""The markets of the simulated exchange, their frames and their klines, without a socket."""

from __future__ import annotations

import io
import json
import zipfile
from datetime import UTC, datetime
from itertools import islice, pairwise
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from raven.batches.schema import ORIGIN_ARCHIVE, TRADE_DTYPES
from raven.errors import InputError
from raven.sources.simulated import klines
from raven.sources.simulated.build import build_market
from raven.sources.simulated.control import ControlError, parse, result
from raven.sources.simulated.frames import BlockFrames, Style, Wanted, encode, texts
from raven.sources.simulated.generated import GeneratedMarket
from raven.sources.simulated.market import MARKET_DTYPES, is_legal, split_symbol
from raven.sources.simulated.path import EPOCH_US, MINUTE_US
from raven.sources.simulated.recorded import RecordedMarket
from raven.sources.simulated.venue import SPOT

START_US = 1_767_225_600_000_000  # 2026-01-01


def frame(rows: list[tuple[str, int, int, float, float, int]]) -> pl.DataFrame:
    """Trades (TRADE_SCHEMA) from (symbol, id, time_us, price, quantity, side)."""
    names = ["symbol", "trade_id", "ts_event", "price", "quantity", "side"]
    trades = pl.DataFrame(rows, schema=names, orient="row").with_columns(ts_recv="ts_event", origin=ORIGIN_ARCHIVE)
    return trades.select(pl.col(name).cast(dtype) for name, dtype in TRADE_DTYPES.items())


@pytest.fixture(scope="module")
def archive(shared_data: Path) -> pl.DataFrame:
    with zipfile.ZipFile(shared_data / "BTCUSDT-trades-2019-04-01_00h-12h.zip") as zipped:
        raw = zipped.read(zipped.namelist()[0])
    columns = ["trade_id", "price", "quantity", "quote", "ms", "is_buyer_maker", "is_best_match"]
    rows = pl.read_csv(
        io.BytesIO(raw), has_header=False, new_columns=columns, schema_overrides={"is_buyer_maker": pl.String}
    )
    return rows.select(
        symbol=pl.lit("BTCUSDT"),
        trade_id="trade_id",
        ts_event=pl.from_epoch("ms", "ms").dt.cast_time_unit("us").dt.replace_time_zone("UTC"),
        ts_recv=pl.from_epoch("ms", "ms").dt.cast_time_unit("us").dt.replace_time_zone("UTC"),
        price="price",
        quantity="quantity",
        side=pl.when(pl.col("is_buyer_maker").str.to_lowercase() == "true").then(-1).otherwise(1).cast(pl.Int8),
        origin=pl.lit(ORIGIN_ARCHIVE, dtype=pl.Int8),
    )


# --- generated ---------------------------------------------------------------------------------------------------


def test_every_minute_holds_its_share_of_contiguous_ids_in_time_order():
    market = GeneratedMarket(["BTCUSDT"], seed=7, trades_per_second=2.5)
    minutes = 45
    first = market.id_at("BTCUSDT", START_US)
    trades = market.trades("BTCUSDT", first, first + 150 * minutes)
    times = trades["time_us"].to_numpy()
    assert (np.diff(trades["trade_id"].to_numpy()) == 1).all()
    assert (np.diff(times) >= 0).all()
    assert np.bincount((times - START_US) // MINUTE_US).tolist() == [150] * minutes
    assert first == (START_US - EPOCH_US) // MINUTE_US * 150 + 1


@settings(max_examples=25, deadline=None)
@given(
    start=st.integers(1, 10**9),
    length=st.integers(1, 4_000),
    cuts=st.lists(st.integers(0, 4_000), max_size=4),
    rate=st.sampled_from([1 / 60, 0.35, 20.0, 900.0]),
)
def test_a_trade_does_not_depend_on_which_others_are_made_with_it(start, length, cuts, rate):
    market = GeneratedMarket(["ETHUSDT"], seed=1, trades_per_second=rate)
    other = GeneratedMarket(["XRPUSDT", "ETHUSDT"], seed=1, trades_per_second=rate)
    edges = [start, *sorted(start + cut for cut in cuts if cut <= length), start + length]
    parts = [other.trades("ETHUSDT", low, high) for low, high in pairwise(edges)]
    assert_frame_equal(pl.concat(parts), market.trades("ETHUSDT", start, start + length))


def test_seed_and_symbol_make_the_market():
    ids = (10**9, 10**9 + 500)
    base = GeneratedMarket(["BTCUSDT"], seed=1).trades("BTCUSDT", *ids)
    reseeded = GeneratedMarket(["BTCUSDT"], seed=2).trades("BTCUSDT", *ids)
    assert not base["price"].equals(reseeded["price"])
    assert not base["is_sell"].equals(reseeded["is_sell"])


def test_a_play_is_the_history_from_its_start_on_all_symbols_merged_by_time():
    symbols = ["BTCUSDT", "ETHUSDT", "ETHBTC"]
    market = GeneratedMarket(symbols, seed=3)
    history = market.begin(START_US + 12_345_678)
    played = pl.concat([block.trades for block in islice(market.blocks(), 40)])
    assert played.schema == pl.Schema(MARKET_DTYPES)
    assert played["time_us"].is_sorted()
    assert played["time_us"][0] >= START_US + 12_345_678
    for code, symbol in enumerate(symbols):
        own = played.filter(pl.col("symbol") == symbol)
        assert own["trade_id"][0] == history.last_ids[code] + 1
        assert_frame_equal(own, market.trades(symbol, own["trade_id"][0], own["trade_id"][-1] + 1))
    assert market.trades("BTCUSDT", 0, int(history.last_ids[0]) + 1, tail=1)["time_us"][0] < START_US + 12_345_678


def test_a_play_can_begin_with_the_very_first_trade():
    market = GeneratedMarket(["BTCUSDT", "ETHUSDT"], start_us=EPOCH_US)
    assert market.begin(1).last_ids.tolist() == [0, 0]
    played = pl.concat([block.trades for block in islice(market.blocks(), 30)])
    for symbol in market.listings:
        ids = played.filter(pl.col("symbol") == symbol)["trade_id"]
        assert ids.to_list() == list(range(1, len(ids) + 1))


def test_a_restart_goes_on_with_the_same_ids_and_prices():
    one = GeneratedMarket(["BTCUSDT"], seed=5)
    one.begin(START_US)
    whole = pl.concat([block.trades for block in islice(one.blocks(), 30)])
    again = GeneratedMarket(["BTCUSDT"], seed=5)
    history = again.begin(START_US + 60_000_000)
    rest = pl.concat([block.trades for block in islice(again.blocks(), 5)])
    assert rest["trade_id"][0] == history.last_ids[0] + 1
    seen = whole.filter(pl.col("trade_id").is_between(rest["trade_id"][0], rest["trade_id"][-1]))
    assert_frame_equal(rest, seen)


@pytest.mark.parametrize(("speed", "due"), [(1.0, 1), (60.0, 1 / 60)])
def test_generated_trades_are_due_at_their_times(speed, due):
    market = GeneratedMarket(["BTCUSDT"], speed=speed, start_us=START_US)
    market.begin(1)
    block = next(market.blocks())
    expected = (block.trades["time_us"].to_numpy() - START_US) * due
    assert np.abs(block.due_us - expected).max() <= 1
    assert market.waits_for_reader
    assert not GeneratedMarket(["BTCUSDT"]).waits_for_reader


@settings(max_examples=20, deadline=None)
@given(offset=st.integers(0, 10**12), rate=st.sampled_from([1 / 60, 3.0, 50.0]))
def test_id_at_is_the_first_trade_at_or_after_a_time(offset, rate):
    market = GeneratedMarket(["BTCUSDT"], trades_per_second=rate)
    time_us = EPOCH_US + offset
    found = market.id_at("BTCUSDT", time_us)
    around = market.trades("BTCUSDT", found - 1, found + 1)
    assert around.filter(pl.col("trade_id") == found)["time_us"][0] >= time_us
    assert found == 1 or around.filter(pl.col("trade_id") == found - 1)["time_us"][0] < time_us


def test_generated_prices_and_quantities_are_on_the_exchanges_grid():
    market = GeneratedMarket(["BTCUSDT", "PEPEUSDT", "NEWCOINTRY"], seed=4)
    for symbol, listing in market.listings.items():
        trades = market.trades(symbol, 5_000_000, 5_020_000)
        for column, decimals in (("price", listing.price_decimals), ("quantity", listing.quantity_decimals)):
            values = trades[column].to_numpy()
            assert (values > 0).all()
            assert (np.round(values, decimals) == values).all()
        assert trades["price"].n_unique() > 5
        assert 0.2 < trades["is_sell"].mean() < 0.8


def tick_imbalance_sizes(is_sell: list[bool]) -> list[int]:
    """Rows of each bar by the closing rule with its default parameters, trade by trade."""
    size, balance, sizes, count, theta = 100.0, 0.4, [], 0, 0
    for sell in is_sell:
        count, theta = count + 1, theta + (-1 if sell else 1)
        if count > 1 and abs(theta) >= abs(size * balance):
            sizes.append(count)
            balance = 0.1 * (theta / count) + 0.9 * balance
            size = min(max(0.1 * count + 0.9 * size, 50.0), 1_000.0)
            count, theta = 0, 0
    return sizes


@pytest.mark.parametrize("seed", range(3))
def test_default_tick_imbalance_bars_close_every_few_seconds_to_minutes(seed):
    market = GeneratedMarket(["BTCUSDT"], seed=seed, trades_per_second=20)
    first = market.id_at("BTCUSDT", START_US)
    seconds = (
        np.array(tick_imbalance_sizes(market.trades("BTCUSDT", first, first + 20 * 14_400)["is_sell"].to_list())) / 20
    )
    assert 3 < np.median(seconds) < 90
    assert seconds.max() < 1_200
    assert (seconds <= 0.1).mean() < 0.1


def test_what_a_generated_market_cannot_be():
    for arguments in (
        {"trades_per_second": 0.001},
        {"speed": 0.0},
        {"start_us": EPOCH_US - 1},
    ):
        with pytest.raises(InputError):
            GeneratedMarket(["BTCUSDT"], **arguments)
    with pytest.raises(InputError):
        GeneratedMarket([])
    with pytest.raises(InputError, match="not a symbol"):
        GeneratedMarket(["btcusdt"])


def test_symbols_of_any_script_are_legal_and_split():
    assert split_symbol("币安人生USDT") == ("币安人生", "USDT")
    assert split_symbol("ETHBTC") == ("ETH", "BTC")
    assert not is_legal("BTC/USDT")
    assert not is_legal('A"B')


# --- recorded ----------------------------------------------------------------------------------------------------


def test_a_recording_is_played_by_time_and_each_symbol_in_order_of_ids():
    rows = [
        ("BBB", 2, 3_000, 1.0, 1.0, 1),
        ("AAA", 11, 2_000, 1.0, 1.0, 1),
        ("AAA", 12, 1_000, 1.0, 1.0, -1),  # a lower time with a higher id
        ("BBB", 1, 1_000, 1.0, 1.0, 1),
        ("BBB", 2, 3_000, 9.0, 1.0, 1),  # repeated
        ("BBB", 5, 4_000, 1.0, 1.0, 1),  # after a gap
    ]
    market = RecordedMarket(frame(rows))
    (block,) = market.blocks()
    assert block.trades.select("symbol", "trade_id").rows() == [
        ("BBB", 1), ("AAA", 11), ("AAA", 12), ("BBB", 2), ("BBB", 5),
    ]  # fmt: skip
    assert block.due_us.tolist() == [0, 1_000, 1_000, 2_000, 3_000]
    assert block.codes.tolist() == [1, 0, 0, 1, 1]
    assert block.trades["is_sell"].to_list() == [False, False, True, False, False]
    assert block.trades["price"].to_list() == [1.0] * 5
    assert market.duplicates == 1
    assert market.begin(5).time_us == 1_000
    assert [market.id_at("BBB", time) for time in (0, 1_000, 1_001, 4_000, 4_001)] == [1, 1, 2, 5, 6]
    assert market.trades("BBB", 2, 6)["trade_id"].to_list() == [2, 5]
    assert market.trades("BBB", 0, 6, tail=2)["trade_id"].to_list() == [2, 5]
    assert market.trades("BBB", 0, 6, head=1)["trade_id"].to_list() == [1]


def test_speed_and_rate_of_a_recording():
    rows = [("AAA", number, number * 1_000_000, 1.5, 0.25, 1) for number in range(5)]
    assert next(RecordedMarket(frame(rows), speed=4.0).blocks()).due_us.tolist() == [
        0,
        250_000,
        500_000,
        750_000,
        1_000_000,
    ]
    assert next(RecordedMarket(frame(rows), rate=1_000.0).blocks()).due_us.tolist() == [0, 1_000, 2_000, 3_000, 4_000]
    assert next(RecordedMarket(frame(rows), speed=None).blocks()).due_us is None
    listing = RecordedMarket(frame(rows)).listings["AAA"]
    assert (listing.price_decimals, listing.quantity_decimals) == (1, 2)
    for arguments in ({"speed": 0.0}, {"rate": -1.0}, {"rate": 5.0, "speed": None}):
        with pytest.raises(InputError):
            RecordedMarket(frame(rows), **arguments)
    with pytest.raises(InputError, match="no trade"):
        RecordedMarket(frame(rows).clear())


def test_build_market_without_files_generates():
    market = build_market(symbols=["BTCUSDT"], seed=9, rate=1.0)
    assert isinstance(market, GeneratedMarket)
    assert_frame_equal(
        market.trades("BTCUSDT", 100, 200),
        GeneratedMarket(["BTCUSDT"], seed=9, trades_per_second=1.0).trades("BTCUSDT", 100, 200),
    )


def test_build_market_plays_files(shared_data, archive):
    path = shared_data / "BTCUSDT-trades-2019-04-01_00h-12h.zip"
    market = build_market([path], speed=None)
    assert isinstance(market, RecordedMarket)
    expected = RecordedMarket(archive, speed=None)
    first, stop = archive["trade_id"][0], archive["trade_id"][-1] + 1
    assert_frame_equal(market.trades("BTCUSDT", first, stop), expected.trades("BTCUSDT", first, stop))
    with pytest.raises(InputError, match="ETHUSDT"):
        build_market([path], symbols=["ETHUSDT"])
    with pytest.raises(InputError, match="begins"):
        build_market([path], start_us=1)


# --- frames ------------------------------------------------------------------------------------------------------


def unwrapped(data: bytes) -> list[bytes]:
    """The payloads of unmasked text frames, by RFC 6455."""
    payloads = []
    while data:
        assert data[0] == 0x81
        length, head = data[1], 2
        if length == 126:
            length, head = int.from_bytes(data[2:4], "big"), 4
            assert length >= 126
        payloads.append(data[head : head + length])
        data = data[head + length :]
    return payloads


@settings(max_examples=30, deadline=None)
@given(payloads=st.lists(st.integers(1, 700) | st.sampled_from([125, 126, 127])), data=st.data())
def test_encoded_frames_hold_their_payloads(payloads, data):
    texts_ = [chr(65 + length % 26) * length for length in payloads]
    wire = encode(pl.Series(texts_, dtype=pl.String), np.arange(len(texts_)) * 2)
    assert unwrapped(bytes(wire.data)) == [text.encode() for text in texts_]
    start, stop = sorted(data.draw(st.tuples(st.integers(0, 2 * len(texts_)), st.integers(0, 2 * len(texts_)))))
    inside = [text.encode() for row, text in enumerate(texts_) if start <= 2 * row < stop]
    assert unwrapped(bytes(wire.between(start, stop))) == inside


def test_a_spot_trade_frame_is_written_as_the_exchange_writes_it():
    trades = RecordedMarket(frame([("BTCUSDT", 6720857582, 1790649901913456, 83034.29, 0.00062, -1)]))
    (block,) = trades.blocks()
    frames = BlockFrames(block.trades.with_row_index("row"), SPOT.streams)
    raw = frames.wire(Wanted((("trade", frozenset({"BTCUSDT"})),)), Style(combined=False, micros=False))
    (payload,) = unwrapped(bytes(raw.data))
    assert payload == (
        b'{"e":"trade","E":1790649901913,"s":"BTCUSDT","t":6720857582,"p":"83034.29000000","q":"0.00062000",'
        b'"T":1790649901913,"m":true,"M":true}'
    )
    both = Wanted((("aggTrade", frozenset({"BTCUSDT"})), ("trade", frozenset({"BTCUSDT"}))))
    first, second = unwrapped(bytes(frames.wire(both, Style(combined=True, micros=True)).data))
    assert json.loads(first)["stream"] == "btcusdt@aggTrade"
    assert json.loads(first)["data"]["l"] == 6720857582
    assert json.loads(second) == {
        "stream": "btcusdt@trade",
        "data": {
            "e": "trade", "E": 1790649901913456, "s": "BTCUSDT", "t": 6720857582, "p": "83034.29000000",
            "q": "0.00062000", "T": 1790649901913456, "m": True, "M": True,
        },
    }  # fmt: skip
    nothing = frames.wire(Wanted((("trade", frozenset({"ETHUSDT"})),)), Style(combined=False, micros=False))
    assert bytes(nothing.data) == b""
    assert bytes(nothing.between(0, 1)) == b""


def test_a_frame_of_every_trade_of_a_real_capture_is_the_recorded_frame(shared_data):
    import gzip

    lines = gzip.decompress((shared_data / "ws_raw_spot_btcusdt_20240808.gz").read_bytes()).splitlines()
    recorded = [line.split(b" ", 1)[1] for line in lines if b"@trade" in line]
    read = [json.loads(line)["data"] for line in recorded]
    rows = [(r["s"], r["t"], r["T"] * 1_000, float(r["p"]), float(r["q"]), -1 if r["m"] else 1) for r in read]
    made = frame(rows).select(
        "symbol",
        "trade_id",
        "price",
        "quantity",
        time_us=pl.col("ts_event").dt.timestamp("us"),
        is_sell=pl.col("side") < 0,
    )
    payloads = made.select(texts(SPOT.streams["trade"], micros=False)).to_series().to_list()
    for payload, real in zip(payloads, read, strict=True):
        assert json.loads(payload) == {**real, "E": real["T"]}


# --- klines ------------------------------------------------------------------------------------------------------


def market_rows(trades: pl.DataFrame) -> pl.DataFrame:
    market = RecordedMarket(trades)
    symbol = next(iter(market.listings))
    return market.trades(symbol, 0, 2**62)


def test_klines_of_the_archive_are_the_official_ones(shared_data, archive):
    official = json.loads((shared_data / "BTCUSDT-1h-official-2019-04-01_00h-12h.json").read_text())
    trades = market_rows(archive)
    opens = klines.windows(
        "1h", very_first_us=trades["time_us"][0], start_us=None, end_us=trades["time_us"][-1], limit=500
    )
    cut = [trades[:1], trades[1:30_000], trades[30_000:30_000], trades[30_000:]]
    found = klines.bars(cut, "1h")
    made = [json.loads(text) for text in klines.rows(opens, found, "1h", price_before=None, micros=False)]
    assert len(made) == len(official) == 12
    for ours, theirs in zip(made, official, strict=True):
        assert ours[0] == theirs[0]
        assert ours[6] == theirs[6]
        assert ours[8] == theirs[8]
        for place in (1, 2, 3, 4, 5, 7, 9, 10):
            assert ours[place] == theirs[place], place


def test_a_window_without_trades_repeats_the_close():
    minute = 60_000_000
    trades = market_rows(
        frame(
            [
                ("AAA", 1, minute + 5, 2.0, 1.0, 1),
                ("AAA", 2, minute + 6, 3.0, 1.0, -1),
                ("AAA", 3, 4 * minute, 4.0, 2.0, 1),
            ]
        )
    )
    found = klines.bars([trades], "1m")
    opens = klines.windows("1m", very_first_us=minute + 5, start_us=0, end_us=10**9, limit=4)
    rows = [json.loads(text) for text in klines.rows(opens, found, "1m", price_before=None, micros=True)]
    empty = ["3.00000000"] * 4 + ["0.00000000"]
    assert [row[0] // minute for row in rows] == [1, 2, 3, 4]
    assert rows[0][1:6] == ["2.00000000", "3.00000000", "2.00000000", "3.00000000", "2.00000000"]
    assert rows[0][8:] == [2, "1.00000000", "2.00000000", "0"]
    assert rows[1][1:6] == empty
    assert rows[1][6] == 3 * minute - 1
    assert rows[1][8] == 0
    nothing = klines.rows(opens[1:3], klines.bars([], "1m"), "1m", price_before=3.0, micros=False)
    assert [json.loads(text)[1:6] for text in nothing] == [empty, empty]


@pytest.mark.parametrize("interval", list(klines.INTERVALS))
def test_windows_of_every_interval_are_limited_from_the_asked_end(interval):
    day = 86_400_000_000
    ask = {"very_first_us": START_US - 400 * day, "end_us": START_US + 3 * day, "limit": 3}
    last = klines.windows(interval, start_us=None, **ask)
    assert len(last) == 3
    assert last[-1] <= datetime.fromtimestamp(START_US / 1e6 + 3 * 86_400, UTC).replace(tzinfo=None)
    assert klines.window_end_us(last, interval) > START_US + 3 * day
    first = klines.windows(interval, start_us=START_US - 200 * day, **ask)
    assert len(first) == 3
    assert first[0] >= datetime.fromtimestamp(START_US / 1e6 - 200 * 86_400, UTC).replace(tzinfo=None)
    assert klines.windows(interval, start_us=START_US + 4 * day, **ask).is_empty()


# --- control messages --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "code", "wrapped"),
    [
        ("nonsense", 3, False),
        ('{"params":["a"],"id":3}', 2, True),
        ('{"method":"JUMP","id":3}', 2, True),
        ('{"method":"SUBSCRIBE","id":3}', 2, True),
        ('{"method":"SUBSCRIBE","params":[1],"id":3}', 2, True),
        ('{"method":"SUBSCRIBE","params":[],"id":3.5}', 2, False),
        ('{"method":"SET_PROPERTY","params":["combined","yes"],"id":3}', 1, True),
        ('{"method":"SET_PROPERTY","params":["combined",true,1],"id":3}', 2, True),
        ('{"method":"GET_PROPERTY","params":[],"id":3}', 2, True),
        ('{"method":"GET_PROPERTY","params":["other"],"id":3}', 0, True),
        ("[]", 2, False),
    ],
)
def test_a_wrong_control_message_is_told_what_is_wrong(text, code, wrapped):
    with pytest.raises(ControlError) as raised:
        parse(text)
    reply = json.loads(raised.value.reply())
    assert (reply["error"] if wrapped else reply)["code"] == code
    assert reply.get("id") == (3 if wrapped else None)


def test_errors_and_answers_have_the_recorded_shapes(shared_data):
    recorded = [json.loads(line) for line in (shared_data / "control_and_2026_frames.jsonl").read_text().splitlines()]
    by_name = {entry["name"]: entry["frame"] for entry in recorded}
    assert result(None, 1) == by_name["SUBSCRIBE ack"]
    assert result(["btcusdt@aggTrade"], 3) == by_name["LIST_SUBSCRIPTIONS"]
    assert result(True, 2) == by_name["GET_PROPERTY"]
    assert ControlError(4, "Too many subscriptions", 1).reply() == by_name["too many subs"]
    with pytest.raises(ControlError) as raised:
        parse('{\n"params":\n["btcusdt@trade"],\n}'.replace(",\n}", ',"id":3\n}'))
    assert raised.value.reply() == by_name["error wrapped"]
