"""What Python itself complains of becomes events: warnings, and errors in threads, finalizers and forgotten tasks."""

from __future__ import annotations

import asyncio
import sys
import threading
import warnings
from typing import Any, TextIO

from raven.telemetry.telemetry import Telemetry


def catch_problems(telemetry: Telemetry) -> None:
    """From now on the warnings of this process, and what its threads and finalizers raise, are events."""

    def show(
        message: Warning | str, category: type[Warning], filename: str, lineno: int,
        file: TextIO | None = None, line: str | None = None,  # noqa: ARG001 - the signature is Python's
    ) -> None:  # fmt: skip
        telemetry.warning("python_warning", f"{category.__name__}: {message}", file=filename, line=lineno)

    def thread_failed(what: threading.ExceptHookArgs) -> None:
        if what.exc_value is not None and not isinstance(what.exc_value, SystemExit):
            name = what.thread.name if what.thread is not None else "unknown"
            telemetry.unexpected("uncaught", f"thread {name}", what.exc_value)

    def unraisable(what: sys.UnraisableHookArgs) -> None:
        if what.exc_value is not None:
            telemetry.unexpected("uncaught", what.err_msg or f"ignored in {what.object!r}", what.exc_value)

    warnings.showwarning = show
    threading.excepthook = thread_failed
    sys.unraisablehook = unraisable


def catch_loop_problems(loop: asyncio.AbstractEventLoop, telemetry: Telemetry) -> None:
    """From now on what callbacks and forgotten tasks of `loop` raise are events."""

    def failed(_: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        message = str(context.get("message", "an error in the event loop"))
        error = context.get("exception")
        if isinstance(error, BaseException):
            telemetry.unexpected("uncaught", message, error)
        else:
            telemetry.error("uncaught", message)

    loop.set_exception_handler(failed)
