"""The wiring that the sinks share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from raven.batches.batch import Cursor
from raven.control.consumer_component import ConsumerComponent
from raven.control.plan import VENUES
from raven.errors import SettingsError
from raven.rpc.follower import Follower
from raven.rpc.subscriptions import SubscriptionTable
from raven.services.runtime import Environment, Service
from raven.sinks.sink import FlushLimits, Sink
from raven.sinks.store import BarStore, TradeStore


def limits(environment: Environment) -> FlushLimits:
    """When the embedded store is written."""
    settings = environment.settings.delta
    return FlushLimits(settings.flush_rows, settings.flush_s, settings.maintain_s)


def build(
    environment: Environment,
    sinks: Mapping[str, Sink[TradeStore] | Sink[BarStore]],
    facts: SubscriptionTable,
) -> Service:
    """A sink for each upstream; sinks may be shared. Raises SettingsError for a database that is configured."""
    _refuse_databases(environment)
    followers = {name: environment.follow(name, sink) for name, sink in sinks.items()}
    for sink in sinks.values():
        sink.acknowledge = lambda upstream, cursor: _acknowledge(followers, upstream, cursor)
    unique: Sequence[Sink[TradeStore] | Sink[BarStore]] = list({id(sink): sink for sink in sinks.values()}.values())
    return Service(
        ConsumerComponent(list(followers.values()), facts, venues=list(VENUES)),
        None,
        [*(follower.run for follower in followers.values()), *(sink.run for sink in unique)],
        [*(sink.close for sink in unique), *(follower.close for follower in followers.values())],
        facts,
    )


def _refuse_databases(environment: Environment) -> None:
    """Rows that go elsewhere than the settings say would be missed too late."""
    settings = environment.settings
    for key, is_set in (("influx", settings.influx.url), ("timescale", settings.timescale.url.get_secret_value())):
        if is_set:
            raise SettingsError(
                f"{key}.url is set, but this version of Raven stores in Delta Lake alone",
                hint=f"leave {key}.url empty; what is stored lies below {settings.data / 'delta'}",
            )


async def _acknowledge(followers: Mapping[str, Follower], upstream: str, cursor: Cursor) -> None:
    await followers[upstream].acknowledge(cursor)
