"""Importing: recordings of any kind into a journal of their own, in the order of a source's stream."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa

from raven.batches.batch import BatchMeta
from raven.batches.schema import TRADE_SCHEMA, stream_schema, to_record_batch
from raven.batches.sequence import check_sequence
from raven.errors import InputError
from raven.journal import Journal, JournalReader
from raven.sources.binance.protocol import EVENTS
from raven.sources.ordering import OrderedTrades
from raven.sources.recordings import iter_files
from raven.sources.recordings.kinds import describe
from raven.sources.recordings.paths import expand
from raven.sources.recordings.reading import OnBad
from raven.sources.replacing import Replacement, replacing

BATCH_ROWS = 65_536


@dataclass(slots=True)
class ImportReport:
    """What came into the journal, and what was left out.

    - `rows` that were not there before; `gaps` and `missing_ids` in what was written.
    - `duplicates`: rows that repeat one that is there, content and all. `conflicts`: rows whose id another trade
      has. `skipped`: bad rows by reason. `left_out`: all of these in words, the first conflicts by name.
    - `rebuilt`: the journal was written anew, since rows belong among those that were there.
    """

    journal: str
    rows: int = 0
    duplicates: int = 0
    conflicts: int = 0
    skipped: dict[str, int] = field(default_factory=dict)
    left_out: list[str] = field(default_factory=list)
    gaps: int = 0
    missing_ids: int = 0
    symbols: list[str] = field(default_factory=list)
    rebuilt: bool = False

    def as_dict(self) -> dict[str, Any]:
        """As plain data."""
        return asdict(self)


def import_files(
    files: Sequence[Path],
    *,
    into: Path | None,
    data: Path,
    venue: str | None = None,
    symbol: str | None = None,
    on_bad: OnBad = "raise",
    advance: Callable[[int], None] = lambda rows: None,  # noqa: ARG005
) -> ImportReport:
    """Put the trades of `files` into the journal `into`, each once, whatever the order of files and rows.

    What the journal holds already is compared by id and content. Rows that belong after all of it are appended;
    otherwise it is written anew with its rows and theirs, under a new id. In any case all or nothing happens: after an
    error the journal is as it was, or not there. `advance` hears of rows as they are read.

    `on_bad`: at bad rows and conflicts `raise`, or `skip` and count them; see OrderedTrades for which is kept.
    Raises InputError for files that cannot be read, are of several venues, or hold another series than their venue's
    source collects (its ids would be taken for those), and when `into` is what a service writes; JournalError for the
    journal.
    """
    files = expand(files)
    found = _venue(files, venue)
    target = into or data / f"imported-{found.lower()}"
    schema = stream_schema(TRADE_SCHEMA, kind="trades", venue=found)
    with replacing(target, schema) as replacement:
        trades = OrderedTrades(replacement.folder, on_bad=on_bad)
        reading = iter_files(
            *files, venue=found, symbol=symbol, event=EVENTS[found], on_bad=on_bad, report=trades.left_out.skip
        )
        for file, read in reading:
            trades.add(read, file)
            advance(read.height)
        report = ImportReport(str(target), symbols=trades.symbols)
        if not trades.symbols:
            reasons = ", ".join(f"{count} {reason}" for reason, count in trades.left_out.skipped.items())
            names = ", ".join(file.name for file in files)
            raise InputError(f"{names}: no trades" + (f" that can be taken: {reasons}" if reasons else ""))
        _write(replacement, trades, schema, report, on_bad)
    return report


def _venue(files: Sequence[Path], venue: str | None) -> str:
    venues = {describe(path).venue_for_sure(venue) for path in files}
    if len(venues) != 1:
        raise InputError(
            f"the files are of several venues: {', '.join(sorted(venues))}",
            hint="import each venue on its own",
        )
    return venues.pop()


def _write(
    replacement: Replacement, trades: OrderedTrades, schema: pa.Schema, report: ImportReport, on_bad: OnBad
) -> None:
    """Settle what is taken, write it and put it in place; where nothing is new the journal stays as it is."""
    last_ids: dict[str, int] = {}
    before = 0
    if replacement.is_there:
        reader = JournalReader(replacement.target)
        if replacement.is_sealed and _comes_after(reader, trades):
            last_ids = reader.tail_ids()
        else:
            report.rebuilt = True
            for file, read in iter_files(reader.path, on_bad=on_bad, report=trades.left_out.skip):
                trades.add(read, file, is_base=True)
                before += read.height
    trades.close()
    report.rows = trades.rows - before
    report.duplicates, report.conflicts = trades.left_out.repeats, trades.left_out.conflicts
    report.skipped = {str(reason): rows for reason, rows in trades.left_out.skipped.items()}
    report.left_out = trades.left_out.sentences()
    if not trades.fresh:
        report.rebuilt = False
        return
    if replacement.is_there and not report.rebuilt:
        replacement.begin_with_what_is_there()
    with Journal.open(replacement.folder, schema) as journal:
        _append(journal, trades, last_ids, report)
    replacement.put_in_place()


def _comes_after(reader: JournalReader, trades: OrderedTrades) -> bool:
    """Whether all rows have higher ids than those of the journal, and later times: then they are simply appended."""
    last_ids = reader.tail_ids()
    if any(first <= last_ids.get(symbol, -1) for symbol, first in trades.first_ids.items()):
        return False
    watermarks_us = [entry.meta.watermark_us for entry in reader.entries(start_us=reader.span_us()[1])]
    newest_us = watermarks_us[-1] if watermarks_us else None
    return newest_us is not None and trades.first_us is not None and trades.first_us > newest_us


def _append(journal: Journal, trades: OrderedTrades, last_ids: dict[str, int], report: ImportReport) -> None:
    watermark_us = 0
    for frame in trades.frames(BATCH_ROWS):
        checked = check_sequence(frame, last_ids)
        last_ids = checked.last_ids
        report.gaps += len(checked.gaps)
        report.missing_ids += sum(gap.missing_ids for gap in checked.gaps)
        watermark_us = max(watermark_us, int(frame.select(pl.col("ts_event").max().dt.epoch("us")).item()))
        meta = BatchMeta(watermark_us=watermark_us, gaps=checked.gaps)
        journal.append(to_record_batch(frame, journal.schema), meta)
