"""What a recorded file is: told by its content, and by its name where the content does not say."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Final

import msgspec

from raven.errors import InputError, argument
from raven.journal import JournalReader
from raven.sources.binance import BINANCE_FUTURES, BINANCE_SPOT, TradeEvent
from raven.sources.binance.frames import PROBE, UNREADABLE, Probe, event_of
from raven.sources.binance.markets import is_coin_m
from raven.sources.recordings import lists, tabular
from raven.sources.recordings.captured import venue_of_exchange, venue_of_frames
from raven.sources.recordings.files import read_head
from raven.sources.recordings.identity import COIN_M, Told, settle
from raven.sources.recordings.layouts import LAYOUTS, Layout, counts_contracts, layout_of
from raven.sources.recordings.names import symbol_of_path, venue_of_folder, venue_of_path

ACCEPTED: Final = (
    "accepted are trades and aggregate trades as archive CSV (also zipped), raw captures of WebSocket frames, "
    "a collector's CSV, REST replies (JSON), Parquet, Arrow IPC, Raven's own CSV, and journal folders"
)


class RecordingKind(StrEnum):
    """The kinds of files that trades are read from; text may be packed as zip, gzip or Zstandard."""

    ARCHIVE_CSV = "archive CSV"
    """The exchange's published history: spot or USD-M, trades or aggregate trades, with or without header."""
    COLLECTOR_CSV = "collector CSV"
    """`timestamp,price,quantity,side,tradeId`, as a live collector stored it."""
    OWN_CSV = "CSV of Raven's columns"
    """What `write_csv` makes of trades, with a header, in any order of columns."""
    CAPTURE_NS = "raw capture, nanoseconds and JSON a line"
    CAPTURE_S = "raw capture, seconds, colon and JSON a line"
    CAPTURE_RECORDS = "raw capture, one JSON record a line"
    """Records with `t` (header, http, recv …), `ts` in seconds, and the frame as a string in `data`."""
    CAPTURE_PLAIN = "raw capture, one JSON frame a line"
    """Frames alone: when they were received is not known."""
    CAPTURE_LIST = "raw capture, a JSON list of frames"
    """Likewise."""
    REST_JSON = "REST reply"
    PARQUET = "Parquet"
    ARROW_FILE = "Arrow IPC file"
    ARROW_STREAM = "Arrow IPC stream"
    JOURNAL = "journal"

    @property
    def is_capture(self) -> bool:
        """Whether it holds raw frames."""
        return self.name.startswith("CAPTURE_")

    @property
    def is_stamped(self) -> bool:
        """Whether it says of each frame when it was received."""
        return self.is_capture and self not in (RecordingKind.CAPTURE_PLAIN, RecordingKind.CAPTURE_LIST)


@dataclass(frozen=True, slots=True)
class Recording:
    """A recorded file: its kind, and what its data and its path tell of its trades.

    `columns_venues`: the venues in a column of that name, where there are several; one can be chosen.
    """

    path: Path
    kind: RecordingKind
    venues: Sequence[Told] = ()
    symbols: Sequence[Told] = ()
    event: TradeEvent | None = None
    layout: Layout | None = None
    column_venues: tuple[str, ...] = ()

    @property
    def venue(self) -> str | None:
        """The venue as it is told first, the data before the name; None: nothing tells it, or there are several."""
        return self.venues[0].value if self.venues and not self.column_venues else None

    @property
    def symbol(self) -> str | None:
        """The one symbol, likewise; None also where there are several."""
        return self.symbols[0].value if self.symbols else None

    def venue_or(self, given: str | None) -> str | None:
        """The venue, `given` where the data does not contradict; None: nothing tells it. Raises InputError."""
        if self.column_venues and given not in self.column_venues:
            listed = " and ".join(self.column_venues)
            raise InputError(f"{self.path.name} holds trades of {listed}", hint=f"pass {argument('venue')}")
        return settle("venue", self.path.name, () if self.column_venues else self.venues, given)

    def venue_for_sure(self, given: str | None) -> str:
        """The venue, where it has to be known; raises InputError that asks for it, too."""
        venue = self.venue_or(given)
        if venue is None:
            raise InputError(
                f"neither {self.path.name} nor its name tells the venue",
                hint=f"pass {argument('venue', 'spot')} or {argument('venue', 'futures')}",
            )
        return venue

    def symbol_or(self, given: str | None) -> str:
        """The one symbol of a file whose rows name none; raises InputError when it cannot be told."""
        symbol = settle("symbol", self.path.name, self.symbols, given)
        if symbol is None:
            raise InputError(
                f"neither {self.path.name} nor its name tells the symbol", hint=f"pass {argument('symbol')}"
            )
        return symbol


def sniff(path: str | Path) -> RecordingKind:
    """What kind of recording `path` is; raises InputError that says what it looks like and what is accepted."""
    return describe(Path(path)).kind


def infer_venue(path: str | Path) -> str:
    """The venue a recording comes from; raises InputError where neither its content nor its name tells it."""
    return describe(Path(path)).venue_for_sure(None)


def describe(path: Path) -> Recording:
    """All that a file's beginning and its name tell; raises InputError when it is no recording of trades."""
    path = path.expanduser()
    recording = _describe(path)
    told = [one for one in recording.venues if one.value == COIN_M and not one.is_guess]
    if told:  # whoever says otherwise: its quantities are no coins
        settle("venue", path.name, told, None)
    return recording


def _describe(path: Path) -> Recording:
    if path.is_dir():
        return _describe_folder(path)
    head = read_head(path)
    for beginning, kind in _TABLES.items():
        if head.startswith(beginning):
            return _describe_table(path, kind)
    if head.startswith(b"FEA1"):
        raise _refused(path, "Feather of the first version, which is no Arrow IPC file")
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip()
    first = text.partition(b"\n")[0].rstrip()
    for kind, stamp in _STAMPED.items():
        if stamp.match(first):
            return Recording(path, kind, _venues(path, venue_of_frames(head)))
    if first.startswith(b"{"):
        return _describe_json_lines(path, head, first)
    if first.startswith(b"["):
        return _describe_json_list(path, head, text)
    return _describe_csv(path, text)


_EVENTS: Final[dict[str, TradeEvent]] = {BINANCE_SPOT: "trade", BINANCE_FUTURES: "aggTrade"}

_TABLES: Final = {
    b"PAR1": RecordingKind.PARQUET,
    b"ARROW1": RecordingKind.ARROW_FILE,
    b"\xff\xff\xff\xff": RecordingKind.ARROW_STREAM,
}
_STAMPED: Final = {
    RecordingKind.CAPTURE_NS: re.compile(rb"\d{19} [{\[]"),
    RecordingKind.CAPTURE_S: re.compile(rb"\d{9,10}(\.\d*)?: [{\[]|wss?://|https?://"),
}


def _describe_folder(path: Path) -> Recording:
    if not JournalReader.is_journal(path):
        raise InputError(f"{path} is a folder, and no journal", hint="name the files in it")
    journal = JournalReader(path)
    if journal.kind != "trades":
        raise InputError(f"{path.name} is a journal of {journal.kind}, not of trades")
    told = [Told(journal.venue, "its journal")]
    return Recording(path, RecordingKind.JOURNAL, told, event=_EVENTS.get(journal.venue))


def _venues(path: Path, by_data: Sequence[Told]) -> list[Told]:
    """What tells the venue, the data first; folders that somebody named so where nothing else does."""
    return [*by_data, *venue_of_path(path)] or venue_of_folder(path)


def _describe_table(path: Path, kind: RecordingKind) -> Recording:
    columns = tabular.survey(path, kind is RecordingKind.PARQUET)
    by_column = columns.get("venue", [])
    told = [Told(venue, "its column venue") for venue in by_column[:1]]
    if (symbols := columns.get("symbol")) and all(map(is_coin_m, symbols)):
        told = [Told(COIN_M, "its column symbol")]
    return Recording(
        path, kind, _venues(path, told), _symbols(path, columns.get("symbol")),
        column_venues=tuple(by_column) if len(by_column) > 1 else (),
    )  # fmt: skip


def _symbols(path: Path, by_column: Sequence[str] | None) -> list[Told]:
    """What tells the one symbol of a table; its name is no match for a column that does."""
    if by_column is None:
        return symbol_of_path(path)
    if len(by_column) != 1:
        return []
    certain = [told for told in symbol_of_path(path) if not told.is_guess]
    return [Told(by_column[0], "its column symbol"), *certain]


class _Record(msgspec.Struct):
    t: str
    exchange: str = ""
    e: msgspec.UnsetType = msgspec.UNSET  # a frame has it, whose `t` may be anything


def _describe_json_lines(path: Path, head: bytes, first: bytes) -> Recording:
    try:
        record = msgspec.json.decode(first, type=_Record)
    except UNREADABLE:
        pass
    else:
        told = venue_of_exchange(record.exchange) or venue_of_frames(head)
        return Recording(path, RecordingKind.CAPTURE_RECORDS, _venues(path, told))
    try:
        probe = PROBE.decode(first)
    except UNREADABLE as error:
        if b'"symbols"' in head and b'"rateLimits"' in head:
            raise _refused(path, "an exchangeInfo reply") from error
        raise _refused(path, "JSON that is no frame of the exchange") from error
    if event_of(probe) is None and not _is_reply(probe):
        raise _refused(path, "JSON lines that are no frames of the exchange")
    return Recording(path, RecordingKind.CAPTURE_PLAIN, _venues(path, venue_of_frames(head)))


def _is_reply(probe: object) -> bool:
    return isinstance(probe, Probe) and (probe.result is not msgspec.UNSET or probe.error is not msgspec.UNSET)


def _describe_json_list(path: Path, head: bytes, text: bytes) -> Recording:
    entry = lists.first_entry(text)
    if entry.refused:
        raise _refused(path, entry.refused)
    if entry.event is None:
        return Recording(path, RecordingKind.CAPTURE_LIST, _venues(path, venue_of_frames(head)))
    told = [] if entry.venue is None else [Told(entry.venue, "the keys of its trades")]
    return Recording(path, RecordingKind.REST_JSON, _venues(path, told), symbol_of_path(path), entry.event)


def _describe_csv(path: Path, text: bytes) -> Recording:
    lines = text[: 1 << 16].split(b"\n")
    first = lines[0].rstrip()
    if first.startswith(b"<"):
        raise _refused(path, "an HTML or XML page, as a failed download leaves")
    layout = layout_of(first)
    if layout is None:
        shown = first[:60].decode(errors="replace")
        raise _refused(path, f"text that begins with {shown!r}")
    if layout.refused:
        raise _refused(path, layout.refused)
    if layout.is_own:
        by_column = tabular.values_in_text(text, "venue") if "venue" in layout.columns else []
        told = [Told(venue, "its column venue") for venue in by_column[:1]]
        names = [] if "symbol" in layout.columns else symbol_of_path(path)
        own_venues = tuple(by_column) if len(by_column) > 1 else ()
        return Recording(
            path, RecordingKind.OWN_CSV, _venues(path, told), names, layout=layout, column_venues=own_venues
        )
    kind = RecordingKind.COLLECTOR_CSV if layout is LAYOUTS["collector"] else RecordingKind.ARCHIVE_CSV
    told = [] if layout.venue is None else [Told(layout.venue, "its columns")]
    if counts_contracts(layout, lines[1 if layout.header else 0 :]):
        told = [Told(COIN_M, "its columns")]
    return Recording(path, kind, _venues(path, told), symbol_of_path(path), layout.event, layout)


def _refused(path: Path, looks_like: str) -> InputError:
    return InputError(f"{path.name} looks like {looks_like}", hint=ACCEPTED)
