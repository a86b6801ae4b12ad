"""The closed list of metrics. docs/observability.md is made of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Literal, NamedTuple

Kind = Literal["counter", "gauge", "histogram"]

SECONDS: Final[Mapping[str, float]] = {"_ms": 1e-3, "_us": 1e-6, "_s": 1.0}
"""Endings of names that are times: Prometheus wants seconds."""

BUCKETS_S: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)


class Metric(NamedTuple):
    """One metric: its kind, what it tells a newcomer, and its labels, each of a closed set of values."""

    kind: Kind
    help: str
    labels: tuple[str, ...] = ()


METRICS: Final[Mapping[str, Metric]] = {
    # taken in
    "frames": Metric("counter", "Messages received from the exchange, of every kind."),
    "bytes": Metric("counter", "Bytes taken in: messages of the exchange, batches of another service.", ("upstream",)),
    "batches": Metric("counter", "Batches taken in that held wanted rows.", ("upstream",)),
    "rows": Metric("counter", "Rows (trades or bars) taken in of wanted symbols.", ("upstream",)),
    "lag_us": Metric(
        "gauge", "How long ago the batch taken last was written by the upstream; 0 while it has nothing new.",
        ("upstream",),
    ),
    "last_trade_age_s": Metric(
        "gauge", "Time since the newest row of each collected symbol: its trade's time, in bar_persistence its bar's "
        "close. Symbols without a row yet are left out.", ("venue", "symbol"),
    ),
    "clock_offset_ms": Metric("gauge", "The exchange's clock minus this machine's; beyond a second, set the clock."),
    "watermark_us": Metric("gauge", "Venue time, since the epoch, up to which the published stream is complete."),
    "reconnects": Metric("counter", "Connections lost, which are opened again.", ("peer",)),
    "connection_attempts": Metric("counter", "Connections to the exchange tried."),
    "replaced_connections": Metric(
        "counter", "Connections replaced, with overlap, before the exchange ended them; no trade is lost."
    ),
    "rest_requests": Metric("counter", "Requests sent to the exchange's REST."),
    "rest_waits": Metric("counter", "Requests held back, by what held them: our budget or the exchange.", ("reason",)),
    "rest_retries": Metric("counter", "Requests repeated, by what failed.", ("reason",)),
    "rest_used_weight": Metric("gauge", "Request weight used at the exchange in the last minute."),
    # what was wrong with it
    "gaps": Metric("counter", "Places where trade ids are missing for good, by why they were given up.", ("reason",)),
    "missing_ids": Metric("counter", "Trade ids missing in these places: trades that were not received."),
    "healed_rows": Metric("counter", "Trades that were missing and were fetched over REST."),
    "held_symbols": Metric("gauge", "Symbols that wait for missing trades; others are not disturbed."),
    "held_rows": Metric("gauge", "Rows of these symbols that go on once the missing ones came."),
    "unwanted_rows": Metric(
        "counter", "Rows left out: of symbols that were stopped just before, or that nobody asked for.", ("reason",)
    ),
    "duplicate_rows": Metric("counter", "Rows dropped because their id was taken before; harmless."),
    "refused_rows": Metric(
        "counter", "Rows of an upstream's journal that break a rule, by which; sinks keep them in the dead letters, "
        "aggregators leave them out.", ("upstream", "reason"),
    ),
    "refused_batches": Metric(
        "counter", "Batches of an upstream's journal that cannot be read or are of another kind.", ("upstream",)
    ),
    "late_rows": Metric("counter", "Trades older than their predecessor, counted into the bar of the predecessor."),
    "dead_frames": Metric("counter", "Messages and trades that cannot be, kept in the dead-letter file.", ("reason",)),
    "ignored_frames": Metric("counter", "Well-formed messages of kinds that are not collected."),
    # handed on
    "published_batches": Metric("counter", "Batches written to the journal and published."),
    "published_rows": Metric("counter", "Rows written to the journal and published."),
    "published_bytes": Metric("counter", "Bytes written to the journal and published."),
    "bars": Metric("counter", "Bars published, later revisions of a bar included.", ("spec",)),
    "pending_rows": Metric("gauge", "Rows, or messages, received and not yet published or stored.", ("queue",)),
    "stored_rows": Metric("counter", "Rows committed to a store.", ("store",)),
    "flush_s": Metric("histogram", "How long commits to a store took.", ("store",)),
    "last_flush_ms": Metric("gauge", "How long the last commit to a store took.", ("store",)),
    "retries": Metric("counter", "Commits that failed and are tried again.", ("store",)),
    "store_up": Metric("gauge", "1 when a store took its last commit, 0 when it could not.", ("store",)),
    "backlog_rows": Metric("gauge", "Rows of all symbols, journaled upstream, that a store has not got.", ("store",)),
    "backlog_s": Metric("gauge", "How long ago the oldest of them was journaled.", ("store",)),
    "dead_rows": Metric("counter", "Rows a store refused for what they hold, kept in the dead letters.", ("store",)),
    "dropped_rows": Metric("counter", "Rows a store does not take, by why.", ("store", "reason")),
    # kept
    "journal_bytes": Metric("gauge", "Bytes the journal takes."),
    "journal_sequence": Metric("gauge", "Number of the newest batch in the journal."),
    "consumer_behind_bytes": Metric(
        "gauge", "Bytes the journal keeps for each durable consumer until it has acknowledged them.", ("consumer",)
    ),
    "dropped_unacknowledged_rows": Metric(
        "counter", "Rows the journal dropped at its size limit before every consumer had them."
    ),
    "disk_free_bytes": Metric("gauge", "Free bytes of the disk that holds the service's data."),
    "disk_left_s": Metric(
        "gauge", "Time until that disk is full, should all that writes to it go on as in the last hour; +Inf: it does "
        "not fill, or was not yet seen for ten minutes.",
    ),
    "data_bytes": Metric("gauge", "Bytes that the service's data take here: its folder and the tables it writes."),
    "data_daily_growth_bytes": Metric(
        "gauge", "Bytes by which these grow in a day, as in the last hour; left out before ten minutes were seen."
    ),
    # the service
    "refused_calls": Metric("counter", "Calls and connections refused to others, by why.", ("reason",)),
    "connections": Metric("gauge", "Connections of others to the service's port."),
    "healthy": Metric("gauge", "1 when all that is wanted is being collected, 0 when something is wrong."),
}  # fmt: skip


class Unit(NamedTuple):
    """How a metric is called in Prometheus, and what its values are multiplied with."""

    name: str
    factor: float


def exported(name: str) -> Unit:
    """`raven_<noun>_<unit>`, and `_total` behind a counter; raises KeyError for what is no metric."""
    kind = METRICS[name].kind
    for ending, factor in SECONDS.items():
        if kind != "counter" and name.endswith(ending):
            return Unit(f"raven_{name.removesuffix(ending)}_seconds", factor)
    return Unit(f"raven_{name}_total" if kind == "counter" else f"raven_{name}", 1.0)
