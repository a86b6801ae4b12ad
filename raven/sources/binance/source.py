"""The Binance spot source: frames in, trade batches out.

One task receives frames (`Feed`), one turns what has come since into a batch: decode, check ids, append, publish.
The more has come, the larger the batch; nothing waits for a clock while there is work.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

import polars as pl

from raven.batches.accumulator import Accumulator
from raven.batches.batch import BatchMeta, Gap
from raven.batches.schema import TRADE_DTYPES, TRADE_SCHEMA, stream_schema, to_record_batch
from raven.batches.selection import Instrument
from raven.batches.sequence import check_sequence
from raven.clock import monotonic_ns
from raven.errors import ExchangeError, JournalError
from raven.rpc.hub import Hub
from raven.rpc.pb import control_pb2
from raven.rpc.subscriptions import SubscriptionTable
from raven.sources.binance import BINANCE_SPOT
from raven.sources.binance.dead_letters import DeadLetters
from raven.sources.binance.feed import Feed, Frame
from raven.sources.binance.messages import Decoded, decode_frames
from raven.sources.binance.rest import BinanceRest
from raven.sources.binance.watermark import Watermark
from raven.telemetry import Telemetry

STREAM_SCHEMA: Final = stream_schema(TRADE_SCHEMA, kind="trades", venue=BINANCE_SPOT)
IDLE_S: Final = 1.0
ASKED_WHEN_STALE: Final = 5


class BinanceSource:
    """Collects the trades of the wanted symbols and publishes them through `hub`."""

    def __init__(
        self,
        hub: Hub,
        *,
        websocket_url: str,
        rest_url: str,
        folder: Path,
        batch_max_rows: int,
        batch_max_age_ms: int,
        stale_s: float,
        connect_timeout_s: float,
        telemetry: Telemetry,
    ) -> None:
        self._hub = hub
        self._telemetry = telemetry
        self._frames: Accumulator[Frame] = Accumulator(max_rows=batch_max_rows, max_age_ns=batch_max_age_ms * 1_000_000)
        self.feed = Feed(
            websocket_url, event="trade", frames=self._frames, stale_s=stale_s,
            connect_timeout_s=connect_timeout_s, telemetry=telemetry,
            is_behind=self._is_behind,
        )  # fmt: skip
        self.rest = BinanceRest(rest_url, timeout_s=connect_timeout_s)
        self.facts = SubscriptionTable()
        self.venue = BINANCE_SPOT
        self.on_symbols: Callable[[], Awaitable[None]] | None = None
        self._dead_letters = DeadLetters(folder / "dead_letters.jsonl")
        self._last_ids = hub.journal.tail_ids()
        self._before_session: dict[str, int | None] = {}
        self._watermark = Watermark()
        self._connections = 0
        self._journal_failed = False

    async def check(self, symbols: Sequence[str]) -> Mapping[str, str]:
        """Symbols the exchange does not have, each with why; when it cannot be asked, none is."""
        try:
            checks = await self.rest.check_symbols(list(symbols))
        except ExchangeError as error:
            self._telemetry.warning("symbols_unchecked", f"symbols are taken unchecked: {error}")
            return {}
        for check in checks:
            self.facts.of(BINANCE_SPOT, check.symbol).message = check.problem
        return {check.symbol: check.problem for check in checks if check.refused}

    async def matching(self, pattern: str) -> Sequence[str]:
        """The symbols that match."""
        await self.rest.check_symbols([pattern])
        return sorted(symbol for symbol in self.rest.symbols if Instrument(self.venue, pattern).matches(symbol))

    def is_acknowledged(self, symbol: str) -> bool:
        """Whether the exchange confirmed the stream."""
        return symbol in self.feed.acknowledged

    def links(self) -> list[control_pb2.Link]:
        """The exchange."""
        feed = self.feed
        return [
            control_pb2.Link(
                name="exchange", target=feed.url, connected=feed.connected, error=feed.error, needed=bool(feed.wanted)
            )
        ]

    def problems(self) -> list[str]:
        """Streams the exchange refuses."""
        return [f"{symbol}: {reason}" for symbol, reason in self.feed.refused.items()]

    def want(self, symbols: Mapping[str, int | None]) -> None:
        """Collect these symbols from now on. Each comes with the last id before its session: no gap begins there."""
        self.feed.want(symbols)
        self._before_session.update(symbols)

    def last_id(self, symbol: str) -> int | None:
        """The last trade id of `symbol`; None when it was never collected."""
        return self._last_ids.get(symbol)

    async def _is_behind(self, symbols: Sequence[str]) -> bool:
        """Whether the exchange has trades of one of `symbols` (the first few are asked) that did not come."""
        try:
            for symbol in symbols[:ASKED_WHEN_STALE]:
                newest = await self.rest.last_trade_id(symbol)
                if newest is not None and newest > self._last_ids.get(symbol, -1):
                    return True
        except ExchangeError as error:
            self._telemetry.warning("stale_unchecked", f"a silent connection is opened anew: {error}")
            return True
        return False

    def leave(self, symbols: Sequence[str]) -> None:
        """Collect `symbols` no more."""
        self.feed.leave(symbols)
        self.facts.forget(BINANCE_SPOT, symbols)

    async def run(self) -> None:
        """Receive and publish until cancelled; raises JournalError when the journal cannot be written."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self.feed.run())
            group.create_task(self._publish_all())

    async def close(self) -> None:
        """Publish what was received, close the connections."""
        while self._frames.rows and not self._journal_failed:  # after a failure it would leave a hole before it
            await self._publish_frames()
        await self.rest.close()

    async def _publish_all(self) -> None:
        while True:
            if not self._frames.rows:
                self.feed.arrived.clear()
                try:
                    async with asyncio.timeout(IDLE_S):
                        await self.feed.arrived.wait()
                except TimeoutError:
                    await self._publish_idle()
                    continue
            if wait_ns := self._frames.wait_ns(monotonic_ns()):
                await asyncio.sleep(wait_ns / 1e9)
            await self._publish_frames()

    async def _publish_idle(self) -> None:
        """Time goes on for those who follow, while the feed is proven alive."""
        if self.feed.connected and self.feed.acknowledged:
            await self._publish(pl.DataFrame(schema=TRADE_DTYPES), ())

    async def _publish_frames(self) -> None:
        items = self._frames.take()
        self.feed.drained()
        frames, stamps = zip(*items, strict=True)
        decoded = decode_frames(frames, stamps, event="trade")
        self._account(decoded, len(frames))
        checked = check_sequence(decoded.trades, self._last_ids)
        self._last_ids = checked.last_ids
        if checked.duplicates:
            self._telemetry.add("duplicate_rows", checked.duplicates)
        gaps = self._gaps(checked.gaps)
        if checked.accepted.height:
            self.facts.observe(BINANCE_SPOT, checked.accepted, id_="trade_id", time="ts_event", price="price")
        if checked.accepted.height or gaps:
            await self._publish(checked.accepted, gaps)

    def _gaps(self, jumps: Sequence[Gap]) -> tuple[Gap, ...]:
        """The jumps that are losses: ids between two sessions were not asked for."""
        gaps = []
        for jump in jumps:
            if self._before_session.get(jump.symbol) == jump.after_id:
                continue
            gaps.append(Gap(jump.symbol, jump.after_id, jump.before_id, final=True, reason="not received"))
            self._telemetry.error(
                "gap", f"{jump.symbol}: {jump.missing_ids} trade ids were not received",
                symbol=jump.symbol, after_id=jump.after_id, before_id=jump.before_id,
            )  # fmt: skip
            self._telemetry.add("gaps")
            self._telemetry.add("missing_ids", jump.missing_ids)
        self.facts.observe_gaps(BINANCE_SPOT, gaps)
        return tuple(gaps)

    def _account(self, decoded: Decoded, frames: int) -> None:
        self._telemetry.add("frames", frames)
        if decoded.other:
            self._telemetry.add("ignored_frames", decoded.other.total())
        for reply in decoded.control:
            self.feed.answered(reply)
        for dead in decoded.dead:
            self._telemetry.add("dead_frames", reason=dead.reason)
        if decoded.dead:
            self._dead_letters.keep(decoded.dead)
            self._telemetry.warning(
                "dead_frames",
                f"{len(decoded.dead)} frames could not be decoded",
                kept_in=self._dead_letters.path,
            )

    async def _publish(self, trades: pl.DataFrame, gaps: tuple[Gap, ...]) -> None:
        now_us = monotonic_ns() // 1_000
        if self.feed.connections != self._connections:
            self._connections = self.feed.connections
            self._watermark.go_on(now_us)  # not for the time it was disconnected
        self._watermark.advance(trades.get_column("ts_event").max() if trades.height else None, now_us)
        watermark_us = self._watermark.at(now_us) if self.feed.connected else None
        meta = BatchMeta(watermark_us=watermark_us, gaps=gaps)
        try:
            await self._hub.publish(to_record_batch(trades, STREAM_SCHEMA), meta)
        except JournalError:
            self._journal_failed = True
            raise
        self._telemetry.add("batches", upstream="exchange")
        self._telemetry.add("rows", trades.height, upstream="exchange")
        self._telemetry.set("pending_rows", self._frames.rows)
        if watermark_us is not None:
            self._telemetry.set("watermark_us", watermark_us)
