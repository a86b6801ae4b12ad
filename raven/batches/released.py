"""What a hold lets go, keeps waiting and gives up."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final, NamedTuple

import polars as pl

from raven.batches.batch import Gap
from raven.batches.schema import TRADE_DTYPES

NO_TRADES: Final = pl.DataFrame(schema=TRADE_DTYPES)


class GivenUp(StrEnum):
    """Why ids were not waited for any longer: a closed set, fit for a metric's label."""

    NOT_RECEIVED = "not received"
    """They did not come in time."""
    NO_ROOM = "no room"
    """Too many rows were waiting."""
    ABSENT = "absent"
    """The venue does not have them."""
    STOPPED = "stopped"
    """The session of the symbol ended."""


class Missing(NamedTuple):
    """Ids waited for: all of `after_id` < id < `before_id`, since `since_us` of the clock given."""

    symbol: str
    after_id: int
    before_id: int
    since_us: int

    @property
    def missing_ids(self) -> int:
        """How many ids are waited for."""
        return self.before_id - self.after_id - 1


class Fallen(NamedTuple):
    """A trade whose id lies far below the last one of its symbol; `time_us` is its ts_event."""

    symbol: str
    trade_id: int
    time_us: int


@dataclass(frozen=True, slots=True)
class Released:
    """What may be published now.

    `rows`: of each symbol in the order of their ids, every id once. `gaps`: the ids given up before some of them.
    `duplicates`: rows dropped because their id had been there. `fallen`: of those, the first of each symbol whose id
    lay far back. `refused`: rows whose id lies further ahead than the exchange can have gone.
    """

    rows: pl.DataFrame
    duplicates: int = 0
    gaps: tuple[Gap, ...] = ()
    fallen: tuple[Fallen, ...] = ()
    refused: pl.DataFrame = field(default_factory=lambda: NO_TRADES)


def joined(parts: Sequence[Released]) -> Released:
    """All of `parts`, one after the other; there is at least one."""
    return Released(
        pl.concat([part.rows for part in parts]),
        sum(part.duplicates for part in parts),
        tuple(gap for part in parts for gap in part.gaps),
        tuple(entry for part in parts for entry in part.fallen),
        pl.concat([part.refused for part in parts]),
    )
