"""Small inputs that are hard to take right: tables whose values are no trades, settings of an editor."""

from __future__ import annotations

import polars as pl
import pytest

import raven
from raven.errors import InputError
from raven.settings import load
from raven.sources.importing import import_files
from raven.sources.recordings import RecordingWarning

PARQUET = [
    ("BTCUSDT-nan", 2, "price is nan", "1 bad_price", [1, 3]),
    ("BTCUSDT-neg", 1, "quantity is 0.0", "2 bad_quantity, 1 bad_price", []),
    ("BTCUSDT-side01", 2, "side is 0", "1 bad_side", [1, 3]),
    ("BTCUSDT-floatid", 1, "trade_id is 1.5", "3 bad_id", []),
    ("two_symbols_side0", 3, "side is 0", "1 bad_side", [1, 3, 11, 12, 13]),
]


@pytest.mark.parametrize(("name", "row", "what", "reasons", "good"), PARQUET)
def test_values_that_no_trade_has_are_refused_by_row_and_rule(shared_cases, tmp_path, name, row, what, reasons, good):
    path = shared_cases / "pq" / f"{name}.parquet"
    for take in (raven.read_trades, lambda *paths: list(raven.iter_trades(*paths))):
        with pytest.raises(
            InputError, match=rf"{name}\.parquet, row {row}: bad_\w+: {what}; an? .* is .*on_bad='skip'"
        ):
            take(path)
    with pytest.raises(InputError, match=f"row {row}: "):
        import_files([path], into=tmp_path / "journal", data=tmp_path, venue="BINANCE_SPOT")
    assert not (tmp_path / "journal").exists()
    with pytest.warns(RecordingWarning, match=f": {reasons}$"):
        trades = raven.read_trades(path, on_bad="skip")
    assert sorted(trades["trade_id"]) == good
    bars = raven.time_bars(trades, partial=True)
    assert bars["total_ticks"].sum() == len(good)
    if len(good) < 3:
        assert not bars["complete"].any()  # no neighbour of theirs was seen
    assert bars["close"].is_finite().all()


def test_a_frame_is_as_strict_as_a_file(shared_cases):
    frame = pl.read_parquet(shared_cases / "pq" / "BTCUSDT-nan.parquet")
    with pytest.raises(InputError, match="row 1, counted from 0: bad_price: price is nan"):
        raven.time_bars(frame)
    with pytest.warns(raven.DroppedRowsWarning, match="1 row was left out: 1 bad_price"):
        assert raven.time_bars(frame, partial=True, on_bad="skip")["total_ticks"].to_list() == [1, 1]


def test_rows_of_quantity_zero(shared_cases):
    path = shared_cases / "zero" / "ETHUSDT-aggTrades-2023-05.csv"
    with pytest.raises(InputError, match=r"line 2: bad_quantity: quantity is 0\.0"):
        raven.read_trades(path)
    with pytest.warns(RecordingWarning, match="2 rows skipped: 2 bad_quantity"):
        assert raven.read_trades(path, on_bad="skip")["trade_id"].to_list() == [501, 503]


def test_settings_that_begin_with_a_byte_order_mark(shared_cases, tmp_path, monkeypatch):
    (tmp_path / "local.toml").write_bytes((shared_cases / "toml" / "local.toml").read_bytes())
    monkeypatch.chdir(tmp_path)
    assert load().server.host == "127.0.0.1"
