"""Log lines: JSON for machines, text for people."""

from __future__ import annotations

import json
import logging
import math
import re
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Final

import msgspec

CONTROL: Final = {code: f"\\x{code:02x}" for code in (*range(32), *range(127, 160))} | {
    ord("\n"): "\\n", ord("\r"): "\\r", ord("\t"): "\\t", 0x2028: "\\u2028", 0x2029: "\\u2029",
}  # fmt: skip
"""What would move a cursor, break a line or colour a terminal, and how it is shown instead."""

_WHOLE: Final = r"(?<![\w.:/-]){}(?![\w:/-]|\.\w)"
"""Finds a word or number by itself, not as a part of an address or of another number."""


def set_up_logging(level: str) -> None:
    """Log to standard error: text on a terminal, JSON when piped. Of other libraries, warnings and worse."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(TextFormatter() if sys.stderr.isatty() else JsonFormatter())
    logging.getLogger().handlers[:] = [handler]
    logging.getLogger().setLevel(logging.WARNING)
    logging.getLogger("raven").setLevel(level.upper())


class JsonFormatter(logging.Formatter):
    """One JSON object a line, for machines."""

    def format(self, record: logging.LogRecord) -> str:
        """The record as JSON: time (UTC), level, logger, event, message, then the event's fields."""
        line: dict[str, object] = {
            "time": _iso(datetime.fromtimestamp(record.created, UTC)),
            "level": record.levelname.lower(),
            "logger": record.name,
            "event": getattr(record, "raven_event", "library"),
            "message": record.getMessage(),
        }
        for name, value in getattr(record, "raven_fields", {}).items():
            line[f"{name}_" if name in line else name] = plain(value)
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str, ensure_ascii=False, allow_nan=False)


class TextFormatter(logging.Formatter):
    """Time (UTC), level and message, for people; what others wrote cannot break the line."""

    def format(self, record: logging.LogRecord) -> str:
        """The record as one sentence, with those fields in brackets that it does not tell; a traceback follows it."""
        time = datetime.fromtimestamp(record.created, UTC).strftime("%H:%M:%S.%f")[:-3]
        name, message = record.name.removeprefix("raven."), record.getMessage()
        fields = in_words(getattr(record, "raven_fields", {}), message)
        text = f"{time} {record.levelname.lower():<7} {name}: {message}{fields}".translate(CONTROL)
        return f"{text}\n{self.formatException(record.exc_info)}" if record.exc_info else text


def in_words(fields: Mapping[str, object], message: str) -> str:
    """What the fields add to a message, in brackets; empty when it says all of it."""
    told = ((name.replace("_", " "), words(plain(value))) for name, value in fields.items())
    said = message.replace(",", "")
    new = [f"{name} {text}" for name, text in told if not re.search(_WHOLE.format(re.escape(text)), said)]
    return f" ({'; '.join(new)})" if new else ""


def words(value: object) -> str:
    """A plain value as one would say it: no brackets, quotes or underscores of a program."""
    match value:
        case None:
            return "none"
        case bool():
            return "yes" if value else "no"
        case Mapping():
            told = [f"{str(name).replace('_', ' ')} {words(item)}" for name, item in value.items() if item != ""]
            return ", ".join(told) or "none"
        case list():
            return ", ".join(words(item) for item in value) or "none"
        case _:
            return str(value)


def plain(value: object) -> object:
    """A field's value as JSON knows it: numbers stay numbers, times are ISO strings in UTC."""
    result: object = str(value)
    match value:
        case None | bool() | int():
            result = value
        case float() if math.isfinite(value):
            result = value
        case datetime():
            result = _iso(value)
        case Mapping():
            result = {str(key): plain(item) for key, item in value.items()}
        case msgspec.Struct():
            result = msgspec.to_builtins(value)
        case list() | tuple() | set() | frozenset():
            result = [plain(item) for item in value]
    return result


def _iso(time: datetime) -> str:
    """ISO in UTC, always with microseconds, so that lines sort by it."""
    utc = time.replace(tzinfo=UTC) if time.tzinfo is None else time.astimezone(UTC)
    return utc.isoformat(timespec="microseconds")


def message_of(line: str) -> str:
    """What a log line says, be it JSON or not."""
    try:
        return str(json.loads(line)["message"])
    except (ValueError, KeyError, TypeError):
        return line
