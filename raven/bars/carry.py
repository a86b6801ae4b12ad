"""The carried state of a bar type: a frame of plain columns, one row a symbol, and its NumPy view.

Columns every bar type carries (a bar type adds its own):

- `symbol`; `late_ticks`: how many of its trades came with a ts_event below their predecessor's;
- the symbol's newest bar: open_time_us, open, high, low, close, volume, quote_volume, buy_volume,
  buy_quote_volume, buy_ticks, total_ticks, first_trade_id, last_trade_id;
- `last_time_us`: the running maximum of ts_event, which is also the newest bar's last time;
- `start_seen`: the trade just before the newest bar was seen, so no trade is missing at its start.

`total_ticks` 0 says that no bar is open; `last_trade_id` and `last_time_us` then still stand for the last
trade.
"""

from __future__ import annotations

from typing import Any, Final, TypeAlias

import numpy as np
import polars as pl
from numpy.typing import NDArray

Array: TypeAlias = NDArray[Any]
Columns: TypeAlias = dict[str, Array]
Defaults: TypeAlias = dict[str, int | float | bool]

INT64_MIN: Final = -(2**63)
NO_ID: Final = INT64_MIN
"""Stands for a missing trade id inside the kernels; the bars carry null instead."""

NEVER: Final = INT64_MIN
"""The running maximum of ts_event before the first trade."""

COMMON_DEFAULTS: Final[Defaults] = {
    "open_time_us": 0,
    "last_time_us": NEVER,
    "open": 0.0,
    "high": 0.0,
    "low": 0.0,
    "close": 0.0,
    "volume": 0.0,
    "quote_volume": 0.0,
    "buy_volume": 0.0,
    "buy_quote_volume": 0.0,
    "buy_ticks": 0,
    "total_ticks": 0,
    "first_trade_id": NO_ID,
    "last_trade_id": NO_ID,
    "start_seen": False,
    "late_ticks": 0,
}


def empty_state(defaults: Defaults) -> pl.DataFrame:
    """The state before the first trade: no rows, one column for each default, typed like it."""
    return pack(pl.Series("symbol", [], dtype=pl.String), extend({}, 0, defaults))


def unpack(state: pl.DataFrame) -> tuple[pl.Series, Columns]:
    """The symbols of a state and its other columns; the arrays may be read-only."""
    columns = {column.name: column.to_numpy() for column in state.iter_columns() if column.name != "symbol"}
    return state.get_column("symbol"), columns


def pack(symbols: pl.Series, columns: Columns) -> pl.DataFrame:
    """The state frame again."""
    return pl.DataFrame({"symbol": symbols, **columns})


def extend(columns: Columns, height: int, defaults: Defaults) -> Columns:
    """Writable copies of `columns`, made `height` rows long with `defaults`."""
    extended = {}
    for name, default in defaults.items():
        old = columns.get(name)
        known = 0 if old is None else len(old)
        column = np.full(height, default)
        if old is not None:
            column[:known] = old
        extended[name] = column
    return extended
