"""The stores as a notebook reads them: lazy frames of trades and bars, in order, and the list of all that is there."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from datetime import datetime
from typing import Final, Literal

import polars as pl

from raven.bars.sized import MEASURES
from raven.control.plan import resolve_venue
from raven.errors import InputError, StoreError
from raven.settings import Settings, load
from raven.sinks.contents import not_stored
from raven.sinks.delta import contents as delta_contents
from raven.sinks.delta import scan as delta
from raven.sinks.encode import BARS, TRADES, Layout
from raven.sinks.store import BarKind
from raven.sinks.stores import delta_root, stores_in_force

_CLOSED_BY_TRADES: Final = ("tib", *MEASURES)
"""How the labels of the bars in the table `tick_imbalance_bars` begin."""


class NotStoredWarning(UserWarning):
    """No row of what was asked for is stored: a name may be misspelt."""


def scan_trades(
    venue: str | None = None,
    symbol: str | None = None,
    start: datetime | str | None = None,
    end: datetime | str | None = None,
    *,
    ordered: bool = True,
) -> pl.LazyFrame:
    """The stored trades, from the store that is configured, Delta Lake first; see `stores` in the settings.

    They come by venue, symbol and trade_id, whatever the store. The order is made when the frame is collected, of the
    rows that its filters leave, which have to fit in memory: some six million a second. `ordered=False` leaves it out:
    any order, quicker, and in streams. A venue or symbol of which nothing is stored is a NotStoredWarning with the
    nearest names, where the store tells it at once, and an empty frame. Raises StoreError when nothing has been stored
    yet, or the database cannot be asked.

    Columns: venue, symbol (String); trade_id (Int64); ts_event, ts_recv (Datetime[us, UTC]); price (Float64, quote per
    base unit); quantity (Float64, base units); side (String, `buy` or `sell`, the aggressor's); origin (Int8, 0 live, 1
    REST, 2 archive).

    >>> trades = raven.scan_trades("spot", "BTCUSDT", start="2026-01-05", end="2026-01-06")
    >>> trades.select("trade_id", "ts_event", "price", "side").head(2).collect()
    shape: (2, 4)
    ┌───────────┬────────────────────────────────┬──────────┬──────┐
    │ trade_id  ┆ ts_event                       ┆ price    ┆ side │
    │ ---       ┆ ---                            ┆ ---      ┆ ---  │
    │ i64       ┆ datetime[μs, UTC]              ┆ f64      ┆ str  │
    ╞═══════════╪════════════════════════════════╪══════════╪══════╡
    │ 379468801 ┆ 2026-01-05 00:00:00.021588 UTC ┆ 97216.19 ┆ sell │
    │ 379468802 ┆ 2026-01-05 00:00:00.045790 UTC ┆ 97216.34 ┆ buy  │
    └───────────┴────────────────────────────────┴──────────┴──────┘
    """
    settings, asked = load(), {"venue": _venue(venue), "symbol": symbol}
    if "delta" in stores_in_force(settings, "trades"):
        rows = delta.scan_trades(delta_root(settings), **asked, start=start, end=end)
    else:
        from raven.sinks import influx  # noqa: PLC0415 - loading it takes time that others save

        rows = influx.scan_trades(settings.influx, **asked, start=start, end=end)
    _warn_of_nothing(settings, TRADES, asked)
    return _in_order(rows, TRADES, asked) if ordered else rows


def scan_bars(
    venue: str | None = None,
    symbol: str | None = None,
    spec: str | None = None,
    start: datetime | str | None = None,
    end: datetime | str | None = None,
    *,
    kind: Literal["time_bars", "tick_imbalance_bars"] | None = None,
    ordered: bool = True,
) -> pl.LazyFrame:
    """The stored bars of one kind: as `kind` says, else the kind that `spec` is a label of, else time bars.

    From the store that is configured, Delta Lake first. All bars that trades close, not the clock, are of the kind
    `tick_imbalance_bars`. They come by venue, symbol and open_time, those that trades close by first_trade_id, and
    where several specs are stored by spec last; `ordered`, and a name that is not stored, as in `scan_trades`. `start`
    and `end` bound open_time. Raises StoreError when nothing has been stored yet, or the database cannot be asked.

    Columns: venue, symbol, spec (String); open_time, close_time (Datetime[us, UTC]); open, high, low, close (Float64,
    quote per base unit); volume (Float64, base units); quote_volume (Float64, quote units); vwap (Float64, quote per
    base unit); buy_volume (Float64, base units); buy_quote_volume (Float64, quote units); buy_ticks, sell_ticks,
    total_ticks (Int64, trades); first_trade_id, last_trade_id (Int64); complete (Boolean); revision (Int64, twice
    total_ticks, and one more when complete). Bars that trades close also: theta (Float64, buys less sells); threshold
    (Float64, what they closed on); expected_size (Float64, trades); expected_imbalance (Float64, buys less sells of a
    trade).

    >>> bars = raven.scan_bars("spot", "BTCUSDT", "1m").collect()
    >>> bars.select("open_time", "close", "volume", "complete").head(2)
    shape: (2, 4)
    ┌─────────────────────────┬──────────┬─────────┬──────────┐
    │ open_time               ┆ close    ┆ volume  ┆ complete │
    │ ---                     ┆ ---      ┆ ---     ┆ ---      │
    │ datetime[μs, UTC]       ┆ f64      ┆ f64     ┆ bool     │
    ╞═════════════════════════╪══════════╪═════════╪══════════╡
    │ 2026-01-05 00:00:00 UTC ┆ 97170.27 ┆ 0.34829 ┆ false    │
    │ 2026-01-05 00:01:00 UTC ┆ 97075.65 ┆ 0.47983 ┆ true     │
    └─────────────────────────┴──────────┴─────────┴──────────┘
    """
    by_trades = spec is not None and spec.partition("-")[0] in _CLOSED_BY_TRADES
    chosen: BarKind = kind or ("tick_imbalance_bars" if by_trades else "time_bars")
    settings, asked = load(), {"venue": _venue(venue), "symbol": symbol, "spec": spec}
    if "delta" in stores_in_force(settings, "bars"):
        rows = delta.scan_bars(delta_root(settings), chosen, **asked, start=start, end=end)
    else:
        from raven.sinks import timescale  # noqa: PLC0415 - likewise

        rows = timescale.scan_bars(settings.timescale, chosen, **asked, start=start, end=end)
    _warn_of_nothing(settings, BARS[chosen], asked)
    return _in_order(rows, BARS[chosen], asked) if ordered else rows


def stored() -> pl.DataFrame:
    """What `scan_trades` and `scan_bars` find: a row for the trades of each symbol, and one for its bars of each spec.

    Counted anew at each call. Delta Lake: the columns of the names and times are read, in streams, about a second for
    fifty million rows and little memory. A database counts by itself and reads all its rows for that, InfluxDB a day at
    a time: of billions that takes minutes. Nothing stored is an empty frame. Raises StoreError when a database cannot
    be asked.

    Columns: venue, symbol (String); spec (String, null for trades); rows (Int64); first_time, last_time (Datetime[us,
    UTC], of trades their ts_event, of bars their open_time). By venue, symbol and spec, trades first.

    >>> raven.stored().select("venue", "symbol", "spec", "rows", "last_time")
    shape: (3, 5)
    ┌──────────────┬─────────┬──────────┬──────┬────────────────────────────────┐
    │ venue        ┆ symbol  ┆ spec     ┆ rows ┆ last_time                      │
    │ ---          ┆ ---     ┆ ---      ┆ ---  ┆ ---                            │
    │ str          ┆ str     ┆ str      ┆ i64  ┆ datetime[μs, UTC]              │
    ╞══════════════╪═════════╪══════════╪══════╪════════════════════════════════╡
    │ BINANCE_SPOT ┆ BTCUSDT ┆ null     ┆ 7200 ┆ 2026-01-05 00:59:58.249886 UTC │
    │ BINANCE_SPOT ┆ BTCUSDT ┆ 1m       ┆ 59   ┆ 2026-01-05 00:58:00 UTC        │
    │ BINANCE_SPOT ┆ BTCUSDT ┆ tick-500 ┆ 14   ┆ 2026-01-05 00:54:21.087712 UTC │
    └──────────────┴─────────┴──────────┴──────┴────────────────────────────────┘
    """
    settings = load()
    found = [_contents(settings, layout) for layout in (TRADES, *BARS.values())]
    return pl.concat(found).sort("venue", "symbol", "spec", maintain_order=True)


def _in_order(rows: pl.LazyFrame, layout: Layout, asked: Mapping[str, str | None]) -> pl.LazyFrame:
    """`rows` sorted as the docstrings say; what is the same in all rows costs no comparison."""
    order = ["venue", "symbol", layout.key, *(name for name in layout.group if name == "spec")]
    return rows.sort([name for name in order if asked.get(name) is None])


def _warn_of_nothing(settings: Settings, layout: Layout, asked: Mapping[str, str | None]) -> None:
    given = {name: value for name, value in asked.items() if value is not None}
    groups = _groups(settings, layout, given) if given else None
    message = None if groups is None else not_stored(groups, given, layout.name)
    if message is not None:
        warnings.warn(message, NotStoredWarning, stacklevel=3)


def _groups(settings: Settings, layout: Layout, asked: Mapping[str, str]) -> pl.DataFrame | None:
    """The groups of rows that are stored; None when it is not told soon, or one as `asked` was found before."""
    if "delta" in stores_in_force(settings, "trades" if layout is TRADES else "bars"):
        return delta_contents.groups(delta_root(settings), layout)
    try:
        if layout is TRADES:
            from raven.sinks.influx import contents as influx  # noqa: PLC0415 - likewise

            return influx.groups(settings.influx)
        from raven.sinks.timescale import contents as timescale  # noqa: PLC0415 - likewise

        return timescale.groups_without(settings.timescale, layout, asked)
    except StoreError:  # the scan itself has just been answered
        return None


def _contents(settings: Settings, layout: Layout) -> pl.DataFrame:
    if "delta" in stores_in_force(settings, "trades" if layout is TRADES else "bars"):
        return delta_contents.contents(delta_root(settings), layout)
    if layout is TRADES:
        from raven.sinks.influx import contents as influx  # noqa: PLC0415 - likewise

        return influx.contents(settings.influx)
    from raven.sinks.timescale import contents as timescale  # noqa: PLC0415 - likewise

    return timescale.contents(settings.timescale, layout)


def _venue(venue: str | None) -> str | None:
    """The venue that a user names (`spot` too), or the name as it is: a store may hold venues of others."""
    try:
        return None if venue is None else resolve_venue(venue)
    except InputError:
        return venue
