"""The store of trades in InfluxDB v2."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import polars as pl

from raven.batches.batch import Cursor
from raven.errors import StoreError
from raven.files import FolderLock
from raven.settings import InfluxSettings
from raven.sinks.dead_letters import DeadLetters
from raven.sinks.encode import TRADES, encode_trades, row_count
from raven.sinks.influx.client import Client
from raven.sinks.influx.delivery import TOO_OLD, Delivery, check, deliver, oldest
from raven.sinks.influx.lines import unwritable
from raven.sinks.influx.place import why_unreadable
from raven.sinks.influx.progress import Progress, Target, load, save
from raven.sinks.influx.responses import Action, classify
from raven.sinks.lock import hold
from raven.sinks.refusals import RefusalWatch
from raven.sinks.store import Refusal, Report, StoreRefusedError, TradeFlush, WriteResult, unheard

PROBE: Final = b"# raven\n"
"""A write of no points: a comment. The server looks at token, organisation and bucket first, and stores nothing."""


@dataclass(slots=True)
class _Begun:
    """What earlier tries of the flush up to `positions` have settled."""

    positions: dict[str, Cursor]
    stored: int = 0
    dead: int = 0
    too_old: int = 0


class InfluxTradeStore:
    """Trades in the bucket of `settings`, exactly once by id.

    `folder` holds how far they are stored (`influx-trades.json`), and a lock: one process writes a bucket from it.
    """

    name = "influx"
    table = TRADES.name
    cut: tuple[str, ...] = ()

    def __init__(self, settings: InfluxSettings, folder: Path, *, dead_letters: DeadLetters) -> None:
        self._settings = settings
        self._path = folder / f"{self.name}-{self.table}.json"
        self._dead_letters = dead_letters
        self._client = Client(settings)
        self._target = Target(settings.url, settings.org, settings.bucket)
        self._progress = Progress(self._target)
        self._watch = RefusalWatch("mend the bucket, or set influx.bucket to a fresh one; nothing goes on before")
        self._lock: FolderLock | None = None
        self.report: Report = unheard
        self.unreadable = ""
        self._begun: _Begun | None = None

    def open(self) -> None:
        """Probe the bucket by a write of no points, and read how far trades are stored.

        Raises StoreError when another process holds the folder or its file is damaged, StoreUnavailableError
        when the server does not answer, StoreRefusedError when it needs mending.
        """
        if self._lock is None:
            self._lock = hold(self._path)
        try:
            self._progress = load(self._path, self._target)
            verdict = classify(self._client.write(PROBE))
            check(verdict)
            # an InfluxDB that wants points says so after it has looked at everything else
            if verdict.action is not Action.ACCEPTED and "requires points" not in verdict.reason:
                raise StoreRefusedError(f"InfluxDB refuses a write of no points: {verdict.reason}")
            self.unreadable = why_unreadable(self._client, self._settings.bucket)
        except StoreError:
            self.close()
            raise

    def position(self, upstream: str) -> Cursor | None:
        """The cursor stored with the last flush of `upstream`; None: never any."""
        return self._progress.positions.get(upstream)

    def last_ids(self, venue: str, symbols: Iterable[str]) -> dict[str, int]:
        """The highest trade id stored of each of `symbols`; those never stored are left out."""
        known = self._progress.last_ids.get(venue, {})
        return {symbol: known[symbol] for symbol in symbols if symbol in known}

    def rows(self) -> int:
        """How many rows were stored from this folder; points that dead letters became are not among them."""
        return self._progress.rows

    def write(self, flush: TradeFlush) -> WriteResult:
        """Write the points above the last id of their symbol, then note the last ids and the positions."""
        trades = encode_trades(flush)
        keys = self._keys(trades)
        last = trades.select("venue", "symbol").join(keys, on=TRADES.group, how="left", maintain_order="left")
        new = trades.filter((pl.col("trade_id") > last.get_column("last")).fill_null(value=True))
        barred = unwritable(new)
        sent = _without(new, barred)
        if self._begun is None or self._begun.positions != flush.positions:
            self._dead_letters.add(self.name, self.table, new, barred)
            self._begun = _Begun(dict(flush.positions), dead=len(barred))
        begun, first, done = self._begun, 0, Delivery()
        for part in self._deliver(sent, self.report):
            done.add(part)
            if part.is_search:
                self._settle(begun, sent, done, self._keys(sent[first : first + done.rows]), {})
                first, done = first + done.rows, Delivery()
        self._settle(begun, sent, done, keys, flush.positions)
        self._begun = None
        settled = begun.stored + begun.dead + begun.too_old
        return WriteResult(
            rows=begun.stored, duplicates=row_count(flush) - settled, dead=begun.dead, dropped=begun.too_old
        )

    def resend(self, rows: pl.DataFrame) -> Sequence[Refusal]:
        """Write rows that were dead letters (columns of TRADES); those still refused are returned.

        It needs no `open`: a service may be writing the bucket meanwhile.
        """
        refusals = list(unwritable(rows))
        places = _without(pl.DataFrame({"row": range(rows.height)}), refusals).get_column("row")
        while len(places):
            done = Delivery()
            for part in self._deliver(rows[places], unheard):
                done.add(part)
            refused = [Refusal(places[one.row], one.reason) for one in done.refused]
            left = _without(pl.DataFrame({"row": places}), done.refused).get_column("row")
            old = oldest(rows[left], done.too_old)
            refusals += [*refused, *(Refusal(left[row], TOO_OLD) for row in old)]
            # the server only says how many were too old: that it keeps all the others, it has to say once more
            places = _without(pl.DataFrame({"row": left}), [Refusal(row, TOO_OLD) for row in old]).get_column("row")
            if not old:
                break
        return sorted(refusals, key=lambda refusal: refusal.row)

    def maintain(self) -> Mapping[str, int]:
        """Nothing: the database keeps itself."""
        return {}

    def close(self) -> None:
        """Let go of the folder and of the connections. Closing twice does no harm."""
        self._client.close()
        if self._lock is not None:
            self._lock.release()
            self._lock = None

    def _deliver(self, trades: pl.DataFrame, report: Report) -> Iterator[Delivery]:
        limits = self._settings
        return deliver(
            trades,
            self._client.write,
            request_rows=limits.request_rows,
            request_bytes=limits.request_bytes,
            report=report,
        )

    def _settle(
        self, begun: _Begun, sent: pl.DataFrame, done: Delivery, keys: pl.DataFrame, positions: Mapping[str, Cursor]
    ) -> None:
        """Save what became of the next rows of `sent`, so that no later try does them again."""
        accepted = done.rows - len(done.refused)
        self._watch.check(done.refused, accepted=accepted)
        self._dead_letters.add(self.name, self.table, sent, done.refused)
        self._note(keys, positions, accepted - done.too_old)
        self._watch.settled()
        begun.stored += accepted - done.too_old
        begun.dead += len(done.refused)
        begun.too_old += done.too_old

    def _keys(self, trades: pl.DataFrame) -> pl.DataFrame:
        """Of each venue and symbol in `trades`: the `highest` id, and the `last` one stored."""
        keys = trades.group_by(TRADES.group, maintain_order=True).agg(highest=pl.col("trade_id").max())
        stored = self._progress.last_ids
        last = [stored.get(venue, {}).get(symbol) for venue, symbol in keys.select(TRADES.group).iter_rows()]
        return keys.with_columns(pl.Series("last", last, dtype=pl.Int64))

    def _note(self, keys: pl.DataFrame, positions: Mapping[str, Cursor], stored: int) -> None:
        """Save how far trades are stored; nothing is remembered that is not on the disk."""
        now = self._progress
        last_ids = {venue: dict(known) for venue, known in now.last_ids.items()}
        for venue, symbol, highest, last in keys.iter_rows():
            last_ids.setdefault(venue, {})[symbol] = highest if last is None else max(highest, last)
        after = Progress(self._target, now.rows + stored, {**now.positions, **positions}, last_ids)
        if after != now:
            save(self._path, after)
            self._progress = after


def _without(rows: pl.DataFrame, refusals: Sequence[Refusal]) -> pl.DataFrame:
    """`rows` but those refused."""
    if not refusals:
        return rows
    refused = pl.Series([refusal.row for refusal in refusals])
    return rows.filter(~pl.int_range(rows.height, eager=True).is_in(refused.implode()))
