"""Batches of running services, as a notebook listens to them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing
from datetime import datetime
from typing import Final, Literal

import polars as pl

from raven.batches.ipc import decode
from raven.batches.schema import to_frame
from raven.clock import utc
from raven.control.plan import VENUES, resolve_venue, target_from, target_of
from raven.errors import InputError, UpstreamError
from raven.rpc.access import Access
from raven.rpc.client import Client
from raven.settings import load
from raven.sources.binance import BINANCE_SPOT

Kind = Literal["trades", "time_bars", "tick_imbalance_bars"]
_SERVICE_OF: Final = {"time_bars": "raven_timebar", "tick_imbalance_bars": "raven_tibs"}


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

    Bars have the columns of `time_bars` or `tick_imbalance_bars`, trades these.

    Columns: symbol (String); trade_id (Int64); ts_event, ts_recv (Datetime[us, UTC]); price (Float64, quote per base
    unit); quantity (Float64, base units); side (Int8, the aggressor's: +1 buy, -1 sell); origin (Int8, 0 live, 1 REST,
    2 archive).

    >>> import asyncio
    >>> async def first(symbol):
    ...     async for trades in raven.live(symbol, start="earliest"):
    ...         return trades
    >>> asyncio.run(first("BTCUSDT")).select("symbol", "ts_event", "price", "side").head(2)
    shape: (2, 4)
    ┌─────────┬────────────────────────────────┬──────────┬──────┐
    │ symbol  ┆ ts_event                       ┆ price    ┆ side │
    │ ---     ┆ ---                            ┆ ---      ┆ ---  │
    │ str     ┆ datetime[μs, UTC]              ┆ f64      ┆ i8   │
    ╞═════════╪════════════════════════════════╪══════════╪══════╡
    │ BTCUSDT ┆ 2026-01-05 00:00:00.021588 UTC ┆ 97216.19 ┆ -1   │
    │ BTCUSDT ┆ 2026-01-05 00:00:00.045790 UTC ┆ 97216.34 ┆ 1    │
    └─────────┴────────────────────────────────┴──────────┴──────┘

    A notebook needs no `asyncio.run`: `async for` works in its cells.
    """
    if kind != "trades" and kind not in _SERVICE_OF:
        raise InputError(f"there is no kind {kind}", hint=f"kinds: trades, {', '.join(_SERVICE_OF)}")
    chosen = None if venue is None else resolve_venue(venue)
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
