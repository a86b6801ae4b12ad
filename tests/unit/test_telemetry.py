"""Metrics as Prometheus reads them over HTTP, the closed lists they and the events come from, and the log's lines."""

from __future__ import annotations

import ast
import asyncio
import gc
import json
import logging
import math
import subprocess
import sys
import threading
import urllib.request
import warnings
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import polars as pl
import pytest
from prometheus_client.parser import text_string_to_metric_families
from pydantic import SecretStr

from raven.batches.batch import Gap
from raven.rpc.subscriptions import SubscriptionTable
from raven.telemetry import Telemetry, catch_loop_problems, catch_problems
from raven.telemetry.disk import daily_growth_bytes, seconds_until_full
from raven.telemetry.document import PAGE, written
from raven.telemetry.events import EVENTS
from raven.telemetry.logs import JsonFormatter, TextFormatter, in_words, message_of
from raven.telemetry.metrics import METRICS, exported
from raven.telemetry.repeats import MOST, Repeats

SOURCES = sorted(Path(__file__).resolve().parents[2].glob("raven/**/*.py"))


@pytest.fixture
def telemetry() -> Telemetry:
    return Telemetry("test")


class Lines(logging.Handler):
    """The log lines of one service, as JSON."""

    def __init__(self) -> None:
        super().__init__()
        self.setFormatter(JsonFormatter())
        self.lines: list[dict[str, object]] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(json.loads(self.format(record)))


@pytest.fixture
def lines() -> Iterator[Lines]:
    handler, logger = Lines(), logging.getLogger("raven.test")
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    yield handler
    logger.removeHandler(handler)


def scrape(port: int) -> dict[tuple[str, tuple[str, ...]], float]:
    """Every sample by (name, label values in the order of the labels' names)."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=60) as answer:
        text = answer.read().decode()
    return {
        (sample.name, tuple(value for _, value in sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def ticks(symbols: list[str], time: datetime | None = None) -> pl.DataFrame:
    rows = len(symbols)
    return pl.DataFrame(
        {
            "symbol": symbols,
            "trade_id": range(rows),
            "ts_event": pl.Series([time or datetime.now(UTC)] * rows, dtype=pl.Datetime("us", "UTC")),
            "price": [1.5] * rows,
        }
    )


def observe(table: SubscriptionTable, rows: pl.DataFrame) -> None:
    table.observe("BINANCE_SPOT", rows, id_="trade_id", time="ts_event", price="price")


# metrics


def test_what_is_counted_is_served_in_the_units_of_prometheus(telemetry: Telemetry) -> None:
    telemetry.add("rows", 3, upstream="exchange")
    telemetry.add("rows", 4, upstream="exchange")
    telemetry.add("dead_frames", reason="not json")
    telemetry.set("lag_us", 2_500_000, upstream="binance_spot")
    telemetry.set("clock_offset_ms", -250)
    telemetry.observe("flush_s", 0.3, store="trades")
    telemetry.warning("disk", "full")
    with telemetry.serve("127.0.0.1", 0) as server:
        found = scrape(server.port)
    assert found["raven_rows_total", ("exchange",)] == 7
    assert found["raven_dead_frames_total", ("not json",)] == 1
    assert found["raven_lag_seconds", ("binance_spot",)] == 2.5
    assert found["raven_clock_offset_seconds", ()] == -0.25
    assert found["raven_flush_seconds_count", ("trades",)] == 1
    assert found["raven_flush_seconds_sum", ("trades",)] == 0.3
    assert found["raven_events_total", ("disk", "warning")] == 1
    assert found["raven_missing_ids_total", ()] == 0, "what only counts up begins at 0"
    assert not any(name == "raven_healthy" for name, _ in found), "a gauge appears once it is known"
    assert found["process_open_fds", ()] > 0
    assert found["process_start_time_seconds", ()] <= datetime.now(UTC).timestamp()
    assert any(name == "raven_build_info" for name, _ in found)


def test_status_tells_the_same_numbers_as_prometheus(telemetry: Telemetry) -> None:
    telemetry.add("rows", 3, upstream="a")
    telemetry.add("rows", 4, upstream="b")
    telemetry.set("lag_us", 7, upstream="a")
    telemetry.set("lag_us", 5, upstream="b")
    telemetry.set("disk_left_s", math.inf)
    telemetry.observe("flush_s", 2.0, store="trades")
    assert telemetry.totals["rows"] == 7
    assert telemetry.totals["lag_us"] == 7, "of a gauge the largest"
    assert "disk_left_s" not in telemetry.totals, "never is no whole number"
    with telemetry.serve("127.0.0.1", 0) as server:
        found = scrape(server.port)
    snapshot = telemetry.snapshot()
    assert snapshot['raven_rows_total{upstream="b"}'] == found["raven_rows_total", ("b",)] == 4
    assert snapshot["raven_disk_left_seconds"] == found["raven_disk_left_seconds", ()] == math.inf
    assert snapshot['raven_flush_seconds_sum{store="trades"}'] == 2.0
    raven = {name for name, _ in found if name.startswith("raven_") and not name.endswith("_bucket")}
    assert {name.split("{")[0] for name in snapshot} == raven


def test_a_metric_or_label_that_is_not_listed_is_refused(telemetry: Telemetry) -> None:
    with pytest.raises(KeyError):
        telemetry.add("rowz")
    with pytest.raises(KeyError, match="rows has no label upstraem"):
        telemetry.add("rows", upstraem="exchange")
    telemetry.set("pending_rows", 3)
    assert telemetry.snapshot()["raven_pending_rows"] == 3, "a label that is not given is none"


def test_names_are_by_the_convention() -> None:
    for name, metric in METRICS.items():
        called = exported(name).name
        assert called.startswith("raven_")
        assert called.endswith("_total") == (metric.kind == "counter")
        assert not called.endswith(("_ms", "_us", "_s"))
        assert metric.help[0].isupper() or metric.help[0] == "1"
        assert metric.help.endswith(".")
    assert exported("lag_us") == ("raven_lag_seconds", 1e-6)
    assert exported("bars").name == "raven_bars_total", "a counter's name is never taken for a time"


def test_a_consumer_that_is_forgotten_disappears(telemetry: Telemetry) -> None:
    telemetry.replace("consumer_behind_bytes", {("a",): 10, ("b",): 20})
    telemetry.replace("consumer_behind_bytes", {("b",): 5})
    assert {name: value for name, value in telemetry.snapshot().items() if "consumer" in name} == {
        'raven_consumer_behind_bytes{consumer="b"}': 5
    }


@pytest.mark.slow
def test_ages_of_a_thousand_symbols_while_the_table_changes(telemetry: Telemetry) -> None:
    table = SubscriptionTable()
    telemetry.read_at_scrape("last_trade_age_s", table.ages_s)
    symbols = [f"S{number}USDT" for number in range(1_000)]
    observe(table, ticks(symbols, datetime.now(UTC) - timedelta(seconds=5)))
    over = threading.Event()

    def change() -> None:
        while not over.is_set():
            table.of("BINANCE_SPOT", "COMES")
            table.forget("BINANCE_SPOT", ["COMES"])

    changing = threading.Thread(target=change)
    changing.start()
    interval_s = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)  # so that the table does change while it is read
    try:
        for _ in range(2_000):
            assert len(table.ages_s()) == 1_000
        with telemetry.serve("127.0.0.1", 0) as server:
            for _ in range(20):
                found = scrape(server.port)
                ages = {labels: value for (name, labels), value in found.items() if name.endswith("age_seconds")}
                assert set(symbols) <= {symbol for symbol, _ in ages}
                assert 5 <= ages["S7USDT", "BINANCE_SPOT"] < 300
    finally:
        sys.setswitchinterval(interval_s)
        over.set()
        changing.join()
    table.forget("BINANCE_SPOT", symbols[1:])
    assert table.ages_s().keys() == {("BINANCE_SPOT", symbols[0])}, "what is not collected any more is gone"


def test_the_port_is_let_go_of_and_a_taken_one_is_an_error(telemetry: Telemetry) -> None:
    with telemetry.serve("127.0.0.1", 0) as server:
        with pytest.raises(OSError, match="in use"):
            Telemetry("other").serve("127.0.0.1", server.port)
        port = server.port
    with telemetry.serve("127.0.0.1", port) as server:
        assert scrape(port)


# closed lists


def calls() -> Iterator[tuple[str, str, str]]:
    """Every call on a telemetry in the tree that names what it tells: where, the method, the name."""
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.args:
                receiver, method = node.func.value, node.func.attr.replace("warn_once", "warning")
                of = getattr(receiver, "attr", getattr(receiver, "id", ""))
                name = node.args[0]
                if isinstance(name, ast.Constant) and (of.endswith("telemetry") or node.func.attr == "warn_once"):
                    yield f"{path.name}:{node.lineno}", method, name.value


def test_every_event_and_metric_in_the_code_is_listed() -> None:
    found = list(calls())
    events = {(name, method) for _, method, name in found if method in {"info", "warning", "error"}}
    events |= {(name, "error") for _, method, name in found if method == "unexpected"}
    assert len(events) > 20
    unlisted = {(name, level) for name, level in events if name not in EVENTS or EVENTS[name].level != level}
    assert unlisted == set(), "raven/telemetry/events.py lists every event with its level"
    assert EVENTS.keys() - {name for name, _ in events} == {"library"}, "what is listed is told somewhere"
    kinds = {"add": "counter", "set": "gauge", "replace": "gauge", "read_at_scrape": "gauge", "observe": "histogram"}
    for place, method, name in found:
        if method in kinds:
            assert METRICS[name].kind == kinds[method], f"{place}: {name}"


def test_the_page_is_made_of_the_lists() -> None:
    page = PAGE.read_text()
    assert page == written(page), "run `python -m raven.telemetry.document`"
    assert "`raven_last_trade_age_seconds`" in page


# events and their lines


def test_a_problem_that_goes_on_is_logged_when_it_changes_and_once_a_minute() -> None:
    repeats = Repeats()
    assert repeats.admit("lost", "refused", 0.0) == 0
    assert [repeats.admit("lost", "refused", second) for second in (1.0, 30.0, 59.9)] == [None] * 3
    assert repeats.admit("lost", "timed out", 30.0) == 0, "another message is a change"
    assert repeats.admit("lost", "refused", 60.0) == 3, "with the number of those not logged"
    assert repeats.admit("lost", "refused", 61.0) is None
    assert repeats.end("lost") == 1
    assert repeats.admit("lost", "refused", 62.0) == 0, "it was over: it is news again"


def test_what_is_remembered_of_problems_is_bounded() -> None:
    repeats = Repeats()
    for number in range(MOST + 1):
        assert repeats.admit("lost", str(number), 0.0) == 0
    assert repeats.admit("lost", "1", 1.0) is None
    assert repeats.admit("lost", "0", 1.0) == 0, "the oldest went"


def test_repeats_are_counted_and_not_logged(telemetry: Telemetry, lines: Lines) -> None:
    for _ in range(5):
        telemetry.warning("store_unavailable", "trades: the disk is away")
    for _ in range(2):
        telemetry.error("gap", "BTCUSDT: 5 trade ids were not received")
    telemetry.info("store_back", "trades is being written again")
    telemetry.warning("store_unavailable", "trades: the disk is away")
    assert [(line["event"], line.get("unlogged_repeats")) for line in lines.lines] == [
        ("store_unavailable", None), ("gap", None), ("gap", None), ("store_back", 4), ("store_unavailable", None),
    ]  # fmt: skip
    assert telemetry.snapshot()['raven_events_total{event="store_unavailable",level="warning"}'] == 6


def record(**fields: object) -> logging.LogRecord:
    made = logging.LogRecord("raven.test", logging.WARNING, "", 0, "what\nhappened %", None, None)
    made.raven_event, made.raven_fields = "disk", fields
    return made


def test_a_line_of_json_has_typed_fields() -> None:
    text = JsonFormatter().format(
        record(
            rows=3, share=0.5, nothing=None, never=math.inf, path=Path("/data"), token=SecretStr("hush"), level="high",
            at=datetime(2026, 1, 1, 13, tzinfo=timezone(timedelta(hours=1))), gaps=(Gap("币安人生USDT", 1, 5),),
        )
    )  # fmt: skip
    assert "\n" not in text
    assert "hush" not in text
    line = json.loads(text)
    assert datetime.fromisoformat(line.pop("time")).utcoffset() == timedelta(0)
    assert line == {
        "level": "warning", "logger": "raven.test", "event": "disk", "message": "what\nhappened %", "rows": 3,
        "share": 0.5, "nothing": None, "never": "inf", "path": "/data", "token": "**********", "level_": "high",
        "at": "2026-01-01T12:00:00.000000+00:00",
        "gaps": [{"symbol": "币安人生USDT", "after_id": 1, "before_id": 5, "final": True, "reason": ""}],
    }  # fmt: skip
    assert message_of(text) == "what\nhappened %"
    assert message_of("no json") == "no json"
    assert message_of("3") == "3"


def test_a_line_of_text_cannot_be_broken_by_what_others_wrote() -> None:
    text = TextFormatter().format(record(symbol="EVIL\nUSDT\x1b[31m", rows=3))
    assert text.endswith(" warning test: what\\nhappened % (symbol EVIL\\nUSDT\\x1b[31m; rows 3)")
    assert "\n" not in text


def test_a_line_of_text_is_a_sentence() -> None:
    gaps, none = {"BTCUSDT": Gap("BTCUSDT", 5, 9)}, []
    text = TextFormatter().format(record(after_id=5, gaps=gaps, free_bytes=7.5, kept=True, names=["a", "b"], late=none))
    assert text.endswith(
        "(after id 5; gaps BTCUSDT symbol BTCUSDT, after id 5, before id 9, final yes; free bytes 7.5; kept yes; "
        "names a, b; late none)"
    )


def test_a_line_of_text_does_not_repeat_what_its_message_says() -> None:
    said = logging.LogRecord("raven.test", logging.INFO, "", 0, "%s", ("1,200 rows of BTCUSDT in data/a-1",), None)
    said.raven_fields = {"rows": 1200, "symbol": "BTCUSDT", "path": Path("data/a-1"), "symbols": "BTC", "gaps": 20}
    assert TextFormatter().format(said).endswith("1,200 rows of BTCUSDT in data/a-1 (symbols BTC; gaps 20)")
    assert in_words({"connection": 1, "port": 4}, "connected to 127.0.0.1:4") == " (connection 1; port 4)"
    assert in_words({"late": 4}, "so many: 4.") == ""


def test_what_a_library_logs_is_an_event_too() -> None:
    line = json.loads(JsonFormatter().format(logging.LogRecord("aiohttp", logging.ERROR, "", 0, "%s", ("x",), None)))
    assert (line["event"], line["logger"], line["message"]) == ("library", "aiohttp", "x")


@pytest.fixture
def caught(telemetry: Telemetry) -> Iterator[Telemetry]:
    hooks = warnings.showwarning, threading.excepthook, sys.unraisablehook
    catch_problems(telemetry)
    yield telemetry
    warnings.showwarning, threading.excepthook, sys.unraisablehook = hooks


async def test_what_python_complains_of_is_an_event(caught: Telemetry, lines: Lines) -> None:
    catch_loop_problems(asyncio.get_running_loop(), caught)

    async def fail() -> None:
        raise KeyError("forgotten")

    task = asyncio.ensure_future(fail())
    await asyncio.wait({task})
    del task
    gc.collect()
    thread = threading.Thread(target=lambda: 1 // 0, name="store")
    thread.start()
    thread.join()
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.showwarning = caught_show = warnings.showwarning
        assert caught_show.__module__ == "raven.telemetry.problems"
        warnings.warn("old ways", DeprecationWarning, stacklevel=1)
    assert [(line["event"], line["level"], line["message"]) for line in lines.lines] == [
        ("uncaught", "error", "Task exception was never retrieved: KeyError: 'forgotten'"),
        ("uncaught", "error", "thread store: ZeroDivisionError: integer division or modulo by zero"),
        ("python_warning", "warning", "DeprecationWarning: old ways"),
    ]
    assert "Traceback" in str(lines.lines[0]["traceback"])
    assert isinstance(lines.lines[2]["line"], int)


def test_logging_is_set_up_for_machines_where_it_is_piped() -> None:
    program = (
        "import logging; from raven.telemetry import Telemetry, set_up_logging; set_up_logging('warning');"
        "t = Telemetry('x'); t.info('started', 'no'); t.warning('disk', 'yes', free_bytes=5);"
        "logging.getLogger('aiohttp').info('no'); logging.getLogger('aiohttp').warning('yes')"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    found = [json.loads(line) for line in done.stderr.splitlines()]
    assert [(line["logger"], line["event"], line["message"]) for line in found] == [
        ("raven.x", "disk", "yes"),
        ("aiohttp", "library", "yes"),
    ]
    assert found[0]["free_bytes"] == 5


# disk


def test_the_time_until_the_disk_is_full_follows_the_trend() -> None:
    filling = [(60.0 * number, 1_000_000 - 1_000 * number) for number in range(12)]
    assert seconds_until_full(filling) == pytest.approx(989_000 / 1_000 * 60)
    spike = [*filling[:5], (300.0, 900_000), *filling[6:]]
    assert 0.3 < seconds_until_full(spike) / seconds_until_full(filling) < 3, "a file that comes and goes is no trend"
    assert seconds_until_full([(time, 5) for time, _ in filling]) == math.inf, "nothing grows"
    assert seconds_until_full([(time, int(time)) for time, _ in filling]) == math.inf, "room is being made"
    assert seconds_until_full(filling[:10]) == math.inf, "nine minutes say nothing yet"
    assert seconds_until_full([]) == math.inf


def test_what_data_grow_by_in_a_day() -> None:
    growing = [(60.0 * number, 5_000 + 1_000 * number) for number in range(12)]
    assert daily_growth_bytes(growing) == 1_000 * 24 * 60
    assert daily_growth_bytes(growing[:10]) is None, "nine minutes say nothing yet"
    assert daily_growth_bytes([(time, 10**6 - size) for time, size in growing]) == 0, "they shrink"
    assert daily_growth_bytes([]) is None
