"""The one error tree of Raven.

Every error says what happened to what, and, where Raven knows it, what to do (`hint`). Errors of other
libraries are mapped to these at the edge where they appear.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Final

_IN_A_COMMAND: Final[ContextVar[bool]] = ContextVar("in_a_command", default=False)


class RavenError(Exception):
    """Base of all errors Raven raises on purpose.

    `hint` is one sentence that says what to do about it; empty when there is nothing to add.
    """

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message} ({self.hint})" if self.hint else self.message


class InputError(RavenError):
    """Something the user gave is wrong: a parameter, a symbol, a file, a frame without a column."""


class SettingsError(RavenError):
    """A setting is unknown, missing or out of range; where there are several `problems`, each by itself."""

    def __init__(self, message: str, *, hint: str = "", problems: Sequence[str] = ()) -> None:
        super().__init__(message, hint=hint)
        self.problems = tuple(problems) or (message,)


class StateError(RavenError):
    """A saved kernel state does not fit: another format version, other parameters, or damaged bytes."""


class JournalError(RavenError):
    """A journal cannot be opened, read or appended to."""


class JournalLockedError(JournalError):
    """Another process holds the journal folder."""


class StoreError(RavenError):
    """A store (Delta Lake, InfluxDB, TimescaleDB) refused or could not take a write."""


class UpstreamError(RavenError):
    """Another Raven service cannot be reached or refused a request."""


class AccessError(UpstreamError):
    """Another Raven service refuses the caller, or cannot be trusted: token, certificates, loopback."""


class UnknownHostError(UpstreamError):
    """The address of another Raven service names a host that cannot be found."""


class TooLateError(UpstreamError):
    """Another Raven service did not answer in time."""


class ExchangeError(RavenError):
    """The exchange refused a request or answered something Raven does not understand."""


class RegionBlockedError(ExchangeError):
    """The exchange answers that it does not serve this region: the network itself works."""


@contextmanager
def in_a_command() -> Iterator[None]:
    """Within it the caller is a command line, and `argument` speaks of options; every console script runs in it."""
    token = _IN_A_COMMAND.set(True)
    try:
        yield
    finally:
        _IN_A_COMMAND.reset(token)


def argument(name: str, value: object = None) -> str:
    """How the caller gives `name`, in the language of the interface in use, for messages and hints.

    `argument("venue")` is `venue=` in Python and `--venue` in a command; with a value it is `on_bad='skip'` and
    `--on-bad skip`.
    """
    if _IN_A_COMMAND.get():
        option = f"--{name.replace('_', '-')}"
        return option if value is None else f"{option} {value}"
    return f"{name}=" if value is None else f"{name}={value!r}"
