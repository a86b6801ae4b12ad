"""Work that must not be left half done when its caller is cancelled, and work that may hang for ever."""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from typing import Any, TypeVar

T = TypeVar("T")


async def finish(work: Coroutine[Any, Any, T]) -> T:
    """Await `work` to its end even when the caller is cancelled meanwhile; the cancellation is raised after."""
    task = asyncio.ensure_future(work)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        if not task.done():
            await asyncio.wait({task})
        if not task.cancelled():
            task.exception()  # it was seen; the cancellation goes first
        raise


class OneThread:
    """Runs calls one after the other in a thread of their own, which holds up nobody's exit.

    Unlike a ThreadPoolExecutor's: the interpreter waits at exit for those, also for a call that hangs.
    """

    def __init__(self, name: str) -> None:
        self._calls: queue.SimpleQueue[tuple[Future[Any], Callable[[], Any]] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def submit(self, call: Callable[[], T]) -> Future[T]:
        """What `call` will return or raise."""
        future: Future[T] = Future()
        self._calls.put((future, call))
        return future

    async def run(self, call: Callable[[], T]) -> T:
        """Await `call`; when the caller is cancelled meanwhile, it goes on to its end unobserved."""
        return await asyncio.wrap_future(self.submit(call))

    def stop(self) -> None:
        """End the thread once all is done that was asked for."""
        self._calls.put(None)

    def _run(self) -> None:
        while (asked := self._calls.get()) is not None:
            future, call = asked
            if not future.set_running_or_notify_cancel():
                continue  # nobody waits for it any more
            try:
                future.set_result(call())
            except BaseException as error:  # noqa: BLE001 - it is raised where the result is awaited
                future.set_exception(error)
