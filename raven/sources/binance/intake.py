"""What came of a venue, made into trades that can be true: of symbols that are wanted, and not of a time to come."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from typing import Final

import polars as pl

from raven.batches.gate import BadReason
from raven.batches.released import NO_TRADES
from raven.sources.binance.connection import Frame
from raven.sources.binance.dead_letters import DeadLetters
from raven.sources.binance.messages import ControlReply, decode_frames
from raven.sources.binance.protocol import VenueProtocol
from raven.sources.binance.venue_clock import UNKNOWN_US
from raven.telemetry import Telemetry

STOPPED: Final = "stopped"
NOT_ASKED_FOR: Final = "not_asked_for"


class Intake:
    """Decodes frames and leaves out what is not to be taken, each row counted with its reason.

    `answered` is given what the exchange says about a connection, with its number.
    """

    def __init__(
        self, protocol: VenueProtocol, dead_letters: DeadLetters, *,
        answered: Callable[[ControlReply, int], None], telemetry: Telemetry,
    ) -> None:  # fmt: skip
        self.wanted: set[str] = set()
        self._event = protocol.event
        self._dead_letters = dead_letters
        self._answered = answered
        self._telemetry = telemetry
        self._left: set[str] = set()
        self._names = pl.Series(dtype=pl.List(pl.String))  # of what is wanted, as a list in one row

    def want(self, symbols: Iterable[str]) -> None:
        """Take the trades of these too."""
        self.wanted.update(symbols)
        self._left.difference_update(symbols)
        self._names = pl.Series(sorted(self.wanted), dtype=pl.String).implode()

    def leave(self, symbols: Iterable[str]) -> None:
        """Take no more trades of these, though some may be under way."""
        self._left.update(self.wanted.intersection(symbols))
        self.wanted.difference_update(symbols)
        self._names = pl.Series(sorted(self.wanted), dtype=pl.String).implode()

    def decode(self, items: Sequence[Frame]) -> pl.DataFrame:
        """The trades of received frames."""
        if not items:
            return NO_TRADES
        frames, stamps, connections = zip(*items, strict=True)
        decoded = decode_frames(frames, stamps, event=self._event, latest_us=UNKNOWN_US)
        self._telemetry.add("frames", len(frames))
        self._telemetry.add("bytes", sum(map(len, frames)), upstream="exchange")
        if decoded.other:
            self._telemetry.add("ignored_frames", decoded.other.total())
        for reply, position in zip(decoded.control, decoded.control_at, strict=True):
            self._answered(reply, connections[position])
        for dead in decoded.dead:
            self._telemetry.add("dead_frames", reason=dead.reason)
        if decoded.dead:
            self._keep(len(decoded.dead), lambda: self._dead_letters.keep(decoded.dead))
        return decoded.trades

    def wanted_only(self, trades: pl.DataFrame) -> pl.DataFrame:
        """Those of `trades` whose symbols are wanted."""
        if not trades.height:
            return trades
        symbols = trades.get_column("symbol")
        is_wanted = symbols.is_in(self._names)
        if is_wanted.all():
            return trades
        stopped = int(symbols.is_in(list(self._left)).sum())
        strange = trades.height - int(is_wanted.sum()) - stopped
        if stopped:
            self._telemetry.add("unwanted_rows", stopped, reason=STOPPED)
        if strange:
            self._telemetry.add("unwanted_rows", strange, reason=NOT_ASKED_FOR)
            self._telemetry.warning(
                "unwanted",
                "the exchange sends trades of symbols that nobody asked for: they are left out",
                rows=strange,
            )
        return trades.filter(is_wanted)

    def in_time(self, trades: pl.DataFrame, latest_us: int) -> tuple[pl.DataFrame, pl.DataFrame]:
        """Those of `trades` that may be taken, and those that are later than `latest_us` (Unix microseconds)."""
        times = trades.get_column("ts_event")
        newest = times.max()
        if not isinstance(newest, datetime) or newest.timestamp() * 1e6 <= latest_us:
            return trades, NO_TRADES
        is_ahead = times.dt.epoch("us") > latest_us
        ahead = trades.filter(is_ahead)
        self.refuse(ahead, BadReason.TIME_AHEAD)
        return trades.filter(~is_ahead), ahead

    def refuse(self, trades: pl.DataFrame, reason: BadReason) -> None:
        """Put trades that cannot be true to the dead letters."""
        if trades.height:
            self._telemetry.add("dead_frames", trades.height, reason=reason)
            self._keep(trades.height, lambda: self._dead_letters.keep_trades(trades, reason))

    def _keep(self, frames: int, keep: Callable[[], None]) -> None:
        try:
            keep()
            kept_in = str(self._dead_letters.path)
        except OSError as error:  # they are counted, and nothing else waits for them
            kept_in = f"nothing: {self._dead_letters.path}: {error.strerror or error}"
        self._telemetry.warning("dead_frames", "frames could not be used", frames=frames, kept_in=kept_in)
