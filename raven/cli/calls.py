"""Calling one service or all of them from a command."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import TypeVar

from raven.control.plan import downstream_first, port_of, target_from, target_of
from raven.errors import AccessError, InputError, UpstreamError
from raven.rpc.access import Access
from raven.rpc.client import Client
from raven.settings import load

T = TypeVar("T")


def targets(name: str, host: str) -> dict[str, str]:
    """Where to ask: one service, or all of them, consumers first."""
    settings = load()
    names = [name] if name else downstream_first()
    if host and not name and ":" in host.rsplit("//", maxsplit=1)[-1]:
        raise InputError(f"{host} is one service", hint="name it with --service, or give a host without a port")
    return {
        found: target_from(host, port_of(settings, found)) if host else target_of(settings, found) for found in names
    }


async def _one(target: str, access: Access, call: Callable[[Client], Awaitable[T]]) -> T | UpstreamError:
    async with Client(target, access) as client:
        try:
            return await call(client)
        except UpstreamError as error:
            return error


def call_in_order(services: Mapping[str, str], call: Callable[[Client], Awaitable[T]]) -> dict[str, T | UpstreamError]:
    """Call the services one after the other, in order; one that cannot be reached answers with its error.

    Raises AccessError when one refuses the caller or cannot be trusted.
    """
    access = Access.of(load())

    async def every() -> dict[str, T | UpstreamError]:
        return {name: await _one(target, access, call) for name, target in services.items()}

    return _admitted(asyncio.run(every()))


def call_at_once(services: Mapping[str, str], call: Callable[[Client], Awaitable[T]]) -> dict[str, T | UpstreamError]:
    """As `call_in_order`, but all at once."""
    access = Access.of(load())

    async def every() -> dict[str, T | UpstreamError]:
        answers = await asyncio.gather(*(_one(target, access, call) for target in services.values()))
        return dict(zip(services, answers, strict=True))

    return _admitted(asyncio.run(every()))


def _admitted(answers: dict[str, T | UpstreamError]) -> dict[str, T | UpstreamError]:
    for name, answer in answers.items():
        if isinstance(answer, AccessError):
            raise AccessError(f"{name} at {answer.message}", hint=answer.hint)
    return answers
