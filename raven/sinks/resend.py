"""Dead letters of all stores: summed up by reason, and sent to their store again."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from raven.batches.gate import value_at
from raven.batches.intake import DAY_US
from raven.clock import now_us
from raven.settings import Settings
from raven.sinks.dead_letters import ADDED, BATCHES, FOLDER, DeadLetters, Letters
from raven.sinks.gates import refuse
from raven.sinks.store import Refusal, Store
from raven.sinks.stores import store_of


@dataclass(slots=True)
class Sent:
    """What became of the rows that were sent again."""

    stored: int = 0
    refused: int = 0


def folders_of(data: Path, service: str = "") -> list[DeadLetters]:
    """The dead letters of `service`, or of all services, below the data folder."""
    found = data.glob(f"{service or '*'}-*/{FOLDER}")
    return [DeadLetters(folder) for folder in sorted(found) if folder.is_dir()]


def groups(letters: DeadLetters) -> Iterator[dict[str, Any]]:
    """The rows in a folder by store, table and reason: how many, when first and last, and the first as an example."""
    by_table: dict[tuple[str, str], list[pl.DataFrame]] = {}
    for found in letters.read():
        by_table.setdefault((found.store, found.table), []).append(found.rows)
    for (store, table), frames in by_table.items():
        rows = pl.concat(frames)
        for (reason,), alike in rows.group_by("reason", maintain_order=True):
            yield {
                "service": letters.folder.parent.name,
                "store": store,
                "table": table,
                "reason": reason,
                "rows": alike.get_column("rows").sum() if table == BATCHES else alike.height,
                "first": _text(alike["refused_at"].min()),
                "last": _text(alike["refused_at"].max()),
                "example": {
                    column.name: _text(value_at(column, 0))
                    for column in alike.drop(*ADDED, "batch", strict=False).get_columns()
                },
            }


def send_again(settings: Settings, letters: DeadLetters, sent: Sent) -> None:
    """Write the rows in a folder to their stores, and keep those still refused.

    A row that still breaks a rule is no store's, and a batch of another kind is left for people to look at. Raises
    StoreError when a store takes no writes now: what was not sent stays as it is.
    """
    with ExitStack() as stack:
        stores: dict[tuple[str, str], Store] = {}

        def store(found: Letters) -> Store:
            key = (found.store, found.table)
            if key not in stores:
                stores[key] = stack.enter_context(closing(store_of(*key, settings, letters.folder.parent)))
            return stores[key]

        for found in letters.read():
            if found.table == BATCHES:
                sent.refused += found.rows.height
                continue
            refusals = _send(found, store)
            letters.settle(found, refusals)
            sent.stored += found.rows.height - len(refusals)
            sent.refused += len(refusals)


def _send(found: Letters, store: Callable[[Letters], Store]) -> list[Refusal]:
    """Those of the rows that are still refused: for a rule they break, or by their store."""
    rows = found.rows.drop(ADDED)
    refusals = refuse(found.table, rows, latest_us=now_us() + DAY_US)
    barred = {refusal.row for refusal in refusals}
    allowed = [row for row in range(rows.height) if row not in barred]
    if allowed:
        refusals += [Refusal(allowed[one.row], one.reason) for one in store(found).resend(rows[allowed])]
    return sorted(refusals, key=lambda refusal: refusal.row)


def _text(value: Any) -> Any:
    """A time as ISO text, anything else as it is."""
    return value.isoformat() if hasattr(value, "isoformat") else value
