"""Reading recorded files: the real ones whole, and damaged or foreign ones refused with a reason."""

from __future__ import annotations

import gzip
import io
import json
import zipfile
from datetime import UTC, datetime, timedelta

import polars as pl
import pytest
import zstandard

from raven.bars.time_bars import TimeBarKernel
from raven.batches.batch import BatchMeta, TradeBatch
from raven.batches.schema import (
    ORIGIN_ARCHIVE,
    ORIGIN_LIVE,
    ORIGIN_REST,
    TIME_BAR_SCHEMA,
    TRADE_DTYPES,
    TRADE_SCHEMA,
    stream_schema,
    to_record_batch,
)
from raven.clock import tomorrow_us
from raven.errors import InputError
from raven.journal import Journal
from raven.sources.binance.messages import decode_frames
from raven.sources.recordings import (
    RecordingKind,
    RecordingWarning,
    files,
    infer_venue,
    iter_trades,
    read_capture,
    read_trades,
    sniff,
)

ARCHIVE = "BTCUSDT-trades-2019-04-01_00h-12h.zip"
SPOT = ("ws_raw_spot_btcusdt_20240808.gz", "ws_raw_spot_btcusdt_20240809.gz")
USDM = "ws_raw_usdm_ethusdt_20240808.gz"
AGG = "cryptofeed_spot_btc_eth_dot_kline_aggTrade_20210404.txt.gz"
SPOT_LINES = (
    b"109344068,4102.44000000,0.02220800,91.10698752,1554076801991,True,True",
    b"109344069,4102.44000000,0.40852400,1675.94519856,1554076802886,False,True",
    b"109344070,4102.44000000,0.13788900,565.68134916,1554076802989,True,True",
)


def zipped(data, name="inside.csv"):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(name, data)
    return buffer.getvalue()


def steps(ids):
    return set(ids.diff().drop_nulls().to_list())


# the real files


def test_the_archive_equals_the_exchanges_own_klines(shared_data):
    trades = read_trades(shared_data / ARCHIVE)
    assert trades.schema == pl.Schema(TRADE_DTYPES)
    assert trades.height == 102_899
    assert steps(trades["trade_id"]) == {1}
    assert trades["symbol"].unique().to_list() == ["BTCUSDT"]
    assert trades["origin"].unique().to_list() == [ORIGIN_ARCHIVE]
    assert trades["ts_recv"].equals(trades["ts_event"].rename("ts_recv"))
    bought = pl.col("side") == 1
    quote = pl.col("price") * pl.col("quantity")
    bars = trades.group_by_dynamic("ts_event", every="1h").agg(
        open=pl.col("price").first(), high=pl.col("price").max(), low=pl.col("price").min(),
        close=pl.col("price").last(), volume=pl.col("quantity").sum(), quote=quote.sum(), count=pl.len(),
        buy_volume=pl.col("quantity").filter(bought).sum(), buy_quote=quote.filter(bought).sum(),
    )  # fmt: skip
    klines = json.loads((shared_data / "BTCUSDT-1h-official-2019-04-01_00h-12h.json").read_text())
    figures = [[*map(float, kline[1:6]), float(kline[7]), kline[8], *map(float, kline[9:11])] for kline in klines]
    assert len(figures) == 12
    for ours, theirs in zip(bars.rows(), figures, strict=True):
        assert list(ours[1:]) == pytest.approx(theirs, rel=1e-12)


def test_both_spot_captures_join_without_a_gap(shared_data):
    trades = read_trades(*(shared_data / name for name in SPOT))
    assert trades.height == 19_904
    assert steps(trades["trade_id"]) == {1}
    assert trades["origin"].unique().to_list() == [ORIGIN_LIVE]
    latency = (trades["ts_recv"] - trades["ts_event"]).median()
    assert timedelta(seconds=-1.29) < latency < timedelta(seconds=-1.25)


def test_the_futures_capture(shared_data):
    trades = read_trades(shared_data / USDM)
    assert trades.height == 14_076
    assert trades["symbol"].unique().to_list() == ["ETHUSDT"]
    assert steps(trades["trade_id"]) == {1}


def test_klines_in_progress_equal_bars_of_the_aggregate_trades(shared_data):
    path = shared_data / AGG
    frames, _ = read_capture(path)
    events = [json.loads(frame)["data"] for frame in frames]
    spans = {(e["s"], e["a"]): (e["f"], e["l"]) for e in events if e["e"] == "aggTrade"}
    trades = read_trades(path)
    assert trades.height == len(spans)
    first, last = zip(*(spans[key] for key in trades.select("symbol", "trade_id").iter_rows()), strict=True)
    trades = trades.with_columns(first=pl.Series(first), last=pl.Series(last))
    kernel, equal = TimeBarKernel(every_us=60_000_000), 0
    for kline in (event["k"] for event in events if event["e"] == "kline"):
        inside = trades.filter(
            pl.col("symbol") == kline["s"], pl.col("first") >= kline["f"], pl.col("last") <= kline["L"]
        )
        if (inside["last"] - inside["first"] + 1).sum() != kline["n"]:
            continue  # its trades are not wholly covered by the capture
        state, _ = kernel.step(kernel.initial(), TradeBatch("BINANCE_SPOT", inside.select(TRADE_SCHEMA.names)))
        bar = kernel.open_bars(state, "BINANCE_SPOT").row(0, named=True)
        assert bar["open_time"] == datetime.fromtimestamp(kline["t"] / 1000, UTC)
        ours = [bar[name] for name in ("open", "high", "low", "close", "volume")]
        assert ours == pytest.approx([float(kline[key]) for key in "ohlcv"], rel=1e-12)
        equal += 1
    assert equal == 51


@pytest.mark.parametrize(
    ("name", "venue", "frames", "trades"),
    [
        ("cryptofeed_BINANCE.jsonl.zst", "BINANCE_SPOT", 265, 2),
        ("cryptofeed_BINANCE_FUTURES.jsonl.zst", "BINANCE_FUTURES", 1535, 91),
        (SPOT[0], "BINANCE_SPOT", 41_249, 9_757),
        (USDM, "BINANCE_FUTURES", 74_655, 14_076),
        (AGG, "BINANCE_SPOT", 4_716, 1_910),
    ],
)
def test_captures_play_as_they_were_recorded(shared_data, name, venue, frames, trades):
    path = shared_data / name
    recorded, recv_ns = read_capture(path)
    assert (len(recorded), len(recv_ns)) == (frames, frames)
    assert (recv_ns[1:] >= recv_ns[:-1]).all()
    assert infer_venue(path) == venue
    event = "trade" if name.startswith("ws_") else "aggTrade"
    read = read_trades(path)
    assert read.equals(decode_frames(recorded, recv_ns, event=event, latest_us=tomorrow_us()).trades)
    assert read.height == trades


def test_a_collectors_csv_is_read_as_recorded(shared_data):
    paths = sorted(shared_data.glob("LTCUSDT_*.csv.gz"))
    assert {sniff(path) for path in paths} == {RecordingKind.COLLECTOR_CSV}
    trades = read_trades(*paths)
    rows = [line.split(",") for path in paths for line in gzip.decompress(path.read_bytes()).decode().split()[1:]]
    assert len(rows) == 53_325
    assert trades["trade_id"].to_list() == [int(row[4]) for row in rows]
    assert trades["price"].to_list() == [float(row[1]) for row in rows]
    assert trades["side"].to_list() == [{"buy": 1, "sell": -1}[row[3]] for row in rows]
    assert trades["ts_event"].dt.epoch("ms").to_list() == [int(row[0]) for row in rows]
    assert max(steps(trades["trade_id"])) == 118  # real outages
    with pytest.warns(RecordingWarning, match="4311 rows left out: repeats of trades that are there, id and content"):
        assert read_trades(paths[0], paths[0]).equals(read_trades(paths[0]))


def test_rest_replies(shared_data):
    quiet = read_trades(shared_data / "rest_aggTrades_XRPETH_20191011-13.json.gz")
    assert quiet.height == 12_477
    assert quiet["symbol"].unique().to_list() == ["XRPETH"]
    assert quiet["origin"].unique().to_list() == [ORIGIN_REST]
    assert steps(quiet["trade_id"]) == {1}
    assert quiet.row(0)[4:7] == (0.00141342, 23.0, -1)
    for name, first_id in (("trades", 1111468873), ("historical_trades", 1111471896), ("agg_trades", 966492862)):
        path = shared_data / f"rest_spot_market_{name}.json"
        with pytest.raises(InputError, match="pass symbol="):
            read_trades(path)
        reply = read_trades(path, symbol="BTCUSDT")
        assert reply.height == 10
        assert reply["trade_id"][0] == first_id


def test_iterating_gives_the_same_rows_in_bounded_frames(shared_data, monkeypatch):
    monkeypatch.setattr(files, "BLOCK_BYTES", 1 << 18)  # many blocks, so that lines fall across them
    for name in (ARCHIVE, SPOT[0], AGG, "cryptofeed_BINANCE_FUTURES.jsonl.zst", "LTCUSDT_2025-06-21_15h_trades__05099cc9.csv.gz"):  # fmt: skip
        frames = list(iter_trades(shared_data / name, batch_rows=1000))
        assert max(frame.height for frame in frames) <= 1000
        assert len(frames) > 1 or frames[0].height < 1000
        assert pl.concat(frames).equals(read_trades(shared_data / name))


@pytest.mark.parametrize(
    ("name", "looks_like"),
    [
        ("ADABTC-1m-2021-11-27.csv", "klines"),
        ("rest_spot_market_klines.json", "klines"),
        ("BTCUSDT-1h-official-2019-04-01_00h-12h.json", "klines"),
        ("freqtrade_XRPETH-1m_from_trades.json.gz", "klines"),
        ("rest_spot_market_exchange_info.json", "exchangeInfo"),
        ("README.md", "text that begins with"),
        ("control_and_2026_frames.jsonl", "no frames"),
    ],
)
def test_what_holds_no_trades_is_refused_by_name(shared_data, name, looks_like):
    with pytest.raises(InputError) as refused:
        read_trades(shared_data / name)
    assert name in refused.value.message
    assert looks_like in refused.value.message
    assert "accepted are trades" in refused.value.hint


# the layouts there are no recordings of


@pytest.mark.parametrize(
    ("name", "text", "row", "venue"),
    [
        (
            "BTCUSDT-trades-2025-01-01.csv",
            b"4359946301,93576.00,0.0005,46.788,1735689600006743,False,True\n",
            ("BTCUSDT", 4359946301, 1735689600006743, 93576.0, 0.0005, 1),
            "BINANCE_SPOT",
        ),
        (
            "币安人生USDT-aggTrades-2025-01-01.csv",
            b"9,0.5,2,17,18,1735689600006743,True,True\n",
            ("币安人生USDT", 9, 1735689600006743, 0.5, 2.0, -1),
            "BINANCE_SPOT",
        ),
        (
            "ETHUSDT-trades-2023-01-01.csv",
            b"id,price,qty,quote_qty,time,is_buyer_maker\n7,1.5,2,3.0,1672531200000,true\n",
            ("ETHUSDT", 7, 1672531200000000, 1.5, 2.0, -1),
            "BINANCE_FUTURES",
        ),
        (
            "BTCUSDT_230630-aggTrades-2023-01.csv",
            (
                b"agg_trade_id,price,quantity,first_trade_id,last_trade_id,transact_time,is_buyer_maker\r\n"
                b"7,1.5,2,70,71,1672531200000,false\r\n"
            ),
            ("BTCUSDT_230630", 7, 1672531200000000, 1.5, 2.0, 1),
            "BINANCE_FUTURES",
        ),
        (
            "ETHUSDT-aggTrades-2021-01-01.csv",
            b"7,1.5,2,70,71,1609459200000,false",
            ("ETHUSDT", 7, 1609459200000000, 1.5, 2.0, 1),
            "BINANCE_FUTURES",
        ),
    ],
)
@pytest.mark.parametrize("pack", [bytes, zipped, gzip.compress, zstandard.ZstdCompressor().compress])
def test_archive_layouts_packed_in_any_way(write, name, text, row, venue, pack):
    path = write(name, pack(text))
    assert sniff(path) is RecordingKind.ARCHIVE_CSV
    assert infer_venue(path) == venue
    read = read_trades(path).with_columns(pl.col("ts_event").dt.epoch("us"))
    assert read.select("symbol", "trade_id", "ts_event", "price", "quantity", "side").rows() == [row]


def test_an_archive_out_of_order_is_sorted_and_its_stream_refused(write):
    path = write("BTCUSDT-trades-2019-04-01.csv", b"\n".join((SPOT_LINES[2], *SPOT_LINES[:2])) + b"\n")
    assert read_trades(path)["trade_id"].to_list() == [109344068, 109344069, 109344070]
    with pytest.raises(InputError, match="not sorted by id"):
        list(iter_trades(path))
    early = write("BTCUSDT-trades-2019-03-31.csv", SPOT_LINES[0])
    late = write("BTCUSDT-trades-2019-04-02.csv", SPOT_LINES[1])
    assert read_trades(late, early)["trade_id"].to_list() == [109344068, 109344069]
    assert sum(frame.height for frame in iter_trades(early, late)) == 2
    with pytest.raises(InputError, match="comes before"):
        list(iter_trades(late, early))


def test_the_symbol_comes_from_the_name_or_must_be_given(write):
    path = write("some.csv", SPOT_LINES[0])
    with pytest.raises(InputError, match="pass symbol="):
        read_trades(path)
    assert read_trades(path, symbol="BTCUSDT")["symbol"].to_list() == ["BTCUSDT"]
    named = write("BTCUSDT-trades-2019-04-01.csv", SPOT_LINES[0])
    with pytest.raises(InputError, match="BTCUSDT by its name, not ETHUSDT"):
        read_trades(named, symbol="ETHUSDT")


def test_one_symbol_of_many(shared_data):
    every = read_trades(shared_data / AGG)
    one = read_trades(shared_data / AGG, symbol="DOTUSDT")
    assert 0 < one.height < every.height
    assert one.equals(every.filter(pl.col("symbol") == "DOTUSDT"))
    for read in (read_trades, lambda *paths, **options: list(iter_trades(*paths, **options))):
        with pytest.raises(InputError, match=r"no trades of ADAUSDT \(there are BTCUSDT, DOTUSDT, ETHUSDT\)"):
            read(shared_data / AGG, symbol="ADAUSDT")


# captures


FRAME = (
    b'{"stream":"btcusdt@%s","data":{"e":"%s","E":1723161255343,"s":"BTCUSDT","t":5,"a":6,'
    b'"p":"61837.63","q":"0.02","T":1723161255342,"m":true}}'
)
TRADE, AGG_TRADE = FRAME % (b"trade", b"trade"), FRAME % (b"aggTrade", b"aggTrade")


def test_frames_alone_have_no_time_of_receipt(write):
    path = write("frames.jsonl", TRADE + b'\n{"result":null,"id":1}\n\n')
    assert sniff(path) is RecordingKind.CAPTURE_PLAIN
    trades = read_trades(path)
    assert trades["ts_recv"].to_list() == trades["ts_event"].to_list()
    frames, recv_ns = read_capture(path)
    assert frames == [TRADE, b'{"result":null,"id":1}']
    assert recv_ns.tolist() == [1723161255343000000] * 2


def test_the_two_series_never_mix(write):
    both = write("both.jsonl", b"\n".join((AGG_TRADE, TRADE)))
    singles, aggregates = write("trades.jsonl", TRADE), write("agg.jsonl", AGG_TRADE)
    assert read_trades(both)["trade_id"].to_list() == [5]
    assert read_trades(both, event="aggTrade")["trade_id"].to_list() == [6]
    assert read_trades(aggregates)["trade_id"].to_list() == [6]
    with pytest.warns(RecordingWarning, match="1 row left out: repeats"):
        assert read_trades(both, singles)["trade_id"].to_list() == [5]
    with pytest.raises(InputError, match=r"agg\.jsonl hold aggTrade frames"):
        read_trades(singles, aggregates)
    with pytest.raises(InputError, match="pass event='aggTrade'"):
        read_trades(aggregates, event="trade")
    archive = write("BTCUSDT-aggTrades-2019-04-01.csv", b"9,0.5,2,17,18,1735689600006743,True,True")
    with pytest.raises(InputError, match="aggTrade"):
        read_trades(archive, singles)
    with pytest.raises(InputError, match="of event aggTrade, not trade"):
        read_trades(archive, event="trade")
    assert read_trades(archive, both)["trade_id"].to_list() == [9, 6]


def test_two_venues_never_mix(shared_data):
    with pytest.raises(InputError, match="do not belong to one venue"):
        read_trades(shared_data / SPOT[0], shared_data / USDM)
    with pytest.raises(InputError, match="BINANCE_FUTURES by its trades, not BINANCE_SPOT"):
        read_trades(shared_data / USDM, venue="BINANCE_SPOT")
    with pytest.raises(InputError, match="known are BINANCE_SPOT, BINANCE_FUTURES"):
        read_trades(shared_data / USDM, venue="NASDAQ")


def test_the_folders_of_the_exchange_tell_the_venue(write):
    lines = b"timestamp,price,quantity,side,tradeId\n1750507467356,83.29,0.107,buy,293517768\n"
    with pytest.raises(InputError, match="tells the venue"):
        infer_venue(write("LTCUSDT_2025.csv", lines))
    assert infer_venue(write("spot/LTCUSDT_2025.csv", lines)) == "BINANCE_SPOT"
    assert infer_venue(write("data/futures/um/daily/LTCUSDT_2025.csv", lines)) == "BINANCE_FUTURES"


# damage


def test_bad_lines_raise_or_are_counted(write):
    lines = [
        *SPOT_LINES,
        SPOT_LINES[0].replace(b"4102.44000000", b"0"),
        SPOT_LINES[0] + b",5",
        b"",
        SPOT_LINES[0].replace(b"1554076801991", b"15540768"),
        SPOT_LINES[0].replace(b"4102.44000000", b"4102,44"),
        SPOT_LINES[0].replace(b"109344068", b"109344071"),
        SPOT_LINES[1][:-3],
    ]
    path = write("BTCUSDT-trades-2019-04-01.csv", b"\n".join(lines))
    with pytest.raises(
        InputError,
        match=r"BTCUSDT-trades-2019-04-01.csv, line 4: bad_price: price is 0; a price is a finite number above 0",
    ) as error:
        read_trades(path)
    assert "on_bad='skip'" in error.value.hint
    with pytest.warns(RecordingWarning, match="6 rows skipped: 4 bad_field, 1 bad_price, 1 bad_time"):
        trades = read_trades(path, on_bad="skip")
    assert trades["trade_id"].to_list() == [109344068, 109344069, 109344070, 109344071]
    header = write("ETHUSDT-trades-2023-01-01.csv", b"id,price,qty,quote_qty,time,is_buyer_maker\n7,1.5,2,3.0,16725")
    with pytest.raises(InputError, match="line 2: bad_field"):
        read_trades(header)


def test_lines_are_numbered_through_all_blocks(write, monkeypatch):
    monkeypatch.setattr(files, "BLOCK_BYTES", 500)
    path = write("BTCUSDT-trades-2019-04-01.csv", b"\n".join((*SPOT_LINES * 30, b"cut,")))
    with pytest.raises(InputError, match="line 91: bad_field: it is 'cut,'; it is not whole"):
        read_trades(path)


@pytest.mark.parametrize(
    ("stamp", "kind"),
    [
        (b"1723161254087896568 ", RecordingKind.CAPTURE_NS),
        (b"1723161254.087896: ", RecordingKind.CAPTURE_S),
        (b"", RecordingKind.CAPTURE_PLAIN),
    ],
)
def test_bad_lines_of_captures_name_their_line(write, stamp, kind):
    other = TRADE.replace(b'"t":5', b'"t":6')
    cut = write("cut.txt", b"\n".join((stamp + TRADE, b"", stamp + other, stamp + TRADE[:60])))
    assert sniff(cut) is kind
    with pytest.raises(InputError, match=r"cut\.txt, line 4: not_json: "):
        read_trades(cut)
    with pytest.warns(RecordingWarning, match="1 row skipped: 1 not_json"):
        assert read_trades(cut, on_bad="skip").height == 2
    assert read_capture(cut)[0] == [TRADE, other, TRADE[:60]]
    if stamp:
        foreign = write("foreign.txt", b"\n".join((stamp + TRADE, b"17231612" + TRADE, b"\xff \xff")))
        with pytest.raises(InputError, match=r"foreign\.txt, line 2: unknown_shape"):
            read_trades(foreign)
        with pytest.raises(InputError, match=r"foreign\.txt, line 2: unknown_shape"):
            read_capture(foreign)


def test_broken_records_name_their_line(write):
    record = json.dumps({"t": "recv", "ts": 1633998534.48, "data": TRADE.decode()}).encode()
    header = b'{"t":"header","exchange":"BINANCE"}'
    path = write("r.jsonl", b"\n".join((header, record, record.replace(b"1633998534.48", b"null"), record[:50])))
    with pytest.raises(InputError, match=r"r\.jsonl, line 3: unknown_shape"):
        read_trades(path)
    with pytest.warns(RecordingWarning, match="2 rows skipped"):
        assert read_trades(path, on_bad="skip")["ts_recv"].dt.epoch("us").to_list() == [1633998534480000]


@pytest.mark.parametrize("pack", [zipped, gzip.compress, zstandard.ZstdCompressor().compress])
def test_a_packed_file_cut_short_is_damaged(write, shared_data, pack):
    lines = zipfile.ZipFile(shared_data / ARCHIVE).read("BTCUSDT-trades-2019-04-01_00h-12h.csv")[:300_000]
    packed = pack(lines[: lines.rindex(b"\n")])
    assert read_trades(write("BTCUSDT-trades-2019-04-01.whole", packed)).height > 1000
    for cut in (packed[:-20], packed[: len(packed) // 2]):
        with pytest.raises(InputError, match="is damaged") as error:
            read_trades(write("BTCUSDT-trades-2019-04-01.cut", cut))
        assert "fetch it again" in error.value.hint
    if pack is zipped:
        flipped = bytearray(packed)
        flipped[len(packed) // 2] ^= 0xFF
        with pytest.raises(InputError, match="is damaged"):
            read_trades(write("BTCUSDT-trades-2019-04-01.flipped", bytes(flipped)))


def test_zstandard_frames_one_after_another(write):
    packed = b"".join(zstandard.ZstdCompressor().compress(line + b"\n") for line in SPOT_LINES)
    assert read_trades(write("BTCUSDT-trades-2019-04-01.csv.zst", packed)).height == 3


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "is empty"),
        (gzip.compress(b"", mtime=0), "is empty"),
        (b"<!DOCTYPE html><html>", "HTML or XML page"),
        (b"<?xml version='1.0'?><Error><Code>NoSuchKey</Code></Error>", "HTML or XML page"),
        (b"id,price,qty,base_qty,time,is_buyer_maker\n1,2,3,4,1672531200000,true\n", "COIN-M"),
        (b"1,2,3\n", "text that begins with '1,2,3'"),
        (b'{"stream":"a@depth","data":{"e":"depthUpdate"}}\n', "no aggTrade frames"),
        (b'[{"foo":1}]', "list of something other than trades"),
        (b'[{"id":1,"price":"1","qty":"1","time":1672531200000,"isBuyerMaker":true},{"id":2}]', "entry 2: bad_time"),
        (b'[{"id":1,"price":"0","qty":"1","time":1672531200000,"isBuyerMaker":true}]', "entry 1: bad_price"),
        (b"PAR1 and no more", "is damaged"),
    ],
)
def test_what_cannot_be_read_is_named(write, data, message):
    with pytest.raises(InputError, match=message) as error:
        read_trades(write("BTCUSDT-trades-2019-04-01.csv", data))
    assert "BTCUSDT-trades-2019-04-01.csv" in error.value.message


def test_files_and_arguments_that_make_no_sense(tmp_path, write):
    with pytest.raises(InputError, match="No such file"):
        read_trades(tmp_path / "absent.csv")
    with pytest.raises(InputError, match="a folder, and no journal"):
        read_trades(tmp_path)
    with pytest.raises(InputError, match="no file was named"):
        read_trades()
    path = write("BTCUSDT-trades-2019-04-01.csv", SPOT_LINES[0])
    with pytest.raises(InputError, match="batch_rows"):
        iter_trades(path, batch_rows=0)
    with pytest.raises(InputError, match="no raw capture but archive CSV"):
        read_capture(path)
    with pytest.raises(InputError, match="known are raise, skip"):
        read_trades(path, on_bad="ignore")
    two = io.BytesIO()
    with zipfile.ZipFile(two, "w") as archive:
        archive.writestr("a.csv", b"1")
        archive.writestr("b.csv", b"2")
    with pytest.raises(InputError, match="holds 2 files"):
        read_trades(write("two.zip", two.getvalue()))


# what Raven itself writes


def test_parquet_with_the_trade_columns(shared_data, tmp_path):
    trades = read_trades(shared_data / SPOT[0]).head(1000)
    path = tmp_path / "BTCUSDT.parquet"
    trades.write_parquet(path)
    assert sniff(path) is RecordingKind.PARQUET
    assert read_trades(path).equals(trades)
    spelt = pl.when(pl.col("side") == 1).then(pl.lit("buy")).otherwise(pl.lit("sell"))
    naive = pl.col("ts_event").dt.replace_time_zone(None).cast(pl.Datetime("ns"))
    trades.select("trade_id", "price", "quantity", naive, spelt.alias("side")).write_parquet(path)
    expected = trades.with_columns(ts_recv="ts_event", origin=pl.lit(ORIGIN_ARCHIVE, pl.Int8))
    assert read_trades(path).equals(expected)
    half = pl.int_range(pl.len()) < 400
    venues = pl.when(half).then(pl.lit("BINANCE_SPOT")).otherwise(pl.lit("BINANCE_FUTURES"))
    trades.with_columns(venue=venues).write_parquet(path)
    with pytest.raises(InputError, match="BINANCE_FUTURES and BINANCE_SPOT"):
        read_trades(path)
    assert read_trades(path, venue="BINANCE_SPOT").equals(trades.head(400))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (pl.exclude("price"), "columns missing: price"),
        (pl.all().exclude("ts_event"), "columns missing: ts_event"),
        ([pl.exclude("ts_event"), pl.col("ts_event").dt.date()], "ts_event is Date, which are no times"),
        ([pl.exclude("side"), pl.lit("bid").alias("side")], "row 1: bad_side: side is bid"),
        ([pl.exclude("price"), pl.lit("dear").alias("price")], "row 1: bad_price: price is dear"),
    ],
)
def test_parquet_of_something_else_is_refused(shared_data, tmp_path, change, message):
    path = tmp_path / "BTCUSDT.parquet"
    read_trades(shared_data / "rest_spot_market_trades.json", symbol="BTCUSDT").select(change).write_parquet(path)
    with pytest.raises(InputError, match=message):
        read_trades(path)


def test_a_journal_reads_back_as_it_was_appended(shared_data, tmp_path):
    trades = read_trades(shared_data / SPOT[0]).head(1000)
    folder = tmp_path / "binance_spot-50001"
    with Journal.open(folder, stream_schema(TRADE_SCHEMA, kind="trades", venue="BINANCE_SPOT")) as journal:
        for part in (*trades.iter_slices(300), trades.clear()):
            journal.append(to_record_batch(part, TRADE_SCHEMA), BatchMeta())
    assert sniff(folder) is RecordingKind.JOURNAL
    assert infer_venue(folder) == "BINANCE_SPOT"
    assert read_trades(folder).equals(trades)
    assert [frame.height for frame in iter_trades(folder, batch_rows=250)] == [250, 50] * 3 + [100]
    assert read_trades(folder, shared_data / SPOT[1]).height == 1000 + 10_147
    with pytest.raises(InputError, match="BINANCE_SPOT by its journal, not BINANCE_FUTURES"):
        read_trades(folder, venue="BINANCE_FUTURES")


def test_a_journal_of_bars_is_refused(tmp_path):
    folder = tmp_path / "raven_timebar-50051"
    with Journal.open(folder, stream_schema(TIME_BAR_SCHEMA, kind="time_bars", venue="")):
        pass
    with pytest.raises(InputError, match="journal of time_bars, not of trades"):
        read_trades(folder)
