"""What a notebook imports: trades from any recording, bars of any frame, the stores, and live batches.

Every name here is also `raven.<name>`. Times are UTC; `start` and `end` take datetimes or ISO strings and bound
`[start, end)`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import aclosing
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final, Literal

import polars as pl

from raven.bars.sized import MEASURES
from raven.bars.time_bars import parse_every, with_empty
from raven.batches.ipc import decode
from raven.batches.schema import to_frame
from raven.builders import DollarBars, TickBars, TickImbalanceBars, TimeBars, VolumeBars, build
from raven.clock import utc
from raven.control.plan import VENUES, resolve_venue, target_from, target_of
from raven.errors import InputError, UpstreamError
from raven.journal import JournalReader
from raven.rpc.access import Access
from raven.rpc.client import Client
from raven.settings import load
from raven.sinks.delta import scan as delta
from raven.sinks.stores import delta_root, stores_in_force
from raven.sources.binance import BINANCE_SPOT
from raven.sources.recordings import iter_trades, read_trades
from raven.tabular import OnBad, Trades

__all__ = [
    "DollarBars",
    "TickBars",
    "TickImbalanceBars",
    "TimeBars",
    "VolumeBars",
    "dollar_bars",
    "iter_trades",
    "live",
    "read_trades",
    "replay",
    "scan_bars",
    "scan_trades",
    "tick_bars",
    "tick_imbalance_bars",
    "time_bars",
    "volume_bars",
]

Kind = Literal["trades", "time_bars", "tick_imbalance_bars"]
_SERVICE_OF: Final = {"time_bars": "raven_timebar", "tick_imbalance_bars": "raven_tibs"}
_CLOSED_BY_TRADES: Final = ("tib", *MEASURES)
"""How the labels of the bars in the table `tick_imbalance_bars` begin."""


def time_bars(
    trades: Trades,
    every: str | int | timedelta = "1m",
    *,
    partial: bool = False,
    fill_empty: bool = False,
    venue: str = "",
    symbol: str = "",
    on_bad: OnBad = "raise",
) -> pl.DataFrame:
    """Time bars of `trades`, one a row (columns of TIME_BAR_SCHEMA), by venue, symbol and time.

    `trades`: a frame, a lazy frame, or frames in order, with ts_event, price, quantity and side at least. A bar
    appears when a later trade has closed it; `partial` adds the open ones. Empty windows make no bar; `fill_empty`
    gives them one between the first and last bar of their symbol, of zero volume at the last close. Without
    trade_id `complete` is null. Raises InputError when columns or parameters do not fit.
    """
    bars = build(TimeBars(every, venue=venue, symbol=symbol, on_bad=on_bad), trades, partial=partial)
    return with_empty(bars, parse_every(every)) if fill_empty else bars


def tick_imbalance_bars(
    trades: Trades,
    *,
    initial_size: float = 100.0,
    initial_p_buy: float = 0.7,
    alpha_size: float = 0.1,
    alpha_imbl: float = 0.1,
    size_min: float = 50.0,
    size_max: float = 1000.0,
    min_imbalance: float = 0.0,
    max_ticks: int = 0,
    partial: bool = False,
    venue: str = "",
    symbol: str = "",
    on_bad: OnBad = "raise",
) -> pl.DataFrame:
    """Tick imbalance bars of `trades`, one a row (columns of TIB_SCHEMA); the parameters are of TickImbalanceBars."""
    builder = TickImbalanceBars(
        initial_size=initial_size,
        initial_p_buy=initial_p_buy,
        alpha_size=alpha_size,
        alpha_imbl=alpha_imbl,
        size_min=size_min,
        size_max=size_max,
        min_imbalance=min_imbalance,
        max_ticks=max_ticks,
        venue=venue,
        symbol=symbol,
        on_bad=on_bad,
    )
    return build(builder, trades, partial=partial)


def tick_bars(
    trades: Trades, ticks: int, *, partial: bool = False, venue: str = "", symbol: str = "", on_bad: OnBad = "raise"
) -> pl.DataFrame:
    """Bars of `ticks` trades each, one a row (columns of TIB_SCHEMA); `trades` and `partial` as in `time_bars`.

    theta is a bar's imbalance, buys less sells, and threshold the size it closed at; expected_size and
    expected_imbalance are null. A gap in trade ids ends a bar early, incomplete. Raises InputError when columns or
    parameters do not fit.
    """
    return build(TickBars(ticks, venue=venue, symbol=symbol, on_bad=on_bad), trades, partial=partial)


def volume_bars(
    trades: Trades, volume: float, *, partial: bool = False, venue: str = "", symbol: str = "", on_bad: OnBad = "raise"
) -> pl.DataFrame:
    """Bars of `volume` base units or just above, one a row; columns and arguments as in `tick_bars`.

    A bar closes with the trade that reaches the size, and no trade is split.
    """
    return build(VolumeBars(volume, venue=venue, symbol=symbol, on_bad=on_bad), trades, partial=partial)


def dollar_bars(
    trades: Trades, dollars: float, *, partial: bool = False, venue: str = "", symbol: str = "", on_bad: OnBad = "raise"
) -> pl.DataFrame:
    """Bars of `dollars` quote units or just above, one a row; columns and arguments as in `tick_bars`.

    A bar closes with the trade that reaches the size, and no trade is split.
    """
    return build(DollarBars(dollars, venue=venue, symbol=symbol, on_bad=on_bad), trades, partial=partial)


def replay(
    path: str | Path,
    *,
    symbols: str | Sequence[str] | None = None,
    start: datetime | str | None = None,
    end: datetime | str | None = None,
) -> Iterator[pl.DataFrame]:
    """The batches of the journal folder `path`, as they were cut, each with the rows that are asked for.

    Trades are bounded by ts_event, bars by open_time. Batches without such a row are left out. Raises InputError
    when `path` is no journal.
    """
    folder = Path(path)
    if not JournalReader.is_journal(folder):
        raise InputError(f"{folder} is no journal", hint="give a service's folder below `data`, or import files first")
    since = None if start is None else utc(start)
    until = None if end is None else utc(end)
    for entry in JournalReader(folder).entries():
        frame = to_frame(decode(entry.payload)[0])
        time = pl.col("ts_event" if "ts_event" in frame.columns else "open_time")
        if symbols is not None:
            frame = frame.filter(pl.col("symbol").is_in([symbols] if isinstance(symbols, str) else list(symbols)))
        if since is not None:
            frame = frame.filter(time >= since)
        if until is not None:
            frame = frame.filter(time < until)
        if frame.height:
            yield frame


def scan_trades(
    venue: str | None = None,
    symbol: str | None = None,
    start: datetime | str | None = None,
    end: datetime | str | None = None,
) -> pl.LazyFrame:
    """The stored trades, from the store that is configured, Delta Lake first; see `stores` in the settings.

    Columns: venue, symbol, trade_id, ts_event, ts_recv, price, quantity, side (`buy`/`sell`), origin, in no particular
    order. Raises StoreError when nothing has been stored yet, or the database cannot be asked.
    """
    settings, of_venue = load(), _venue(venue)
    if "delta" in stores_in_force(settings, "trades"):
        return delta.scan_trades(delta_root(settings), venue=of_venue, symbol=symbol, start=start, end=end)
    from raven.sinks import influx  # noqa: PLC0415 - loading it takes time that others save

    return influx.scan_trades(settings.influx, venue=of_venue, symbol=symbol, start=start, end=end)


def scan_bars(
    venue: str | None = None,
    symbol: str | None = None,
    spec: str | None = None,
    start: datetime | str | None = None,
    end: datetime | str | None = None,
    *,
    kind: Literal["time_bars", "tick_imbalance_bars"] | None = None,
) -> pl.LazyFrame:
    """The stored bars of one kind: as `kind` says, else the kind that `spec` is a label of, else time bars.

    From the store that is configured, Delta Lake first. All bars that trades close are of the kind
    `tick_imbalance_bars`. Raises StoreError when nothing has been stored yet, or the database cannot be asked.
    """
    by_trades = spec is not None and spec.partition("-")[0] in _CLOSED_BY_TRADES
    chosen = kind or ("tick_imbalance_bars" if by_trades else "time_bars")
    settings, of_venue = load(), _venue(venue)
    if "delta" in stores_in_force(settings, "bars"):
        root = delta_root(settings)
        return delta.scan_bars(root, chosen, venue=of_venue, symbol=symbol, spec=spec, start=start, end=end)
    from raven.sinks import timescale  # noqa: PLC0415 - likewise

    return timescale.scan_bars(
        settings.timescale, chosen, venue=of_venue, symbol=symbol, spec=spec, start=start, end=end
    )


def _venue(venue: str | None) -> str | None:
    """The venue a user names (`spot` too); raises InputError for one there is not."""
    return None if venue is None else resolve_venue(venue)


async def live(
    symbols: str | Sequence[str] | None = None,
    kind: Kind = "trades",
    *,
    venue: str | None = None,
    host: str = "",
    start: Literal["earliest", "latest"] | datetime = "latest",
) -> AsyncIterator[pl.DataFrame]:
    """Batches of the running service of `kind`, from now on, from the oldest kept, or from an append time.

    `symbols`: only their rows; they must be collected already (`ravenctl start`). `venue`: of trades the source to
    listen to, spot by default; of bars only those of this venue. `host`: where the service is, as in the settings by
    default. Raises UpstreamError when it cannot be reached or the connection is lost, InputError when nothing could
    ever come.
    """
    if kind != "trades" and kind not in _SERVICE_OF:
        raise InputError(f"there is no kind {kind}", hint=f"kinds: trades, {', '.join(_SERVICE_OF)}")
    chosen = _venue(venue)
    service = _SERVICE_OF.get(kind) or VENUES[chosen or BINANCE_SPOT]
    settings = load()
    found = target_of(settings, service)
    target = target_from(host, int(found.rpartition(":")[2])) if host else found
    begin = start if isinstance(start, str) else int(utc(start).timestamp() * 1e6)
    names = [symbols] if isinstance(symbols, str) else list(symbols or ())
    async with Client(target, Access.of(settings)) as client:
        if start == "latest":  # what is kept may be of symbols that are collected no more
            await _check_collected(client, service, names, chosen)
        async with aclosing(client.subscribe(begin, symbols=names)) as stream:
            async for _, payload in stream:
                if payload is None:
                    continue
                frame = to_frame(decode(payload)[0])
                if chosen is not None and "venue" in frame.columns:
                    frame = frame.filter(pl.col("venue") == chosen)
                if frame.height:
                    yield frame


async def _check_collected(client: Client, service: str, names: Sequence[str], venue: str | None) -> None:
    """Raises InputError when the service collects none, or not all, of what is to be listened to."""
    try:
        entries = await client.list()
    except UpstreamError:  # without a token a service tells another machine only its batches
        return
    collected = {entry.symbol for entry in entries if venue in (None, entry.venue)}
    if missing := sorted(set(names) - collected):
        raise InputError(
            f"{service} at {client.target} does not collect {', '.join(missing)}",
            hint=f"it collects {len(collected)} symbols, see `ravenctl list`; `ravenctl start` begins with one",
        )
