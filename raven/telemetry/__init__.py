"""What a service tells of itself: metrics for Prometheus, totals for `Status`, events for the log."""

from __future__ import annotations

from raven.telemetry.logs import set_up_logging
from raven.telemetry.problems import catch_loop_problems, catch_problems
from raven.telemetry.serving import MetricsServer
from raven.telemetry.telemetry import Telemetry

__all__ = ["MetricsServer", "Telemetry", "catch_loop_problems", "catch_problems", "set_up_logging"]
