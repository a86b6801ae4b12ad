"""What travels beside the rows of a batch: its place, its watermark, its gaps."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import msgspec

from raven.errors import InputError

if TYPE_CHECKING:
    import polars as pl  # whoever only needs a cursor need not load it

_KEY = b"raven.batch"


class Cursor(msgspec.Struct, frozen=True):
    """A place in a journal: everything up to and including `sequence` has been seen."""

    journal_id: str
    sequence: int


class Gap(msgspec.Struct, frozen=True):
    """Trade ids of one symbol that never came: all of `after_id` < id < `before_id`.

    `final` says that they will not come any more.
    """

    symbol: str
    after_id: int
    before_id: int
    final: bool = True
    reason: str = ""

    @property
    def missing_ids(self) -> int:
        """How many ids the gap spans."""
        return self.before_id - self.after_id - 1


class BatchMeta(msgspec.Struct, frozen=True, omit_defaults=True):
    """Metadata of one batch; it is the batch's `custom_metadata` in Arrow IPC, as JSON under one key.

    - `journal_id`, `sequence`, `appended_us`: set by the journal on append (`appended_us`: UTC, microseconds).
    - `watermark_us`: no trade of a symbol that is not in `held` will come before this venue time; None: unknown.
    - `gaps`: id ranges found missing just before rows of this batch, final at once.
    - `input`: of an aggregator's output, the upstream's name and the cursor of the batch it was made from.
    """

    journal_id: str = ""
    sequence: int = 0
    appended_us: int = 0
    watermark_us: int | None = None
    held: tuple[str, ...] = ()
    gaps: tuple[Gap, ...] = ()
    input: tuple[str, Cursor] | None = None

    @property
    def cursor(self) -> Cursor:
        """The place just after this batch."""
        return Cursor(self.journal_id, self.sequence)

    def to_ipc(self) -> dict[bytes, bytes]:
        """As Arrow custom metadata."""
        return {_KEY: msgspec.json.encode(self)}

    @classmethod
    def from_ipc(cls, metadata: Mapping[bytes, bytes] | None) -> BatchMeta:
        """Back from Arrow custom metadata; raises InputError when it is not Raven's."""
        raw = None if metadata is None else metadata.get(_KEY)
        if raw is None:
            raise InputError("the batch carries no Raven metadata", hint="is this a Raven journal?")
        try:
            return msgspec.json.decode(raw, type=cls)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            raise InputError(f"the batch's metadata cannot be read: {error}") from error


@dataclass(frozen=True, slots=True)
class TradeBatch:
    """Trades of one venue as a kernel takes them: rows (TRADE_SCHEMA), sequence-checked, and the watermark.

    `held` are symbols the watermark does not speak for.
    """

    venue: str
    trades: pl.DataFrame
    watermark_us: int | None = None
    held: frozenset[str] = field(default_factory=frozenset)
