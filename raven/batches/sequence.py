"""The sequence check: per symbol, which rows are new, which repeat, and which ids are missing between them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import polars as pl

from raven.batches.batch import Gap


@dataclass(frozen=True, slots=True)
class SequenceResult:
    """What a check found.

    `accepted`: the rows whose id is above all before them, in order. `duplicates`: how many rows were not.
    `gaps`: the id ranges jumped over. `last_ids`: the highest id per symbol, old ones included.
    """

    accepted: pl.DataFrame
    duplicates: int
    gaps: tuple[Gap, ...]
    last_ids: dict[str, int]


def check_sequence(trades: pl.DataFrame, last_ids: Mapping[str, int]) -> SequenceResult:
    """Check `trades` (columns symbol, trade_id) against the last id seen of each symbol.

    A row is accepted when its id is above every id of its symbol before it. The first id of a symbol never seen
    opens no gap.
    """
    if trades.is_empty():
        return SequenceResult(trades, 0, (), dict(last_ids))
    symbols = trades.get_column("symbol").unique().to_list()
    before = pl.DataFrame(
        {"symbol": symbols, "_last": [last_ids.get(symbol) for symbol in symbols]},
        schema={"symbol": pl.String, "_last": pl.Int64},
    )
    if len(symbols) == 1:
        last = pl.lit(last_ids.get(symbols[0]), dtype=pl.Int64)
        above = pl.col("trade_id").cum_max().shift(1)
        checked = trades.with_columns(_before=pl.max_horizontal(above, last))
    else:
        above = pl.col("trade_id").cum_max().shift(1).over("symbol")
        checked = (
            trades.join(before, on="symbol", how="left", maintain_order="left")
            .with_columns(_before=pl.max_horizontal(above, pl.col("_last")))
            .drop("_last")
        )
    is_new = pl.col("_before").is_null() | (pl.col("trade_id") > pl.col("_before"))
    accepted = checked.filter(is_new)
    jumps = accepted.filter(pl.col("trade_id") > pl.col("_before") + 1).select("symbol", "_before", "trade_id")
    gaps = tuple(Gap(symbol, after, before_id) for symbol, after, before_id in jumps.iter_rows())
    highest = accepted.group_by("symbol").agg(pl.col("trade_id").max())
    merged = {**last_ids, **dict(highest.iter_rows())}
    return SequenceResult(accepted.drop("_before"), trades.height - accepted.height, gaps, merged)
