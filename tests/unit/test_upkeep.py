"""What a service tells of its journal and disk, from a real journal."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from raven.batches.batch import BatchMeta
from raven.batches.schema import TRADE_SCHEMA, stream_schema, to_record_batch
from raven.journal import Journal, JournalOptions
from raven.services import upkeep
from raven.services.upkeep import keep_journal, report_health, watch_disk
from raven.telemetry import Telemetry, disk
from tests.unit.samples import trades

SCHEMA = stream_schema(TRADE_SCHEMA, kind="trades", venue="BINANCE_SPOT")


async def running(part: Coroutine[Any, Any, None], until: Callable[[], bool]) -> None:
    task = asyncio.ensure_future(part)
    try:
        async with asyncio.timeout(20):
            while not until():
                assert not task.done(), task.result()
                await asyncio.sleep(0.01)
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_rows_dropped_before_a_consumer_had_them_are_an_error(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    telemetry = Telemetry("test")
    options = JournalOptions(segment_bytes=4096, max_bytes=20_000)
    with Journal.open(tmp_path / "journal", SCHEMA, options=options) as journal:
        journal.register("sink-1", 0)
        for number in range(40):
            first = 1 + 20 * number
            journal.append(to_record_batch(trades(range(first, first + 20)), SCHEMA), BatchMeta())
        await running(keep_journal(journal, telemetry), lambda: "consumer_behind_bytes" in telemetry.totals)
        told = telemetry.snapshot()
        assert 0 < told["raven_journal_bytes"] <= 25_000
        assert 0 < told['raven_consumer_behind_bytes{consumer="sink-1"}'] <= told["raven_journal_bytes"]
        lost = told["raven_dropped_unacknowledged_rows_total"]
        assert 0 < lost < 800
        journal.forget("sink-1")
        await running(keep_journal(journal, telemetry), lambda: "consumer_behind_bytes" not in telemetry.totals)
    (record,) = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert record.raven_event == "journal_overrun"
    assert (record.raven_fields["rows"], record.raven_fields["consumers"]) == (lost, ("sink-1",))
    assert "raise journal.max_bytes" in record.getMessage()


async def test_what_the_data_grow_by_is_told_after_a_while(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("MEASURE_EVERY_S", 0.01), ("DISK_EVERY_S", 0.01)):
        monkeypatch.setattr(upkeep, name, value)
    monkeypatch.setattr(disk, "LEAST_S", 0.2)
    telemetry, file = Telemetry("test"), tmp_path / "file"

    def grown() -> bool:
        with file.open("ab") as growing:
            growing.write(bytes(1000))
        return telemetry.totals.get("data_daily_growth_bytes", 0) > 0

    began_s = time.monotonic()
    await running(watch_disk([tmp_path], telemetry), grown)
    assert time.monotonic() - began_s >= 0.2
    assert 0 < telemetry.totals["data_bytes"] <= file.stat().st_size


async def test_disk_and_health_are_told(tmp_path: Path) -> None:
    telemetry = Telemetry("test")
    (tmp_path / "own" / "sub").mkdir(parents=True)
    (tmp_path / "own" / "sub" / "file").write_bytes(bytes(1000))
    (tmp_path / "table").write_bytes(bytes(7))  # no folder: counted as nothing
    folders = [tmp_path / "own", tmp_path / "own" / "sub", tmp_path / "table", tmp_path / "not yet"]
    await running(watch_disk(folders, telemetry), lambda: "data_bytes" in telemetry.totals)
    told = telemetry.snapshot()
    assert told["raven_data_bytes"] == 2000
    assert told["raven_disk_free_bytes"] > 0
    assert told["raven_disk_left_seconds"] == float("inf"), "nothing is known yet"
    assert "raven_data_daily_growth_bytes" not in told, "nothing is known yet"
    await running(report_health(lambda: False, telemetry), lambda: "healthy" in telemetry.totals)
    assert telemetry.snapshot()["raven_healthy"] == 0
