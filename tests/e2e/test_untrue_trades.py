"""What an exchange can send that cannot be, through running services: what they say and store, and that all goes on."""

from __future__ import annotations

import contextlib
import json
import threading
from pathlib import Path

import polars as pl
import pytest

import raven
from raven.errors import UpstreamError
from tests.e2e.cluster import Cluster, cluster, wait_until

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(400)]

VENUES = {"binance_spot": "BINANCE_SPOT", "binance_futures": "BINANCE_FUTURES"}
SYMBOLS = ("BTCUSDT", "ETHUSDT")
FAULTS = (
    f"leap@8:{2**63},BTCUSDT", "leap@8.5:1000000,BTCUSDT", "leap@9:5000,ETHUSDT",
    f"future@9.5:{73 * 365 * 24}h,BTCUSDT", "future@10:5m,ETHUSDT", "strange@10.5:2000",
    *(f"skip@{11 + number / 100}:2,{symbol}" for number in range(8) for symbol in SYMBOLS), "429@11:20s",
)  # fmt: skip
REFUSED = [
    ("id_ahead", "BTCUSDT"), ("id_ahead", "BTCUSDT"), ("id_ahead", "ETHUSDT"),
    ("time_ahead", "BTCUSDT"), ("time_ahead", "ETHUSDT"),
]  # fmt: skip


class Watch:
    """What status says of spot's REST, from now on, whatever else the test waits for."""

    def __init__(self, run: Cluster) -> None:
        self.seen: list[str] = []
        self._run = run
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)
        self._thread.start()

    def _look(self) -> None:
        while not self._ended.wait(0.2):
            with contextlib.suppress(UpstreamError):  # the machine is busy
                links = self._run.status("binance_spot").links
                self.seen += [link.error for link in links if link.name == "rest"]

    def end(self) -> None:
        self._ended.set()
        self._thread.join()


def folder_of(run: Cluster, source: str) -> Path:
    return run.data / f"{source}-{run.ports[source]}"


def check_said(run: Cluster, source: str) -> None:
    """The dead letters hold each lie once; nothing is known of the symbols nobody asked for, nor said of one."""
    lines = (folder_of(run, source) / "dead_letters.jsonl").read_text().splitlines()
    entries = [json.loads(line) for line in lines]
    assert sorted((entry["reason"], entry["trade"]["symbol"]) for entry in entries if "trade" in entry) == REFUSED
    assert [entry["reason"] for entry in entries if "trade" not in entry] == ["bad_symbol"] * 1_000
    assert {entry.symbol for entry in run.status(source).subscriptions} == set(SYMBOLS)
    log = run.log(source)
    assert "nobody asked for" in log
    assert not [part for part in ("../", "\x1b", "answers 418", "Traceback") if part in log]


def check_stored(run: Cluster, source: str, *, may_have_gaps: bool) -> None:
    """Every trade of the source's journal is stored once, in whole seconds, and nothing of a time to come."""
    journaled = raven.read_trades(folder_of(run, source)).sort("symbol", "trade_id")
    stored = run.table("trades").filter(pl.col("venue") == VENUES[source]).sort("symbol", "trade_id")
    assert stored.select("symbol", "trade_id").equals(journaled.select("symbol", "trade_id"))
    for symbol in SYMBOLS:
        ids = stored.filter(pl.col("symbol") == symbol).get_column("trade_id")
        assert ids.is_unique().all()
        missing = int(ids[-1]) - int(ids[0]) + 1 - ids.len()
        assert missing == (run.status(source).counters["missing_ids"] // 2 if may_have_gaps else 0), symbol
    bars = run.table("time_bars").filter(pl.col("venue") == VENUES[source])
    assert set(bars.get_column("symbol")) == set(SYMBOLS)
    assert bars.get_column("open_time").max() <= stored.get_column("ts_event").max()
    whole = bars.filter(pl.col("complete"))
    assert whole.height > 2 * 10
    counted = stored.group_by("symbol", open_time=pl.col("ts_event").dt.truncate("1s")).agg(ticks=pl.len())
    both = whole.join(counted, on=["symbol", "open_time"])
    assert both.height == whole.height
    assert (both.get_column("total_ticks") == both.get_column("ticks")).all()


def test_what_cannot_be_is_set_aside_while_all_else_goes_on(tmp_path: Path) -> None:
    """Spot's REST answers, but for a refusal in the midst of healing; that of futures is silent."""
    settings = {
        "RAVEN__TIMEBAR__SECONDS": "[1]",
        "RAVEN__BINANCE_SPOT__HOLD_MAX_S": "300",
        "RAVEN__BINANCE_FUTURES__HOLD_MAX_S": "13",
        "RAVEN__BINANCE_FUTURES__REST_URL": "http://127.0.0.1:1",
    }
    with cluster(tmp_path, **settings) as run:
        run.simulate("--venue", "both", "--rate", "50", *(part for each in FAULTS for part in ("--fault", each)))
        run.start("binance_spot")
        watch = Watch(run)
        run.start("binance_futures", "raven_timebar", "tick_persistence", "bar_persistence")
        wanted = [part for symbol in SYMBOLS for part in ("--symbol", symbol)]
        for venue in ("spot", "futures"):
            for service in ("bar_persistence", "tick_persistence"):
                run.ctl("start", "--service", service, *wanted, "--venue", venue, "--wait", "15")

        shown = wait_until(lambda: watch.seen, 120, "a refusal is shown")
        assert shown[0].startswith("answers 429; no request is sent for "), shown
        assert 0 <= int(shown[0].split()[-3]) <= 20
        for source in VENUES:
            wait_until(
                lambda source=source: run.counter(source, "dead_frames") >= 1_005, 120, f"{source}: lies are refused"
            )
            wait_until(lambda source=source: run.counter(source, "unwanted_rows") == 1_000, 60, f"{source}: all came")
            wait_until(lambda source=source: run.status(source).healthy, 120, f"{source} is healthy")
            wait_until(lambda source=source: run.counter(source, "held_rows") == 0, 120, f"{source}: nothing waits")
            rows = run.counter(source, "rows")
            wait_until(
                lambda source=source, rows=rows: run.counter(source, "rows") > rows + 300, 60, f"{source} goes on"
            )
            check_said(run, source)
        assert run.counter("binance_spot", "gaps") == 0
        assert run.counter("binance_spot", "healed_rows") >= 32
        missing = {source: run.counter(source, "missing_ids") for source in VENUES}
        assert missing == {"binance_spot": 0, "binance_futures": 32}

        watch.end()
        run.ctl("stop-all")
        for source in VENUES:
            check_stored(run, source, may_have_gaps=source == "binance_futures")
