"""Kernels of bars that trades close against a plain Python loop, CPU time, on an archive and on many symbols.

python -m benchmarks.bars ../shared/data/BTCUSDT-trades-2019-04-01_00h-12h.zip
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence

import numpy as np
import polars as pl

import raven
from raven.bars.kernel import Kernel
from raven.bars.sized import SizedBarKernel
from raven.bars.tick_imbalance import TickImbalanceKernel
from raven.batches.batch import TradeBatch

VENUE = "BINANCE_SPOT"
ROUNDS = 15
KERNELS: Sequence[Kernel] = (
    TickImbalanceKernel(),
    SizedBarKernel("tick", 1_000),
    SizedBarKernel("volume", 50),
    SizedBarKernel("dollar", 250_000),
    SizedBarKernel("volume", 1),
    SizedBarKernel("tick", 5),
)

Lists = tuple[list[str], list[float], list[float], list[int]]


def loop(frames: Sequence[Lists], size: float = 50.0) -> int:
    """Volume bars of ten figures, trade by trade; how many."""
    bars: dict[str, list[float]] = {}
    closed = 0
    for frame in frames:
        for symbol, price, quantity, side in zip(*frame, strict=True):
            bar = bars.get(symbol)
            if bar is None:
                bar = bars[symbol] = [price, price, price, price, 0.0, 0.0, 0.0, 0.0, 0, 0]
            if price > bar[1]:
                bar[1] = price
            elif price < bar[2]:
                bar[2] = price
            quote = price * quantity
            bar[3] = price
            bar[4] += quantity
            bar[5] += quote
            bar[9] += 1
            if side > 0:
                bar[6] += quantity
                bar[7] += quote
                bar[8] += 1
            if bar[4] >= size:
                closed += 1
                del bars[symbol]
    return closed


def step_all(kernel: Kernel, batches: Sequence[TradeBatch]) -> int:
    state, closed = kernel.initial(), 0
    for batch in batches:
        state, bars = kernel.step(state, batch)
        closed += bars.height
    return closed


def best_s(run: Callable[[], int]) -> float:
    best = float("inf")
    for _ in range(ROUNDS):
        began = time.process_time()
        run()
        best = min(best, time.process_time() - began)
    return best


def report(title: str, frames: Sequence[pl.DataFrame]) -> None:
    rows = sum(frame.height for frame in frames)
    lists = [tuple(frame.get_column(n).to_list() for n in ("symbol", "price", "quantity", "side")) for frame in frames]
    base_s = best_s(lambda: loop(lists))
    print(f"{title}: a loop over lists {rows / base_s / 1e6:.1f} M trades/s")
    batches = [TradeBatch(VENUE, frame) for frame in frames]
    for kernel in KERNELS:
        took_s = best_s(lambda kernel=kernel: step_all(kernel, batches))
        bars = step_all(kernel, batches)
        print(
            f"  {kernel.spec:28} {bars:6} bars {rows / took_s / 1e6:6.1f} M trades/s {base_s / took_s:5.1f} x the loop"
        )


def main() -> None:
    archive = raven.read_trades(sys.argv[1])
    for batch_rows in (1_000, 10_000, archive.height):
        report(f"archive in batches of {batch_rows}", list(archive.iter_slices(batch_rows)))
    names = pl.Series([f"S{number}" for number in range(1_000)])
    owners = np.random.default_rng(1).integers(0, len(names), archive.height)
    many = archive.with_columns(symbol=names.gather(owners)).with_columns(
        trade_id=pl.int_range(pl.len()).over("symbol")
    )
    report("1,000 symbols in batches of 10,000", list(many.iter_slices(10_000)))


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main()
