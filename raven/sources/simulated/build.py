"""A market out of what a user asked for."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from raven.errors import InputError
from raven.sources.simulated.generated import GeneratedMarket
from raven.sources.simulated.market import Market
from raven.sources.simulated.recorded import RecordedMarket
from raven.sources.simulated.venue import FUTURES, SPOT, Venue

_VENUES: Final = {
    **dict.fromkeys(("spot", "binance_spot"), (SPOT,)),
    **dict.fromkeys(("futures", "binance_futures"), (FUTURES,)),
    "both": (SPOT, FUTURES),
}


def find_venues(name: str) -> tuple[Venue, ...]:
    """The venues that `name` stands for; raises InputError when it is none."""
    found = _VENUES.get(name.lower())
    if found is None:
        raise InputError(f"{name} is no venue", hint=f"one of {', '.join(_VENUES)}")
    return found


def build_market(
    play: Sequence[Path] | None = None,
    *,
    symbols: Sequence[str] | None = None,
    seed: int = 0,
    rate: float | None = None,
    speed: float | None = 1.0,
    start_us: int | None = None,
) -> Market:
    """A recorded market of the files `play`, of which only `symbols` where given; without files a generated one.

    `rate` is trades a second: with files of all symbols together, irrespective of the recorded times; generated of
    each symbol (20 unless given). `speed` is 1.0 for real time, a factor of it, or None for as fast as it is read.
    `seed` and `start_us` (UTC, microseconds) are of a generated market. Raises InputError when something does not fit.
    """
    if not play:
        return GeneratedMarket(
            symbols or ("BTCUSDT", "ETHUSDT"),
            seed=seed,
            trades_per_second=20.0 if rate is None else rate,
            speed=speed,
            start_us=start_us,
        )
    if start_us is not None:
        raise InputError("a recording begins where it begins", hint="a start is for a generated market")
    from raven.sources.recordings import read_trades  # noqa: PLC0415 - a generated market reads no files

    trades = read_trades(*play)
    if symbols:
        missing = sorted(set(symbols) - set(trades.get_column("symbol").unique()))
        if missing:
            raise InputError(f"not in the recording: {', '.join(missing)}")
        trades = trades.filter(trades.get_column("symbol").is_in(list(symbols)))
    return RecordedMarket(trades, speed=speed, rate=rate)
