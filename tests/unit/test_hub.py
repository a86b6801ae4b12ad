"""The hub: one order for every subscriber, whatever is read from disk and whatever live."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import aclosing
from pathlib import Path

import pytest

from raven.batches.batch import BatchMeta
from raven.batches.schema import TRADE_SCHEMA, stream_schema, to_record_batch
from raven.journal import Journal
from raven.rpc.hub import Hub
from raven.telemetry import Telemetry
from tests.unit.samples import trades

SCHEMA = stream_schema(TRADE_SCHEMA, kind="trades", venue="BINANCE_SPOT")


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    with Journal.open(tmp_path / "journal", SCHEMA) as opened:
        yield opened


async def publish(hub: Hub, first: int, count: int) -> None:
    for number in range(first, first + count):
        await hub.publish(to_record_batch(trades([number]), SCHEMA), BatchMeta())


async def follow(hub: Hub, after: int, count: int) -> list[int]:
    sequences = []
    async with aclosing(hub.follow(after)) as entries:
        async for entry in entries:
            sequences.append(entry.meta.sequence)
            if len(sequences) == count:
                return sequences
    raise AssertionError("a subscription does not end by itself")


async def test_seam_between_disk_and_live_is_exact(journal: Journal) -> None:
    hub = Hub(journal, tail_bytes=6_000)  # a tail of a few batches: most is read from disk
    await publish(hub, 1, 100)
    reader = asyncio.ensure_future(follow(hub, 0, 300))
    await asyncio.sleep(0.005)
    await publish(hub, 101, 200)
    assert await asyncio.wait_for(reader, 20) == list(range(1, 301))


async def test_slow_and_fast_subscribers_see_the_same(journal: Journal) -> None:
    hub = Hub(journal, tail_bytes=3_000)

    async def slow() -> list[int]:
        sequences: list[int] = []
        async with aclosing(hub.follow(0)) as entries:
            async for entry in entries:
                sequences.append(entry.meta.sequence)
                await asyncio.sleep(0.002)
                if len(sequences) == 120:
                    break
        return sequences

    readers = [asyncio.ensure_future(slow()), asyncio.ensure_future(follow(hub, 0, 120))]
    await publish(hub, 1, 120)
    first, second = await asyncio.wait_for(asyncio.gather(*readers), 20)
    assert first == second == list(range(1, 121))


async def test_follow_after_reopen_reads_what_was_before(tmp_path: Path) -> None:
    with Journal.open(tmp_path / "journal", SCHEMA) as first:
        await publish(Hub(first), 1, 5)
    with Journal.open(tmp_path / "journal", SCHEMA) as second:
        hub = Hub(second)
        assert await asyncio.wait_for(follow(hub, 2, 3), 10) == [3, 4, 5]
        assert hub.last_sequence == 5
        await publish(hub, 6, 1)
        assert await asyncio.wait_for(follow(hub, 4, 2), 10) == [5, 6]


async def test_a_cancelled_publish_is_no_hole_for_who_reads_live(journal: Journal) -> None:
    hub = Hub(journal)
    reader = asyncio.ensure_future(follow(hub, 0, 60))
    for number in range(1, 61):
        publishing = asyncio.ensure_future(publish(hub, number, 1))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        publishing.cancel()
        await asyncio.gather(publishing, return_exceptions=True)
    on_disk = [entry.meta.sequence for entry in journal.read()]
    assert on_disk[-1] == hub.last_sequence
    await publish(hub, 61, 60 - len(on_disk))
    on_disk = [entry.meta.sequence for entry in journal.read()]
    assert await asyncio.wait_for(reader, 10) == on_disk


async def test_waits_for_the_next_batch(journal: Journal) -> None:
    hub = Hub(journal)
    await publish(hub, 1, 1)
    reader = asyncio.ensure_future(follow(hub, hub.last_sequence, 1))
    await asyncio.sleep(0.05)
    assert not reader.done()
    await publish(hub, 2, 1)
    assert await asyncio.wait_for(reader, 5) == [2]


async def test_what_is_published_is_counted(journal: Journal) -> None:
    telemetry = Telemetry("test")
    hub = Hub(journal, telemetry=telemetry)
    await publish(hub, 1, 3)
    totals = telemetry.totals
    assert (totals["published_batches"], totals["published_rows"], totals["journal_sequence"]) == (3, 3, 3)
    assert totals["published_bytes"] == sum(len(entry.payload) for entry in journal.read())
