"""Trades as line protocol, built in columns: one line a trade, cut into requests. Pure.

    trades,side=buy,symbol=BTCUSDT,venue=BINANCE_SPOT price=60000.0,quantity=0.5,trade_id=7i,… 1723161600000000007

InfluxDB overwrites a point of the same tags and time. So a point's time is the millisecond of `ts_event` and, in
nanoseconds below it, the last six digits of the trade id: unique, and the same on every rewrite and for every
precision of the input; `ts_event_us` holds the time itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

import numpy as np
import numpy.typing as npt
import polars as pl

from raven.sinks.store import Refusal

MEASUREMENT: Final = "trades"
TAGS: Final = ("side", "symbol", "venue")
"""In the order in which InfluxDB keeps them."""
FLOATS: Final = ("price", "quantity")
IDS_PER_MS: Final = 1_000_000

POINT_NS: Final = pl.col("ts_event").to_physical() // 1000 * IDS_PER_MS + pl.col("trade_id") % IDS_PER_MS
"""The time of a trade's point."""

_SPECIAL: Final = r"([,= ])"
_UNHOLDABLE_BACKSLASH: Final = r"\\(?:[,= ]|$)"
_CONTROL: Final = r"\p{Cc}"
_MOST_MS: Final = 2**63 // IDS_PER_MS - 1


@dataclass(frozen=True, slots=True)
class Lines:
    """Line protocol: line `row` is `data[offsets[row] : offsets[row + 1]]`, its newline included."""

    data: memoryview
    offsets: npt.NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def take(self, span: range) -> memoryview:
        """The lines of the rows in `span`."""
        return self.data[self.offsets[span.start] : self.offsets[span.stop]]

    def cut(self, most_bytes: int) -> list[range]:
        """The rows of each request of at most `most_bytes`; a longer row goes alone."""
        ends = [0]
        while ends[-1] < len(self):
            fitting = int(np.searchsorted(self.offsets, self.offsets[ends[-1]] + most_bytes, side="right")) - 1
            ends.append(max(fitting, ends[-1] + 1))
        return [range(first, last) for first, last in pairwise(ends)]


def encode_lines(trades: pl.DataFrame) -> Lines:
    """A line for each row of `trades` (columns of TRADES), in their order; none may be `unwritable`."""
    trades = trades.rechunk()  # Polars 2.1 panics when it formats columns that lie in chunks of their own
    event_us = pl.col("ts_event").to_physical()
    line = pl.format(
        f"{MEASUREMENT},side={{}},symbol={{}},venue={{}} price={{}},quantity={{}},"
        "trade_id={}i,ts_event_us={}i,ts_recv_us={}i,origin={}i {}\n",
        *(_escaped(trades, tag) for tag in TAGS),
        *FLOATS,
        "trade_id",
        event_us,
        pl.col("ts_recv").to_physical(),
        "origin",
        POINT_NS,
    )
    array = trades.select(line=line).get_column("line").to_arrow()
    _, offsets, data = array.buffers()
    view = memoryview(data) if data is not None else memoryview(b"")
    return Lines(view, np.frombuffer(offsets, np.int64)[array.offset : array.offset + len(array) + 1])


def unwritable(trades: pl.DataFrame) -> Sequence[Refusal]:
    """The rows of `trades` (columns of TRADES) that line protocol cannot hold, each with the reason.

    Sent as they are they would spoil the lines beside them, or become a point of another series.
    """
    reasons = [pl.when(pl.col(tag) == "").then(pl.lit(f"InfluxDB holds no empty {tag}")) for tag in TAGS]
    for tag in TAGS:
        ending = f"InfluxDB holds no {tag} with a backslash before a comma, a space, an equals sign or its end"
        reasons += [
            pl.when(pl.col(tag).str.contains(_UNHOLDABLE_BACKSLASH)).then(pl.lit(ending)),
            pl.when(pl.col(tag).str.contains(_CONTROL)).then(pl.lit(f"InfluxDB holds no control character in {tag}")),
        ]
    reasons += [
        pl.when(~pl.col(name).is_finite()).then(pl.lit(f"InfluxDB holds no {name} that is not a finite number"))
        for name in FLOATS
    ]
    event_ms = pl.col("ts_event").to_physical() // 1000
    reasons.append(
        pl.when(~event_ms.is_between(-_MOST_MS, _MOST_MS - 1)).then(pl.lit("InfluxDB holds times of 1678 to 2261 only"))
    )
    found = trades.lazy().select(reason=pl.coalesce(reasons)).with_row_index("row").drop_nulls().collect()
    return [Refusal(row, reason) for row, reason in found.iter_rows()]


def _escaped(trades: pl.DataFrame, tag: str) -> pl.Expr:
    """A tag as line protocol writes it. Most need nothing: looking is quicker than replacing."""
    column = pl.col(tag)
    needed = trades.select(column.str.contains(_SPECIAL).any()).item()
    return column.str.replace_all(_SPECIAL, r"\${1}") if needed else column
