"""What a table's rows say of their venue and symbol, and lines that are no text: alike at every door."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pandas as pd
import polars as pl
import pytest

import raven
from raven.errors import InputError
from raven.sources.importing import import_files

_HALF = pl.when(pl.int_range(pl.len()) < 1)


@pytest.mark.parametrize("write", ["write_parquet", "write_ipc", "write_csv"])
@pytest.mark.parametrize(
    "venues",
    [
        _HALF.then(None).otherwise(pl.lit("BINANCE_SPOT")),
        _HALF.then(pl.lit("")).otherwise(pl.lit("BINANCE_SPOT")),
        _HALF.then(pl.lit("spot")).otherwise(pl.lit("BINANCE_SPOT")),
        pl.lit(None, pl.String),
    ],
)
def test_rows_that_name_no_venue_are_of_that_of_their_file_at_every_door(
    tmp_path: Path, write: str, venues: pl.Expr
) -> None:
    path = tmp_path / "BTCUSDT-spot.table"
    getattr(_trades(3).with_columns(venue=venues), write)(path)
    assert raven.read_trades(path).height == 3
    assert raven.read_trades(path, venue="spot").height == 3
    assert sum(frame.height for frame in raven.replay(path)) == 3
    assert import_files([path], into=tmp_path / "recording", data=tmp_path).rows == 3


def test_rows_that_name_no_venue_among_two_are_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "BTCUSDT.parquet"
    venues = pl.Series(["BINANCE_SPOT", "BINANCE_FUTURES", None])
    _trades(3).with_columns(venue=venues).write_parquet(path)
    with pytest.raises(InputError, match="1 row that names no venue"):
        raven.read_trades(path, venue="spot")


@pytest.mark.parametrize("write", ["write_parquet", "write_ipc", "write_csv"])
def test_a_symbol_in_lower_case_is_the_one_in_upper_case(tmp_path: Path, write: str) -> None:
    path = tmp_path / "BTCUSDT-spot.table"
    getattr(_trades(3).with_columns(symbol=pl.Series(["btcusdt", "BTCUSDT", "btcusdt"])), write)(path)
    assert raven.read_trades(path, symbol="btcusdt").get_column("symbol").to_list() == ["BTCUSDT"] * 3


def test_a_frame_spells_its_venue_as_it_likes_or_not_at_all() -> None:
    trades = _trades(3).with_columns(venue=pl.Series(["spot", "BINANCE_SPOT", None]))
    bars = raven.time_bars(trades, venue="spot", partial=True)
    assert bars.select("venue", "total_ticks").rows() == [("BINANCE_SPOT", 3)]
    untold = raven.time_bars(trades.with_columns(venue=pl.lit(None, pl.String)), partial=True)
    assert untold.select("venue", "total_ticks").rows() == [("", 3)]


def _trades(rows: int) -> pl.DataFrame:
    times = [datetime(2026, 1, 5, tzinfo=UTC) + timedelta(seconds=row) for row in range(rows)]
    return pl.DataFrame(
        {
            "symbol": "BTCUSDT",
            "trade_id": range(1, rows + 1),
            "ts_event": times,
            "price": 2.0,
            "quantity": 1.0,
            "side": 1,
        }
    )


LINES = [f"{number},2.0,1.0,2.0,{1767571200000 + number},True,True".encode() for number in range(1, 4)]


@pytest.mark.parametrize("broken", [b"\xff", b"\xc3"])
def test_bytes_that_are_no_text_cost_their_line_alone(tmp_path: Path, broken: bytes) -> None:
    path = tmp_path / "BTCUSDT-trades-2026-01-05.csv"
    path.write_bytes(b"\n".join([LINES[0], broken + LINES[1], LINES[2]]))
    with pytest.raises(InputError, match="line 2: bad_"):
        raven.read_trades(path)
    with pytest.warns(raven.RecordingWarning, match="1 row skipped"):
        assert raven.read_trades(path, on_bad="skip").get_column("trade_id").to_list() == [1, 3]


def test_an_empty_field_is_called_so(tmp_path: Path) -> None:
    path = tmp_path / "BTCUSDT-trades-2026-01-05.csv"
    path.write_bytes(LINES[0].replace(b",2.0,1.0,", b",,1.0,"))
    with pytest.raises(InputError, match="price is empty; "):
        raven.read_trades(path)


def test_what_is_wrong_with_arguments_is_said_in_python() -> None:
    with pytest.raises(InputError, match="give frames of Polars, pandas or pyarrow"):
        raven.time_bars(pd.Series([1.0]))


def test_bounds_of_a_replay_are_called_as_python_calls_them(tmp_path: Path) -> None:
    path = tmp_path / "BTCUSDT-trades-2026-01-05.csv"
    path.write_bytes(LINES[0])
    with pytest.raises(InputError) as caught:
        raven.replay(path, start="2026-01-02", end="2026-01-01")
    assert "--" not in str(caught.value)
