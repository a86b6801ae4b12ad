"""What is on other machines: the exchange, its clock, and the services that `[upstream]` names."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from raven.cli.checks.finding import CONNECT_S, Finding, Level
from raven.cli.exchange import PROTOCOLS
from raven.control.plan import SERVICES, target_of
from raven.errors import AccessError, TooLateError, UpstreamError
from raven.rpc.access import Access
from raven.rpc.client import Client
from raven.settings import BinanceSettings, Settings
from raven.sources.binance.probe import open_websocket, read_clock
from raven.sources.binance.venue_clock import MOST_OFFSET_MS

STANDS_IN_FIX: Final = "this region is blocked there; set {key} to {url}, or nothing: services find it by themselves"


async def exchange_rest(settings: Settings, name: str) -> Sequence[Finding]:
    """Whether the source `name` reaches its exchange over REST, and how far the two clocks are apart."""
    own, protocol = _hasty(settings, name), PROTOCOLS[SERVICES[name].venue]
    clock = await read_clock(own, protocol)
    return [
        judge_address(f"REST of {name}", f"{name}.rest_url", own.rest_url, clock.url),
        judge_clock(f"clock of {name}", clock.offset_ms, clock.error_ms),
    ]


async def exchange_websocket(settings: Settings, name: str) -> Sequence[Finding]:
    """Whether the source `name` opens a WebSocket at its exchange."""
    own, protocol = _hasty(settings, name), PROTOCOLS[SERVICES[name].venue]
    url = await open_websocket(own, protocol)
    return [judge_address(f"WebSocket of {name}", f"{name}.websocket_url", own.websocket_url, url)]


def judge_address(check: str, key: str, wanted: str, answered: str) -> Finding:
    """`wanted` by the setting `key`, and what `answered` instead where the region is blocked."""
    if answered == wanted.rstrip("/"):
        return Finding(check, Level.OK, f"{answered} answers")
    fix = STANDS_IN_FIX.format(key=key, url=answered)
    return Finding(check, Level.WARNING, f"{answered} answers in the place of {wanted}", fix)


def judge_clock(check: str, offset_ms: float, error_ms: float) -> Finding:
    """The exchange's clock is `offset_ms` ahead of this machine's, give or take `error_ms`."""
    found = f"the exchange's clock is {offset_ms:+,.0f} ms from this machine's"
    if abs(offset_ms) - error_ms > MOST_OFFSET_MS:
        fix = "set this machine's clock, and keep it with a time service: latencies are wrong by as much"
        return Finding(check, Level.WARNING, found, fix)
    return Finding(check, Level.OK, found)


def _hasty(settings: Settings, name: str) -> BinanceSettings:
    own: BinanceSettings = getattr(settings, name)
    return own.model_copy(update={"connect_timeout_s": min(CONNECT_S, own.connect_timeout_s)})


async def upstream(settings: Settings, access: Access, name: str) -> Sequence[Finding]:
    """Whether the service `name` answers where `[upstream]` says, and obeys us."""
    target = target_of(settings, name)
    try:
        async with Client(target, access) as client:
            found = (await client.status(timeout_s=CONNECT_S)).service
    except UpstreamError as error:
        return [judge_silence(name, error)]
    return [judge_upstream(name, target, found)]


def judge_upstream(name: str, target: str, found: str) -> Finding:
    """`found` is the service that answers at `target`."""
    if found == name:
        return Finding(f"upstream {name}", Level.OK, f"{target} answers")
    return Finding(f"upstream {name}", Level.FAILED, f"{target} is {found}", f"set upstream.{name} to where {name} is")


def judge_silence(name: str, error: UpstreamError) -> Finding:
    """Services wait for others that do not run yet, but not for those that refuse them or swallow what they send."""
    check = f"upstream {name}"
    if isinstance(error, AccessError):
        return Finding.of(check, error)
    if isinstance(error, TooLateError):
        return Finding(check, Level.FAILED, error.message, f"check upstream.{name}, and the firewalls on the way")
    fix = f"start {name} there, or check upstream.{name} and the network on the way"
    return Finding(check, Level.WARNING, error.message, fix)
