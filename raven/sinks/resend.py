"""Dead letters of all stores: summed up by reason, and sent to their store again."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from raven.settings import Settings
from raven.sinks.dead_letters import ADDED, FOLDER, DeadLetters
from raven.sinks.store import Database
from raven.sinks.stores import database


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
                "rows": alike.height,
                "first": _text(alike["refused_at"].min()),
                "last": _text(alike["refused_at"].max()),
                "example": {name: _text(value) for name, value in alike.drop(ADDED).row(0, named=True).items()},
            }


def send_again(settings: Settings, letters: DeadLetters, sent: Sent) -> None:
    """Write the rows in a folder to their stores, and keep those still refused.

    Raises StoreUnavailableError when a store takes no writes now: what was not sent stays as it is.
    """
    with ExitStack() as stack:
        stores: dict[tuple[str, str], Database] = {}
        for found in letters.read():
            key = (found.store, found.table)
            if key not in stores:
                stores[key] = stack.enter_context(
                    closing(database(found.store, found.table, settings, letters.folder.parent))
                )
            rows = found.rows.drop(ADDED)
            refusals = stores[key].resend(rows) if rows.height else []
            letters.settle(found, refusals)
            sent.stored += rows.height - len(refusals)
            sent.refused += len(refusals)


def _text(value: Any) -> Any:
    """A time as ISO text, anything else as it is."""
    return value.isoformat() if hasattr(value, "isoformat") else value
