"""Which services there are, which one feeds which, and where each is found."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from typing import Final

from raven.errors import InputError
from raven.rpc.access import address
from raven.settings import Settings
from raven.settings.addresses import parse_address

WILDCARDS: Final = ("", "0.0.0.0", "::")  # noqa: S104 - addresses that mean every one of this machine


@dataclass(frozen=True, slots=True)
class ServicePlan:
    """One service: its module, the setting of its port, the services it follows, short names; of sources, the venue."""

    name: str
    module: str
    port_setting: str
    upstreams: tuple[str, ...] = ()
    aliases: tuple[str, ...] = ()
    venue: str = ""


SOURCES: Final = ("binance_spot", "binance_futures")

SERVICES: Final[dict[str, ServicePlan]] = {
    plan.name: plan
    for plan in (
        ServicePlan(
            "binance_spot", "raven.services.binance_spot", "port_binance_spot", aliases=("spot",), venue="BINANCE_SPOT"
        ),
        ServicePlan(
            "binance_futures", "raven.services.binance_futures", "port_binance_futures", venue="BINANCE_FUTURES"
        ),
        ServicePlan(
            "raven_timebar",
            "raven.services.timebar",
            "port_timebar_minutes",
            SOURCES,
            ("timebar", "timebars", "timebar_minutes"),
        ),
        ServicePlan("raven_tibs", "raven.services.tibs", "port_tibs", SOURCES, ("tibs", "tib")),
        ServicePlan(
            "tick_persistence", "raven.services.tick_persistence", "port_tick_persistence", SOURCES, ("ticks", "tick")
        ),
        ServicePlan(
            "bar_persistence",
            "raven.services.bar_persistence",
            "port_bar_persistence",
            ("raven_timebar", "raven_tibs"),
            ("bars", "bar"),
        ),
    )
}
"""In upstream-first order."""

VENUES: Final = {SERVICES[name].venue: name for name in SOURCES}
"""The source of each venue."""


def resolve(name: str) -> str:
    """The service a user means by `name`; raises InputError with the nearest names."""
    meant = name.strip().lower().replace("-", "_")
    for plan in SERVICES.values():
        if meant == plan.name or meant in plan.aliases:
            return plan.name
    known = [known for plan in SERVICES.values() for known in (plan.name, *plan.aliases)]
    close = difflib.get_close_matches(meant, known, n=2)
    hint = f"did you mean {' or '.join(close)}?" if close else f"services: {', '.join(SERVICES)}"
    raise InputError(f"there is no service {name}", hint=hint)


def resolve_venue(name: str) -> str:
    """The venue a user means by `name` (`BINANCE_SPOT`, `spot`, in any case); raises InputError with the names."""
    wanted = name.strip().upper()
    for venue in VENUES:
        if wanted in (venue, venue.removeprefix("BINANCE_")):
            return venue
    raise InputError(f"there is no venue {name}", hint=f"venues: {', '.join(VENUES)}")


def sources_of(name: str) -> dict[str, str]:
    """The upstreams of a service that collect trades, and the venue of each."""
    return {upstream: SERVICES[upstream].venue for upstream in SERVICES[name].upstreams if SERVICES[upstream].venue}


def downstream_first() -> list[str]:
    """All services, consumers before what they consume."""
    return list(reversed(SERVICES))


def port_of(settings: Settings, name: str) -> int:
    """The configured port of a service."""
    port: int = getattr(settings.server, SERVICES[name].port_setting)
    return port


def target_of(settings: Settings, name: str) -> str:
    """Where a service is found: `[upstream]`, or this machine at its port."""
    configured: str = getattr(settings.upstream, name, "")
    if configured:
        return target_from(configured, port_of(settings, name))
    bound = settings.server.host
    return address("127.0.0.1" if bound in WILDCARDS else bound, port_of(settings, name))


def target_from(given: str, default_port: int) -> str:
    """`host:port` of an address given as host, host:port or URL; raises InputError for anything else."""
    try:
        host, port = parse_address(given)
    except ValueError as error:
        raise InputError(str(error)) from error
    return address(host, port if port is not None else default_port)
