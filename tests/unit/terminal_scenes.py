"""What the terminal is shown of in tests: two venues, long and wide names, high and low prices, with and without faults.

`python -m tests.unit.terminal_scenes` writes the renderings in tests/unit/renderings anew.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Final, cast
from unittest import mock

from rich.text import Text

from raven.batches.instrument import Instrument
from raven.cli import dashboard, status
from raven.cli.child_log import ChildLog
from raven.cli.dashboard import Dashboard
from raven.cli.status import collection_lines, status_lines
from raven.cli.supervisor import Child
from raven.cli.watch import Watch
from raven.control.plan import SERVICES
from raven.errors import TooLateError, UpstreamError
from raven.rpc.pb import control_pb2

RENDERINGS: Final = Path(__file__).with_name("renderings")
SIZES: Final = {80: 24, 100: 30, 120: 40, 200: 50}
SPOT, FUTURES = "BINANCE_SPOT", "BINANCE_FUTURES"
NOW: Final = datetime(2026, 9, 25, 12, 0, 10, tzinfo=UTC)
NOW_US: Final = int(NOW.timestamp() * 1e6)
TIB_SPEC: Final = "tib-100-0.7-0.1-0.1-50-1000"
MARKET: Final[Sequence[tuple[str, str, float, float, int]]] = (
    (SPOT, "BTCUSDT", 112_345.1, 41.3, 1_234_567),
    (SPOT, "1000SATSUSDT", 0.00001053, 3.2, 45_678),
    (SPOT, "币安人生USDT", 0.1234, 12.5, 98_765),
    (SPOT, "BTCIDR", 1_834_567_890.0, 0.1, 321),
    (FUTURES, "BTCUSDT_260925", 112_987.65, 8.9, 345_678),
    (FUTURES, "1000SATSUSDT", 0.0001053, 5.0, 56_789),
)
DISK_PROBLEM: Final = (
    "the data folder data/tick_persistence-50091 cannot be written: No space left on device; it is tried again "
    "until it works (free some space, or set `data` to a folder on another disk)"
)
LOST: Final = (
    "was killed by SIGKILL; its last log line: cannot listen on 127.0.0.1:50052: Address already in use (choose "
    "another --port, or stop what listens there)"
)


def subscriptions(*venues: str, with_problem: bool = False) -> list[control_pb2.Subscription]:
    """What is collected at the venues."""
    found = [
        control_pb2.Subscription(
            venue=venue, symbol=symbol, state=control_pb2.SYMBOL_STATE_STREAMING, rows=rows,
            last_trade_id=5_000_000_000 + rows, last_event_us=NOW_US - 250_000, last_price=price,
            wanted_by=["user", "raven_timebar-50051", "raven_tibs-50052", "tick_persistence-50091"],
            first_seen_us=NOW_US - 3_600_000_000,
        )
        for venue, symbol, price, _, rows in MARKET
        if venue in venues
    ]  # fmt: skip
    if with_problem and SPOT in venues:
        found[0].gaps, found[0].missing_ids = 1, 12
        found[2].state, found[2].message = control_pb2.SYMBOL_STATE_NOT_TRADING, "BREAK at the venue since 11:58:03 UTC"
    if FUTURES in venues:
        found.append(control_pb2.Subscription(venue=FUTURES, symbol="ETHUSDT", state=control_pb2.SYMBOL_STATE_WAITING))
    return found


def answers(*, with_problem: bool) -> dict[str, control_pb2.StatusResponse]:
    """What each service says of itself."""
    made = {}
    for number, (name, plan) in enumerate(SERVICES.items(), 1):
        venues = [plan.venue] if plan.venue else [SPOT, FUTURES]
        entries = subscriptions(*venues, with_problem=with_problem)
        rows = sum(entry.rows for entry in entries)
        counters = {
            "rows": rows, "pending_rows": 0, "data_bytes": number * 3 * 2**30, "disk_free_bytes": 180 * 2**30,
            "data_daily_growth_bytes": number * 2**29, "reconnects": 1,
        }  # fmt: skip
        if "persistence" in name:
            counters |= {"stored_rows": rows, "last_flush_ms": 38}
        else:
            counters |= {"journal_bytes": number * 2**30, "bars": 0 if plan.venue else 4321}
        made[name] = control_pb2.StatusResponse(
            service=name, pid=number, healthy=True, started_us=NOW_US - 45_296_000_000, subscriptions=entries,
            counters=counters, links=[control_pb2.Link(lag_us=31_000)] if not plan.venue else [],
        )  # fmt: skip
    for name, table in (("tick_persistence", "trades"), ("bar_persistence", "tick_imbalance_bars")):
        store = control_pb2.Store(
            name="delta", table=table, healthy=True, stored_rows=1_345_678, last_stored_us=NOW_US - 4_200_000
        )
        made[name].stores.append(store)
    if with_problem:
        made["tick_persistence"].healthy = False
        made["tick_persistence"].problems.append(DISK_PROBLEM)
        store = made["tick_persistence"].stores[0]
        store.healthy, store.error, store.error_since_us = False, DISK_PROBLEM, NOW_US - 754_000_000
        store.backlog_rows, store.backlog_s, store.dead_rows = 1_234_567, 754, 3
        made["binance_spot"].counters["gaps"] = 1
        made["binance_spot"].counters["missing_ids"] = 12
    return made


def bars(kind: str) -> list[dict[str, Any]]:
    """The newest bars, two of each instrument."""
    made = []
    for number in range(2):
        for venue, symbol, price, rate, _ in MARKET[:3] if number == 0 else MARKET[3:]:
            bar: dict[str, Any] = {
                "venue": venue, "symbol": symbol, "spec": "1m" if kind == "raven_timebar" else TIB_SPEC,
                "open_time": NOW - timedelta(seconds=70), "close_time": NOW - timedelta(seconds=10),
                "open": price, "high": price, "low": price, "close": price, "vwap": price * 0.9999,
                "volume": rate * 60, "total_ticks": int(rate * 60), "buy_ticks": int(rate * 29), "complete": number > 0,
            }  # fmt: skip
            if kind == "raven_tibs":
                bar |= {"theta": 41.0, "threshold": 40.3, "expected_size": 100.0}
            made.append(bar)
    return made


def dashboard_of(*, with_problem: bool) -> Dashboard:
    """The screen of `raven up` with everything in it."""
    watch = Watch(cast("Any", dict.fromkeys(SERVICES)))
    watch.status = answers(with_problem=with_problem)
    for venue, symbol, _, rate, rows in MARKET:
        watch._rows[Instrument(venue, symbol)] = deque([(0.0, rows - int(rate * 10)), (10.0, rows)])
    for name in ("raven_timebar", "raven_tibs"):
        watch.bars[name].extend(bars(name))
        watch.bar_counts[name] = 4321
    children = [Child(name, [], ChildLog(Path("none"))) for name in ("simulate", *SERVICES)]
    for number, child in enumerate(children):
        child.process = cast("Any", SimpleNamespace(pid=number, returncode=None))
    if with_problem:
        child = children[list(SERVICES).index("raven_tibs") + 1]
        child.process, child.restarts, child.failures, child.last_exit = None, 3, 3, LOST
    return Dashboard(watch, children, [], "Raven: SIMULATED exchange, not a real market")


def of_dashboard(width: int, *, with_problem: bool) -> list[Text]:
    """The screen of `raven up` at a width and the height that goes with it."""
    return dashboard_of(with_problem=with_problem).view(width, SIZES[width])


def of_status(width: int | None, *, with_problem: bool) -> list[Text]:
    """What `ravenctl status` prints."""
    found: Mapping[str, Any] = answers(with_problem=with_problem)
    if with_problem:
        found = {**found, "raven_tibs": UpstreamError("not there"), "raven_timebar": TooLateError("hangs")}
    return status_lines(found, width)


def of_list(width: int | None, *, with_problem: bool) -> list[Text]:
    """What `ravenctl list` prints of a source of each venue and of an aggregator."""
    found = answers(with_problem=with_problem)
    names = ["binance_spot", "binance_futures"]
    return collection_lines({name: list(found[name].subscriptions) for name in names}, width)


SCENES: Final = {"up": of_dashboard, "status": of_status, "list": of_list}


def rendering(scene: str, width: int, *, with_problem: bool) -> str:
    """A scene as text, at a fixed time."""
    with (
        mock.patch.object(dashboard, "now_us", return_value=NOW_US),
        mock.patch.object(status, "now_us", return_value=NOW_US),
    ):
        lines = SCENES[scene](width, with_problem=with_problem)
    return "".join(f"{line.plain.rstrip()}\n" for line in lines)


def path_of(scene: str, width: int, *, with_problem: bool) -> Path:
    """The file that holds it."""
    return RENDERINGS / f"{scene}-{width}-{'problem' if with_problem else 'well'}.txt"


if __name__ == "__main__":
    RENDERINGS.mkdir(exist_ok=True)
    for scene in SCENES:
        for width in SIZES:
            for with_problem in (False, True):
                path_of(scene, width, with_problem=with_problem).write_text(
                    rendering(scene, width, with_problem=with_problem)
                )
