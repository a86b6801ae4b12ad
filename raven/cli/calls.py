"""Calling one service or all of them from a command."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import TypeVar

from raven.control.plan import downstream_first, port_of, target_from, target_of
from raven.errors import AccessError, InputError, UnknownHostError, UpstreamError
from raven.rpc.access import Access
from raven.rpc.client import Client
from raven.settings import load

T = TypeVar("T")


def targets(name: str, host: str) -> dict[str, str]:
    """Where to ask: one service, or all of them, consumers first."""
    settings = load()
    names = [name] if name else downstream_first()
    if host and not name and has_port(host):
        raise InputError(f"{host} is one service", hint="name it with --service, or give a host without a port")
    return {
        found: target_from(host, port_of(settings, found)) if host else target_of(settings, found) for found in names
    }


def has_port(host: str) -> bool:
    """Whether an address names one service by its port."""
    return ":" in host.rsplit("//", maxsplit=1)[-1].rpartition("]")[2]


async def _one(
    name: str, target: str, access: Access, call: Callable[[Client], Awaitable[T]], *, is_checked: bool
) -> T | UpstreamError:
    async with Client(target, access) as client:
        try:
            if is_checked:
                found = (await client.status()).service
                if found != name:
                    raise InputError(
                        f"{target} is {found}, not {name}", hint="name that service, or give another address"
                    )
            return await call(client)
        except UpstreamError as error:
            return error


def call_in_order(
    services: Mapping[str, str], call: Callable[[Client], Awaitable[T]], *, host: str = ""
) -> dict[str, T | UpstreamError]:
    """Call the services one after the other, in order; one that cannot be reached answers with its error.

    `host`: what the user gave; where it names a port, the service there must be the one meant. Raises InputError when
    it is another, AccessError when one refuses the caller or cannot be trusted, UnknownHostError when there is no such
    host.
    """
    access = Access.of(load())

    async def every() -> dict[str, T | UpstreamError]:
        return {
            name: await _one(name, target, access, call, is_checked=has_port(host)) for name, target in services.items()
        }

    answers = asyncio.run(every())
    _raise_unknown_host(answers, host)
    _raise_refusals(answers)
    return answers


def call_at_once(
    services: Mapping[str, str], call: Callable[[Client], Awaitable[T]], *, host: str = ""
) -> dict[str, T | UpstreamError]:
    """As `call_in_order`, but all at once; beside others that answer, who refuses the caller answers with that, too."""
    access = Access.of(load())

    async def every() -> dict[str, T | UpstreamError]:
        calls = (_one(name, target, access, call, is_checked=has_port(host)) for name, target in services.items())
        return dict(zip(services, await asyncio.gather(*calls), strict=True))

    answers = asyncio.run(every())
    _raise_unknown_host(answers, host)
    if all(isinstance(answer, UpstreamError) for answer in answers.values()):
        _raise_refusals(answers)
    return answers


def _raise_unknown_host(answers: Mapping[str, object], host: str) -> None:
    """Once, not for every service that was to be asked there."""
    for answer in answers.values():
        if host and isinstance(answer, UnknownHostError):
            raise answer


def _raise_refusals(answers: Mapping[str, object]) -> None:
    for name, answer in answers.items():
        if isinstance(answer, AccessError):
            raise AccessError(f"{name} at {answer.message}", hint=answer.hint)
