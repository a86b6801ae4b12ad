"""Counters, gauges and log lines: one call, per batch and never per trade, feeds all three readers.

`info`, `warning` and `error` write a log line and count it; `add` counts; `set` puts a gauge; `observe` times. What
is counted is served to Prometheus and, as plain totals, in the answer to `Status`.
"""

from __future__ import annotations

import logging
import math
import platform
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Final, TypeAlias

from prometheus_client import CollectorRegistry, Histogram, ProcessCollector, disable_created_metrics
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric as Family
from prometheus_client.registry import Collector

from raven.telemetry.events import EVENTS
from raven.telemetry.metrics import BUCKETS_S, METRICS, exported
from raven.telemetry.repeats import Repeats
from raven.telemetry.serving import MetricsServer
from raven.version import __version__

Labels: TypeAlias = tuple[str, ...]
Series: TypeAlias = Mapping[Labels, float]
BUILD_LABELS: Final = ("service", "version", "python")
EVENT_LABELS: Final = ("event", "level")


class Telemetry(Collector):
    """The metrics and events of one service; may be used from any thread. `version` is Raven's.

    `add`, `set` and `observe` take the labels of METRICS; one that is not given is empty. Raise KeyError for a
    metric or label that is not in METRICS.
    """

    def __init__(self, service: str) -> None:
        self._log = logging.getLogger(f"raven.{service}")
        self.version = __version__
        self._build = (service, self.version, platform.python_version())
        self._lock = threading.RLock()  # a finalizer may report in the midst of a report
        self._values: dict[str, dict[Labels, float]] = {
            name: {(): 0} if metric.kind == "counter" and not metric.labels else {} for name, metric in METRICS.items()
        }
        self._readers: dict[str, Callable[[], Series]] = {}
        self._events: dict[Labels, float] = {}
        self._repeats = Repeats()
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self.registry = CollectorRegistry()
        self.registry.register(self)
        ProcessCollector(registry=self.registry)
        self._histograms = {
            name: Histogram(exported(name).name, metric.help, metric.labels, registry=self.registry, buckets=BUCKETS_S)
            for name, metric in METRICS.items()
            if metric.kind == "histogram"
        }

    # counting

    def add(self, name: str, amount: int = 1, **labels: str) -> None:
        """Count `amount` of a counter."""
        key = _key(name, labels)
        with self._lock:
            series = self._values[name]
            series[key] = series.get(key, 0) + amount

    def set(self, name: str, value: float, **labels: str) -> None:
        """Put a gauge, in the unit its name says."""
        with self._lock:
            self._values[name][_key(name, labels)] = value

    def replace(self, name: str, series: Series) -> None:
        """Put all series of a gauge, by label values; those it had before are gone."""
        with self._lock:
            self._values[name] = dict(series)

    def read_at_scrape(self, name: str, read: Callable[[], Series]) -> None:
        """Let a gauge be read, from another thread, whenever it is asked for."""
        self._readers[name] = read

    def observe(self, name: str, value: float, **labels: str) -> None:
        """Note one duration in a histogram."""
        histogram = self._histograms[name]
        (histogram.labels(*_key(name, labels)) if METRICS[name].labels else histogram).observe(value)

    # events

    def info(self, event: str, message: str, **fields: object) -> None:
        """Something worth knowing."""
        self._emit(logging.INFO, event, message, fields)

    def warning(self, event: str, message: str, **fields: object) -> None:
        """Something is wrong and is being dealt with."""
        self._emit(logging.WARNING, event, message, fields)

    def error(self, event: str, message: str, **fields: object) -> None:
        """Data was lost or a human is needed."""
        self._emit(logging.ERROR, event, message, fields)

    def unexpected(self, event: str, message: str, error: BaseException) -> None:
        """An error nobody foresaw, logged with its traceback."""
        self._emit(logging.ERROR, event, f"{message}: {type(error).__name__}: {error}", {}, error)

    def _emit(
        self, level: int, event: str, message: str, fields: Mapping[str, object], error: BaseException | None = None
    ) -> None:
        known = EVENTS.get(event)
        with self._lock:
            key = (event, logging.getLevelName(level).lower())
            self._events[key] = self._events.get(key, 0) + 1
            unlogged: int | None = 0
            if known is not None and known.repeats:
                unlogged = self._repeats.admit(event, message, time.monotonic())
            elif known is not None and known.ends:
                unlogged = sum(self._repeats.end(name) for name in known.ends)
        if unlogged is None:
            return
        if unlogged:
            fields = {**fields, "unlogged_repeats": unlogged}
        self._log.log(level, message, exc_info=error, extra={"raven_event": event, "raven_fields": fields})

    # reading

    @property
    def totals(self) -> dict[str, int]:
        """By the names of METRICS, whole numbers in their units: counters over all labels, the largest of gauges."""
        found = {}
        for name, series in self._read().items():
            finite = [value for value in series.values() if math.isfinite(value)]
            if finite:
                found[name] = int(sum(finite) if METRICS[name].kind == "counter" else max(finite))
        return found

    def snapshot(self) -> dict[str, float]:
        """What Prometheus is told, by the same names and labels, but for the process, buckets and single symbols."""
        families = [*self.collect(), *(family for each in self._histograms.values() for family in each.collect())]
        return {
            _called(sample.name, sample.labels): sample.value
            for family in families
            for sample in family.samples
            if "symbol" not in sample.labels and "le" not in sample.labels
        }

    def _read(self) -> dict[str, Series]:
        with self._lock:
            values: dict[str, Series] = {name: dict(series) for name, series in self._values.items()}
        for name, read in self._readers.items():
            values[name] = read()
        return values

    def collect(self) -> Iterator[Family]:
        """Everything but the histograms and the process, for Prometheus."""
        for name, series in self._read().items():
            metric, unit = METRICS[name], exported(name)
            if series:
                yield _family(unit.name, metric.kind, metric.help, metric.labels, _scaled(series, unit.factor))
        with self._lock:
            events = dict(self._events)
        yield _family("raven_events_total", "counter", "Events by name and level.", EVENT_LABELS, events)
        yield _family(
            "raven_build_info", "gauge", "Always 1; its labels tell what runs.", BUILD_LABELS, {self._build: 1}
        )

    def describe(self) -> Iterator[Family]:
        """Nothing: what there is to collect depends on what was counted."""
        return iter(())

    def serve(self, host: str, port: int) -> MetricsServer:
        """Serve the metrics over HTTP from threads of its own; raises OSError when the port is taken."""
        return MetricsServer(self.registry, host, port)


def _key(name: str, labels: Mapping[str, str]) -> Labels:
    names = METRICS[name].labels
    if unknown := labels.keys() - set(names):
        raise KeyError(f"metric {name} has no label {', '.join(sorted(unknown))}")
    return tuple(labels.get(label, "") for label in names)


def _scaled(series: Series, factor: float) -> Series:
    return {labels: value * factor for labels, value in series.items()}


def _family(name: str, kind: str, text: str, labels: Labels, series: Series) -> Family:
    family = (CounterMetricFamily if kind == "counter" else GaugeMetricFamily)(name, text, labels=labels)
    for values, value in series.items():
        family.add_metric(values, value)
    return family


def _called(name: str, labels: Mapping[str, str]) -> str:
    inside = ",".join(f'{label}="{value}"' for label, value in labels.items() if value)
    return f"{name}{{{inside}}}" if inside else name
