"""Which services there are, which one feeds which, and where each is found."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

from raven.errors import InputError
from raven.rpc.access import address
from raven.settings import Settings

WILDCARDS: Final = ("", "0.0.0.0", "::")  # noqa: S104 - addresses that mean every one of this machine


@dataclass(frozen=True, slots=True)
class ServicePlan:
    """One service: the setting of its port, the services it follows, its short names; of sources, the venue."""

    name: str
    port_setting: str
    upstreams: tuple[str, ...] = ()
    aliases: tuple[str, ...] = ()
    venue: str = ""


SERVICES: Final[dict[str, ServicePlan]] = {
    plan.name: plan
    for plan in (
        ServicePlan("binance_spot", "port_binance_spot", venue="BINANCE_SPOT"),
        ServicePlan("raven_timebar", "port_timebar_minutes", ("binance_spot",), ("timebar", "timebar_minutes")),
        ServicePlan("raven_tibs", "port_tibs", ("binance_spot",), ("tibs",)),
        ServicePlan("tick_persistence", "port_tick_persistence", ("binance_spot",)),
        ServicePlan("bar_persistence", "port_bar_persistence", ("raven_timebar", "raven_tibs")),
    )
}
"""In upstream-first order."""


def resolve(name: str) -> str:
    """The service a user means by `name`; raises InputError with the nearest names."""
    for plan in SERVICES.values():
        if name == plan.name or name in plan.aliases:
            return plan.name
    known = [known for plan in SERVICES.values() for known in (plan.name, *plan.aliases)]
    close = difflib.get_close_matches(name, known, n=2)
    hint = f"did you mean {' or '.join(close)}?" if close else f"services: {', '.join(SERVICES)}"
    raise InputError(f"there is no service {name}", hint=hint)


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
    parts = urlsplit(given if "//" in given else f"//{given}")
    try:
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise InputError(
            f"{given} is not an address: {error}", hint="give host, host:port or http://host:port"
        ) from error
    if not host:
        raise InputError(f"{given} is not an address", hint="give host, host:port or http://host:port")
    return address(host, port or default_port)
