"""The wiring that the sinks share: a sink for each store in force, and who follows what for it."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Final, TypeAlias

from raven.clock import now_us
from raven.control.consumer_component import ConsumerComponent
from raven.control.plan import VENUES
from raven.rpc.consumer import Progress
from raven.rpc.follower import Follower
from raven.rpc.pb import control_pb2
from raven.rpc.subscriptions import SubscriptionTable
from raven.services.runtime import Environment, Service
from raven.settings import StoreName
from raven.sinks.sink import Acknowledge, Sink
from raven.sinks.store import BarStore, TradeStore
from raven.sinks.stores import delta_root
from raven.telemetry import Telemetry

AnySink: TypeAlias = Sink[TradeStore] | Sink[BarStore]
TELL_EVERY_S: Final = 2.0


def joined(environment: Environment, store: StoreName) -> Progress:
    """What a sink of `store` tells once its position on an upstream covers instruments that joined."""
    return lambda upstream, instruments: environment.wanted.joined(key(upstream, store), instruments)


def left(environment: Environment, store: StoreName) -> Progress:
    """What a sink of `store` tells once it has stored all that there was of instruments that were stopped."""
    return lambda upstream, instruments: environment.wanted.left(key(upstream, store), instruments)


def facts_of(shown: SubscriptionTable, position: int) -> SubscriptionTable:
    """Where the sink of the store at `position` notes what it takes: of the first store it is `shown`."""
    return shown if position == 0 else SubscriptionTable()


def key(upstream: str, store: str) -> str:
    """Names the following of `upstream` for `store`."""
    return f"{upstream}>{store}"


def build(environment: Environment, sinks: Sequence[AnySink], facts: SubscriptionTable) -> Service:
    """Every sink follows each of its upstreams on its own, so that none waits for another's store."""
    followers: list[Follower] = []
    fed: list[tuple[AnySink, dict[str, Follower]]] = []
    stores = [sink.worker.store for sink in sinks]
    for sink in sinks:
        store = sink.worker.store.name
        own = {name: environment.follow(name, sink, store=store, key=key(name, store)) for name in sink.upstreams}
        sink.acknowledge = _acknowledge(own)
        followers += own.values()
        fed.append((sink, own))

    async def close_sinks() -> None:
        """All at once: each of several stores that hang takes its time."""
        await asyncio.gather(*(sink.close() for sink in sinks))

    return Service(
        ConsumerComponent(
            followers, facts, venues=list(VENUES), stores=lambda: [_status(sink, own) for sink, own in fed]
        ),
        None,
        [
            *(follower.run for follower in followers),
            *(sink.run for sink in sinks),
            lambda: _tell(fed, environment.telemetry),
        ],
        [close_sinks, *(follower.close for follower in followers)],
        facts,
        [delta_root(environment.settings) / store.table for store in stores if store.name == "delta"],
    )


def _acknowledge(followers: Mapping[str, Follower]) -> Acknowledge:
    return lambda upstream, cursor: followers[upstream].acknowledge(cursor)


async def _tell(fed: Sequence[tuple[AnySink, Mapping[str, Follower]]], telemetry: Telemetry) -> None:
    """Say again and again what is stored, since the upstreams answer how far behind that is, until cancelled."""
    while True:
        await asyncio.sleep(TELL_EVERY_S)
        await asyncio.gather(*(sink.tell_positions() for sink, _ in fed))
        for sink, followers in fed:
            status = _status(sink, followers)
            telemetry.set("backlog_rows", status.backlog_rows, store=sink.worker.label)
            telemetry.set("backlog_s", status.backlog_s, store=sink.worker.label)


def _status(sink: AnySink, followers: Mapping[str, Follower]) -> control_pb2.Store:
    worker = sink.worker
    behind = [
        follower.backlog
        for follower in followers.values()
        if follower.backlog.behind_rows and (follower.is_needed or not sink.is_durable(follower.name))
    ]
    oldest_us = min((backlog.behind_since_us for backlog in behind), default=0)
    return control_pb2.Store(
        name=worker.store.name, table=worker.store.table, healthy=not worker.problem, error=worker.problem,
        error_since_us=worker.problem_since_us, backlog_rows=sum(backlog.behind_rows for backlog in behind),
        backlog_s=max(0, now_us() - oldest_us) / 1e6 if oldest_us else 0.0, stored_rows=worker.stored_rows,
        dead_rows=worker.dead_rows, last_stored_us=worker.last_stored_us, last_error=worker.last_error,
        last_error_us=worker.last_error_us,
    )  # fmt: skip
