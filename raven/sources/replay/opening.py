"""What is to be replayed: the recordings at the paths that a user names, checked before anything begins."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from raven.batches.schema import SCHEMA_VERSION, TRADE_SCHEMA
from raven.errors import InputError, argument
from raven.journal import JournalReader
from raven.sources.binance.protocol import EVENTS
from raven.sources.recordings.kinds import Recording as Described
from raven.sources.recordings.kinds import RecordingKind, describe
from raven.sources.recordings.paths import expand
from raven.sources.recordings.reading import OnBad
from raven.sources.replay.files import FileRecording
from raven.sources.replay.journals import JournalRecording
from raven.sources.replay.recording import Choice, Recording


def open_recording(
    paths: Sequence[Path],
    *,
    venue: str | None = None,
    choice: Choice | None = None,
    speed: float | None = None,
    on_bad: OnBad = "raise",
    folder: Path | None = None,
) -> Recording:
    """What of the recordings at `paths` is to be replayed at `speed` (None: as fast as it is read).

    `venue` is for recordings that do not tell theirs, and is asked for where it is needed. The order of paths does not
    matter: journals follow each other in time, the trades of files are put in order, in `folder` where they do not fit
    into memory (None: where temporary files are). Bad rows and conflicts of files are skipped and counted where
    `on_bad` says so. Raises InputError or JournalError when a path cannot be read to its end, when they do not belong
    to one venue, or when there is nothing of the chosen symbols or time.
    """
    choice = choice or Choice()
    if choice.start_us is not None and choice.end_us is not None and choice.start_us >= choice.end_us:
        raise InputError(
            "the start of the replay is not before its end",
            hint=f"{argument('start')} and {argument('end')} are times in UTC",
        )
    described = [describe(path) for path in expand(paths)]
    found = _venue({one.venue_for_sure(venue): str(one.path) for one in described})
    journals = [one.path for one in described if one.kind is RecordingKind.JOURNAL]
    if journals and len(journals) < len(described):
        raise InputError(
            "journals and files cannot be replayed together", hint="`raven import` makes a journal of files"
        )
    if journals:
        readers = sorted(map(_reader, journals), key=_began_us)
        identity = _identity([f"journal {reader.id}" for reader in readers], choice)
        return JournalRecording(readers, choice, venue=found, identity=identity)
    files = sorted(f"{one.path.name} ({one.path.stat().st_size} bytes)" for one in described)
    identity = f"{_identity(files, choice)} in the order of ids" + (" without bad rows" if on_bad == "skip" else "")
    return FileRecording(
        _series(described), choice, venue=found, event=EVENTS[found], identity=identity, speed=speed, on_bad=on_bad,
        folder=folder,
    )  # fmt: skip


def _series(described: Sequence[Described]) -> dict[str | None, list[Path]]:
    """The paths of each symbol where all files name one: those of different symbols are of the same time."""
    by_symbol: dict[str | None, list[Path]] = {}
    for one in described:
        by_symbol.setdefault(one.symbol, []).append(one.path)
    return {None: [one.path for one in described]} if None in by_symbol else by_symbol


def _venue(venues: dict[str, str]) -> str:
    if len(venues) > 1:
        listed = ", ".join(f"{path} is of {venue}" for venue, path in venues.items())
        raise InputError(f"a source has one venue, and {listed}", hint="replay each venue on its own")
    return next(iter(venues))


def _reader(path: Path) -> JournalReader:
    reader = JournalReader(path)
    schema = reader.schema
    version = (schema.metadata or {}).get(b"raven.schema_version", b"").decode()
    if version != SCHEMA_VERSION or not schema.equals(TRADE_SCHEMA):
        raise InputError(
            f"{path} is a journal of another version: its schema version is {version!r}, not {SCHEMA_VERSION!r}",
            hint="replay it with the Raven that wrote it",
        )
    return reader


def _began_us(reader: JournalReader) -> int:
    """When the recorded time begins (UTC, microseconds); a journal may have been imported in any order."""
    watermarks_us = (entry.meta.watermark_us or entry.meta.appended_us for entry in reader.entries())
    return next(watermarks_us, 0)


def _identity(recordings: Sequence[str], choice: Choice) -> str:
    parts = [" and ".join(recordings)]
    if choice.symbols:
        parts.append(f"of {', '.join(sorted(choice.symbols))}")
    for word, time_us in (("from", choice.start_us), ("until", choice.end_us)):
        if time_us is not None:
            parts.append(f"{word} {datetime.fromtimestamp(time_us / 1e6, UTC).isoformat()}")
    return " ".join(parts)
