"""Reading trades out of recorded files of any kind, one series at a time."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal, TypeAlias

import polars as pl

from raven.batches.gate import BadReason, count
from raven.batches.repeats import conflict, settle, told_twice
from raven.batches.schema import TRADE_DTYPES
from raven.errors import InputError, argument
from raven.sources.binance import TradeEvent
from raven.sources.binance.markets import coin_m_among, is_coin_m, venue_named
from raven.sources.recordings.arrow import read_ipc, read_journal, read_parquet
from raven.sources.recordings.captures import holds, read_capture_trades
from raven.sources.recordings.chunks import Chunk
from raven.sources.recordings.identity import COIN_M, READABLE, VENUES
from raven.sources.recordings.kinds import Recording, RecordingKind, describe
from raven.sources.recordings.paths import expand
from raven.sources.recordings.replies import read_reply
from raven.sources.recordings.tables import read_csv, read_own_csv

OnBad: TypeAlias = Literal["raise", "skip"]

ReportSkipped: TypeAlias = Callable[[Path, Counter[BadReason]], None]
"""Hears of each file of which rows were skipped, and of how many for which reason."""

_BY_ID: Final = frozenset({RecordingKind.ARCHIVE_CSV, RecordingKind.REST_JSON})
_PLACES: Final = {
    RecordingKind.REST_JSON: "entry",
    RecordingKind.CAPTURE_LIST: "entry",
    RecordingKind.PARQUET: "row",
    RecordingKind.ARROW_FILE: "row",
    RecordingKind.ARROW_STREAM: "row",
    RecordingKind.JOURNAL: "row",
}
"""What is counted in files that have no lines."""
_TABLES: Final = {
    RecordingKind.PARQUET: read_parquet,
    RecordingKind.ARROW_FILE: read_ipc,
    RecordingKind.ARROW_STREAM: read_ipc,
    RecordingKind.OWN_CSV: read_own_csv,
}
SHOWN_CONFLICTS: Final = 5
_EVENTS: Final[tuple[TradeEvent, ...]] = ("trade", "aggTrade")


class RecordingWarning(UserWarning):
    """Lines of a recording were left out: `on_bad="skip"` asked for it, or they are trades of another market."""


def read_trades(
    *paths: str | Path,
    venue: str | None = None,
    symbol: str | None = None,
    event: TradeEvent | None = None,
    on_bad: OnBad = "raise",
) -> pl.DataFrame:
    """All trades of one or more recordings as one frame with the columns of TRADE_SCHEMA.

    Archives and REST replies come sorted by symbol and id; raw captures, collectors' CSV, Parquet and journals in
    the order recorded, file after file as given, gaps included. Each id comes once: how many repeats of the same trade
    were left out is told by a RecordingWarning; another trade under an id that is taken is a conflict.

    - `symbol`: of files with many symbols, the one to read; of files that name none, whose trades they are.
    - `event`: of raw captures, `trade` or `aggTrade` frames; by default trades, or aggregate trades where there are
      none. The two series, and two venues, never mix.
    - `venue`: the files that tell another one are refused; of Parquet with a column venue, the one to read.
    - `on_bad`: what to do with a line that holds no usable trade, and at a conflict: `raise`, or `skip` it and tell
      how many there were, with their reasons, by a RecordingWarning.

    Raises InputError naming the file, and where it can the line, when a file is missing, empty, damaged or no
    recording of trades, when the symbol cannot be told, or when files do not fit together.

    Columns: symbol (String); trade_id (Int64); ts_event, ts_recv (Datetime[us, UTC]); price (Float64, quote per base
    unit); quantity (Float64, base units); side (Int8, the aggressor's: +1 buy, -1 sell); origin (Int8, 0 live, 1 REST,
    2 archive).

    >>> trades = raven.read_trades("BTCUSDT-trades-2026-01-05.zip")
    >>> trades.select("symbol", "trade_id", "ts_event", "price", "quantity", "side").head(2)
    shape: (2, 6)
    ┌─────────┬───────────┬────────────────────────────────┬──────────┬──────────┬──────┐
    │ symbol  ┆ trade_id  ┆ ts_event                       ┆ price    ┆ quantity ┆ side │
    │ ---     ┆ ---       ┆ ---                            ┆ ---      ┆ ---      ┆ ---  │
    │ str     ┆ i64       ┆ datetime[μs, UTC]              ┆ f64      ┆ f64      ┆ i8   │
    ╞═════════╪═══════════╪════════════════════════════════╪══════════╪══════════╪══════╡
    │ BTCUSDT ┆ 379468801 ┆ 2026-01-05 00:00:00.021588 UTC ┆ 97216.19 ┆ 0.00132  ┆ -1   │
    │ BTCUSDT ┆ 379468802 ┆ 2026-01-05 00:00:00.045790 UTC ┆ 97216.34 ┆ 0.01353  ┆ 1    │
    └─────────┴───────────┴────────────────────────────────┴──────────┴──────────┴──────┘
    """
    plan = _plan(paths, venue, symbol, event, on_bad)
    nothing = pl.DataFrame(schema=TRADE_DTYPES)
    parts = [
        _by_id(pl.concat([nothing, *_read(plan, recording)]), [recording]).with_columns(_file=pl.lit(number, pl.UInt32))
        for number, recording in enumerate(plan.recordings)
    ]
    trades = _each_once(_by_id(pl.concat(parts), plan.recordings), plan)
    _require_found(plan, found=not trades.is_empty())
    return trades.drop("_file")


def _each_once(trades: pl.DataFrame, plan: _Plan) -> pl.DataFrame:
    """`trades` with each id once, in their order; what was left out is told."""
    again = told_twice(trades)
    if not again.any():
        return trades
    placed = trades.with_row_index("_place")
    settled = settle(placed.filter(again))
    names = [recording.path.name for recording in plan.recordings]
    told = [
        str(conflict(pair, names[pair["_file_kept"]], names[pair["_file"]]))
        for pair in settled.conflicts[:SHOWN_CONFLICTS].iter_rows(named=True)
    ]
    if told and plan.on_bad == "raise":
        raise InputError(f"a conflict: {told[0]}", hint=f"{argument('on_bad', 'skip')} keeps the earlier of the two")
    for rows, what in (
        (settled.repeats, "repeats of trades that are there, id and content"),
        (settled.conflicts.height, "conflicts, another trade has the id: " + "; ".join(told)),
    ):
        if rows:
            message = f"{', '.join(names)}: {rows} {'row' if rows == 1 else 'rows'} left out: {what}"
            warnings.warn(message, RecordingWarning, stacklevel=3)
    return pl.concat([placed.filter(~again), settled.kept]).sort("_place").drop("_place")


def iter_trades(
    *paths: str | Path,
    batch_rows: int = 65_536,
    venue: str | None = None,
    symbol: str | None = None,
    event: TradeEvent | None = None,
    on_bad: OnBad = "raise",
) -> Iterator[pl.DataFrame]:
    """The trades of `read_trades` in frames of at most `batch_rows` rows, in memory that does not grow with the files.

    Everything comes in the order of the files, repeats included: an archive that is not sorted by id raises InputError
    in the middle (REST replies are read whole). What can be wrong with the arguments is raised by the call itself.

    Columns: symbol (String); trade_id (Int64); ts_event, ts_recv (Datetime[us, UTC]); price (Float64, quote per base
    unit); quantity (Float64, base units); side (Int8, the aggressor's: +1 buy, -1 sell); origin (Int8, 0 live, 1 REST,
    2 archive).

    >>> [frame.height for frame in raven.iter_trades("BTCUSDT-trades-2026-01-05.zip", batch_rows=3000)]
    [3000, 3000, 1200]
    """
    if batch_rows < 1:
        raise InputError(f"batch_rows is {batch_rows}", hint="it must be 1 or more")
    return _iterate(_plan(paths, venue, symbol, event, on_bad), batch_rows)


def iter_files(
    *paths: str | Path,
    venue: str | None = None,
    symbol: str | None = None,
    event: TradeEvent | None = None,
    on_bad: OnBad = "raise",
    report: ReportSkipped | None = None,
) -> Iterator[tuple[Path, pl.DataFrame]]:
    """The trades of `iter_trades` with the file each frame is of: file after file, rows in whatever order they are.

    `report` hears of lines that were skipped, instead of a RecordingWarning.
    """
    plan = _plan(paths, venue, symbol, event, on_bad)
    if report is not None:
        plan.report = report
    return _iterate_files(plan)


def _warn(path: Path, skipped: Counter[BadReason]) -> None:
    reasons = ", ".join(f"{count} {reason}" for reason, count in skipped.most_common())
    message = f"{path.name}: {skipped.total()} {'row' if skipped.total() == 1 else 'rows'} skipped: {reasons}"
    warnings.warn(message, RecordingWarning, stacklevel=2)


@dataclass(slots=True)
class _Plan:
    """What is read how; `seen` gathers the symbols of stretches that held nothing of the wanted one."""

    recordings: list[Recording]
    venue: str | None
    symbol: str | None
    event: TradeEvent | None
    on_bad: OnBad
    report: ReportSkipped = _warn
    seen: set[str] = field(default_factory=set)


def _plan(
    paths: Sequence[str | Path], venue: str | None, symbol: str | None, event: TradeEvent | None, on_bad: OnBad
) -> _Plan:
    if not paths:
        raise InputError("no file was named to read trades from")
    venue = None if venue is None else venue_named(venue) or venue
    symbol = None if symbol is None else symbol.strip().upper()
    for name, value, known in (
        ("venue", venue, VENUES),
        ("event", event, _EVENTS),
        ("on_bad", on_bad, ("raise", "skip")),
    ):
        if value is not None and value not in known:
            raise InputError(f"{name} is {value!r}", hint=f"known are {', '.join(known)}")
    if symbol is not None and is_coin_m(symbol):
        raise InputError(f"{symbol} is a symbol of {COIN_M}, whose quantities are contracts", hint=READABLE)
    recordings = [describe(path) for path in expand(paths)]
    _one_of_each("venue", {r.path.name: r.venue_or(venue) for r in recordings}, venue)
    series = _series(recordings, event)
    _one_of_each("event", {r.path.name: series if r.kind.is_capture else r.event for r in recordings}, event)
    return _Plan(recordings, venue, symbol, series, on_bad)


def _one_of_each(what: str, told: dict[str, str | None], wanted: str | None) -> None:
    """Raise InputError where files tell another venue or event than is wanted, or than each other."""
    by_value: dict[str, str] = {}
    for name, value in told.items():
        if value is not None:
            by_value.setdefault(value, name)
    if wanted is not None:
        for value, name in by_value.items():
            if value != wanted:
                hint = "the two series have ids of their own" if what == "event" else ""
                raise InputError(f"{name} is of {what} {value}, not {wanted}", hint=hint)
    if len(by_value) > 1:
        listed = ", ".join(f"{name} is of {value}" for value, name in by_value.items())
        raise InputError(f"the files do not belong to one {what}: {listed}", hint="read them one by one")


def _series(recordings: Sequence[Recording], event: TradeEvent | None) -> TradeEvent | None:
    """The event whose frames to read of the captures; raises InputError when some hold only the other."""
    captures = [recording for recording in recordings if recording.kind.is_capture]
    if not captures:
        return event
    if event is None:
        event = next((recording.event for recording in recordings if recording.event is not None), None)
    if event is None:
        event = "trade" if any(holds(recording, "trade") for recording in captures) else "aggTrade"
    other: TradeEvent = "aggTrade" if event == "trade" else "trade"
    lacking = [recording for recording in captures if not holds(recording, event)]
    of_other = [recording.path.name for recording in lacking if holds(recording, other)]
    if of_other and len(of_other) < len(recordings):
        raise InputError(
            f"{', '.join(of_other)} hold {other} frames, the others {event}",
            hint="the two series have ids of their own: read them one by one",
        )
    if len(lacking) == len(recordings):
        names = ", ".join(recording.path.name for recording in captures)
        hint = f"there are {other} frames: pass {argument('event', other)}" if of_other else ""
        raise InputError(f"{names}: no {event} frames", hint=hint)
    return event


def _read(plan: _Plan, recording: Recording) -> Iterator[pl.DataFrame]:
    """The wanted rows of one recording in file order; bad lines raise or are counted."""
    skipped: Counter[BadReason] = Counter()
    for trades, bad in _chunks(plan, recording):
        wrong = next((line for line in bad if line.reason is not BadReason.OTHER_MARKET), None)
        if wrong is not None and plan.on_bad == "raise":
            where = _PLACES.get(recording.kind, "line")
            raise InputError(
                f"{recording.path.name}, {where} {wrong.row}: {wrong}",
                hint=f"{argument('on_bad', 'skip')} reads the others",
            )
        skipped.update(count(bad))
        wanted, others = _of_our_markets(trades)
        if others:
            skipped[BadReason.OTHER_MARKET] += others
        if plan.symbol is not None:
            named = wanted
            wanted = named.filter(pl.col("symbol") == plan.symbol)
            if wanted.is_empty():
                plan.seen.update(named.get_column("symbol").unique())
        yield wanted
    if skipped:
        plan.report(recording.path, skipped)


def _of_our_markets(trades: pl.DataFrame) -> tuple[pl.DataFrame, int]:
    """The rows that are of no other market by their symbols, and how many are."""
    others = coin_m_among(trades.get_column("symbol").unique())
    if not others:
        return trades, 0
    ours = trades.filter(~pl.col("symbol").is_in(others))
    return ours, trades.height - ours.height


def _chunks(plan: _Plan, recording: Recording) -> Iterator[Chunk]:
    if recording.kind is RecordingKind.JOURNAL:
        return read_journal(recording)
    if recording.kind in _TABLES:
        return _TABLES[recording.kind](recording, plan.symbol, plan.venue)
    if recording.kind is RecordingKind.REST_JSON:
        return read_reply(recording, plan.symbol)
    if recording.kind.is_capture:
        assert plan.event is not None
        return read_capture_trades(recording, plan.event)
    return read_csv(recording, recording.symbol_or(plan.symbol))


def _iterate(plan: _Plan, batch_rows: int) -> Iterator[pl.DataFrame]:
    found = False
    last_ids: dict[str, int] = {}
    for recording in plan.recordings:
        for read in _read(plan, recording):
            trades = read
            if recording.kind is RecordingKind.REST_JSON:
                trades = _by_id(read, [recording])
            if trades.is_empty():
                continue
            if recording.kind is RecordingKind.ARCHIVE_CSV:
                _require_order(trades, last_ids, recording)
            found = True
            yield from trades.iter_slices(batch_rows)
    _require_found(plan, found=found)


def _iterate_files(plan: _Plan) -> Iterator[tuple[Path, pl.DataFrame]]:
    found = False
    for recording in plan.recordings:
        for trades in _read(plan, recording):
            if trades.height:
                found = True
                yield recording.path, trades
    _require_found(plan, found=found)


def _require_order(trades: pl.DataFrame, last_ids: dict[str, int], recording: Recording) -> None:
    symbol, ids = trades.get_column("symbol")[0], trades.get_column("trade_id")
    if not ids.is_sorted() or ids[0] < last_ids.get(symbol, 0):
        raise InputError(
            f"{recording.path.name} is not sorted by id, or comes before the file read before it",
            hint="name the files in order of time, or use read_trades, which sorts",
        )
    last_ids[symbol] = ids[-1]


def _require_found(plan: _Plan, *, found: bool) -> None:
    if plan.symbol is not None and not found:
        names = ", ".join(recording.path.name for recording in plan.recordings)
        held = ", ".join(sorted(plan.seen)[:10]) or "no trades at all"
        raise InputError(f"{names}: no trades of {plan.symbol}", hint=f"there are {held}")


def _by_id(trades: pl.DataFrame, recordings: Sequence[Recording]) -> pl.DataFrame:
    if all(recording.kind in _BY_ID for recording in recordings):
        return trades.sort("symbol", "trade_id", maintain_order=True)
    return trades
