"""What InfluxDB answers to a write whose points are older than the bucket keeps: its words, version by version."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping

from raven.sinks.influx.responses import Answer

PARTLY = "failure writing points to database: partial write: "


def _answer(status: int, message: str) -> Answer:
    code = "unprocessable entity" if status == 422 else "internal error"
    return Answer(status, json.dumps({"code": code, "message": message}).encode())


def _of_2_7_12(dropped: int) -> Answer:
    """About 570 characters with the tags of trades; the count stands behind them, and in front."""
    bound = "dropped because it violates a Retention Policy Lower Bound at 2026-03-05T16:34:57.686336708Z"
    oldest = "trades,side=buy,symbol=BTCUSDT,venue=BINANCE_SPOT at 2024-08-09T00:00:00.00000001Z"
    newest = "trades,side=sell,symbol=1000SHIBUSDT,venue=BINANCE_FUTURES at 2024-08-09T04:09:59.75000999Z"
    return _answer(
        422,
        f"{PARTLY}dropped {dropped} points outside retention policy of duration 720h0m0s - oldest point {oldest} {bound}, "
        f"newest point {newest} {bound} dropped={dropped} for database: 91040e1bf6671dfd for retention policy: autogen",
    )


RETENTION: Mapping[str, Callable[[int], Answer]] = {
    "1.x": lambda dropped: Answer(
        400, f'{{"error":"partial write: points beyond retention policy dropped={dropped}"}}'.encode()
    ),
    "2.0": lambda dropped: _answer(
        500,
        f"unexpected error writing points to database: partial write: points beyond retention policy dropped={dropped}",
    ),
    "2.7.11": lambda dropped: _answer(422, f"{PARTLY}points beyond retention policy dropped={dropped}"),
    "2.7.12": _of_2_7_12,
}
"""By the first version that says so, in these words; 2.8.0 says what 2.7.12 does."""
