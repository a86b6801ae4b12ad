"""The codec and what travels beside a batch."""

from __future__ import annotations

import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raven.batches import ipc
from raven.batches.batch import BatchMeta, Cursor, Gap
from raven.batches.schema import TRADE_DTYPES, TRADE_SCHEMA, stream_schema, to_record_batch
from raven.errors import InputError

SPOT = stream_schema(TRADE_SCHEMA, kind="trades", venue="BINANCE_SPOT")
FUTURES = stream_schema(TRADE_SCHEMA, kind="trades", venue="BINANCE_FUTURES")

INT64 = st.integers(-(2**63), 2**63 - 1)
SYMBOLS = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
GAPS = st.builds(
    Gap,
    symbol=SYMBOLS,
    after_id=INT64,
    before_id=INT64,
    final=st.booleans(),
    reason=st.text(st.characters(exclude_categories=["Cs"])),
)
METAS = st.builds(
    BatchMeta,
    journal_id=SYMBOLS,
    sequence=INT64,
    appended_us=INT64,
    watermark_us=st.none() | INT64,
    held=st.lists(SYMBOLS).map(tuple),
    gaps=st.lists(GAPS, max_size=3).map(tuple),
    input=st.none() | st.tuples(SYMBOLS, st.builds(Cursor, SYMBOLS, INT64)),
)
ROWS = st.lists(
    st.fixed_dictionaries(
        {
            "symbol": SYMBOLS,
            "trade_id": INT64,
            "ts_event": st.integers(0, 2**52),
            "ts_recv": st.integers(0, 2**52),
            "price": st.floats(allow_nan=False),
            "quantity": st.floats(allow_nan=False),
            "side": st.sampled_from([-1, 1]),
            "origin": st.integers(0, 2),
        }
    ),
    max_size=20,
)


def record_batch(rows: list[dict]) -> pa.RecordBatch:
    frame = pl.DataFrame(
        rows, schema={name: pl.Int64 if name.startswith("ts_") else kind for name, kind in TRADE_DTYPES.items()}
    )
    return to_record_batch(frame.with_columns(pl.col("ts_event", "ts_recv").cast(TRADE_DTYPES["ts_event"])), SPOT)


ONE = record_batch(
    [
        {
            "symbol": "BTCUSDT",
            "trade_id": 1,
            "ts_event": 1,
            "ts_recv": 2,
            "price": 3.5,
            "quantity": 4.0,
            "side": 1,
            "origin": 0,
        }
    ]
)


@settings(max_examples=60, deadline=None)
@given(rows=ROWS, meta=METAS)
def test_what_is_encoded_is_decoded(rows, meta):
    batch = record_batch(rows)
    payload = ipc.encode(batch, meta)
    decoded, decoded_meta = ipc.decode(payload)
    assert decoded.equals(batch)
    assert decoded.schema.equals(SPOT, check_metadata=True)
    assert decoded_meta == meta
    assert ipc.join(ipc.split(payload, SPOT), SPOT) == payload
    assert ipc.decode(memoryview(payload))[0].equals(batch)


def test_a_payload_is_a_stream_others_can_read():
    payload = ipc.encode(ONE, BatchMeta(sequence=4))
    assert pl.read_ipc_stream(payload)["price"].to_list() == [3.5]
    with pa.ipc.open_stream(payload) as reader:
        assert reader.read_next_batch_with_custom_metadata().custom_metadata[b"raven.batch"] == b'{"sequence":4}'


def test_messages_of_many_payloads_make_one_stream():
    messages = [ipc.split(ipc.encode(ONE, BatchMeta(sequence=i)), SPOT) for i in range(5)]
    for end in (b"", ipc.END_OF_STREAM):
        stream = ipc.schema_prefix(SPOT) + b"".join(messages) + end
        assert pa.ipc.open_stream(stream).read_all().num_rows == 5
        assert pl.read_ipc_stream(stream).height == 5


def test_streams_that_differ_only_in_venue_have_prefixes_of_their_own():
    assert SPOT == FUTURES, "Arrow compares schemas without their metadata"
    assert ipc.schema_prefix(SPOT) != ipc.schema_prefix(FUTURES)
    for schema in (SPOT, FUTURES, SPOT):
        assert pa.ipc.open_stream(ipc.schema_prefix(schema) + ipc.END_OF_STREAM).schema.equals(
            schema, check_metadata=True
        )


def test_splitting_by_another_schema_is_refused():
    payload = ipc.encode(ONE, BatchMeta())
    with pytest.raises(InputError, match="another schema"):
        ipc.split(payload, FUTURES)


def test_a_payload_cut_anywhere_is_an_input_error():
    payload = ipc.encode(ONE, BatchMeta(sequence=1))
    for cut in range(len(payload) - len(ipc.END_OF_STREAM)):
        with pytest.raises(InputError, match="cannot be decoded"):
            ipc.decode(payload[:cut])
    assert ipc.decode(payload[: -len(ipc.END_OF_STREAM)])[1].sequence == 1


@settings(max_examples=400, deadline=None)
@given(data=st.data())
def test_a_hurt_payload_is_an_input_error_or_a_sound_batch(data):
    payload = bytearray(ipc.encode(ONE, BatchMeta(sequence=1, held=("A",))))
    for _ in range(data.draw(st.integers(1, 4))):
        payload[data.draw(st.integers(0, len(payload) - 1))] = data.draw(st.integers(0, 255))
    try:
        batch, _ = ipc.decode(bytes(payload))
    except InputError:
        return
    batch.validate(full=True)


def test_offsets_that_lie_outside_are_found():
    payload = ipc.encode(ONE, BatchMeta())
    at = payload.index(b"BTCUSDT\0")  # the column's offsets, 0 and 7, lie 8 bytes aligned before it
    offsets = payload.rindex((7).to_bytes(4, "little"), 0, at)
    hurt = payload[:offsets] + (2**20).to_bytes(4, "little") + payload[offsets + 4 :]
    with pytest.raises(InputError, match="cannot be decoded"):
        ipc.decode(hurt)


def test_a_batch_without_ravens_metadata_is_refused():
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, SPOT) as writer:
        writer.write_batch(ONE)
    with pytest.raises(InputError, match="no Raven metadata"):
        ipc.decode(sink.getvalue().to_pybytes())
    with pytest.raises(InputError, match="no Raven metadata"):
        BatchMeta.from_ipc({b"other": b"x"})


@pytest.mark.parametrize("raw", [b"", b"{", b"\xff", b"[]", b'{"sequence": "x"}', b'{"gaps": [{"symbol": "A"}]}'])
def test_metadata_that_is_not_ravens_is_refused(raw):
    with pytest.raises(InputError, match="cannot be read"):
        BatchMeta.from_ipc({b"raven.batch": raw})


def test_metadata_of_a_later_raven_is_read_without_what_is_new():
    assert BatchMeta.from_ipc({b"raven.batch": b'{"sequence": 3, "brand_new": 1}'}) == BatchMeta(sequence=3)


def test_a_watermark_of_zero_is_not_an_unknown_one():
    assert BatchMeta.from_ipc(BatchMeta(watermark_us=0).to_ipc()).watermark_us == 0
    assert BatchMeta.from_ipc(BatchMeta().to_ipc()).watermark_us is None


def test_the_place_after_a_batch_and_the_size_of_a_gap():
    assert BatchMeta(journal_id="j", sequence=9).cursor == Cursor("j", 9)
    assert Gap("BTCUSDT", 5, 9).missing_ids == 3
    assert Gap("BTCUSDT", 5, 6).missing_ids == 0
