"""Trades of many files as one stream: in order whatever the order of files and rows, repeats and conflicts told."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from raven.batches.schema import TRADE_DTYPES
from raven.errors import InputError, RavenError, in_a_command
from raven.sources.ordering import OrderedTrades
from raven.sources.sorting import Sorter
from tests.unit.samples import START, trades

Row = dict[str, object]


def frame_of(rows: list[Row]) -> pl.DataFrame:
    return pl.DataFrame(rows, schema=TRADE_DTYPES)


def ordered(frames: list[pl.DataFrame], *, on_bad: str = "raise", run_rows: int = 1 << 20) -> OrderedTrades:
    stream = OrderedTrades(None, on_bad=on_bad, run_rows=run_rows)
    for number, frame in enumerate(frames):
        stream.add(frame, Path(f"file{number}"))
    stream.close()
    return stream


def stream_of(frames: list[pl.DataFrame], *, on_bad: str = "raise", run_rows: int = 1 << 20) -> pl.DataFrame:
    empty = pl.DataFrame(schema=TRADE_DTYPES)
    return pl.concat([empty, *ordered(frames, on_bad=on_bad, run_rows=run_rows).frames(7)])


@st.composite
def recorded(draw: st.DrawFn) -> list[Row]:
    """Trades of up to three symbols, each id once, times that mostly rise with the ids."""
    rows: list[Row] = []
    for symbol in ("BTCUSDT", "ETHUSDT", "币安人生USDT")[: draw(st.integers(1, 3))]:
        ids = draw(st.lists(st.integers(0, 40), unique=True, max_size=25))
        for trade_id in ids:
            time = START + timedelta(milliseconds=100 * trade_id + draw(st.sampled_from([0, 0, 0, -250, 900])))
            side = draw(st.sampled_from([1, -1]))
            rows.append(
                {"symbol": symbol, "trade_id": trade_id, "ts_event": time, "ts_recv": time, "side": side, "origin": 2,
                 "price": float(draw(st.integers(1, 9))), "quantity": float(draw(st.integers(1, 9)))}
            )  # fmt: skip
    return rows


def oracle(rows: list[Row]) -> pl.DataFrame:
    """Each symbol by id, all by the running maximum of the times: a row at a time."""
    due: list[tuple[object, object, object, Row]] = []
    for symbol in sorted({str(row["symbol"]) for row in rows}):
        newest = START - timedelta(days=1)
        for row in sorted((row for row in rows if row["symbol"] == symbol), key=lambda row: row["trade_id"]):
            newest = max(newest, row["ts_event"])
            due.append((newest, symbol, row["trade_id"], row))
    return frame_of([row for *_, row in sorted(due, key=lambda one: one[:3])])


class TestOrder:
    @settings(max_examples=40, deadline=None)
    @given(rows=recorded(), data=st.data())
    def test_any_order_of_files_and_rows_gives_the_same_stream(self, rows: list[Row], data: st.DataObject) -> None:
        repeated = data.draw(st.lists(st.sampled_from(rows), max_size=20)) if rows else []
        shuffled = data.draw(st.permutations(rows + repeated))
        cuts = sorted(data.draw(st.lists(st.integers(0, len(shuffled)), max_size=4)))
        bounds = zip([0, *cuts], [*cuts, len(shuffled)], strict=True)
        frames = [frame_of(list(shuffled[start:stop])) for start, stop in bounds]
        for run_rows in (4, 1_000):  # through a file, and in memory
            stream = ordered(frames, run_rows=run_rows)
            found = pl.concat([pl.DataFrame(schema=TRADE_DTYPES), *stream.frames(5)])
            assert_frame_equal(found, oracle(rows))
            assert (stream.left_out.repeats, stream.left_out.conflicts) == (len(repeated), 0)
            assert (stream.rows, stream.fresh) == (len(rows), len(rows))
            sizes = [frame.height for frame in stream.frames(5)]
            assert all(size == 5 for size in sizes[:-1]), "read again, and in even frames"
            assert sum(sizes) == len(rows)

    @settings(max_examples=40, deadline=None)
    @given(rows=recorded(), data=st.data())
    def test_of_two_trades_with_one_id_the_same_is_kept_whatever_the_order(
        self, rows: list[Row], data: st.DataObject
    ) -> None:
        twins = [
            {
                **row,
                "price": 100.0,
                "ts_event": row["ts_event"] + timedelta(seconds=data.draw(st.sampled_from([-1, 1]))),
            }
            for row in rows[::2]
        ]
        everything = [*rows, *twins]
        first = data.draw(st.permutations(everything))
        second = data.draw(st.permutations(everything))
        streams = [ordered([frame_of([row]) for row in order], on_bad="skip", run_rows=5) for order in (first, second)]
        kept = [pl.concat([pl.DataFrame(schema=TRADE_DTYPES), *stream.frames(9)]) for stream in streams]
        assert_frame_equal(*kept)
        assert kept[0].height == len(rows)
        for stream in streams:
            assert (stream.left_out.repeats, stream.left_out.conflicts) == (0, len(twins))
        if twins:
            with pytest.raises(InputError, match="is two trades"):
                ordered([frame_of([row]) for row in first])

    def test_many_rows_lie_in_a_file_that_has_no_name(self, tmp_path: Path) -> None:
        frame = trades(range(5_000)).sample(fraction=1.0, shuffle=True, seed=1)
        stream = OrderedTrades(tmp_path, on_bad="raise", run_rows=500)
        stream.add(frame, Path("one"))
        stream.close()
        assert_frame_equal(pl.concat(stream.frames(1_000)), trades(range(5_000)))
        assert not list(tmp_path.iterdir())

    def test_no_room_for_it_is_said(self, tmp_path: Path) -> None:
        sorter = Sorter(["trade_id"], tmp_path / "nowhere", run_rows=10)
        with pytest.raises(RavenError, match=r"putting rows in order needs room in .*nowhere"):
            sorter.add(trades(range(20)))


class TestContent:
    def pair(self, **changed: object) -> OrderedTrades:
        """The trade 1 in milliseconds, and once more with what is `changed`."""
        row = trades([1]).row(0, named=True)
        return ordered([frame_of([row]), frame_of([{**row, **changed}])], on_bad="skip")

    @pytest.mark.parametrize(
        ("changed", "conflicts"),
        [
            ({"price": 1.5}, 1),
            ({"quantity": 9.0}, 1),
            ({"side": -1}, 1),
            ({"ts_event": START + timedelta(seconds=5)}, 1),
            ({"ts_recv": START + timedelta(seconds=5)}, 0),
            ({"origin": 2}, 0),
            ({"ts_event": START + timedelta(milliseconds=250, microseconds=999)}, 0),
            ({"ts_event": START + timedelta(milliseconds=251)}, 1),
        ],
        ids=str,
    )
    def test_what_is_the_same_trade(self, changed: Row, conflicts: int) -> None:
        left_out = self.pair(**changed).left_out
        assert (left_out.conflicts, left_out.repeats) == (conflicts, 1 - conflicts)

    def test_the_finer_time_of_one_trade_is_kept(self) -> None:
        time = START + timedelta(milliseconds=250, microseconds=123)
        (kept,) = self.pair(ts_event=time).frames(5)
        assert kept["ts_event"].to_list() == [time]

    def test_two_fine_times_that_differ_are_two_trades(self) -> None:
        row = trades([1]).row(0, named=True)
        rows = [{**row, "ts_event": START + timedelta(milliseconds=250, microseconds=us)} for us in (1, 2)]
        assert ordered([frame_of(rows)], on_bad="skip").left_out.conflicts == 1

    def test_a_conflict_is_named_in_the_language_of_the_interface(self) -> None:
        row = trades([7]).row(0, named=True)
        frames = [frame_of([row]), frame_of([{**row, "price": 99.5, "side": -1}])]
        said = (
            r"BTCUSDT 7 is two trades: sell 1.5 at 99.5, 2026-01-01 00:00:01.750000 \(file1\) "
            r"and buy 1.5 at 100, 2026-01-01 00:00:01.750000 \(file0\)"
        )
        with pytest.raises(InputError, match=rf"{said}.*on_bad='skip' keeps"):
            ordered(frames)
        with in_a_command(), pytest.raises(InputError, match=rf"{said}.*--on-bad skip keeps"):
            ordered(frames)
        told = ordered(frames, on_bad="skip").left_out.sentences()
        assert told[0].startswith("1 row left out: conflicts")
        assert told[1].startswith("BTCUSDT 7 is two trades")
