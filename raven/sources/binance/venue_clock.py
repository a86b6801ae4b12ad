"""The exchange's clock, as far as it is known: what is of a later time has not happened."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Final

import polars as pl

from raven.batches.gate import AFTER_ALL_US
from raven.clock import Backoff, monotonic_ns, now_us
from raven.errors import ExchangeError
from raven.sources.binance.symbols import SymbolList
from raven.telemetry import Telemetry

UNKNOWN_US: Final = AFTER_ALL_US
"""The bound of what is read before it is judged by the exchange's clock, whatever ours says."""

MOST_AHEAD_US: Final = 60_000_000
"""How far a trade may be ahead of it: clocks differ and answers take their time, but not minutes."""
MOST_UNKNOWN_US: Final = 86_400_000_000
"""How far of this machine's clock while nothing is known of the exchange's. One that is further behind is of another
day: a recording that is played."""

MOST_OFFSET_MS: Final = 1_000.0
DOUBT_EVERY_S: Final = 1.0
LEAST_TIMES: Final = 3
FRESH_US: Final = 5_000_000


class VenueClock:
    """What time it is at the exchange at the latest. Pure: `wall_us` is UTC, `monotonic_us` never jumps.

    This machine's clock may be set, or wrong, and its monotonic one stands still while the machine sleeps: of what the
    exchange said, carried on by either, and of the newest trade so far, the latest holds.
    """

    def __init__(self) -> None:
        self._offset_us: int | None = None
        self._venue_us = 0
        self._at_us = 0

    def told(self, offset_us: int, wall_us: int, monotonic_us: int) -> None:
        """The exchange's clock was found to be ahead of ours by so much."""
        self._offset_us, self._venue_us, self._at_us = offset_us, wall_us + offset_us, monotonic_us

    def is_fresh(self, monotonic_us: int) -> bool:
        """Whether the exchange has told it just now."""
        return self._offset_us is not None and monotonic_us - self._at_us < FRESH_US

    def latest_us(self, wall_us: int, monotonic_us: int, watermark_us: int | None) -> int:
        """No trade can have a later time. `watermark_us`: the newest trade's, carried on to now."""
        if self._offset_us is not None and self._offset_us > -MOST_UNKNOWN_US:
            carried_us = self._venue_us + monotonic_us - self._at_us
            return max(wall_us + self._offset_us, carried_us) + MOST_AHEAD_US
        if self._offset_us is None and watermark_us is None:
            return wall_us + MOST_UNKNOWN_US
        return max(wall_us, watermark_us or 0) + MOST_AHEAD_US


class ClockWatch:
    """Measures the exchange's clock every `poll_s`, and when trades seem to be of a later time."""

    def __init__(self, symbols: SymbolList, *, venue: str, poll_s: float, telemetry: Telemetry) -> None:
        self.clock = VenueClock()
        self._symbols = symbols
        self._venue = venue
        self._poll_s = poll_s
        self._telemetry = telemetry
        self._doubted = asyncio.Event()
        self._is_off = False

    def doubt(self) -> bool:
        """Trades seem to be ahead of the clock: it is measured soon. Whether it was just now, so that they are."""
        self._doubted.set()
        return self.clock.is_fresh(monotonic_ns() // 1_000)

    def latest_us(self, watermark_us: int | None, times: pl.Series) -> int:
        """As VenueClock's, now. The middle one of the first `times` stands for the watermark that is not there yet."""
        if watermark_us is None and len(times) >= LEAST_TIMES:
            watermark_us = int(times.dt.epoch("us").median())  # type: ignore[arg-type]  # of numbers
        return self.clock.latest_us(now_us(), monotonic_ns() // 1_000, watermark_us)

    async def run(self) -> None:
        """Work until cancelled."""
        backoff = Backoff(DOUBT_EVERY_S, 60.0)
        while True:
            pause_s = self._poll_s
            self._doubted.clear()
            try:
                await self._measure()
                backoff.reset()
            except ExchangeError:  # that it cannot be asked is told where its list of symbols is read
                pause_s = min(pause_s, backoff.next_s())
            await asyncio.sleep(min(pause_s, DOUBT_EVERY_S))
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(max(0.0, pause_s - DOUBT_EVERY_S)):
                    await self._doubted.wait()

    async def _measure(self) -> None:
        offset_ms = await self._symbols.clock_offset_ms()
        self.clock.told(round(offset_ms * 1_000), now_us(), monotonic_ns() // 1_000)
        self._telemetry.set("clock_offset_ms", offset_ms)
        if abs(offset_ms) > MOST_OFFSET_MS and not self._is_off:
            self._telemetry.warning(
                "clock_offset", f"the clock of {self._venue} is {offset_ms / 1000:+.1f} s from ours",
                hint="latencies are wrong by as much; check this machine's time service",
            )  # fmt: skip
        self._is_off = abs(offset_ms) > MOST_OFFSET_MS
