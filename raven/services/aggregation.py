"""The wiring that the aggregators share."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pyarrow as pa

from raven.aggregators.aggregator import Aggregator
from raven.bars.kernel import Kernel
from raven.batches.schema import stream_schema
from raven.control.consumer_component import ConsumerComponent
from raven.control.plan import VENUES, sources_of
from raven.rpc.follower import Follower
from raven.services.runtime import Environment, Service


def build(environment: Environment, kernels: Sequence[Kernel], schema: pa.Schema) -> Service:
    """An aggregator over its journal, following the sources."""
    sources = sources_of(environment.name)
    hub = environment.open_hub(stream_schema(schema, kind=kernels[0].kind, venue=""))
    aggregator = Aggregator(
        kernels,
        hub,
        environment.folder / "checkpoint.arrow",
        venues=sources,
        schema=stream_schema(schema, kind=kernels[0].kind, venue=""),
        telemetry=environment.telemetry,
        joined=environment.wanted.joined,
        left=environment.wanted.left,
    )
    followers = [environment.follow(upstream, aggregator) for upstream in sources]

    async def save_often() -> None:
        while True:
            await asyncio.sleep(environment.settings.checkpoint_s)
            if not all(map(aggregator.is_durable, sources)):
                await _save(aggregator, followers)

    return Service(
        ConsumerComponent(followers, aggregator.facts, venues=list(VENUES)),
        hub,
        [*(follower.run for follower in followers), save_often],
        [lambda: _save(aggregator, followers), *(follower.close for follower in followers)],
        aggregator.facts,
    )


async def _save(aggregator: Aggregator, followers: Sequence[Follower]) -> None:
    saved = await aggregator.save()
    for follower in followers:
        if follower.name in saved:
            await follower.acknowledge(saved[follower.name])
