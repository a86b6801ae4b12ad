"""Importing: recordings of any kind into a journal of their own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import polars as pl

from raven.batches.batch import BatchMeta
from raven.batches.schema import TRADE_SCHEMA, stream_schema, to_record_batch
from raven.batches.sequence import check_sequence
from raven.errors import InputError
from raven.journal import Journal
from raven.sources.binance.protocol import EVENTS
from raven.sources.recordings import iter_trades
from raven.sources.recordings.kinds import describe
from raven.sources.recordings.paths import expand


@dataclass(slots=True)
class ImportReport:
    """What came into the journal, and what was left out because its ids were there already."""

    journal: str
    rows: int = 0
    duplicates: int = 0
    gaps: int = 0
    missing_ids: int = 0
    symbols: list[str] = field(default_factory=list)

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
    advance: Callable[[int], None] = lambda rows: None,  # noqa: ARG005
) -> ImportReport:
    """Append the trades of `files`, in the order given, to the journal `into`; `advance` hears of rows as they go.

    Raises InputError for files that cannot be read, are of several venues, or hold another series than their venue's
    source collects (its ids would be taken for those); JournalError for the journal.
    """
    files = expand(files)
    venues = {describe(path).venue_for_sure(venue) for path in files}
    if len(venues) != 1:
        raise InputError(
            f"the files are of several venues: {', '.join(sorted(venues))}",
            hint="import each venue on its own",
        )
    found = venues.pop()
    folder = into or data / f"imported-{found.lower()}"
    report = ImportReport(str(folder))
    with Journal.open(folder, stream_schema(TRADE_SCHEMA, kind="trades", venue=found)) as journal:
        last_ids = journal.tail_ids()
        for trades in iter_trades(*files, venue=found, symbol=symbol, event=EVENTS[found]):
            last_ids = _append(journal, trades, last_ids, report)
            advance(trades.height)
    report.symbols.sort()
    return report


def _append(journal: Journal, trades: pl.DataFrame, last_ids: dict[str, int], report: ImportReport) -> dict[str, int]:
    checked = check_sequence(trades, last_ids)
    report.duplicates += checked.duplicates
    report.gaps += len(checked.gaps)
    report.missing_ids += sum(gap.missing_ids for gap in checked.gaps)
    if checked.accepted.height:
        watermark_us = checked.accepted.select(pl.col("ts_event").max().dt.epoch("us")).item()
        meta = BatchMeta(watermark_us=watermark_us, gaps=checked.gaps)
        journal.append(to_record_batch(checked.accepted, journal.schema), meta)
        report.rows += checked.accepted.height
        seen = set(report.symbols)
        report.symbols += [name for name in checked.accepted.get_column("symbol").unique() if name not in seen]
    return checked.last_ids
