from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest

from raven.errors import StoreError
from raven.sinks.dead_letters import ADDED, DeadLetters
from raven.sinks.encode import TRADES, encode_trades
from raven.sinks.store import Refusal, TradeFlush
from tests.unit.store_compliance import SPOT, some_trades


@pytest.fixture
def letters(tmp_path: Path) -> DeadLetters:
    return DeadLetters(tmp_path / "dead_letters")


def rows(count: int) -> pl.DataFrame:
    return encode_trades(TradeFlush([(SPOT, some_trades("BTCUSDT", 1, count))]))


def test_what_was_refused_is_kept_with_its_reason(letters: DeadLetters) -> None:
    letters.add("influx", "trades", rows(10), [Refusal(3, "no"), Refusal(7, "never")])
    [kept] = letters.read()
    assert (kept.store, kept.table, sum(one.rows.height for one in letters.read())) == ("influx", "trades", 2)
    assert kept.rows.get_column("reason").to_list() == ["no", "never"]
    assert kept.rows.drop(ADDED).equals(rows(10)[[3, 7]])
    assert kept.rows.columns == [*TRADES.schema.names, *ADDED]


def test_nothing_refused_leaves_nothing(letters: DeadLetters) -> None:
    letters.add("influx", "trades", rows(10), [])
    assert letters.read() == []
    assert sum(one.rows.height for one in letters.read()) == 0
    assert not letters.folder.exists()


def test_what_was_sent_again_is_gone_and_the_rest_has_its_new_reason(letters: DeadLetters) -> None:
    letters.add("influx", "trades", rows(3), [Refusal(0, "a"), Refusal(2, "b")])
    letters.settle(letters.read()[0], [Refusal(1, "c")])
    [kept] = letters.read()
    assert kept.rows.select("trade_id", "reason").rows() == [(3, "c")]
    letters.settle(kept, [])
    assert letters.read() == []


def test_a_row_refused_again_after_a_crash_counts_once(letters: DeadLetters) -> None:
    letters.add("influx", "trades", rows(3), [Refusal(0, "a"), Refusal(1, "a")])
    letters.add("influx", "trades", rows(3), [Refusal(1, "again")])
    letters.add("other", "trades", rows(3), [Refusal(1, "a")])
    found = [(one.store, one.rows.select("trade_id", "reason").rows()) for one in letters.read()]
    assert found == [("influx", [(1, "a")]), ("influx", [(2, "again")]), ("other", [(2, "a")])]


def test_a_damaged_file_is_named(letters: DeadLetters) -> None:
    letters.folder.mkdir()
    (letters.folder / "notes.txt").write_text("not ours")
    (letters.folder / "influx-trades-17.arrow").write_bytes(b"ARROW1 torn")
    with pytest.raises(StoreError, match="influx-trades-17"):
        letters.read()
