"""Whose trades a file holds, and in which format: known from its data, its caller or its name, or asked for."""

from __future__ import annotations

import gzip
import json
from datetime import UTC, datetime
from pathlib import Path

import polars as pl
import pyarrow as pa
import pytest

from raven.batches.batch import BatchMeta
from raven.batches.gate import BadReason
from raven.batches.schema import ORIGIN_ARCHIVE, TRADE_SCHEMA, stream_schema, to_record_batch
from raven.errors import InputError, in_a_command
from raven.journal import Journal
from raven.sources.binance.markets import is_coin_m
from raven.sources.binance.messages import decode_frames
from raven.sources.importing import import_files
from raven.sources.recordings import RecordingKind, RecordingWarning, infer_venue, iter_trades, read_trades, sniff
from raven.sources.recordings.kinds import describe
from raven.sources.replay import open_recording
from tests.unit.samples import trades

SPOT, FUTURES = "BINANCE_SPOT", "BINANCE_FUTURES"
SPOT_LINE = b"1,4102.41,0.02,82.0482,1554076802000,True,True\n"
USDM_LINE = b"1,4102.41,0.02,82.0482,1554076802000,true\n"
COLLECTED = b"timestamp,price,quantity,side,tradeId\n1750507467356,83.29,0.107,buy,293517768\n"


def frame(symbol="BTCUSDT", *, event="aggTrade", number=7, **more):
    body = {"e": event, "E": 1786171884624, "s": symbol, "p": "64990.90", "q": "0.002", "T": 1786171884471, "m": True}
    body |= {"a": number, "f": 1, "l": 1} if event == "aggTrade" else {"t": number}
    name = f"{symbol.lower()}@{event}"
    return json.dumps({"stream": name, "data": body | more}, separators=(",", ":"), ensure_ascii=False).encode()


def capture(*frames):
    return b"".join(b"%d %s\n" % (1786171884624700000 + at, one) for at, one in enumerate(frames))


# COIN-M


@pytest.mark.parametrize(
    "case", ["cm_capture/btcusd_perp_20240808.txt", "cm_noheader/BTCUSD_PERP-trades-2021-01-01.csv"]
)
def test_coin_m_is_refused_whatever_the_caller_says(shared_cases, tmp_path, case):
    path = shared_cases / case
    for options in ({}, {"venue": FUTURES}, {"venue": SPOT, "symbol": "BTCUSDT"}):
        with pytest.raises(
            InputError, match=r"of COIN-M futures by its \w+, whose quantities are contracts"
        ) as refused:
            read_trades(path, **options)
        assert path.name in refused.value.message
    with pytest.raises(InputError, match="COIN-M"):
        import_files([path], into=tmp_path / "journal", data=tmp_path, venue=FUTURES)
    with pytest.raises(InputError, match="COIN-M"):
        open_recording([path], venue=FUTURES)
    assert not (tmp_path / "journal").exists()


def test_contracts_are_told_by_their_figures_too(shared_cases, write):
    lines = (shared_cases / "cm_noheader/BTCUSD_PERP-trades-2021-01-01.csv").read_bytes()
    with pytest.raises(InputError, match="of COIN-M futures by its columns"):
        read_trades(write("BTCUSDT-trades-2021-01-01.csv", lines), venue=FUTURES)
    ten_a_contract = b"1,2.5,4,16.0,1609459200000,true\n"
    with pytest.raises(InputError, match="of COIN-M futures by its columns"):
        read_trades(write("LINKUSDT-trades-2021-01-01.csv", ten_a_contract))
    at_ten_dollars = b"1,10.0,4,40.0,1609459200000,true\n"  # price times quantity, and the coins of ten contracts
    assert read_trades(write("LINKUSDT-trades-2021-01-02.csv", at_ten_dollars)).height == 1


@pytest.mark.parametrize(
    ("name", "by"),
    [
        ("data/futures/cm/daily/trades/BTCUSDT-trades-2021-01-01.csv", "its folder futures/cm"),
        ("BTCUSD_PERP-aggTrades-2021-01-01.csv", "its name"),
        ("BTCUSD_210326-aggTrades-2021-01.csv", "its name"),
        ("BNBUSD_210326-aggTrades-2021-01.csv", "its name"),
        ("my_ethusd_perp_trades.csv", "its name"),
        ("ticks of BTCUSD_240927.csv", "its name"),
        ("coin-m_trades.csv", "its name"),
    ],
)
def test_coin_m_by_path(write, name, by):
    agg = b"7,1.5,2,70,71,1609459200000,false\n"
    with pytest.raises(InputError, match="COIN-M") as refused:
        read_trades(write(name, agg))
    assert by in str(refused.value)


def test_delivery_futures_are_told_apart_by_their_quote(write):
    ours = ("BTCUSDT_240927", "ETHUSDT_210625", "BTCBUSD_210129", "BTCUSDT", "币安人生USDT", "BNBUSDT", "BTCUSD")
    theirs = ("BTCUSD_PERP", "BTCUSD_240927", "BNBUSD_200925", "DOTUSD_210326", "SHIBUSD_PERP", "btcusd_perp")
    assert not any(map(is_coin_m, ours))
    assert all(map(is_coin_m, theirs))
    agg = b"7,1.5,2,70,71,1609459200000,false\n"
    read = read_trades(write("BTCUSDT_210625-aggTrades-2021-01.csv", agg))
    assert read["symbol"].to_list() == ["BTCUSDT_210625"]
    with pytest.raises(InputError, match="BTCUSD_PERP is a symbol of COIN-M"):
        read_trades(write("some.csv", agg), symbol="btcusd_perp")


def test_a_mixed_stream_loses_the_frames_of_the_other_market_alone(shared_cases, tmp_path):
    path = shared_cases / "st2/btcusdt_futures_20260808.txt"
    assert infer_venue(path) == FUTURES
    with pytest.warns(RecordingWarning, match="1 row skipped: 1 other_market"):
        read = read_trades(path)
    assert read["symbol"].unique().to_list() == ["BTCUSDT"]
    assert read["trade_id"].to_list() == [3404749954, 3404749955, 3404749957]
    report = import_files([path], into=tmp_path / "journal", data=tmp_path)
    assert (report.rows, report.symbols, report.skipped) == (3, ["BTCUSDT"], {"other_market": 1})


def test_frames_of_another_market_are_dead_with_their_reason():
    good, suffixed = frame(st=1), frame("BTCUSD_PERP")
    marked, delivery = frame(st=2), frame("ETHUSD_240927", st=2)
    single = frame("BTCUSD_PERP", event="trade", X="MARKET")
    legal = frame("BTCUSDT_240927", number=8)
    frames = [good, suffixed, marked, delivery, legal, b'{"result":null,"id":1}']
    for some in (frames, frames[:-1], [good, suffixed, legal], [suffixed]):
        decoded = decode_frames(some, None, event="aggTrade", latest_us=2**62)
        dead = [one for one in some if one in (suffixed, marked, delivery)]
        assert [one.frame for one in decoded.dead] == dead
        assert {one.reason for one in decoded.dead} == {BadReason.OTHER_MARKET}
        assert set(decoded.trades["symbol"]) <= {"BTCUSDT", "BTCUSDT_240927"}
        assert decoded.trades.height + len(decoded.dead) + len(decoded.control) == len(some)
    decoded = decode_frames([single], None, event="trade", latest_us=2**62)
    assert [one.reason for one in decoded.dead] == [BadReason.OTHER_MARKET]


def test_tables_of_another_market(tmp_path):
    good = trades(range(3), "BTCUSDT")
    foreign = trades(range(3), "BTCUSD_PERP")
    foreign.write_parquet(tmp_path / "BTCUSDT.parquet")
    with pytest.raises(InputError, match="of COIN-M futures by its column symbol"):
        read_trades(tmp_path / "BTCUSDT.parquet", venue=FUTURES)
    pl.concat([good, foreign]).write_ipc(tmp_path / "both.arrow")
    with pytest.warns(RecordingWarning, match="3 rows skipped: 3 other_market"):
        assert read_trades(tmp_path / "both.arrow").equals(good)


# other exchanges


@pytest.mark.parametrize(
    ("host", "market"),
    [
        ("wss://stream.binance.us:9443/ws", "BINANCE_US"),
        ("wss://dstream.binance.com/stream", "COIN-M futures"),
        ("wss://stream.bybit.com/v5/public/spot", "BYBIT"),
        ("https://www.binance.com/dapi/v1/depth", "COIN-M futures"),
    ],
)
def test_other_hosts_are_refused_by_name(write, host, market):
    lines = b"%s <-> 1617566590.378895\n1617566591.326123: %s\n" % (host.encode(), frame(M=True))
    with pytest.raises(InputError, match=f"of {market} by the host") as refused:
        read_trades(write("capture.txt", lines))
    assert "Binance spot and of USD-M" in refused.value.hint


@pytest.mark.parametrize(
    ("host", "venue"),
    [
        ("wss://stream.binance.com:9443/stream", SPOT),
        ("wss://data-stream.binance.vision/stream", SPOT),
        ("wss://fstream.binance.com/market/stream", FUTURES),
        ("https://fapi.binance.com/fapi/v1/depth", FUTURES),
    ],
)
def test_hosts_tell_the_venue(write, host, venue):
    quiet = b'{"stream":"btcusdt@depth","data":{"e":"depthUpdate","s":"BTCUSDT"}}'
    path = write("capture.txt", b"%s <-> 1617566590.378895\n1617566591.326123: %s\n" % (host.encode(), quiet))
    assert infer_venue(path) == venue


def test_headers_and_folders_of_other_exchanges(write, shared_data):
    for exchange, shown in (("BINANCE_US", "BINANCE_US"), ("BINANCE_DELIVERY", "COIN-M futures"), ("KRAKEN", "KRAKEN")):
        header = b'{"t":"header","exchange":"%s"}\n' % exchange.encode()
        with pytest.raises(InputError, match=f"of {shown} by its header"):
            read_trades(write("capture.jsonl", header))
    with pytest.raises(InputError, match=r"of COINBASE by the host ws-feed\.pro\.coinbase\.com"):
        read_trades(shared_data / "cryptofeed_COINBASE_20210417.txt.gz")
    for name in ("kraken_BTCUSDT.csv", "binance.us/BTCUSDT.csv", "binance-us_BTCUSDT.csv"):
        path = write(name, COLLECTED)
        with pytest.raises(InputError, match="pass venue="):
            read_trades(path)
        assert read_trades(path, venue="spot").height == 1  # a name is a guess, and the caller knows


# the venue


def test_a_partition_folder_tells_the_venue(shared_cases, tmp_path):
    path = next((shared_cases / "part").rglob("*.parquet"))
    assert infer_venue(path) == FUTURES
    report = import_files([path], into=None, data=tmp_path)
    assert Path(report.journal).name == "imported-binance_futures"
    assert report.rows == read_trades(path).height > 0
    with pytest.raises(InputError, match="BINANCE_FUTURES by its folder venue=BINANCE_FUTURES, not BINANCE_SPOT"):
        read_trades(path, venue=SPOT)


def test_what_cannot_be_told_is_asked_for_in_the_language_in_use(write, tmp_path):
    path = write("LTCUSDT_2025-06-21.csv", COLLECTED)
    assert read_trades(path)["symbol"].to_list() == ["LTCUSDT"]  # where the venue does not matter it is not asked for
    for ask in (
        lambda: infer_venue(path),
        lambda: import_files([path], into=tmp_path / "journal", data=tmp_path),
        lambda: open_recording([path]),
    ):
        with pytest.raises(InputError, match=r"neither LTCUSDT_2025-06-21.csv nor its name tells the venue") as asked:
            ask()
        assert asked.value.hint == "pass venue='spot' or venue='futures'"
        with in_a_command(), pytest.raises(InputError) as asked:
            ask()
        assert asked.value.hint == "pass --venue spot or --venue futures"
    assert not (tmp_path / "journal").exists()
    assert import_files([path], into=tmp_path / "journal", data=tmp_path, venue=FUTURES).rows == 1
    nameless = write("some.csv", COLLECTED)
    with in_a_command(), pytest.raises(InputError, match=r"tells the symbol \(pass --symbol\)"):
        read_trades(nameless)


@pytest.mark.parametrize(
    ("name", "data", "venue"),
    [
        ("a.csv", SPOT_LINE, SPOT),
        ("a.csv", USDM_LINE, FUTURES),
        ("usdm_ltcusdt.csv", COLLECTED, FUTURES),
        ("binance_futures/ltcusdt.csv", COLLECTED, FUTURES),
        ("spot-ltcusdt.csv", COLLECTED, SPOT),
        ("data/spot/monthly/ltcusdt.csv", COLLECTED, SPOT),
        ("spot_and_futures.csv", COLLECTED, None),
        ("a.txt", capture(frame(M=True)), SPOT),
        ("a.txt", capture(frame()), FUTURES),
        ("a.txt", capture(frame(event="trade", X="MARKET")), FUTURES),
        ("a.txt", capture(frame(event="trade")), None),
        ("spot.txt", capture(frame(event="trade")), SPOT),
        ("a.json", b'[{"a":1,"p":"1","q":"1","f":1,"l":1,"T":1672531200000,"m":true,"M":true}]', SPOT),
        ("a.json", b'[{"a":1,"p":"1","q":"1","f":1,"l":1,"T":1672531200000,"m":true}]', FUTURES),
    ],
)  # fmt: skip
def test_what_tells_the_venue(write, name, data, venue):
    assert describe(write(name, data)).venue_or(None) == venue


def test_contradictions_say_which_said_what(write):
    named = write("BTCUSDT_futures.csv", SPOT_LINE)
    with pytest.raises(InputError, match="BINANCE_SPOT by its columns, but BINANCE_FUTURES by its name") as error:
        read_trades(named)
    assert error.value.hint == "pass venue="
    assert read_trades(named, venue=SPOT).height == 1
    with pytest.raises(InputError, match="BINANCE_SPOT by its columns, not BINANCE_FUTURES"):
        read_trades(named, venue=FUTURES)
    parted = write("venue=BINANCE_FUTURES/BTCUSDT.csv", SPOT_LINE)
    with pytest.raises(InputError, match="by its columns, but BINANCE_FUTURES by its folder venue=BINANCE_FUTURES"):
        read_trades(parted)
    both = write("both.txt", capture(frame(M=True), frame()))
    with pytest.raises(InputError, match="BINANCE_FUTURES by its trades, but BINANCE_SPOT by its trades"):
        read_trades(both)
    unknown = write("venue=NASDAQ/BTCUSDT.csv", COLLECTED)
    with pytest.raises(InputError, match="of NASDAQ by its folder venue=NASDAQ"):
        read_trades(unknown)


def test_a_column_venue_has_the_word(tmp_path):
    rows = trades(range(4))
    spot, futures = (rows.with_columns(venue=pl.lit(name)) for name in ("spot", FUTURES))
    path = tmp_path / "rows.parquet"
    spot.write_parquet(path)
    assert infer_venue(path) == SPOT
    assert read_trades(path, venue=SPOT).equals(rows)
    with pytest.raises(InputError, match="BINANCE_SPOT by its column venue, not BINANCE_FUTURES"):
        read_trades(path, venue=FUTURES)
    for options in ({"row_group_size": 4}, {}, {"statistics": False}):  # one venue a row group, or both in one
        pl.concat([spot, futures]).write_parquet(path, **options)
        with pytest.raises(InputError, match="holds trades of BINANCE_FUTURES and BINANCE_SPOT"):
            read_trades(path)
        assert read_trades(path, venue=SPOT).equals(rows)
    rows.with_columns(venue=pl.lit("KRAKEN")).write_parquet(path)
    with pytest.raises(InputError, match="of KRAKEN by its column venue"):
        read_trades(path)


# the symbol


def test_symbols_of_names(shared_cases):
    paths = sorted((shared_cases / "names").glob("*.csv"))
    assert len(paths) == 3
    for path in paths:
        for options in ({}, {"symbol": "BTCUSDT"}, {"symbol": "btcusdt"}):
            read = read_trades(path, **options)
            assert read["symbol"].unique().to_list() == ["BTCUSDT"]
            assert read["trade_id"].to_list() == [1, 2, 3, 4, 5]
        assert infer_venue(path) == SPOT


@pytest.mark.parametrize(
    ("name", "symbol"),
    [
        ("BINANCE_FUTURES-TRADES_ETHUSDT-PERP.csv", "ETHUSDT"),
        ("BINANCE-SPOT-AGGTRADES-2019.csv", None),
        ("TRADES-2019-04.csv", None),
        ("BINANCE-trades-2019-04-01.csv", None),
        ("COINBASE_COLLECTOR_EXPORT.csv", None),
        ("xrpbtc.csv", "XRPBTC"),
        ("XRP-USDT 2019 (1).csv", "XRPUSDT"),
        ("1000SHIBUSDT.csv", "1000SHIBUSDT"),
        ("trades_2019_usdt.csv", None),
        ("kenneth.csv", None),
        ("BTCUSDT_ETHUSDT.csv", None),
        ("BTCUSDT_240927.csv", None),  # that day's, or the delivery future's
        ("BTCUSDT_20240927.csv", "BTCUSDT"),
        ("BTCUSDT/2019-04-01.csv", "BTCUSDT"),
        ("symbol=DOGEUSDT/part-0.csv", "DOGEUSDT"),
    ],
)
def test_what_a_name_tells_of_the_symbol(write, name, symbol):
    path = write(name, COLLECTED)
    if symbol is None:
        with pytest.raises(InputError, match="pass symbol="):
            read_trades(path, venue=SPOT)
        assert read_trades(path, venue=SPOT, symbol="ltcusdt")["symbol"].to_list() == ["LTCUSDT"]
    else:
        assert read_trades(path)["symbol"].to_list() == [symbol]


def test_a_callers_symbol_wins_over_a_guess_and_over_nothing_else(write, tmp_path):
    assert read_trades(write("TRADES-BTCUSDT.csv", SPOT_LINE), symbol="ETHUSDT")["symbol"].to_list() == ["ETHUSDT"]
    with pytest.raises(InputError, match="BTCUSDT by its name, not ETHUSDT"):
        read_trades(write("BTCUSDT-trades-2019-04-01.csv", SPOT_LINE), symbol="ETHUSDT")
    with pytest.raises(InputError, match="BTCUSDT by its folder symbol=BTCUSDT, not ETHUSDT"):
        read_trades(write("symbol=BTCUSDT/a.csv", SPOT_LINE), symbol="ETHUSDT")
    trades(range(3), "BTCUSDT").write_parquet(tmp_path / "ETHUSDT.parquet")
    assert read_trades(tmp_path / "ETHUSDT.parquet")["symbol"].unique().to_list() == ["BTCUSDT"]
    with pytest.raises(InputError, match=r"no trades of ETHUSDT \(there are BTCUSDT\)"):
        read_trades(tmp_path / "ETHUSDT.parquet", symbol="ETHUSDT")


# JSON lists


def test_a_list_of_frames_is_judged_by_their_events(shared_cases, write):
    path = shared_cases / "wslist/BTCUSDT_ticks.json"
    assert sniff(path) is RecordingKind.CAPTURE_LIST
    assert infer_venue(path) == SPOT
    read = read_trades(path)
    assert read["trade_id"].to_list() == [500, 501, 502, 503, 504]
    assert read["symbol"].unique().to_list() == ["BTCUSDT"]
    assert read["ts_recv"].equals(read["ts_event"].rename("ts_recv"))
    assert read["price"].to_list() == [37000.1, 37000.11, 37000.12, 37000.13, 37000.14]
    with pytest.raises(InputError, match="no aggTrade frames"):
        read_trades(path, event="aggTrade")
    entries = json.loads(path.read_text())
    wrapped = [{"info": entry, "symbol": "BTC/USDT", "id": str(entry["t"])} for entry in entries]
    assert read_trades(write("wrapped.json", json.dumps(wrapped).encode())).equals(read)
    combined = [{"stream": "btcusdt@trade", "data": entry} for entry in entries]
    assert read_trades(write("combined.json.gz", gzip.compress(json.dumps(combined).encode()))).equals(read)
    entries[2]["p"] = "-1"
    with pytest.raises(InputError, match=r"broken\.json, entry 3: bad_price"):
        read_trades(write("broken.json", json.dumps(entries).encode()))


def test_other_lists_are_refused_by_what_they_are(shared_cases, write):
    with pytest.raises(InputError, match="freqtrade's trades") as refused:
        read_trades(shared_cases / "freqtrade/XRP_ETH-trades.json")
    assert "klines" not in str(refused.value)
    contracts = [
        b'[{"id":1,"price":"1","qty":"1","baseQty":"1","time":1672531200000,"isBuyerMaker":true}]',
        b'[{"info":{"a":1,"p":"1","q":"1","f":1,"l":1,"T":1672531200000,"m":true},"symbol":"BTC/USD:BTC"}]',
    ]
    for data in contracts:
        with pytest.raises(InputError, match="trades of COIN-M"):
            read_trades(write("BTCUSDT.json", data))
    for data in (b"[]", b'[{"e":"trade",', b"[1,2]", b'[["a","b"]]'):
        with pytest.raises(InputError, match=r"BTCUSDT.json looks like a (JSON )?list"):
            read_trades(write("BTCUSDT.json", data))


def test_unified_symbols_keep_their_market(write):
    def entry(symbol, number):
        info = {"a": number, "p": "1", "q": "1", "f": 1, "l": 1, "T": 1672531200000, "m": True}
        return {"info": info, "symbol": symbol}

    symbols = ("ETH/USDT:USDT", "ETH/USDT:USDT-240927", "ETH/USD:ETH", "ETH/USD:ETH-240927")
    path = write("unified.json", json.dumps([entry(name, at) for at, name in enumerate(symbols)]).encode())
    assert infer_venue(path) == FUTURES
    with pytest.warns(RecordingWarning, match="2 rows skipped: 2 other_market"):
        read = read_trades(path)
    assert read.select("symbol", "trade_id").rows() == [("ETHUSDT", 0), ("ETHUSDT_240927", 1)]


# tables


@pytest.mark.parametrize("suffix", ["arrow", "feather"])
@pytest.mark.parametrize("compression", ["uncompressed", "lz4", "zstd"])
def test_arrow_files_and_streams_read_back(tmp_path, suffix, compression):
    rows = trades(range(1000))
    path = tmp_path / f"rows.{suffix}"
    rows.write_ipc(path, compression=compression)
    assert sniff(path) is RecordingKind.ARROW_FILE
    assert read_trades(path).equals(rows)
    rows.with_columns(venue=pl.lit(FUTURES)).write_ipc_stream(path, compression=compression)
    assert sniff(path) is RecordingKind.ARROW_STREAM
    assert infer_venue(path) == FUTURES
    assert read_trades(path).equals(rows)
    assert pl.concat(iter_trades(path, batch_rows=300)).equals(rows)
    spelt = rows.select(
        "trade_id", "ts_event", "price", "quantity",
        side=pl.when(pl.col("side") == 1).then(pl.lit("buy")).otherwise(pl.lit("sell")).cast(pl.Categorical),
    )  # fmt: skip
    named = tmp_path / f"ETHUSDT.{suffix}"
    spelt.write_ipc(named, compression=compression)
    expected = rows.with_columns(symbol=pl.lit("ETHUSDT"), ts_recv="ts_event", origin=pl.lit(ORIGIN_ARCHIVE, pl.Int8))
    assert read_trades(named).equals(expected)


def test_damaged_and_packed_tables_are_named(tmp_path, write):
    trades(range(1000)).write_ipc(tmp_path / "rows.arrow")
    whole = (tmp_path / "rows.arrow").read_bytes()
    trades(range(1000)).write_ipc_stream(tmp_path / "rows.arrows")
    stream = (tmp_path / "rows.arrows").read_bytes()
    for data in (whole[: len(whole) // 2], stream[: len(stream) // 2], b"ARROW1 and no more", b"\xff\xff\xff\xff"):
        with pytest.raises(InputError, match=r"torn\.arrow is damaged"):
            read_trades(write("torn.arrow", data))
    with pytest.raises(InputError, match="unpack it first"):
        read_trades(write("rows.arrow.gz", gzip.compress(whole)))
    with pytest.raises(InputError, match="Feather of the first version"):
        read_trades(write("rows.feather", b"FEA1 and more"))
    pl.DataFrame({"open": [1.0]}).write_ipc(tmp_path / "bars.arrow")
    with pytest.raises(InputError, match="columns missing"):
        read_trades(tmp_path / "bars.arrow")


def test_a_segment_of_a_journal_is_answered_with_its_folder(tmp_path):
    folder = tmp_path / "binance_spot-50001"
    with Journal.open(folder, stream_schema(TRADE_SCHEMA, kind="trades", venue=SPOT)) as journal:
        journal.append(to_record_batch(trades(range(10)), TRADE_SCHEMA), BatchMeta())
    for segment in folder.glob("*.arrows"):
        with pytest.raises(InputError, match=f"give its folder, {folder}"):
            read_trades(segment)
        break
    else:
        pytest.fail("the journal has no segment")


def test_ravens_own_csv_reads_back(tmp_path, write, shared_data):
    rows = read_trades(shared_data / "ws_raw_spot_btcusdt_20240808.gz")
    path = tmp_path / "rows.csv"
    rows.write_csv(path)
    assert sniff(path) is RecordingKind.OWN_CSV
    assert read_trades(path).equals(rows)
    assert pl.concat(iter_trades(path, batch_rows=999)).equals(rows)
    spelt = pl.when(pl.col("side") == 1).then(pl.lit("buy")).otherwise(pl.lit("sell"))
    stored = rows.select(pl.lit(FUTURES).alias("venue"), "symbol", *rows.columns[1:6], spelt.alias("side"), "origin")
    stored.write_csv(path)
    assert infer_venue(path) == FUTURES
    assert read_trades(path).equals(rows)
    packed = write("rows.csv.gz", gzip.compress(path.read_bytes()))
    assert read_trades(packed).equals(rows)
    assert import_files([path], into=tmp_path / "journal", data=tmp_path).rows == rows.height
    rows.select("price", "quantity", "trade_id", "side", "ts_event").write_csv(tmp_path / "ETHUSDT.csv")
    read = read_trades(tmp_path / "ETHUSDT.csv")
    assert read["symbol"].unique().to_list() == ["ETHUSDT"]
    assert read.drop("symbol", "ts_recv", "origin").equals(rows.drop("symbol", "ts_recv", "origin"))


def test_bad_lines_of_ravens_own_csv_are_named(tmp_path):
    path = tmp_path / "rows.csv"
    trades(range(8)).write_csv(path)
    lines = path.read_text().splitlines()
    row = lines[1].split(",")
    broken = {
        2: ("bad_price", 4, "-1"), 3: ("bad_id", 1, "1.5"), 4: ("bad_time", 2, "yesterday"),
        5: ("bad_side", 6, "0"), 6: ("bad_quantity", 5, "NaN"), 7: ("bad_field", 7, "2,3"), 8: ("bad_symbol", 0, ""),
    }  # fmt: skip
    for line, (_, column, value) in broken.items():
        cells = lines[line - 1].split(",")
        cells[column] = value
        lines[line - 1] = ",".join(cells)
    path.write_text("\n".join(lines) + "\n")
    with pytest.raises(InputError, match=r"rows\.csv, line 2: bad_price"):
        read_trades(path)
    with pytest.warns(RecordingWarning, match="7 rows skipped") as warned:
        assert read_trades(path, on_bad="skip")["trade_id"].to_list() == [7]
    for reason, _, _ in broken.values():
        assert f"1 {reason}" in str(warned[0].message)
    assert len(row) == 8


def test_a_line_break_in_a_quoted_value_makes_no_trade(tmp_path):
    rows = trades(range(3)).with_columns(symbol=pl.Series(["BTCUSDT", "A\n../X", "BTCUSDT"]))
    rows.write_csv(tmp_path / "rows.csv")
    with pytest.warns(RecordingWarning, match="2 rows skipped: 1 bad_field, 1 bad_symbol"):
        assert read_trades(tmp_path / "rows.csv", on_bad="skip")["trade_id"].to_list() == [0, 2]


def test_what_is_no_path_is_said():
    for given in (["a"], None, 3):
        with pytest.raises(InputError, match="is no path"):
            read_trades(given)


def test_a_csv_of_bars_is_no_trades(write):
    header = b"venue,symbol,spec,open_time,close_time,open,high,low,close,volume\n"
    with pytest.raises(InputError, match="looks like bars, not trades"):
        read_trades(write("bars.csv", header))


# paths


def test_globs_and_the_home_folder(write, tmp_path, monkeypatch):
    for day, number in (("02", b"2"), ("01", b"1")):
        write(f"day/BTCUSDT-trades-2019-04-{day}.csv", number + SPOT_LINE[1:])
    pattern = f"{tmp_path}/day/*.csv"
    assert [frame["trade_id"].to_list() for frame in iter_trades(pattern)] == [[1], [2]]
    assert import_files([Path(pattern)], into=tmp_path / "journal", data=tmp_path).rows == 2
    assert open_recording([Path(pattern)]).symbols == ["BTCUSDT"]
    monkeypatch.setenv("HOME", str(tmp_path))
    assert read_trades("~/day/BTCUSDT-trades-2019-04-01.csv").height == 1
    assert read_trades("~/day/*-0[12].csv").height == 2
    with pytest.raises(InputError, match=r"no file matches .*/day/\*\.zip"):
        read_trades(f"{tmp_path}/day/*.zip")
    odd = write("day/BTCUSDT [1].csv", SPOT_LINE)  # a name of its own, and no pattern
    assert read_trades(odd).height == 1
    assert read_trades(odd)["ts_event"][0] == datetime(2019, 4, 1, 0, 0, 2, tzinfo=UTC)


def test_a_table_without_a_known_stream(tmp_path):
    table = pa.table({"symbol": ["BTCUSDT"], "trade_id": [1]})
    with pa.OSFile(str(tmp_path / "a.arrow"), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)
    with pytest.raises(InputError, match="columns missing: ts_event, price, quantity, side"):
        read_trades(tmp_path / "a.arrow")


def test_the_commands_ask_in_options(shared_cases, write, tmp_path, monkeypatch, capsys):
    from raven.cli.raven import main

    def run(*arguments):
        monkeypatch.setattr("sys.argv", ["raven", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
        return ended.value.code, capsys.readouterr().err

    monkeypatch.setenv("RAVEN__DATA", str(tmp_path / "data"))
    path = write("LTCUSDT_2025.csv", COLLECTED)
    for command in ("import", "replay"):
        code, said = run(command, path)
        assert (code, "pass --venue spot or --venue futures" in said) == (1, True)
        code, said = run(command, shared_cases / "cm_capture/btcusd_perp_20240808.txt", "--venue", "futures")
        assert (code, "of COIN-M futures by its trades" in said) == (1, True)
    code, said = run("import", f"{tmp_path}/LTC*.csv", "--venue", "spot", "--into", tmp_path / "journal")
    assert (code, said) == (0, "")
    assert read_trades(tmp_path / "journal")["symbol"].to_list() == ["LTCUSDT"]
    with pytest.raises(InputError, match="COIN-M"):  # a command leaves no trace in the language of Python
        read_trades(shared_cases / "cm_noheader/BTCUSD_PERP-trades-2021-01-01.csv")
    with pytest.raises(InputError, match="pass venue="):
        infer_venue(path)
