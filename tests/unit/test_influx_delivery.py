"""Requests that are under way when the process is to end."""

from __future__ import annotations

import subprocess
import sys

PROGRAM = """
import time
from raven.sinks.encode import encode_trades
from raven.sinks.influx.delivery import deliver
from raven.sinks.influx.responses import Answer
from raven.sinks.store import TradeFlush
from raven.tasks import OneThread
from tests.unit.samples import trades

asked = []

def write(lines):
    asked.append(lines)
    time.sleep(0 if len(asked) == 1 else 600)
    return Answer(204)

rows = encode_trades(TradeFlush([("BINANCE_SPOT", trades(range(100)))]))
OneThread("store").submit(lambda: deliver(rows, write, request_rows=10, request_bytes=10_000))
while len(asked) < 3:
    time.sleep(0.01)
"""


def test_a_server_that_hangs_holds_up_no_exit() -> None:
    subprocess.run([sys.executable, "-c", PROGRAM], check=True, timeout=60)
