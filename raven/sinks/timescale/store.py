"""The store of bars in TimescaleDB or PostgreSQL: rows and positions in one transaction, bad rows set aside."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import polars as pl
import pyarrow as pa

from raven.batches.batch import Cursor
from raven.batches.schema import to_frame, to_record_batch
from raven.settings import TimescaleSettings
from raven.sinks.dead_letters import DeadLetters
from raven.sinks.encode import BARS, encode_bars, row_count
from raven.sinks.refusals import RefusalWatch
from raven.sinks.store import BarFlush, BarKind, Refusal, Report, WriteResult, unheard
from raven.sinks.timescale import staging
from raven.sinks.timescale.schema import check
from raven.sinks.timescale.session import Session
from raven.sinks.timescale.sql import (
    BEGIN,
    COMMIT,
    ESTIMATED_ROWS,
    MOVE_POSITIONS,
    POSITIONS,
    UNBOUND_DECOMPRESSION,
    conninfo,
    make_staging,
)


class TimescaleBarStore:
    """Bars of `kind` in the table of that name; one row per identity, of the highest revision ever written.

    `writer` says who writes: positions are kept for each writer apart, so it has to stay the same over restarts.
    Rows that the server refuses for what they hold go to `dead_letters`. After any other failure the next call
    connects and looks at the tables anew. Raises SettingsError when the URL in `settings` cannot be read.
    """

    name = "timescale"

    def __init__(self, settings: TimescaleSettings, kind: BarKind, *, writer: str, dead_letters: DeadLetters) -> None:
        self.kind: BarKind = kind
        self.table: str = kind
        self.report: Report = unheard
        self.unreadable = ""
        self._url = settings.url.get_secret_value()
        self._timeout_s = settings.timeout_s
        self._layout = BARS[kind]
        self._writer = writer
        self._dead_letters = dead_letters
        self._watch = RefusalWatch(f"so it is not the rows: look at the constraints and triggers of {kind}")
        self._session: Session | None = None
        self._positions: dict[str, Cursor] = {}
        self._rows = 0
        conninfo(self._url, self._timeout_s)

    @property
    def cut(self) -> tuple[str, ...]:
        """Nothing: the server mends itself after a crash."""
        return ()

    def open(self) -> None:
        """Connect and check the tables. Raises StoreUnavailableError, StoreRefusedError when they need mending."""
        self._connected()

    def position(self, upstream: str) -> Cursor | None:
        """The cursor stored with the last flush of `upstream`; None: never any."""
        self._connected()
        return self._positions.get(upstream)

    def rows(self) -> int:
        """How many rows the table holds: what the server estimated when we connected, and what we inserted since."""
        return self._rows

    def maintain(self) -> Mapping[str, int]:
        """Nothing: the server's autovacuum and compression policy do it."""
        return {}

    def write(self, flush: BarFlush) -> WriteResult:
        """One transaction: new bars, higher revisions, and the positions that moved."""
        bars = encode_bars(flush, self.kind)
        self._connected()
        moved = {
            upstream: cursor for upstream, cursor in flush.positions.items() if self._positions.get(upstream) != cursor
        }
        stored = staging.Stored()
        if moved or not bars.is_empty():
            with self._transaction() as session:
                stored = staging.store(session, self._layout, bars)
                self._watch.check(stored.refusals, accepted=bars.height - len(stored.refusals))
                if moved:
                    session.run(MOVE_POSITIONS, self._position_rows(moved))
                self._dead_letters.add(self.name, self.table, bars, stored.refusals)
            self._positions.update(moved)
            self._watch.settled()
        return self._result(stored, row_count(flush))

    def resend(self, rows: pl.DataFrame) -> Sequence[Refusal]:
        """Write rows that were dead letters; those still refused are returned. No position moves."""
        checked = to_frame(to_record_batch(rows, self._layout.schema)).with_row_index("sent")
        newest = checked.sort("revision", maintain_order=True).unique(
            self._layout.identity, keep="last", maintain_order=True
        )
        self._connected()
        with self._transaction() as session:
            stored = staging.store(session, self._layout, newest.drop("sent"))
        self._rows += stored.inserted
        return [Refusal(newest.item(refusal.row, "sent"), refusal.reason) for refusal in stored.refusals]

    def close(self) -> None:
        """Let go of the connection. Closing twice does no harm."""
        if self._session is not None:
            self._session.close()
            self._session = None

    def _connected(self) -> None:
        """Connect where that is to be done: check the tables, read the positions, make the staging table."""
        if self._session is not None:
            return
        session = Session(self._url, timeout_s=self._timeout_s)
        try:
            check(session, self._layout)
            session.run(UNBOUND_DECOMPRESSION)
            session.run(make_staging(self._layout))
            positions = session.run(POSITIONS, (self._writer, self.table)).to_pylist()
            estimated: int = session.run(ESTIMATED_ROWS, (self.table,)).column("rows")[0].as_py()
        except BaseException:
            session.close()
            raise
        self._positions = {row["upstream"]: Cursor(row["journal_id"], row["sequence"]) for row in positions}
        self._rows = max(self._rows, estimated)  # the server looks now and then, and not at all at first
        self._session = session

    @contextmanager
    def _transaction(self) -> Iterator[Session]:
        """Around what is committed at the end. After a failure it is not known what was: the connection goes."""
        assert self._session is not None
        try:
            self._session.script(BEGIN)
            yield self._session
            self._session.script(COMMIT)
        except BaseException:
            self.close()
            raise

    def _position_rows(self, positions: Mapping[str, Cursor]) -> pa.RecordBatch:
        rows = [(self._writer, self.table, upstream, at.journal_id, at.sequence) for upstream, at in positions.items()]
        names = ("writer", "table_name", "upstream", "journal_id", "sequence")
        return pa.RecordBatch.from_pylist([dict(zip(names, row, strict=True)) for row in rows])

    def _result(self, stored: staging.Stored, given: int) -> WriteResult:
        self._rows += stored.inserted
        rows, dead = stored.inserted + stored.replaced, len(stored.refusals)
        return WriteResult(rows=rows, duplicates=given - rows - dead, replaced=stored.replaced, dead=dead)
