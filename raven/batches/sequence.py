"""The sequence check: per symbol, which rows are new, which repeat, and which ids are missing between them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

import numpy as np
import polars as pl
import pyarrow.compute as pc
from numpy.typing import NDArray

from raven.batches.batch import Gap
from raven.errors import InputError

Array: TypeAlias = NDArray[Any]

_NEVER: Final = -(2**63)


@dataclass(frozen=True, slots=True)
class SequenceResult:
    """What a check found.

    `accepted`: the rows whose id is above all before them, in order. `duplicates`: how many rows were not.
    `gaps`: the id ranges jumped over. `last_ids`: the highest id per symbol, old ones included. `symbols`: whose rows
    were checked.
    """

    accepted: pl.DataFrame
    duplicates: int
    gaps: tuple[Gap, ...]
    last_ids: dict[str, int]
    symbols: Sequence[str] = ()


def check_sequence(trades: pl.DataFrame, last_ids: Mapping[str, int]) -> SequenceResult:
    """Check `trades` (columns symbol, trade_id) against the last id seen of each symbol.

    A row is accepted when its id is above every id of its symbol before it. The first id of a symbol never seen
    opens no gap. Raises InputError when a symbol or an id is null.
    """
    if trades.is_empty():
        return SequenceResult(trades, 0, (), dict(last_ids))
    symbols, order, firsts = _by_symbol(trades)
    ids = trades.get_column("trade_id").to_numpy()[order]
    before = np.empty_like(ids)
    before[1:] = ids[:-1]
    before[firsts] = [last_ids.get(symbol, _NEVER) for symbol in symbols]
    is_new = ids > before
    accepted = trades
    if not is_new.all():
        _raise_to_highest(ids, before, firsts, ~is_new)
        is_new = ids > before
        keep = np.empty(trades.height, dtype=bool)
        keep[order] = is_new
        accepted = trades.filter(pl.Series(keep))
    highest = np.maximum(np.maximum.reduceat(ids, firsts), before[firsts])
    merged = {**last_ids, **dict(zip(symbols, highest.tolist(), strict=True))}
    jumps = np.flatnonzero(is_new & (ids - 1 > before) & (before != _NEVER))
    gaps = _gaps(symbols, firsts, ids, before, jumps[np.argsort(order[jumps])])
    return SequenceResult(accepted, trades.height - accepted.height, gaps, merged, symbols)


def group_codes(codes: Array, kinds: int) -> tuple[Array, Array]:
    """Rows ordered by code, those of one code as they came, and where in that order each code begins.

    `codes` are below `kinds`.
    """
    # 16-bit keys are radix-sorted, ten times faster
    order = np.argsort(codes.astype(np.uint16) if kinds <= 2**16 else codes, kind="stable")
    ordered = codes[order]
    return order, np.flatnonzero(np.append(True, ordered[1:] != ordered[:-1]))


def group_symbols(column: pl.Series) -> tuple[list[str], Array, Array]:
    """The symbols of a column that is not empty, the rows ordered by them, and where in that order each begins."""
    if (column == column[0]).all():
        return [column[0]], np.arange(len(column)), np.zeros(1, dtype=np.int64)
    encoded = pc.dictionary_encode(column.to_arrow())
    symbols = encoded.dictionary.to_pylist()
    return symbols, *group_codes(encoded.indices.to_numpy(), len(symbols))


def _by_symbol(trades: pl.DataFrame) -> tuple[list[str], Array, Array]:
    for name in ("symbol", "trade_id"):
        if trades.get_column(name).null_count():
            raise InputError(f"column {name} of the trades holds nulls", hint="only trades with ids can be checked")
    return group_symbols(trades.get_column("symbol"))


def _raise_to_highest(ids: Array, before: Array, firsts: Array, repeats: Array) -> None:
    """Make `before` the highest id before each row, where a symbol's ids do not only rise."""
    ends = np.append(firsts[1:], len(ids))
    for k in np.flatnonzero(np.logical_or.reduceat(repeats, firsts)).tolist():
        own = slice(firsts[k], ends[k])
        np.maximum.accumulate(before[own], out=before[own])


def _gaps(symbols: list[str], firsts: Array, ids: Array, before: Array, jumps: Array) -> tuple[Gap, ...]:
    owners = np.searchsorted(firsts, jumps, side="right") - 1
    places = zip(owners.tolist(), before[jumps].tolist(), ids[jumps].tolist(), strict=True)
    return tuple(Gap(symbols[owner], after, before_id) for owner, after, before_id in places)
