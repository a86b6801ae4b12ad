"""What a follower feeds: an aggregator or a sink."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Protocol, TypeAlias

import pyarrow as pa

from raven.batches.batch import BatchMeta, Cursor
from raven.batches.instrument import Instrument

Progress: TypeAlias = Callable[[str, Sequence[Instrument]], None]
"""Told of an upstream and some of its instruments: they joined, or all that there was of them is durable."""


class Consumer(Protocol):
    """Who takes the batches of a follower, and of them the rows of the instruments it was told to want.

    `ready` is set once the position is known; nothing is taken before.
    """

    ready: asyncio.Event

    @property
    def problem(self) -> str:
        """Why what was taken cannot be dealt with now; empty when it can."""

    def is_durable(self, upstream: str) -> bool:
        """Whether all that was taken of `upstream` is; until then that has to keep it."""

    def want(self, upstream: str, instruments: Sequence[Instrument]) -> None:
        """Take rows of these: the position covers them."""

    async def leave(self, upstream: str, instruments: Sequence[Instrument]) -> None:
        """Take no more rows of these; once what was taken is durable, whoever made the consumer is told."""

    def position(self, upstream: str) -> Cursor | None:
        """What has been taken so far; None: nothing yet."""

    async def take(self, upstream: str, batch: pa.RecordBatch, meta: BatchMeta) -> None:
        """Take one batch. Its cursor becomes the position."""

    async def set_aside(self, upstream: str, cursor: Cursor, payload: bytes, reason: str) -> None:
        """Go past a batch that cannot be read, for `reason`: what a journal holds stops nobody who reads it."""

    async def rewind(
        self, upstream: str, position: Cursor, instruments: Sequence[Instrument], *, forward: bool = False
    ) -> None:
        """`instruments` join: take their rows from `position` on, going back to it where it lies before the present.

        `forward`: nothing else is wanted, so go there even where it lies after it.
        """


def goes_back(here: Cursor, there: Cursor) -> bool:
    """Whether `there` lies before `here` in the same journal."""
    return here.journal_id == there.journal_id and there.sequence < here.sequence
