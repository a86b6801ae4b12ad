"""Decoding WebSocket frames in batches: real frames, damaged frames, and both paths against each other."""

from __future__ import annotations

import gzip
import json
import random
from datetime import UTC, datetime
from urllib.parse import unquote

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from raven.batches.gate import BadReason
from raven.batches.schema import ORIGIN_REST, TRADE_DTYPES
from raven.errors import InputError
from raven.sources.binance.messages import (
    ControlReply,
    combined_path,
    decode_frames,
    stream_name,
    subscribe_message,
    unsubscribe_message,
)

LATEST_US = 4_102_444_800_000_000
RECV_NS = 1_723_161_254_087_896_568
TRADE = (
    b'{"stream":"btcusdt@trade","data":{"e":"trade","E":1723161255343,"s":"BTCUSDT","t":3735683259,'
    b'"p":"61837.63000000","q":"0.02000000","T":1723161255342,"m":true,"M":true}}'
)
NEXT = TRADE.replace(b"3735683259", b"3735683260").replace(b'"m":true', b'"m":false')
BOOK_TICKER = b'{"stream":"btcusdt@bookTicker","data":{"u":5,"s":"BTCUSDT","b":"1","B":"3","a":"2","A":"1"}}'
ACK = b'{"result":null,"id":1}'


def decode(frames, event="trade", latest_us=LATEST_US, **options):
    return decode_frames(frames, [RECV_NS + i for i in range(len(frames))], event=event, latest_us=latest_us, **options)


def raw(frame):
    return json.dumps(json.loads(frame)["data"], ensure_ascii=False, separators=(",", ":")).encode()


def with_field(name, value):
    body = json.loads(TRADE)
    if value is None:
        del body["data"][name]
    else:
        body["data"][name] = value
    return json.dumps(body, separators=(",", ":")).encode()


def accounted(decoded):
    return decoded.trades.height + len(decoded.dead) + len(decoded.control) + decoded.other.total()


def one_by_one(frames, event):
    """What `decode_frames` must give for the whole batch, each frame decoded alone."""
    alone = [decode_frames([frame], [RECV_NS + i], event=event, latest_us=LATEST_US) for i, frame in enumerate(frames)]
    trades = pl.concat([pl.DataFrame(schema=TRADE_DTYPES), *(d.trades for d in alone)])
    dead = [d._replace(refusal=d.refusal._replace(row=i)) for i, decoded in enumerate(alone) for d in decoded.dead]
    other = sum((d.other for d in alone), start=type(alone[0].other)())
    return trades, dead, [reply for d in alone for reply in d.control], other


def assert_same_as_one_by_one(frames, event):
    decoded = decode(frames, event)
    trades, dead, control, other = one_by_one(frames, event)
    assert decoded.trades.equals(trades)
    assert (decoded.dead, decoded.control, decoded.other) == (dead, control, other)
    return decoded


def capture_lines(path):
    return [line.partition(b" ")[2] for line in gzip.decompress(path.read_bytes()).splitlines()]


def control_frames(shared_data):
    lines = (shared_data / "control_and_2026_frames.jsonl").read_text().splitlines()
    return {record["name"]: record["frame"].encode() for record in map(json.loads, lines)}


def test_a_trade_becomes_a_row_of_the_schema():
    decoded = decode([TRADE, NEXT])
    assert decoded.trades.schema == pl.Schema(TRADE_DTYPES)
    event, recv = datetime(2024, 8, 8, 23, 54, 15, 342000, UTC), datetime(2024, 8, 8, 23, 54, 14, 87896, UTC)
    assert decoded.trades.rows() == [
        ("BTCUSDT", 3735683259, event, recv, 61837.63, 0.02, -1, 0),
        ("BTCUSDT", 3735683260, event, recv, 61837.63, 0.02, 1, 0),
    ]
    assert (decoded.dead, decoded.control, decoded.other.total()) == ([], [], 0)
    assert decode([TRADE], origin=ORIGIN_REST).trades["origin"].to_list() == [ORIGIN_REST]


def test_nothing_in_is_nothing_out_with_the_same_columns():
    assert decode([]).trades.schema == pl.Schema(TRADE_DTYPES)
    assert decode([BOOK_TICKER]).trades.schema == pl.Schema(TRADE_DTYPES)


def test_raw_frames_decode_as_combined_ones_do():
    assert decode([raw(TRADE), raw(NEXT)]).trades.equals(decode([TRADE, NEXT]).trades)
    mixed = decode([TRADE, raw(NEXT), TRADE])
    assert mixed.trades["trade_id"].to_list() == [3735683259, 3735683260, 3735683259]


def test_what_a_frame_means_does_not_depend_on_its_neighbours():
    both = raw(TRADE)[:-1] + b',"data":' + raw(NEXT) + b"}"
    decoded = assert_same_as_one_by_one([raw(TRADE), both, raw(TRADE)], "trade")
    assert decoded.trades["trade_id"].to_list() == [3735683259, 3735683260, 3735683259]


def test_microseconds_are_told_by_magnitude():
    frame = with_field("T", 1723161255342001)
    decoded = decode([TRADE, frame]).trades["ts_event"].dt.epoch("us").to_list()
    assert decoded == [1723161255342000, 1723161255342001]


def test_futures_take_the_aggregate_id_and_newer_fields_do_no_harm(shared_data):
    frames = control_frames(shared_data)
    assert decode([frames["usdm aggTrade"]], "aggTrade").trades.select("trade_id", "price", "side").rows() == [
        (3404749954, 64990.9, -1)
    ]
    assert decode([frames["usdm trade"], frames["spot trade"]]).trades["trade_id"].to_list() == [
        7947325360,
        6720857582,
    ]
    assert decode([frames["usdm aggTrade"]]).other == {"aggTrade": 1}
    assert decode([frames["usdm trade"]], "aggTrade").other == {"trade": 1}


def test_every_recorded_control_frame_is_understood(shared_data):
    frames = control_frames(shared_data)
    decoded = assert_same_as_one_by_one(list(frames.values()), "trade")
    assert decoded.dead == []
    assert accounted(decoded) == len(frames)
    assert decoded.trades.height == 2
    assert decoded.other == {"aggTrade": 1, "kline": 1}
    replies = dict(zip(list(frames)[:13], decoded.control, strict=True))
    assert replies["SUBSCRIBE ack"] == ControlReply("result", 1, None)
    assert replies["LIST_SUBSCRIPTIONS"] == ControlReply("result", 3, ["btcusdt@aggTrade"])
    assert replies["GET_PROPERTY"] == ControlReply("result", 2, True)
    assert replies["serverShutdown raw"] == replies["serverShutdown combined"] == ControlReply("shutdown")
    assert replies["too many subs"] == ControlReply("error", 1, code=4, error="Too many subscriptions")
    assert replies["error code 1"].code == 1
    assert {reply.kind for name, reply in replies.items() if name.startswith("error")} == {"error"}


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("s", "", BadReason.BAD_SYMBOL),
        ("s", 5, BadReason.BAD_SYMBOL),
        ("s", None, BadReason.BAD_SYMBOL),
        ("t", -1, BadReason.BAD_ID),
        ("t", 2**63, BadReason.BAD_ID),
        ("t", None, BadReason.BAD_ID),
        ("T", 0, BadReason.BAD_TIME),
        ("T", -9_223_370_313_693_520_274, BadReason.BAD_TIME),  # times 1000 it wraps around into 2024
        ("T", 1_230_767_999_999, BadReason.BAD_TIME),
        ("T", 4_102_444_800_000, BadReason.BAD_TIME),
        ("p", "0", BadReason.BAD_PRICE),
        ("p", "-1", BadReason.BAD_PRICE),
        ("p", "NaN", BadReason.BAD_PRICE),
        ("p", "Infinity", BadReason.BAD_PRICE),
        ("p", "", BadReason.BAD_PRICE),
        ("p", "1,5", BadReason.BAD_PRICE),
        ("p", "1e400", BadReason.BAD_PRICE),
        ("q", "0.000", BadReason.BAD_QUANTITY),
        ("q", "inf", BadReason.BAD_QUANTITY),
        ("q", ["1"], BadReason.BAD_QUANTITY),
        ("m", "perhaps", BadReason.BAD_SIDE),
        ("m", None, BadReason.BAD_SIDE),
    ],
)
def test_a_bad_trade_costs_itself_alone_and_says_why(name, value, reason):
    bad = with_field(name, value)
    for frames, position in (([TRADE, bad, NEXT], 1), ([bad], 0), ([BOOK_TICKER, TRADE, bad, NEXT], 2)):
        decoded = assert_same_as_one_by_one(frames, "trade")
        assert [(d.reason, d.frame, d.refusal.row) for d in decoded.dead] == [(reason, bad, position)]
        assert accounted(decoded) == len(frames)


@pytest.mark.parametrize(
    "frame",
    [b"", b"null", b"5", b"{}", b"[]", b"[5]", b'{"e":null}', b'{"foo":1}', b'{"stream":"x@trade","data":{}}'],
)
def test_json_of_no_known_shape_is_dead(frame):
    decoded = assert_same_as_one_by_one([frame, TRADE], "trade")
    assert [dead.frame for dead in decoded.dead] == [frame]
    assert decoded.trades.height == 1


@pytest.mark.parametrize(
    "frames",
    [
        # each pair would be one value, or one frame two, if boundaries were not watched
        [b'{"x":[{}', b'{"y":2}]}'],
        [b'{"e":"trade","x":{}', b'{"y":2}}'],
        [TRADE + TRADE, b'{"x":[{}', b'{"y":2}]}'],
        [TRADE + NEXT, TRADE[:-2] + b',"z":[1,', b"2]}}"],  # as many trades as frames, none of them whole
        [TRADE + b"\n" + NEXT, b'{"x":[1,', b"2]}"],
        [TRADE + b"," + NEXT],
        [TRADE[:-2], b',"z":{}}}'],
        [b'{"e":"trade', b'","y":1}'],
    ],
)
def test_no_frame_swallows_its_neighbour(frames):
    decoded = assert_same_as_one_by_one([TRADE, *frames, NEXT], "trade")
    assert decoded.trades["trade_id"].to_list() == [3735683259, 3735683260]
    assert [dead.frame for dead in decoded.dead] == frames


def test_rows_keep_the_order_of_arrival_whatever_the_spelling():
    spaced = NEXT.replace(b":", b": ").replace(b"3735683260", b"7")
    frames = [TRADE, spaced, BOOK_TICKER, NEXT, b"broken", raw(TRADE)]
    decoded = assert_same_as_one_by_one(frames, "trade")
    assert decoded.trades["trade_id"].to_list() == [3735683259, 7, 3735683260, 3735683259]
    assert decoded.trades["ts_recv"].is_sorted()


def test_prints_outside_the_market_are_counted_and_no_trades():
    frames = [with_field("X", kind) for kind in ("MARKET", "ADL", "INSURANCE_FUND", "NA")]
    decoded = assert_same_as_one_by_one(frames, "trade")
    assert decoded.trades.height == 1
    assert decoded.other == {"trade:ADL": 1, "trade:INSURANCE_FUND": 1, "trade:NA": 1}
    assert [dead.reason for dead in decode([with_field("X", "?")]).dead] == [BadReason.BAD_FIELD]


def test_other_events_are_counted_by_type():
    frames = [
        BOOK_TICKER,
        b'{"e":"kline","k":{}}',
        b'{"lastUpdateId":1,"bids":[],"asks":[]}',
        b'[{"e":"24hrMiniTicker"},{"e":"24hrMiniTicker"}]',
        b'{"stream":"!ticker@arr","data":[{"e":"24hrTicker"}]}',
    ]
    decoded = assert_same_as_one_by_one(frames, "trade")
    assert decoded.other == {"bookTicker": 1, "kline": 1, "depth": 1, "24hrMiniTicker": 1, "24hrTicker": 1}


@given(st.decimals(min_value="1e-8", max_value="1e12", places=8), st.decimals("1e-30", "1e30"))
def test_numbers_are_what_python_reads(price, quantity):
    trades = decode([with_field("p", str(price)), with_field("q", str(quantity))]).trades
    assert trades["price"][0] == float(str(price))
    assert trades["quantity"][1] == float(str(quantity))


def test_a_whole_capture_decodes_with_nothing_dead(shared_data):
    frames = capture_lines(shared_data / "ws_raw_spot_btcusdt_20240808.gz")
    decoded = decode(frames)
    assert decoded.trades.height == 9757
    assert decoded.dead == []
    assert accounted(decoded) == len(frames) == 41249
    assert set(decoded.other) == {"bookTicker", "depthUpdate", "depth"}
    ids = decoded.trades["trade_id"]
    assert (ids.diff().drop_nulls() == 1).all()
    parsed = [json.loads(frame)["data"] for frame in frames if b'"e":"trade"' in frame]
    assert decoded.trades["price"].to_list() == [float(body["p"]) for body in parsed]
    assert decoded.trades["quantity"].to_list() == [float(body["q"]) for body in parsed]
    assert decoded.trades["side"].to_list() == [-1 if body["m"] else 1 for body in parsed]


def seeds(shared_data):
    spot = capture_lines(shared_data / "ws_raw_spot_btcusdt_20240808.gz")[:400]
    futures = capture_lines(shared_data / "ws_raw_usdm_ethusdt_20240808.gz")[:400]
    text = gzip.decompress((shared_data / "cryptofeed_spot_btc_eth_dot_kline_aggTrade_20210404.txt.gz").read_bytes())
    older = [line.partition(b": ")[2] for line in text.splitlines() if line[:1] == b"1"][:400]
    frames = [frame for frame in spot + futures + older if len(frame) < 2000]
    trades = [frame for frame in frames if b'rade","E"' in frame]
    return frames + trades * (1 + len(frames) // len(trades)) + 10 * list(control_frames(shared_data).values())


VALUES = [
    b"null", b"true", b'""', b"{}", b"[]", b"-1", b"0", b"1e999", b"9" * 400, b'"NaN"', b'"Infinity"', b'"-5"', b'"1e5"',
    b'"\\ud800"', b'"\xff\xfe"', b'"\\u0000"', b"1.5", b'{"a":[{"b":{}}]}', b'"trade"', b"\xe5\xb8\x81",
]  # fmt: skip


def flip(frame, at, rng):
    return frame[:at] + bytes([frame[at] ^ (1 << rng.randrange(8))]) + frame[at + 1 :]


def insert(frame, at, rng):
    return frame[:at] + rng.choice([rng.randbytes(3), b"\n", b",", b'"', b"}", b"{", b" "]) + frame[at:]


def nest(frame, _, rng):
    return rng.choice([b'{"data":%b}', b"[%b]", b'{"stream":"s","data":{"data":%b}}']) % frame


def bury(frame, at, rng):
    return frame[at:] if rng.random() < 0.95 else b'{"data":' * 3000 + frame


def repeat_a_field(frame, _, rng):
    parts = frame.split(b",")
    parts.insert(rng.randrange(len(parts) + 1), rng.choice(parts))
    return b",".join(parts)


def swap_two_fields(frame, _, rng):
    parts = frame.split(b",")
    one, other = rng.randrange(len(parts)), rng.randrange(len(parts))
    parts[one], parts[other] = parts[other], parts[one]
    return b",".join(parts)


def replace_a_value(frame, _, rng):
    parts = frame.split(b",")
    chosen = rng.randrange(len(parts))
    name, colon, value = parts[chosen].rpartition(b":")
    parts[chosen] = name + colon + rng.choice(VALUES) + value[len(value.rstrip(b"}")) :]
    return b",".join(parts)


MUTATIONS = [
    lambda frame, _at, _rng: frame,
    lambda frame, at, _rng: frame[:at],
    lambda frame, at, rng: frame[:at] + frame[at + rng.randrange(1, 9) :],
    lambda frame, _at, rng: frame + rng.choice([b"", b"\n", b","]) + rng.choice([TRADE, BOOK_TICKER, ACK]),
    flip,
    insert,
    nest,
    bury,
    repeat_a_field,
    swap_two_fields,
    replace_a_value,
]


def batches_of_mutants(shared_data, count, seed):
    rng = random.Random(seed)
    frames = seeds(shared_data)
    left = count
    while left:
        size = min(left, rng.choice([1, 2, 20, 200, 500]))
        chosen = rng.choices(frames, k=size)
        mutants = [rng.choice(MUTATIONS)(frame, rng.randrange(len(frame)), rng) for frame in chosen]
        yield mutants, rng.choice(["trade", "aggTrade"])
        left -= size


def assert_sound(frames, event):
    decoded = decode(frames, event)
    assert accounted(decoded) == len(frames)
    assert all(frames[dead.refusal.row] is dead.frame for dead in decoded.dead)
    trades = decoded.trades
    assert trades.schema == pl.Schema(TRADE_DTYPES)
    assert sum(trades.null_count().row(0)) == 0
    assert (trades["symbol"].str.len_bytes() > 0).all()
    assert (trades["trade_id"] >= 0).all()
    assert trades["ts_event"].is_between(datetime(2009, 1, 1, tzinfo=UTC), datetime(2100, 1, 1, tzinfo=UTC)).all()
    for name in ("price", "quantity"):
        assert (trades[name].is_finite() & (trades[name] > 0)).all()
    return decoded


@pytest.mark.parametrize("count", [20_000, pytest.param(200_000, marks=pytest.mark.slow)])
def test_damaged_frames_never_raise_and_none_is_lost(shared_data, count):
    rows = dead = other = control = 0
    for frames, event in batches_of_mutants(shared_data, count, seed=1):
        decoded = assert_sound(frames, event)
        rows += decoded.trades.height
        dead += len(decoded.dead)
        other += decoded.other.total()
        control += len(decoded.control)
    assert min(rows, dead, other, control) > count / 200  # the mutants reach every outcome


@pytest.mark.slow
def test_a_batch_decodes_as_its_frames_do_one_by_one(shared_data):
    for frames, event in batches_of_mutants(shared_data, 4_000, seed=2):
        assert_same_as_one_by_one(frames, event)


def test_as_many_receive_times_as_frames_are_needed():
    with pytest.raises(InputError, match="2 frames came with 1"):
        decode_frames([TRADE, NEXT], np.array([RECV_NS]), event="trade", latest_us=LATEST_US)


def test_subscribing():
    streams = [stream_name("BTCUSDT", "trade"), stream_name("币安人生USDT", "aggTrade")]
    assert streams == ["btcusdt@trade", "币安人生usdt@aggTrade"]
    assert json.loads(subscribe_message(streams, 7)) == {"method": "SUBSCRIBE", "params": streams, "id": 7}
    assert json.loads(unsubscribe_message(streams, 8)) == {"method": "UNSUBSCRIBE", "params": streams, "id": 8}
    path = combined_path(streams, microseconds=True)
    assert path.isascii()
    assert unquote(path) == "/stream?timeUnit=MICROSECOND&streams=btcusdt@trade/币安人生usdt@aggTrade"
    assert combined_path(streams[:1]) == "/stream?streams=btcusdt@trade"
