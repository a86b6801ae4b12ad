"""Counters, gauges and log lines: one call, per batch and never per trade, feeds all three readers.

`Telemetry.event` writes a log line and counts it; `add` counts; `set` puts a gauge. What is counted is served to
Prometheus and, as plain totals, in the answer to `Status`.
"""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, start_http_server

COUNTERS: Final[Mapping[str, tuple[str, tuple[str, ...]]]] = {
    "frames": ("frames read from the exchange", ()),
    "rows": ("rows taken in", ("upstream",)),
    "batches": ("batches taken in", ("upstream",)),
    "published_batches": ("batches appended to the journal and published", ()),
    "published_rows": ("rows appended to the journal and published", ()),
    "bars": ("bars published, revisions included", ("spec",)),
    "duplicate_rows": ("rows dropped because their id was seen before", ()),
    "unwanted_rows": ("rows that came of symbols after they were stopped", ()),
    "late_rows": ("rows whose time lay before their predecessor's", ()),
    "gaps": ("ranges of trade ids given up", ("reason",)),
    "missing_ids": ("trade ids inside gaps", ()),
    "healed_rows": ("rows fetched because they did not come by themselves", ()),
    "dead_frames": ("frames that could not be decoded", ("reason",)),
    "ignored_frames": ("well-formed frames of kinds this service does not use", ()),
    "connection_attempts": ("connections to the exchange tried", ()),
    "replaced_connections": ("connections to the exchange replaced, with overlap, before their end", ()),
    "rest_requests": ("requests sent to the exchange's REST", ()),
    "rest_waits": ("REST requests held back, by what held them: budget or exchange", ("reason",)),
    "rest_retries": ("REST requests repeated, by what failed", ("reason",)),
    "reconnects": ("connections lost and opened again", ("peer",)),
    "stored_rows": ("rows committed to a store", ("store",)),
    "flushes": ("commits to a store", ("store",)),
    "retries": ("failed tries that will be repeated", ("store",)),
    "refused_calls": ("calls of others that were refused", ("reason",)),
    "dropped_unacknowledged_rows": ("rows the journal dropped before every consumer had them", ()),
}
GAUGES: Final[Mapping[str, str]] = {
    "pending_rows": "rows received and not yet written",
    "journal_bytes": "bytes the journal takes",
    "journal_sequence": "sequence number of the newest batch",
    "last_flush_ms": "how long the last commit took",
    "held_rows": "rows that wait for trades with lower ids",
    "held_symbols": "symbols whose rows wait for trades with lower ids",
    "clock_offset_ms": "how far the exchange's clock is ahead of this machine's",
    "rest_used_weight": "REST request weight used in the last minute, as far as known",
    "watermark_us": "venue time up to which the stream is complete",
}


class Telemetry:
    """The counters, gauges and events of one service."""

    def __init__(self, service: str) -> None:
        self.registry = CollectorRegistry()
        self._log = logging.getLogger(f"raven.{service}")
        self._counters = {
            name: Counter(f"raven_{name}", text, labels, registry=self.registry)
            for name, (text, labels) in COUNTERS.items()
        }
        self._gauges = {name: Gauge(f"raven_{name}", text, registry=self.registry) for name, text in GAUGES.items()}
        self._events = Counter("raven_events", "log lines by event", ("event",), registry=self.registry)
        self.totals: dict[str, int] = {}

    def add(self, name: str, amount: int = 1, **labels: str) -> None:
        """Count `amount` of a counter named in COUNTERS."""
        counter = self._counters[name]
        (counter.labels(**labels) if labels else counter).inc(amount)
        self.totals[name] = self.totals.get(name, 0) + amount

    def set(self, name: str, value: float) -> None:
        """Put a gauge named in GAUGES."""
        self._gauges[name].set(value)
        self.totals[name] = int(value)

    def info(self, event: str, message: str, **fields: object) -> None:
        """Something worth knowing."""
        self._emit(logging.INFO, event, message, fields)

    def warning(self, event: str, message: str, **fields: object) -> None:
        """Something is wrong and is being dealt with."""
        self._emit(logging.WARNING, event, message, fields)

    def error(self, event: str, message: str, **fields: object) -> None:
        """Data was lost or a human is needed."""
        self._emit(logging.ERROR, event, message, fields)

    def _emit(self, level: int, event: str, message: str, fields: Mapping[str, object]) -> None:
        self._events.labels(event=event).inc()
        self._log.log(level, message, extra={"raven_event": event, "raven_fields": fields})

    def serve(self, host: str, port: int) -> None:
        """Serve the metrics over HTTP; raises OSError when the port is taken."""
        start_http_server(port, addr=host, registry=self.registry)


class JsonFormatter(logging.Formatter):
    """One JSON object a line, for machines."""

    def format(self, record: logging.LogRecord) -> str:
        """The record as JSON, with the event's name and fields."""
        line = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(),
            "level": record.levelname.lower(),
            "logger": record.name,
            "event": getattr(record, "raven_event", ""),
            "message": record.getMessage(),
            **getattr(record, "raven_fields", {}),
        }
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str, ensure_ascii=False)


class TextFormatter(logging.Formatter):
    """Time, level and message, for people."""

    def format(self, record: logging.LogRecord) -> str:
        """The record as one line of text, with the event's fields behind."""
        time = datetime.fromtimestamp(record.created, UTC).strftime("%H:%M:%S.%f")[:-3]
        fields = "".join(f" {key}={value}" for key, value in getattr(record, "raven_fields", {}).items())
        text = (
            f"{time} {record.levelname.lower():<7} {record.name.removeprefix('raven.')}: {record.getMessage()}{fields}"
        )
        return f"{text}\n{self.formatException(record.exc_info)}" if record.exc_info else text


def set_up_logging(level: str) -> None:
    """Log to standard error: text on a terminal, JSON when piped."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(TextFormatter() if sys.stderr.isatty() else JsonFormatter())
    root = logging.getLogger("raven")
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    root.propagate = False
