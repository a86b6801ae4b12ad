"""Commands that can be ended at any time, with what they had begun undone."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

import typer

if TYPE_CHECKING:
    from types import FrameType

INTERRUPTED: Final = 130
"""The exit code of a program that was interrupted, as shells know it."""


@contextmanager
def interruptible(outcome: str) -> Iterator[None]:
    """Ctrl-C and SIGTERM end what is within in order: as KeyboardInterrupt, then with `outcome` and the exit code."""

    def interrupt(number: int, frame: FrameType | None) -> None:  # noqa: ARG001
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    except KeyboardInterrupt:
        sys.stderr.write(f"raven: interrupted; {outcome}\n")
        raise typer.Exit(INTERRUPTED) from None
    finally:
        signal.signal(signal.SIGTERM, before)
