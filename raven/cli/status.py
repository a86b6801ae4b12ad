"""The tables of `ravenctl list` and `ravenctl status`, as lines for a terminal of some width, or for a pipe (None)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from rich.markup import escape
from rich.text import Text

from raven.batches.instrument import Instrument
from raven.cli import output
from raven.cli.growth import growth_sentences
from raven.cli.tables import Layout, sentence, table_lines
from raven.clock import now_us
from raven.errors import AccessError, TooLateError, UpstreamError
from raven.rpc.pb import control_pb2

MOST_NAMED: Final = 5
COUNTED: Final = {
    "gaps": "gaps",
    "missing ids": "missing_ids",
    "healed": "healed_rows",
    "waiting": "held_rows",
    "duplicates": "duplicate_rows",
    "late": "late_rows",
    "dead frames": "dead_frames",
    "reconnects": "reconnects",
    "bars": "bars",
    "stored": "stored_rows",
    "retries": "retries",
}
"""Columns of the last table of `status`, and the counters they show."""

COLLECTIONS: Final = Layout(
    "Collections",
    ("service", "venue", "symbol", "state", "rows>", "last id>", "age>", "missing ids>", "wanted by"),
    leaving=("last id", "age", "missing ids", "rows"),
    below="wanted by",
)
SERVICE_TABLE: Final = Layout(
    "Services",
    ("service", "state", "up", "symbols>", "rows>", "lag>", "age>", "queue>", "journal>"),
    leaving=("queue", "journal", "symbols", "age", "rows", "lag"),
)
STORES: Final = Layout(
    "Stores",
    ("service", "store", "state", "stored>", "backlog rows>", "backlog>", "dead>", "last stored>"),
    leaving=("last stored", "backlog", "stored", "dead"),
)
COUNTERS: Final = Layout(
    "Since they started",
    ("service", *(f"{name}>" for name in COUNTED), "clock offset>"),
    leaving=("clock offset", "retries", "bars", "reconnects", "stored", "waiting", "late", "healed", "duplicates"),
)


def collection_lines(
    results: Mapping[str, Sequence[control_pb2.Subscription] | UpstreamError], width: int | None
) -> list[Text]:
    """Each symbol that is collected, by service, and below them what is said of them; empty when there is none."""
    rows = [
        _collection_row(name, entry)
        for name, answer in results.items()
        if not isinstance(answer, UpstreamError)
        for entry in answer
    ]
    told = dict.fromkeys(line for name, answer in results.items() for line in _messages(name, answer))
    return [
        *(table_lines(COLLECTIONS, rows, width) if rows else []),
        *(line for message in told for line in sentence(message, width)),
    ]


def _collection_row(name: str, entry: control_pb2.Subscription) -> list[str]:
    wanted_by = ", ".join(entry.wanted_by) + (f" ({entry.pattern})" if entry.pattern else "")
    return [
        name,
        entry.venue,
        escape(entry.symbol),
        output.state_word(entry.state),
        "" if _is_pattern(entry) else output.count(entry.rows),
        str(entry.last_trade_id or ""),
        output.duration(max(0, now_us() - entry.last_event_us) / 1e6) if entry.last_event_us else "",
        output.count(entry.missing_ids) if entry.missing_ids else "",
        wanted_by,
    ]


def _messages(name: str, answer: Sequence[control_pb2.Subscription] | UpstreamError) -> list[str]:
    """What is said of symbols, with those that it is said of."""
    by_message: dict[str, list[str]] = {}
    for entry in [] if isinstance(answer, UpstreamError) else answer:
        if entry.message:
            by_message.setdefault(entry.message, []).append(entry.symbol)
    return [
        f"{name} {escape(', '.join(symbols[:MOST_NAMED]))}{_others(len(symbols) - MOST_NAMED)}: {escape(message)}"
        for message, symbols in by_message.items()
    ]


def _others(number: int) -> str:
    return f" and {output.counted(number, 'other')}" if number > 0 else ""


def _is_pattern(entry: control_pb2.Subscription) -> bool:
    return Instrument(entry.venue, entry.symbol).is_pattern


def status_lines(
    results: Mapping[str, control_pb2.StatusResponse | UpstreamError],
    width: int | None,
    hosts: Mapping[str, str] | None = None,
) -> list[Text]:
    """How each service is, what is wrong with them, their stores, and what their counters tell.

    `hosts` says where each service is; without it all are on one.
    """
    answers = {name: answer for name, answer in results.items() if isinstance(answer, control_pb2.StatusResponse)}
    lines = table_lines(SERVICE_TABLE, [_service_row(name, answer) for name, answer in results.items()], width)
    for name, answer in answers.items():
        for problem in _problems(answer):
            lines += sentence(f"[red]{name}[/]: {escape(problem)}", width)
    for told in growth_sentences(answers, hosts):
        lines += sentence(f"[dim]{escape(told)}[/]", width)
    stores = [
        _store_row(name, store)
        for name, answer in answers.items()
        for store in answer.stores
        if answer.subscriptions or store.error
    ]
    if stores:
        lines += [Text(), *table_lines(STORES, stores, width)]
        lines += [line for name, answer in answers.items() for line in _store_notes(name, answer, width)]
    counted = [
        [name, *(_counter(answer, counter) for counter in COUNTED.values()), _offset(answer)]
        for name, answer in answers.items()
        if answer.subscriptions
    ]
    if counted:
        lines += [Text(), *table_lines(COUNTERS, counted, width)]
    if any(answer.simulated for answer in answers.values()):
        lines += sentence("[yellow]SIMULATED exchange: not a real market[/]", width)
    return lines


def _store_notes(name: str, answer: control_pb2.StatusResponse, width: int | None) -> list[Text]:
    """What is over, and what is left of it."""
    lines = []
    for store in answer.stores:
        if store.healthy and store.last_error:
            ago = output.duration((now_us() - store.last_error_us) / 1e6)
            lines += sentence(f"[dim]{name}: {ago} ago: {escape(store.last_error)}[/]", width)
        if store.dead_rows:
            refused = output.counted(store.dead_rows, "row")
            lines += sentence(
                f"[yellow]{name}[/]: {store.name} refused {refused}: `raven deadletters` tells why", width
            )
    return lines


def _problems(answer: control_pb2.StatusResponse) -> list[str]:
    """What is wrong; of an idle service at least that its stores cannot be written."""
    return list(dict.fromkeys([*answer.problems, *(store.error for store in answer.stores if store.error)]))


def _service_row(name: str, answer: control_pb2.StatusResponse | UpstreamError) -> list[str]:
    if isinstance(answer, UpstreamError):
        return [name, _why(answer), *[""] * 7]
    entries = [entry for entry in answer.subscriptions if not _is_pattern(entry)]  # its symbols speak for it
    health = "[green]ok[/]" if answer.healthy else "[red]unhealthy[/]"
    newest_us = max((entry.last_event_us for entry in entries), default=0)
    counters = answer.counters
    return [
        name,
        health if entries else "[dim]idle[/]",
        output.duration((now_us() - answer.started_us) / 1e6),
        str(len(entries)),
        output.count(sum(entry.rows for entry in entries)),
        output.duration(max(link.lag_us for link in answer.links) / 1e6) if entries and answer.links else "",
        output.duration(max(0, now_us() - newest_us) / 1e6) if newest_us else "",
        output.count(counters.get("pending_rows", 0)),
        output.size(counters["journal_bytes"]) if "journal_bytes" in counters else "",
    ]


def _store_row(service: str, store: control_pb2.Store) -> list[str]:
    since_us = store.error_since_us
    state = "[green]ok[/]" if store.healthy else f"[red]down for {output.duration((now_us() - since_us) / 1e6)}[/]"
    return [
        service,
        f"{store.name}/{store.table}",
        state,
        output.count(store.stored_rows),
        output.count(store.backlog_rows),
        output.duration(store.backlog_s),
        output.count(store.dead_rows) if store.dead_rows else "",
        f"{output.duration(max(0, now_us() - store.last_stored_us) / 1e6)} ago" if store.last_stored_us else "",
    ]


def _why(error: UpstreamError) -> str:
    if isinstance(error, AccessError):
        return "[red]refuses the call[/]"
    return "[red]does not answer[/]" if isinstance(error, TooLateError) else "[dim]not running[/]"


def _counter(answer: control_pb2.StatusResponse, counter: str) -> str:
    return output.count(answer.counters[counter]) if answer.counters.get(counter) else ""


def _offset(answer: control_pb2.StatusResponse) -> str:
    return f"{answer.counters['clock_offset_ms']} ms" if "clock_offset_ms" in answer.counters else ""
