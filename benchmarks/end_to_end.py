"""End to end through every service, real processes: throughput, memory, and latency from frame to published bar.

    python -m benchmarks.end_to_end RECORDING.zip

Throughput: the recording played as fast as it is read, from the first trade received until every trade is stored.
Latency: the recording at 5,000 trades a second; from the receipt of the frame that closes a bar to the arrival of
the bar at a subscriber, p50 and p99. Memory: resident set of each service after the run.
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
import time
from contextlib import aclosing
from pathlib import Path

import numpy as np
import polars as pl
import psutil

import raven
from raven.batches.ipc import decode
from raven.batches.schema import to_frame
from raven.clock import now_us
from raven.rpc.access import Access
from raven.rpc.client import Client
from tests.e2e.cluster import Cluster, cluster, wait_until

RATE = 5_000
GOALS = {"binance_spot": "rows", "raven_timebar": "rows", "raven_tibs": "rows", "tick_persistence": "stored_rows"}


def collect(run: Cluster, symbol: str) -> None:
    run.ctl("start", "--service", "tick_persistence", "--symbol", symbol, "--wait", "30")
    run.ctl("start", "--service", "bar_persistence", "--symbol", symbol, "--wait", "0")


def memory(run: Cluster) -> dict[str, float]:
    return {name: psutil.Process(process.pid).memory_info().rss / 2**20 for name, process in run.processes.items()}


def throughput(folder: Path, recording: Path, trades: pl.DataFrame) -> None:
    symbol = trades["symbol"][0]
    with cluster(folder) as run:
        run.start()
        for sink in ("tick_persistence", "bar_persistence"):
            run.ctl("start", "--service", sink, "--symbol", symbol, "--wait", "0")
        run.simulate("--play", str(recording), "--speed", "max")
        wait_until(lambda: run.counter("binance_spot", "rows") > 0, 60, "the first trade")
        began, done = time.perf_counter(), {}
        before = {name: run.counter(name, counter) for name, counter in GOALS.items()}
        while len(done) < len(GOALS):
            for name, counter in GOALS.items():
                if name not in done and run.counter(name, counter) >= trades.height:
                    done[name] = time.perf_counter() - began
        for name, seconds in done.items():
            rows = trades.height - before[name]
            print(f"{name:18} {rows:,} trades in {seconds:5.2f} s = {rows / seconds:>9,.0f} trades/s")
        for name, mebibytes in memory(run).items():
            print(f"{name:18} {mebibytes:6.0f} MiB resident")


async def arrivals(target: str, timeout_s: float) -> tuple[pl.DataFrame, list[int]]:
    """Rows of a service and when each arrived here (UTC, microseconds)."""
    frames: list[pl.DataFrame] = []
    stamps: list[int] = []
    try:
        async with (
            asyncio.timeout(timeout_s),
            Client(target, Access()) as client,
            aclosing(client.subscribe("earliest")) as stream,
        ):
            async for _, payload in stream:
                if payload is not None:
                    frame = to_frame(decode(payload)[0])
                    frames.append(frame)
                    stamps += [now_us()] * frame.height
    except TimeoutError:
        pass  # the recording is over by then
    return pl.concat(frames), stamps


def latency(folder: Path, recording: Path, trades: pl.DataFrame) -> None:
    symbol, seconds = trades["symbol"][0], trades.height / RATE
    with cluster(folder) as run:
        run.start()
        for sink in ("tick_persistence", "bar_persistence"):
            run.ctl("start", "--service", sink, "--symbol", symbol, "--wait", "0")
        run.simulate("--play", str(recording), "--rate", str(RATE))
        wait_until(lambda: run.counter("binance_spot", "rows") > 0, 60, "the first trade")

        async def listen() -> list[tuple[pl.DataFrame, list[int]]]:
            targets = [f"127.0.0.1:{run.ports[name]}" for name in ("raven_timebar", "raven_tibs")]
            return await asyncio.gather(*(arrivals(target, seconds + 5) for target in targets))

        (time_bars, time_stamps), (tibs, tib_stamps) = asyncio.run(listen())
        received = pl.concat(raven.replay(run.data / f"binance_spot-{run.ports['binance_spot']}"))
    received = received.select("trade_id", pl.col("ts_recv").dt.epoch("us").alias("recv_us"))
    for name, bars, stamps, closing in (
        ("time bars, 60 s", time_bars, time_stamps, pl.col("last_trade_id") + 1),
        ("TIBs", tibs, tib_stamps, pl.col("last_trade_id")),
    ):
        closed = bars.with_columns(arrived_us=pl.Series(stamps), closing=closing).filter(pl.col("complete"))
        joined = closed.join(received, left_on="closing", right_on="trade_id")
        late_ms = ((joined["arrived_us"] - joined["recv_us"]) / 1e3).to_numpy()
        p50, p99 = np.percentile(late_ms, [50, 99])
        print(f"{name:18} {late_ms.size} bars at {RATE:,} trades/s: p50 {p50:.1f} ms, p99 {p99:.1f} ms")


def main() -> None:
    recording = Path(sys.argv[1]).absolute()
    trades = raven.read_trades(recording)
    with tempfile.TemporaryDirectory() as folder:
        throughput(Path(folder) / "throughput", recording, trades)
        latency(Path(folder) / "latency", recording, trades)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main()
