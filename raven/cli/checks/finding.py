"""What a check says, and how checks run: all at once, each in a bounded time, whatever hangs."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from typing import Any, Final, Self

from raven.errors import RavenError
from raven.tasks import OneThread

CHECK_S: Final = 8.0
"""How long a check may take; what it asks of others takes less, so that it can say what did not answer."""
CONNECT_S: Final = 3.0
"""How long a connection or an answer is waited for."""


class Level(StrEnum):
    """How a check ended: with `FAILED`, something would not work."""

    OK = "ok"
    WARNING = "warning"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Finding:
    """What was looked at, how it is, what was found, and what to do about it (empty: nothing)."""

    check: str
    level: Level
    found: str
    fix: str = ""

    @classmethod
    def of(cls, check: str, error: RavenError, level: Level = Level.FAILED) -> Self:
        """What an error says, its hint the fix."""
        return cls(check, level, error.message, error.hint)


@dataclass(frozen=True, slots=True)
class Check:
    """A check by its name; `find` may raise RavenError or OSError, which then is what was found."""

    name: str
    find: Callable[[], Coroutine[Any, Any, Sequence[Finding]]]


def run_checks(checks: Sequence[Check], *, limit_s: float = CHECK_S) -> list[Finding]:
    """What all checks find, in their order; one that takes longer than `limit_s` has failed."""

    async def every() -> list[Finding]:
        asyncio.get_running_loop().set_default_executor(_LeftBehind())
        found = await asyncio.gather(*(_bounded(check, limit_s) for check in checks))
        return [finding for findings in found for finding in findings]

    return asyncio.run(every())


async def _bounded(check: Check, limit_s: float) -> Sequence[Finding]:
    try:
        async with asyncio.timeout(limit_s):
            return await check.find()
    except TimeoutError:
        return [Finding(check.name, Level.FAILED, f"no answer within {limit_s:g} s", "check the network on the way")]
    except RavenError as error:
        return [Finding.of(check.name, error)]
    except OSError as error:
        return [Finding(check.name, Level.FAILED, str(error))]
    except Exception as error:  # noqa: BLE001 - one check that fails unexpectedly leaves the others theirs
        return [
            Finding(
                check.name, Level.FAILED, f"{type(error).__name__}: {error}", "nobody foresaw this: please report it"
            )
        ]


class _LeftBehind(ThreadPoolExecutor):
    """A thread a call, none waited for at the end: a name server or a database that hangs would hold the command up.

    It is a ThreadPoolExecutor because asyncio accepts no other for what it looks up by itself.
    """

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Call `fn` in a thread of its own."""
        thread = OneThread("check")
        future = thread.submit(partial(fn, *args, **kwargs))
        thread.stop()
        return future
