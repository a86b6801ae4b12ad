"""Asks the services of `raven up` to collect, and to collect no more, once they answer."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from raven.batches.instrument import Instrument, by_venue
from raven.control.plan import SERVICES
from raven.errors import ExchangeError, UpstreamError
from raven.rpc.client import Client
from raven.rpc.pb import control_pb2

READY_S: Final = 20.0
ANSWERED_S: Final = 60.0
STOP_S: Final = 12.0
RETRY_S: Final = 0.2
REFUSED: Final = control_pb2.SYMBOL_STATE_REFUSED
CONNECTING: Final = control_pb2.SYMBOL_STATE_CONNECTING
KEPT: Final = control_pb2.SYMBOL_STATE_KEPT


def most_downstream(services: Sequence[str]) -> list[str]:
    """Those of the services that no other of them follows: what they collect, the others collect for them."""
    followed = {upstream for name in services for upstream in SERVICES[name].upstreams}
    return [name for name in services if name not in followed]


async def collect(
    clients: Mapping[str, Client],
    wanted: Sequence[Instrument],
    ready: Callable[[], bool],
    *,
    others: Sequence[Instrument] = (),
    say: Callable[[str], None] = lambda _: None,
) -> None:
    """Start collecting `wanted` with the most downstream services, once `ready` says that all answer, or after a while.

    `others` are collected no more; `say` is told what of them goes on all the same. Raises ExchangeError when symbols
    are refused; these are not collected later either.
    """
    deadline = time.monotonic() + READY_S
    while not ready() and time.monotonic() < deadline:  # noqa: ASYNC110 - what is known changes when services are asked
        await asyncio.sleep(RETRY_S)
    for name in reversed(list(clients)):  # consumers first: they take what there was
        for line in await _stop(clients[name], others):
            say(f"{name}: {line}")
    for name in most_downstream(list(clients)):
        own = [one for one in wanted if SERVICES[name].venue in ("", one.venue)]
        refused = await _start(clients[name], own)
        if refused:
            raise ExchangeError("; ".join(dict.fromkeys(refused.values())))


async def _stop(client: Client, others: Sequence[Instrument]) -> list[str]:
    """Stop with one service; what goes on there, and why."""
    try:
        found = {Instrument(entry.venue, entry.symbol) for entry in await client.list()} if others else set()
        results = [
            result
            for venue, symbols in by_venue(one for one in others if one in found).items()
            for result in await client.stop(symbols, venue=venue, timeout_s=STOP_S)
        ]
    except UpstreamError as error:
        return [f"could not be told to stop {', '.join(map(str, others))}: {error}"]
    return [f"{one.symbol} of {one.venue} goes on: {one.message}" for one in results if one.state == KEPT]


async def _start(client: Client, wanted: Sequence[Instrument]) -> dict[Instrument, str]:
    """Start with one service, however long it takes to answer; what is refused, and why."""
    refused: dict[Instrument, str] = {}
    for venue, symbols in by_venue(wanted).items():
        while True:
            try:
                results = await client.start(symbols, venue=venue)
                break
            except UpstreamError:
                await asyncio.sleep(RETRY_S)
        refused |= {Instrument(one.venue, one.symbol): one.message for one in results if one.state == REFUSED}
    refused |= await _refused_later(client, set(wanted) - set(refused))
    for venue, symbols in by_venue(refused).items():
        await client.stop(symbols, venue=venue)
    return refused


async def _refused_later(client: Client, wanted: set[Instrument]) -> dict[Instrument, str]:
    """What is refused once the source is found: a service may have been asked before those it follows answered."""
    deadline = time.monotonic() + ANSWERED_S
    while time.monotonic() < deadline:
        try:
            found = {Instrument(entry.venue, entry.symbol): entry for entry in await client.list()}
        except UpstreamError:
            found = {}
        own = [found[one] for one in wanted if one in found]
        refused = {Instrument(one.venue, one.symbol): one.message for one in own if one.state == REFUSED}
        if refused or (len(own) == len(wanted) and all(one.state != CONNECTING for one in own)):
            return refused
        await asyncio.sleep(RETRY_S)
    return {}
