"""A store in a thread of its own, tried until it takes what it is given, and what is known of its health."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from concurrent.futures import wait
from typing import Final, Generic, TypeVar

from raven.clock import Backoff, now_us
from raven.errors import InputError, RavenError, StoreError
from raven.sinks.store import Store, StoreRefusedError, StoreUnavailableError, WriteResult
from raven.tasks import OneThread
from raven.telemetry import Telemetry

S = TypeVar("S", bound=Store)
T = TypeVar("T")
SLOW_S: Final = 10.0
"""A commit takes less, also of a large flush."""


class StoreWorker(Generic[S]):
    """Runs the calls of one store.

    - `label`: `<store>/<table>`, as metrics and messages name it.
    - `problem`, `problem_since_us`: why it cannot be written now, and since when (UTC, microseconds); empty and 0 when
      it can. `last_error`, `last_error_us`: the last one, also when it is over. A store that has not answered for
      `SLOW_S` has a problem, too.
    - `stored_rows`, `dead_rows`, `last_stored_us`: since it was made.

    A store that is down is tried after short and then longer times; one that needs mending every `probe_s` or so.
    """

    def __init__(self, store: S, telemetry: Telemetry, *, probe_s: float) -> None:
        self.store = store
        self.label = f"{store.name}/{store.table}"
        self._error = ""
        self._error_since_us = 0
        self._asked_us = 0
        self._doing = ""
        self.last_error = ""
        self.last_error_us = 0
        self.stored_rows = self.dead_rows = self.last_stored_us = 0
        self._telemetry = telemetry
        self._probe_s = probe_s
        self._thread = OneThread(self.label)
        store.report = self._report

    @property
    def problem(self) -> str:
        """Why it cannot be written now; empty when it can."""
        waited_s = (now_us() - self._asked_us) / 1e6 if self._asked_us else 0.0
        slow = f"{self.label}: {self._doing or f'no answer for {waited_s:.0f} s'}"
        return self._error or (slow if waited_s > SLOW_S else "")

    @property
    def problem_since_us(self) -> int:
        """Since when (UTC, microseconds); 0 when it can be written."""
        return self._error_since_us or (self._asked_us if self.problem else 0)

    async def once(self, call: Callable[[], T]) -> T:
        """One try; raises what the store raises."""
        return await self._thread.run(call)

    async def until_done(self, call: Callable[[], T]) -> T:
        """Try until it works, however long: other stores of the service go on meanwhile."""
        backoff = Backoff()
        while True:
            self._asked_us = now_us()
            try:
                result = await self._thread.run(call)
            except (StoreError, InputError) as error:
                self._failed(error)
                pause_s = self._pause_s(error, backoff)
            else:
                self._worked()
                return result
            finally:
                self._asked_us, self._doing = 0, ""
            await asyncio.sleep(pause_s)

    def count(self, result: WriteResult) -> None:
        """Note what became of a flush."""
        self.stored_rows += result.rows
        self.dead_rows += result.dead
        self.last_stored_us = now_us()
        self._telemetry.add("stored_rows", result.rows, store=self.label)
        if result.duplicates:
            self._telemetry.add("duplicate_rows", result.duplicates)
        if result.dropped:
            self._telemetry.add("dropped_rows", result.dropped, store=self.label, reason="beyond_retention")
            self._telemetry.warning(
                "rows_too_old", f"{self.label} does not keep rows this old: {result.dropped} were dropped"
            )
        if result.dead:
            self._telemetry.add("dead_rows", result.dead, store=self.label)
            self._telemetry.error(
                "rows_refused",
                f"{self.label} refused {result.dead} row{'' if result.dead == 1 else 's'} for what they hold; "
                "`raven deadletters` shows why and sends them again",
            )

    async def close(self, within_s: float) -> None:
        """Close the store and end the thread; a store that hangs is left behind, and closed should it come back."""
        closed = self._thread.submit(self.store.close)
        self._thread.stop()
        await asyncio.to_thread(wait, [closed], within_s)

    def _report(self, doing: str, /, **numbers: int) -> None:
        """The store tells, from a thread of its own, what takes it so long."""
        self._telemetry.warning("rows_searched", f"{self.label}: {doing}", **numbers)
        shown = ", ".join(f"{name.replace('_', ' ')}: {number:,}" for name, number in numbers.items())
        self._doing = f"{doing} ({shown})"

    def _failed(self, error: RavenError) -> None:
        text = f"{self.label}: {error}"
        if not self._error:
            self._error_since_us = now_us()
        self._error = self.last_error = text
        self.last_error_us = now_us()
        self._telemetry.add("retries", store=self.label)
        self._telemetry.set("store_up", 0, store=self.label)
        if needs_mending(error):
            self._telemetry.error("store_refused", f"{text}; it is tried every {self._probe_s:g} s")
        else:
            self._telemetry.warning("store_unavailable", f"{text}; it is tried again until it works")

    def _worked(self) -> None:
        self._telemetry.set("store_up", 1, store=self.label)
        if self._error:
            self._error, self._error_since_us = "", 0
            self._telemetry.info("store_back", f"{self.label} is being written again")

    def _pause_s(self, error: RavenError, backoff: Backoff) -> float:
        if isinstance(error, StoreUnavailableError) and not needs_mending(error):
            return max(backoff.next_s(), error.retry_after_s)
        backoff.reset()
        return self._probe_s * random.uniform(0.9, 1.1)  # noqa: S311 - jitter, not a secret


def needs_mending(error: RavenError) -> bool:
    """Whether somebody has to do something: all but a store that is merely not available now."""
    return not isinstance(error, StoreUnavailableError) or isinstance(error, StoreRefusedError)
