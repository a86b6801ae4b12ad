"""The source of one Binance venue: frames in, trade batches out.

Frames are received by `Feed`; what has come since is made into one batch: decode, put in order, append, publish. The
more has come, the larger the batch; nothing waits for a clock while there is work. Trades that are missing are
fetched by `Healer` meanwhile, and their symbol waits (`Hold`).
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

import polars as pl
import pyarrow as pa

from raven.batches.accumulator import Accumulator
from raven.batches.batch import BatchMeta
from raven.batches.gate import BadReason
from raven.batches.hold import Hold
from raven.batches.released import Released, joined
from raven.batches.schema import ORIGIN_REST, TRADE_SCHEMA, stream_schema, to_record_batch
from raven.clock import monotonic_ns
from raven.errors import JournalError
from raven.rpc.hub import Hub
from raven.rpc.pb import control_pb2
from raven.rpc.subscriptions import SubscriptionTable
from raven.settings import BinanceSettings
from raven.sources.binance.catch_up import CatchUp
from raven.sources.binance.connection import Frame
from raven.sources.binance.dead_letters import DeadLetters
from raven.sources.binance.epochs import Epochs
from raven.sources.binance.feed import Feed
from raven.sources.binance.heal import Healer
from raven.sources.binance.intake import Intake
from raven.sources.binance.messages import ControlReply
from raven.sources.binance.protocol import VenueProtocol
from raven.sources.binance.rest import BinanceRest
from raven.sources.binance.symbol_watch import SymbolWatch
from raven.sources.binance.symbols import SymbolList
from raven.sources.binance.venue_clock import ClockWatch
from raven.sources.binance.watermark import Watermark
from raven.telemetry import Telemetry

IDLE_S: Final = 1.0
HOLD_TICK_S: Final = 0.05
HEAL_AFTER_US: Final = 100_000


def trade_stream(venue: str) -> pa.Schema:
    """The schema of a venue's stream of trades."""
    return stream_schema(TRADE_SCHEMA, kind="trades", venue=venue)


class BinanceSource:
    """Collects the trades of the wanted symbols of one venue and publishes them through `hub`.

    `folder` holds the frames that could not be decoded and the trades that cannot be true.
    """

    def __init__(
        self, hub: Hub, settings: BinanceSettings, protocol: VenueProtocol, *, folder: Path, telemetry: Telemetry
    ) -> None:
        self.venue = protocol.venue
        self.facts = SubscriptionTable()
        self._hub = hub
        self._protocol = protocol
        self._telemetry = telemetry
        self._frames: Accumulator[Frame] = Accumulator(
            max_rows=settings.batch_max_rows, max_age_ns=settings.batch_max_age_ms * 1_000_000
        )
        self._hold = Hold(
            hub.journal.tail_ids(), max_us=round(settings.hold_max_s * 1e6), max_rows=settings.hold_max_rows
        )
        self.rest = BinanceRest(settings, protocol, telemetry=telemetry)
        self._intake = Intake(
            protocol, DeadLetters(folder / "dead_letters.jsonl"), answered=self._answered, telemetry=telemetry
        )
        self._catch_up = CatchUp(
            self.rest, protocol, hold=self._hold, wanted=self._intake.wanted, fetched=self._take_fetched,
            telemetry=telemetry,
        )  # fmt: skip
        self.feed = Feed(
            settings, protocol, frames=self._frames, telemetry=telemetry, is_behind=self._catch_up.is_behind,
            carried_again=self._catch_up.carried_again,
        )  # fmt: skip
        self._symbols = SymbolList(self.rest, protocol)
        self._watch = SymbolWatch(
            self._symbols, self.facts, venue=self.venue, poll_s=settings.symbols_poll_s, telemetry=telemetry
        )
        self._clock = ClockWatch(self._symbols, venue=self.venue, poll_s=settings.symbols_poll_s, telemetry=telemetry)
        self._healer = Healer(
            self.rest, protocol, fetched=self._take_fetched, absent=self._hold.absent, told=self._hold.told,
            telemetry=telemetry,
        )  # fmt: skip
        self._epochs = Epochs(self.rest, protocol, telemetry=telemetry)
        self._fetched: list[pl.DataFrame] = []
        self._ended: list[Released] = []
        self._turn = asyncio.Lock()
        self._watermark = Watermark()
        self._connections = 0
        self._published_ns = monotonic_ns()
        self._journal_failed = False

    # what the control plane calls, see raven.sources.source

    @property
    def on_symbols(self) -> Callable[[], Awaitable[None]] | None:
        """Awaited after each reading of the venue's list of symbols."""
        return self._watch.on_symbols

    @on_symbols.setter
    def on_symbols(self, called: Callable[[], Awaitable[None]] | None) -> None:
        self._watch.on_symbols = called

    async def check(self, symbols: Sequence[str]) -> Mapping[str, str]:
        """Those of `symbols` the venue does not have, each with why; when it cannot be asked, none."""
        return await self._watch.check(symbols, self.last_id)

    async def matching(self, pattern: str) -> Sequence[str]:
        """The symbols that trade now and match `pattern` (`*USDT`), sorted; raises ExchangeError."""
        return await self._symbols.matching(pattern)

    def want(self, symbols: Mapping[str, int | None]) -> None:
        """Collect these symbols from now on. Each comes with the last id before its session: no gap begins there."""
        self._intake.want(symbols)
        self.feed.want(symbols)
        self._hold.begin(symbols)
        self._watch.want(symbols)

    async def leave(self, symbols: Sequence[str]) -> None:
        """Collect `symbols` no more. What came of them is published before this returns, and nothing after it.

        What waits of them for missing ids is published without those.
        """
        self.feed.leave(symbols)
        self._watch.leave(symbols)
        await self._publish_pending()
        self._intake.leave(symbols)
        self._ended.append(self._hold.end(symbols, monotonic_ns() // 1_000))
        await self._publish_pending()
        self.facts.forget(self.venue, symbols)

    def last_id(self, symbol: str) -> int | None:
        """The last trade id of `symbol`; None when it was never collected."""
        return self._hold.last_id(symbol)

    @property
    def acknowledged(self) -> set[str]:
        """The symbols whose trades the exchange has confirmed to send."""
        return self.feed.acknowledged

    def links(self) -> list[control_pb2.Link]:
        """The connections to the exchange; its REST only while it lets no request through."""
        links = self.feed.links()
        if refusal := self.rest.refusal:
            links.append(
                control_pb2.Link(name="rest", target=self.rest.url, connected=False, error=refusal, needed=True)
            )
        return links

    def problems(self) -> list[str]:
        """Streams the exchange refuses."""
        return [f"{symbol}: {reason}" for symbol, reason in self.feed.refused.items()]

    # running

    async def run(self) -> None:
        """Receive and publish until cancelled; raises JournalError when the journal cannot be written."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self.feed.run())
            group.create_task(self._healer.run())
            group.create_task(self._catch_up.run())
            group.create_task(self._watch.run())
            group.create_task(self._clock.run())
            group.create_task(self._epochs.run(self._hold))
            group.create_task(self._publish_all())

    async def close(self) -> None:
        """Publish what was received, close the connections.

        What waits for missing ids is left to the next start, which finds the same gap and fetches all of it.
        """
        while self._frames.rows and not self._journal_failed:  # after a failure it would leave a hole before it
            await self._publish_pending()
        if self._hold.held_rows:
            self._telemetry.info(
                "held_left", f"{self._hold.held_rows} rows wait for others and are fetched at the next start"
            )
        await self.rest.close()

    def _answered(self, reply: ControlReply, connection: int) -> None:
        self.feed.answered(reply, connection)

    def _take_fetched(self, trades: pl.DataFrame) -> None:
        self._fetched.append(trades)
        self.feed.arrived.set()

    async def _publish_all(self) -> None:
        while True:
            self.feed.arrived.clear()
            if not (self._frames.rows or self._fetched or self._ended):
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(HOLD_TICK_S if self._hold.held else IDLE_S):
                        await self.feed.arrived.wait()
            if wait_ns := self._frames.wait_ns(monotonic_ns()):
                await asyncio.sleep(wait_ns / 1e9)
            await self._publish_pending()

    async def _publish_pending(self) -> None:
        """Publish what came and may go; time goes on for those who follow while the feed is proven alive."""
        async with self._turn:
            released = self._release(monotonic_ns() // 1_000)
            if released.rows.height or released.gaps or self._is_time_to_go_on():
                await self._publish(released)

    def _is_time_to_go_on(self) -> bool:
        is_idle = monotonic_ns() - self._published_ns >= IDLE_S * 1e9
        return is_idle and self.feed.connected and bool(self.feed.acknowledged)

    def _release(self, now_us: int) -> Released:
        trades = self._intake.decode(self._frames.take())
        self.feed.drained()
        if self._fetched:
            fetched, self._fetched = self._fetched, []
            trades = pl.concat([*fetched, trades])
        trades = self._intake.wanted_only(trades)
        latest_us = self._clock.latest_us(self._watermark.at(now_us), trades.get_column("ts_event"))
        trades, ahead = self._intake.in_time(trades, latest_us)
        if ahead.height and self._clock.doubt():  # fetched again they would be the same
            for symbol, trade_id in (
                ahead.filter(pl.col("origin") == ORIGIN_REST).select("symbol", "trade_id").iter_rows()
            ):
                self._hold.absent(symbol, trade_id, trade_id + 1)
        released = self._hold.take(trades, now_us)
        if self._ended:
            ended, self._ended = self._ended, []
            released = joined([*ended, released])
        self._intake.refuse(released.refused, BadReason.ID_AHEAD)
        self._healer.ask([item for item in self._hold.missing if item.since_us <= now_us - HEAL_AFTER_US])
        self._account(released)
        return released

    def _account(self, released: Released) -> None:
        if released.duplicates:
            self._telemetry.add("duplicate_rows", released.duplicates)
        if released.rows.height:
            healed = self.facts.observe(self.venue, released.rows, id_="trade_id", time="ts_event", price="price")
            self._telemetry.add("healed_rows", healed)
        for gap in released.gaps:
            self._telemetry.error(
                "gap", f"{gap.symbol}: {gap.missing_ids} trade ids were not received: {gap.reason}",
                symbol=gap.symbol, after_id=gap.after_id, before_id=gap.before_id,
            )  # fmt: skip
            self._telemetry.add("gaps", reason=gap.reason)
            self._telemetry.add("missing_ids", gap.missing_ids)
        self.facts.observe_gaps(self.venue, released.gaps)
        waits_for: Counter[str] = Counter()
        for item in self._hold.missing:
            waits_for[item.symbol] += item.missing_ids
        self.facts.observe_held(self.venue, waits_for)
        self._telemetry.set("held_rows", self._hold.held_rows)
        self._telemetry.set("held_symbols", len(self._hold.held))
        if released.fallen:
            self._epochs.consider(released.fallen, lambda symbol: self.facts.of(self.venue, symbol).last_us)

    async def _publish(self, released: Released) -> None:
        trades = released.rows
        now_us = monotonic_ns() // 1_000
        if self.feed.connections_opened != self._connections:
            self._connections = self.feed.connections_opened
            self._watermark.go_on(now_us)  # not for the time it was disconnected
        self._watermark.advance(trades.get_column("ts_event").max() if trades.height else None, now_us)
        watermark_us = self._watermark.at(now_us) if self.feed.connected else None
        held = self._hold.held
        if watermark_us is not None:  # it does not speak for symbols whose trades may have been missed already
            held = (*held, *sorted(self.feed.unreached.difference(held)))
        meta = BatchMeta(watermark_us=watermark_us, held=held, gaps=released.gaps)
        try:
            await self._hub.publish(to_record_batch(trades, self._hub.journal.schema), meta)
        except JournalError:
            self._journal_failed = True
            raise
        self._published_ns = monotonic_ns()
        self._telemetry.add("batches", upstream="exchange")
        self._telemetry.add("rows", trades.height, upstream="exchange")
        self._telemetry.set("pending_rows", self._frames.rows, queue="frames")
        if watermark_us is not None:
            self._telemetry.set("watermark_us", watermark_us)
