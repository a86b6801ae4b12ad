"""What rows have to be before any store is given them, table by table. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Final

import polars as pl
import pyarrow as pa

from raven.bars import gate as bars
from raven.batches import gate as trades
from raven.batches.gate import RULES, Checked
from raven.batches.intake import Check
from raven.batches.schema import TRADE_SCHEMA
from raven.sinks.encode import BARS, TRADES, letter_trades
from raven.sinks.store import Refusal


@dataclass(frozen=True, slots=True)
class Gate:
    """`schema`: the columns of a batch. `check` parts its rows; `why` tells a reason, alike for all of one rule."""

    schema: pa.Schema
    check: Check
    why: Callable[[trades.Refusal], str]


def _rule(refusal: trades.Refusal) -> str:
    return f"{refusal.column}: {RULES[refusal.reason]}"


TRADE_GATE: Final = Gate(TRADE_SCHEMA, partial(trades.check, most_id=trades.MOST_ID), _rule)
BAR_GATES: Final[Mapping[str, Gate]] = {
    kind: Gate(layout.schema, partial(bars.check, schema=layout.schema, key=layout.key), bars.says)
    for kind, layout in BARS.items()
}


def refuse(table: str, letters: pl.DataFrame, *, latest_us: int) -> list[Refusal]:
    """Those of some dead letters (columns of `table`) that no store may have, whatever was mended meanwhile."""
    gate = TRADE_GATE if table == TRADES.name else BAR_GATES[table]
    checked: Checked = gate.check(letter_trades(letters) if table == TRADES.name else letters, latest_us=latest_us)
    return [Refusal(refusal.row, gate.why(refusal)) for refusal in checked.refused]
