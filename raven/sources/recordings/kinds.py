"""What a recorded file is: told by its content, and by its name where the content does not say."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Final

import msgspec

from raven.errors import InputError
from raven.journal import JournalReader
from raven.sources.binance import BINANCE_FUTURES, BINANCE_SPOT, TradeEvent
from raven.sources.binance.frames import PROBE, UNREADABLE, Probe, event_of
from raven.sources.recordings.files import read_head
from raven.sources.recordings.layouts import LAYOUTS, Layout, layout_of

ACCEPTED: Final = (
    "accepted are trades and aggregate trades as archive CSV (also zipped), raw captures of WebSocket frames, "
    "a collector's CSV, REST replies (JSON), Parquet, and journal folders"
)


class RecordingKind(StrEnum):
    """The kinds of files that trades are read from; files may be packed as zip, gzip or Zstandard."""

    ARCHIVE_CSV = "archive CSV"
    """The exchange's published history: spot or USD-M, trades or aggregate trades, with or without header."""
    COLLECTOR_CSV = "collector CSV"
    """`timestamp,price,quantity,side,tradeId`, as a live collector stored it."""
    CAPTURE_NS = "raw capture, nanoseconds and JSON a line"
    CAPTURE_S = "raw capture, seconds, colon and JSON a line"
    CAPTURE_RECORDS = "raw capture, one JSON record a line"
    """Records with `t` (header, http, recv …), `ts` in seconds, and the frame as a string in `data`."""
    CAPTURE_PLAIN = "raw capture, one JSON frame a line"
    """Frames alone: when they were received is not known."""
    REST_JSON = "REST reply"
    PARQUET = "Parquet"
    JOURNAL = "journal"

    @property
    def is_capture(self) -> bool:
        """Whether it holds raw frames."""
        return self.name.startswith("CAPTURE_")


@dataclass(frozen=True, slots=True)
class Recording:
    """A recorded file: its kind, and what it tells of its trades (None: nothing)."""

    path: Path
    kind: RecordingKind
    venue: str | None = None
    event: TradeEvent | None = None
    symbol: str | None = None
    layout: Layout | None = None

    def symbol_or(self, given: str | None) -> str:
        """The one symbol of a file whose rows name none; raises InputError when it cannot be told."""
        if given is None and self.symbol is None:
            raise InputError(f"neither {self.path.name} nor its name tells the symbol", hint="pass symbol=")
        if given is not None and self.symbol is not None and given != self.symbol:
            raise InputError(f"{self.path.name} holds {self.symbol} by its name, not {given}")
        return given or self.symbol or ""


def sniff(path: str | Path) -> RecordingKind:
    """What kind of recording `path` is; raises InputError that says what it looks like and what is accepted."""
    return describe(Path(path)).kind


def infer_venue(path: str | Path) -> str:
    """The venue a recording comes from, BINANCE_SPOT where neither content nor name tells; raises InputError."""
    return describe(Path(path)).venue or BINANCE_SPOT


def describe(path: Path) -> Recording:
    """All that a file's beginning and its name tell; raises InputError when it is no recording of trades."""
    if path.is_dir():
        if not JournalReader.is_journal(path):
            raise InputError(f"{path} is a folder, and no journal", hint="name the files in it")
        journal = JournalReader(path)
        if journal.kind != "trades":
            raise InputError(f"{path.name} is a journal of {journal.kind}, not of trades")
        return Recording(path, RecordingKind.JOURNAL, journal.venue, _EVENTS.get(journal.venue))
    head = read_head(path)
    if head.startswith(b"PAR1"):
        return Recording(path, RecordingKind.PARQUET, venue_of_name(path), symbol=symbol_of_name(path))
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip()
    first = text.partition(b"\n")[0].rstrip()
    for kind, beginning in _STAMPED.items():
        if beginning.match(first):
            return Recording(path, kind, _venue_of_capture(path, head))
    if first.startswith(b"{"):
        return _describe_json_lines(path, head, first)
    if first.startswith(b"["):
        return _describe_json_list(path, text)
    return _describe_csv(path, first)


_EVENTS: Final[dict[str, TradeEvent]] = {BINANCE_SPOT: "trade", BINANCE_FUTURES: "aggTrade"}

_STAMPED: Final = {
    RecordingKind.CAPTURE_NS: re.compile(rb"\d{19} [{\[]"),
    RecordingKind.CAPTURE_S: re.compile(rb"\d{9,10}(\.\d*)?: [{\[]|wss?://|https?://"),
}
_FUTURES_SIGNS: Final = re.compile(rb'"(X|nq|pu)\\?":|\\?"e\\?":\\?"bookTicker|[^a-z](fstream|fapi)\.')
_SPOT_SIGNS: Final = re.compile(rb'"M\\?":(true|false)|[^a-z](data-)?(stream|api)\.binance')
_ARCHIVE_NAME: Final = re.compile(r"(.+?)-(trades|aggTrades)-\d{4}")


def symbol_of_name(path: Path) -> str | None:
    """The symbol a file name holds: `BTCUSDT-trades-2025-01-01.zip`, `LTCUSDT_2025-06-21_….csv.gz`."""
    archive = _ARCHIVE_NAME.match(path.name)
    if archive is not None:
        return archive.group(1)
    words = re.split(r"[-_.]", path.name)
    return next((word for word in words if len(word) > 4 and word.isupper() and word.isalnum()), None)


def venue_of_name(path: Path) -> str | None:
    """The venue a path tells, as the exchange's own folders do: `data/futures/um/daily/…`, `data/spot/…`."""
    words = set(re.split(r"[-_.]", path.name.lower()))
    folders = path.parent.as_posix() + "/"
    if words & {"usdm", "futures"} or "/futures/um/" in folders:
        return BINANCE_FUTURES
    return BINANCE_SPOT if "spot" in words or re.search(r"/spot/(daily|monthly)/", folders) else None


def _venue_of_capture(path: Path, head: bytes) -> str | None:
    if _FUTURES_SIGNS.search(head):
        return BINANCE_FUTURES
    return BINANCE_SPOT if _SPOT_SIGNS.search(head) else venue_of_name(path)


class _Record(msgspec.Struct):
    t: str
    exchange: str = ""


def _describe_json_lines(path: Path, head: bytes, first: bytes) -> Recording:
    try:
        record = msgspec.json.decode(first, type=_Record)
    except UNREADABLE:
        pass
    else:
        venue = record.exchange if record.exchange in (BINANCE_SPOT, BINANCE_FUTURES) else None
        if record.exchange == "BINANCE":
            venue = BINANCE_SPOT
        return Recording(path, RecordingKind.CAPTURE_RECORDS, venue or _venue_of_capture(path, head))
    try:
        probe = PROBE.decode(first)
    except UNREADABLE as error:
        if b'"symbols"' in head and b'"rateLimits"' in head:
            raise _refused(path, "an exchangeInfo reply") from error
        raise _refused(path, "JSON that is no frame of the exchange") from error
    if event_of(probe) is None and not _is_reply(probe):
        raise _refused(path, "JSON lines that are no frames of the exchange")
    return Recording(path, RecordingKind.CAPTURE_PLAIN, _venue_of_capture(path, head))


def _is_reply(probe: object) -> bool:
    return isinstance(probe, Probe) and (probe.result is not msgspec.UNSET or probe.error is not msgspec.UNSET)


def _describe_json_list(path: Path, text: bytes) -> Recording:
    start = text[1:].lstrip()[:1]
    if start == b"[":
        raise _refused(path, "klines (bars), not trades")
    keys = set(re.findall(rb'"(\w+)"\s*:', text.partition(b"}")[0]))
    if {b"a", b"p", b"q", b"T", b"m"} <= keys:
        event: TradeEvent = "aggTrade"
    elif {b"id", b"price", b"qty", b"time", b"isBuyerMaker"} <= keys:
        event = "trade"
    else:
        raise _refused(path, "a JSON list of something other than trades" if start == b"{" else "a JSON list")
    return Recording(path, RecordingKind.REST_JSON, venue_of_name(path), event, symbol_of_name(path))


def _describe_csv(path: Path, first: bytes) -> Recording:
    if first.startswith(b"<"):
        raise _refused(path, "an HTML or XML page, as a failed download leaves")
    layout = layout_of(first)
    if layout is None:
        shown = first[:60].decode(errors="replace")
        raise _refused(path, f"text that begins with {shown!r}")
    if layout.refused:
        raise _refused(path, layout.refused)
    kind = RecordingKind.COLLECTOR_CSV if layout is LAYOUTS["collector"] else RecordingKind.ARCHIVE_CSV
    venue = layout.venue or venue_of_name(path)
    return Recording(path, kind, venue, layout.event, symbol_of_name(path), layout)


def _refused(path: Path, looks_like: str) -> InputError:
    return InputError(f"{path.name} looks like {looks_like}", hint=ACCEPTED)
