"""What a notebook imports: trades from any recording, bars of any frame, the stores, and live batches.

Every name here is also `raven.<name>`. Times are UTC; `start` and `end` take datetimes or ISO strings and bound
`[start, end)`.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from pathlib import Path

import polars as pl

from raven.bars.time_bars import parse_every, with_empty
from raven.batches.ipc import decode
from raven.batches.schema import to_frame
from raven.builders import (
    DollarBars,
    DroppedRowsWarning,
    TickBars,
    TickImbalanceBars,
    TimeBars,
    VolumeBars,
    build,
)
from raven.clock import utc
from raven.control.plan import resolve_venue
from raven.errors import InputError
from raven.journal import JournalReader
from raven.listening import live
from raven.scans import NotStoredWarning, scan_bars, scan_trades, stored
from raven.sources.recordings import RecordingWarning, iter_trades, read_trades
from raven.sources.recordings.paths import expand
from raven.sources.replay import Choice, open_recording
from raven.tabular import OnBad, Trades

__all__ = [
    "DollarBars",
    "DroppedRowsWarning",
    "NotStoredWarning",
    "RecordingWarning",
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
    "stored",
    "tick_bars",
    "tick_imbalance_bars",
    "time_bars",
    "volume_bars",
]


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

    Columns: venue, symbol, spec (String); open_time, close_time (Datetime[us, UTC]); open, high, low, close (Float64,
    quote per base unit); volume (Float64, base units); quote_volume (Float64, quote units); vwap (Float64, quote per
    base unit); buy_volume (Float64, base units); buy_quote_volume (Float64, quote units); buy_ticks, sell_ticks,
    total_ticks (Int64, trades); first_trade_id, last_trade_id (Int64); complete (Boolean); revision (Int64, twice
    total_ticks, and one more when complete).

    >>> trades = raven.read_trades("BTCUSDT-trades-2026-01-05.zip")
    >>> bars = raven.time_bars(trades, "15m", partial=True)
    >>> bars.select("open_time", "open", "high", "low", "close", "volume", "complete")
    shape: (4, 7)
    ┌─────────────────────────┬──────────┬──────────┬──────────┬──────────┬─────────┬──────────┐
    │ open_time               ┆ open     ┆ high     ┆ low      ┆ close    ┆ volume  ┆ complete │
    │ ---                     ┆ ---      ┆ ---      ┆ ---      ┆ ---      ┆ ---     ┆ ---      │
    │ datetime[μs, UTC]       ┆ f64      ┆ f64      ┆ f64      ┆ f64      ┆ f64     ┆ bool     │
    ╞═════════════════════════╪══════════╪══════════╪══════════╪══════════╪═════════╪══════════╡
    │ 2026-01-05 00:00:00 UTC ┆ 97216.19 ┆ 97332.51 ┆ 97007.3  ┆ 97305.4  ┆ 4.68105 ┆ false    │
    │ 2026-01-05 00:15:00 UTC ┆ 97306.5  ┆ 97539.63 ┆ 97186.98 ┆ 97203.52 ┆ 5.09825 ┆ true     │
    │ 2026-01-05 00:30:00 UTC ┆ 97193.91 ┆ 97306.83 ┆ 97067.04 ┆ 97221.65 ┆ 5.11986 ┆ true     │
    │ 2026-01-05 00:45:00 UTC ┆ 97237.57 ┆ 97520.54 ┆ 97213.42 ┆ 97450.95 ┆ 5.14936 ┆ false    │
    └─────────────────────────┴──────────┴──────────┴──────────┴──────────┴─────────┴──────────┘
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
    """Tick imbalance bars of `trades`, one a row, by venue, symbol and time; `trades` and `partial` as in `time_bars`.

    A bar closes when its buys outweigh its sells, or the reverse, by what the bars before it let expect; the parameters
    are those of `TickImbalanceBars`. Raises InputError when columns or parameters do not fit.

    Columns: venue, symbol, spec (String); open_time, close_time (Datetime[us, UTC]); open, high, low, close (Float64,
    quote per base unit); volume (Float64, base units); quote_volume (Float64, quote units); vwap (Float64, quote per
    base unit); buy_volume (Float64, base units); buy_quote_volume (Float64, quote units); buy_ticks, sell_ticks,
    total_ticks (Int64, trades); first_trade_id, last_trade_id (Int64); complete (Boolean); revision (Int64, twice
    total_ticks, and one more when complete); theta (Float64, buys less sells); threshold (Float64, buys less sells: a
    bar closes at |theta| >= |threshold|); expected_size (Float64, trades); expected_imbalance (Float64, buys less sells
    of a trade).

    >>> trades = raven.read_trades("BTCUSDT-trades-2026-01-05.zip")
    >>> bars = raven.tick_imbalance_bars(trades, initial_size=50, size_min=20)
    >>> bars.select("open_time", "close", "total_ticks", "theta", "threshold", "expected_size").head(3)
    shape: (3, 6)
    ┌────────────────────────────────┬──────────┬─────────────┬───────┬───────────┬───────────────┐
    │ open_time                      ┆ close    ┆ total_ticks ┆ theta ┆ threshold ┆ expected_size │
    │ ---                            ┆ ---      ┆ ---         ┆ ---   ┆ ---       ┆ ---           │
    │ datetime[μs, UTC]              ┆ f64      ┆ i64         ┆ f64   ┆ f64       ┆ f64           │
    ╞════════════════════════════════╪══════════╪═════════════╪═══════╪═══════════╪═══════════════╡
    │ 2026-01-05 00:00:00.021588 UTC ┆ 97141.34 ┆ 200         ┆ -20.0 ┆ 20.0      ┆ 50.0          │
    │ 2026-01-05 00:01:41.610428 UTC ┆ 97013.69 ┆ 79          ┆ -23.0 ┆ 22.75     ┆ 65.0          │
    │ 2026-01-05 00:02:25.541846 UTC ┆ 97061.95 ┆ 177         ┆ 19.0  ┆ 18.982835 ┆ 66.4          │
    └────────────────────────────────┴──────────┴─────────────┴───────┴───────────┴───────────────┘
    """
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
    """Bars of `ticks` trades each, one a row, by venue, symbol and time; `trades` and `partial` as in `time_bars`.

    A gap in trade ids ends a bar early, incomplete. Raises InputError when columns or parameters do not fit.

    Columns: venue, symbol, spec (String); open_time, close_time (Datetime[us, UTC]); open, high, low, close (Float64,
    quote per base unit); volume (Float64, base units); quote_volume (Float64, quote units); vwap (Float64, quote per
    base unit); buy_volume (Float64, base units); buy_quote_volume (Float64, quote units); buy_ticks, sell_ticks,
    total_ticks (Int64, trades); first_trade_id, last_trade_id (Int64); complete (Boolean); revision (Int64, twice
    total_ticks, and one more when complete); theta (Float64, buys less sells); threshold (Float64, the trades it closed
    at); expected_size (Float64, trades, null); expected_imbalance (Float64, buys less sells of a trade, null).

    >>> trades = raven.read_trades("BTCUSDT-trades-2026-01-05.zip")
    >>> bars = raven.tick_bars(trades, 1000)
    >>> bars.select("open_time", "close", "volume", "total_ticks", "theta", "complete").head(3)
    shape: (3, 6)
    ┌────────────────────────────────┬──────────┬─────────┬─────────────┬────────┬──────────┐
    │ open_time                      ┆ close    ┆ volume  ┆ total_ticks ┆ theta  ┆ complete │
    │ ---                            ┆ ---      ┆ ---     ┆ ---         ┆ ---    ┆ ---      │
    │ datetime[μs, UTC]              ┆ f64      ┆ f64     ┆ i64         ┆ f64    ┆ bool     │
    ╞════════════════════════════════╪══════════╪═════════╪═════════════╪════════╪══════════╡
    │ 2026-01-05 00:00:00.021588 UTC ┆ 97276.83 ┆ 2.64971 ┆ 1000        ┆ -112.0 ┆ false    │
    │ 2026-01-05 00:08:28.965375 UTC ┆ 97290.69 ┆ 2.50481 ┆ 1000        ┆ -44.0  ┆ true     │
    │ 2026-01-05 00:16:40.481025 UTC ┆ 97449.18 ┆ 2.98454 ┆ 1000        ┆ 50.0   ┆ true     │
    └────────────────────────────────┴──────────┴─────────┴─────────────┴────────┴──────────┘
    """
    return build(TickBars(ticks, venue=venue, symbol=symbol, on_bad=on_bad), trades, partial=partial)


def volume_bars(
    trades: Trades, volume: float, *, partial: bool = False, venue: str = "", symbol: str = "", on_bad: OnBad = "raise"
) -> pl.DataFrame:
    """Bars of `volume` base units or just above, one a row; arguments, order and errors as in `tick_bars`.

    A bar closes with the trade that reaches the size, and no trade is split.

    Columns: venue, symbol, spec (String); open_time, close_time (Datetime[us, UTC]); open, high, low, close (Float64,
    quote per base unit); volume (Float64, base units); quote_volume (Float64, quote units); vwap (Float64, quote per
    base unit); buy_volume (Float64, base units); buy_quote_volume (Float64, quote units); buy_ticks, sell_ticks,
    total_ticks (Int64, trades); first_trade_id, last_trade_id (Int64); complete (Boolean); revision (Int64, twice
    total_ticks, and one more when complete); theta (Float64, buys less sells); threshold (Float64, the base units it
    closed at); expected_size (Float64, trades, null); expected_imbalance (Float64, buys less sells of a trade, null).

    >>> trades = raven.read_trades("BTCUSDT-trades-2026-01-05.zip")
    >>> bars = raven.volume_bars(trades, 5)
    >>> bars.select("open_time", "close", "volume", "quote_volume", "total_ticks").head(3)
    shape: (3, 5)
    ┌────────────────────────────────┬──────────┬─────────┬───────────────┬─────────────┐
    │ open_time                      ┆ close    ┆ volume  ┆ quote_volume  ┆ total_ticks │
    │ ---                            ┆ ---      ┆ ---     ┆ ---           ┆ ---         │
    │ datetime[μs, UTC]              ┆ f64      ┆ f64     ┆ f64           ┆ i64         │
    ╞════════════════════════════════╪══════════╪═════════╪═══════════════╪═════════════╡
    │ 2026-01-05 00:00:00.021588 UTC ┆ 97312.22 ┆ 5.00032 ┆ 485982.830865 ┆ 1945        │
    │ 2026-01-05 00:16:17.224905 UTC ┆ 97197.59 ┆ 5.00074 ┆ 486864.782386 ┆ 1744        │
    │ 2026-01-05 00:30:44.355832 UTC ┆ 97253.28 ┆ 5.00551 ┆ 486444.34294  ┆ 1759        │
    └────────────────────────────────┴──────────┴─────────┴───────────────┴─────────────┘
    """
    return build(VolumeBars(volume, venue=venue, symbol=symbol, on_bad=on_bad), trades, partial=partial)


def dollar_bars(
    trades: Trades, dollars: float, *, partial: bool = False, venue: str = "", symbol: str = "", on_bad: OnBad = "raise"
) -> pl.DataFrame:
    """Bars of `dollars` quote units or just above, one a row; arguments, order and errors as in `tick_bars`.

    A bar closes with the trade that reaches the size, and no trade is split.

    Columns: venue, symbol, spec (String); open_time, close_time (Datetime[us, UTC]); open, high, low, close (Float64,
    quote per base unit); volume (Float64, base units); quote_volume (Float64, quote units); vwap (Float64, quote per
    base unit); buy_volume (Float64, base units); buy_quote_volume (Float64, quote units); buy_ticks, sell_ticks,
    total_ticks (Int64, trades); first_trade_id, last_trade_id (Int64); complete (Boolean); revision (Int64, twice
    total_ticks, and one more when complete); theta (Float64, buys less sells); threshold (Float64, the quote units it
    closed at); expected_size (Float64, trades, null); expected_imbalance (Float64, buys less sells of a trade, null).

    >>> trades = raven.read_trades("BTCUSDT-trades-2026-01-05.zip")
    >>> bars = raven.dollar_bars(trades, 500_000)
    >>> bars.select("open_time", "close", "volume", "quote_volume", "total_ticks").head(3)
    shape: (3, 5)
    ┌────────────────────────────────┬──────────┬─────────┬───────────────┬─────────────┐
    │ open_time                      ┆ close    ┆ volume  ┆ quote_volume  ┆ total_ticks │
    │ ---                            ┆ ---      ┆ ---     ┆ ---           ┆ ---         │
    │ datetime[μs, UTC]              ┆ f64      ┆ f64     ┆ f64           ┆ i64         │
    ╞════════════════════════════════╪══════════╪═════════╪═══════════════╪═════════════╡
    │ 2026-01-05 00:00:00.021588 UTC ┆ 97301.18 ┆ 5.14731 ┆ 500285.816749 ┆ 1998        │
    │ 2026-01-05 00:16:39.238509 UTC ┆ 97193.71 ┆ 5.13897 ┆ 500285.104842 ┆ 1811        │
    │ 2026-01-05 00:31:39.231939 UTC ┆ 97345.62 ┆ 5.14769 ┆ 500315.124228 ┆ 1826        │
    └────────────────────────────────┴──────────┴─────────┴───────────────┴─────────────┘
    """
    return build(DollarBars(dollars, venue=venue, symbol=symbol, on_bad=on_bad), trades, partial=partial)


def replay(
    *paths: str | Path,
    symbols: str | Sequence[str] | None = None,
    start: datetime | str | None = None,
    end: datetime | str | None = None,
    venue: str | None = None,
    on_bad: OnBad = "raise",
) -> Iterator[pl.DataFrame]:
    """The batches of recordings, each with the rows that are asked for; batches without such a row are left out.

    `paths`: what `raven replay` takes, several and patterns such as `"data/*.zip"`, too. Journal folders, of bars as
    well, come one after the other as they are given, their batches as they were cut. Files of trades come as one
    stream in the order of ids, whatever the order of files and rows, cut as a source would; they are read and put in
    order by this call. `venue` is for files that do not tell theirs. `on_bad`: at bad rows, and at two trades with one
    id, `raise`, or `skip` them; what was left out, repeats too, is told by a RecordingWarning.

    Trades are bounded by ts_event, bars by open_time. Raises InputError or JournalError when a path is no recording,
    when the paths do not belong together, or when there is nothing of the chosen symbols or time in the files.

    Journals of bars give the columns of `time_bars` or `tick_imbalance_bars`, trades these.

    Columns: symbol (String); trade_id (Int64); ts_event, ts_recv (Datetime[us, UTC]); price (Float64, quote per base
    unit); quantity (Float64, base units); side (Int8, the aggressor's: +1 buy, -1 sell); origin (Int8, 0 live, 1 REST,
    2 archive).

    >>> for trades in raven.replay("recording", symbols="BTCUSDT", start="2026-01-05T00:30"):
    ...     print(trades.height, trades["ts_event"].min())
    3600 2026-01-05 00:30:00.773329+00:00
    """
    if not paths:
        raise InputError("no recording was named to replay")
    found = expand(paths)
    wanted = frozenset([symbols] if isinstance(symbols, str) else symbols or ())
    bounds = [None if time is None else int(utc(time).timestamp() * 1e6) for time in (start, end)]
    choice = Choice(wanted, *bounds)
    if found and all(map(JournalReader.is_journal, found)):
        return _journal_batches([JournalReader(path) for path in found], choice)
    recording = open_recording(
        found, venue=None if venue is None else resolve_venue(venue), choice=choice, on_bad=on_bad
    )
    for sentence in recording.left_out.sentences():
        warnings.warn(f"{recording.name}: {sentence}", RecordingWarning, stacklevel=2)
    return (to_frame(recorded.batch) for recorded in recording.batches(None, {}))


def _journal_batches(journals: Sequence[JournalReader], choice: Choice) -> Iterator[pl.DataFrame]:
    streams = {(journal.kind, journal.venue): str(journal.path) for journal in journals}
    if len(streams) > 1:
        listed = ", ".join(f"{path} holds {kind} of {venue or 'all'}" for (kind, venue), path in streams.items())
        raise InputError(f"the journals are not of one stream: {listed}", hint="replay each on its own")
    entries = (entry for journal in journals for entry in journal.entries())
    frames = (choice.rows(to_frame(decode(entry.payload)[0])) for entry in entries)
    return (frame for frame in frames if frame.height)
