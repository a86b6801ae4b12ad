"""Real services watched as an operator watches them: scraped over HTTP, their logs read by a machine and by eye."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import re
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from raven.telemetry.events import EVENTS
from tests.e2e.cluster import MODULES, Cluster, cluster, free_base, is_free, wait_until

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]

CHAIN = ("binance_spot", "raven_timebar", "tick_persistence", "bar_persistence")


def scrape(run: Cluster, name: str) -> dict[str, float]:
    """Every sample of a service, as `name{label="value"}`."""
    with urllib.request.urlopen(f"http://127.0.0.1:{run.ports[name] + 1000}/metrics", timeout=10) as answer:
        families = list(text_string_to_metric_families(answer.read().decode()))
    return {
        sample.name + "".join(f"{{{label}={value}}}" for label, value in sorted(sample.labels.items())): sample.value
        for family in families
        for sample in family.samples
    }


def events(run: Cluster, name: str) -> list[dict[str, Any]]:
    """The log of a service: every line is one event."""
    return [json.loads(line) for line in run.log(name).splitlines()]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with cluster(tmp_path_factory.mktemp("watched")) as made:
        made.simulate()
        made.run("raven_timebar", MODULES["raven_timebar"], "--seconds", "1")
        made.start(*(name for name in CHAIN if name != "raven_timebar"))
        wait_until(lambda: made.answers("raven_timebar"), 60, "raven_timebar answers")
        for name in ("tick_persistence", "bar_persistence"):
            made.ctl("start", "--service", name, "--symbol", "BTCUSDT", "--symbol", "ETHUSDT", "--wait", "20")
        yield made


def test_every_service_tells_what_goes_through_it(run: Cluster) -> None:
    wait_until(lambda: scrape(run, "bar_persistence").get("raven_stored_rows_total{store=delta/time_bars}"), 60, "bars")
    source = wait_until(
        lambda: (
            (found := scrape(run, "binance_spot"))
            and f"raven_consumer_behind_bytes{{consumer=tick_persistence-{run.ports['tick_persistence']}-delta}}"
            in found
            and found
        ),
        30,
        "the source knows its consumers",
    )
    assert source["raven_published_rows_total"] >= source["raven_rows_total{upstream=exchange}"] > 0
    assert source["raven_published_bytes_total"] > 0
    assert source["raven_journal_bytes"] > 0
    assert source["raven_disk_free_bytes"] > 0
    assert source["raven_disk_left_seconds"] > 0
    assert source["raven_healthy"] == 1
    assert source["raven_last_trade_age_seconds{symbol=BTCUSDT}{venue=BINANCE_SPOT}"] < 30
    assert source["process_resident_memory_bytes"] > 2**20
    bars = scrape(run, "raven_timebar")
    assert bars["raven_bars_total{spec=1s}"] > 0
    assert bars["raven_bytes_total{upstream=binance_spot}"] > 0
    assert bars["raven_lag_seconds{upstream=binance_spot}"] >= 0
    sink = scrape(run, "tick_persistence")
    assert sink["raven_flush_seconds_count{store=delta/trades}"] > 0
    assert sink["raven_pending_rows{queue=delta/trades}"] >= 0
    assert "raven_retries_total{store=delta/trades}" not in sink
    counters = run.status("tick_persistence").counters
    assert counters["rows"] >= sink["raven_rows_total{upstream=binance_spot}"]


def test_a_symbol_that_is_stopped_disappears(run: Cluster) -> None:
    series = "raven_last_trade_age_seconds{symbol=ETHUSDT}{venue=BINANCE_SPOT}"
    assert series in scrape(run, "binance_spot")
    run.ctl("stop", "--symbol", "ETHUSDT")
    for name in ("binance_spot", "tick_persistence", "raven_timebar"):
        wait_until(lambda name=name: series not in scrape(run, name), 10, f"{name} forgets ETHUSDT")
        assert series.replace("ETH", "BTC") in scrape(run, name)


def test_what_is_lost_shows_and_is_logged_once(run: Cluster) -> None:
    run.kill("binance_spot")
    wait_until(lambda: scrape(run, "tick_persistence")["raven_healthy"] == 0, 20, "unhealthy while its source is away")
    wait_until(lambda: "upstream_lost" in run.log("tick_persistence"), 20, "the loss is logged")
    run.start("binance_spot")
    wait_until(lambda: scrape(run, "tick_persistence")["raven_healthy"] == 1, 60, "healthy again")
    assert scrape(run, "tick_persistence")["raven_reconnects_total{peer=binance_spot}"] >= 1
    names = [line["event"] for line in events(run, "tick_persistence")]
    lost = names.index("upstream_lost")
    assert names[lost:].count("upstream_connected") == 1
    assert len(names) < 20, "not at every try"


def test_logs_are_events_of_the_list(run: Cluster) -> None:
    for name in CHAIN:
        for line in events(run, name):
            assert line["event"] in EVENTS
            assert line["level"] == EVENTS[line["event"]].level or line["event"] == "library"
            assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}\+00:00", line["time"])
    started = events(run, "binance_spot")[0]
    assert (started["event"], started["metrics_port"]) == ("started", run.ports["binance_spot"] + 1000)


def test_the_end_lets_go_of_the_metrics_port(run: Cluster) -> None:
    assert run.terminate("bar_persistence") == 0
    assert is_free(run.ports["bar_persistence"] + 1000)
    assert events(run, "bar_persistence")[-1]["event"] == "stopped"


def service(folder: Path, *arguments: str, **environment: str) -> tuple[list[str], dict[str, Any]]:
    command = [sys.executable, "-m", MODULES["raven_timebar"], *arguments]
    found = {key: value for key, value in os.environ.items() if not key.startswith("RAVEN__")}
    return command, {"env": {**found, "RAVEN__DATA": str(folder / "data"), **environment}, "cwd": folder}


@pytest.mark.parametrize(("offset", "what"), [(0, "cannot listen on"), (1000, "cannot serve metrics on")])
def test_a_port_that_is_taken_is_the_reason_for_the_end(tmp_path: Path, offset: int, what: str) -> None:
    port = free_base()
    command, options = service(tmp_path, "--port", str(port))
    with socket.create_server(("127.0.0.1", port + offset)):
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, **options)
    assert done.returncode == 1
    (line,) = [json.loads(line) for line in done.stderr.splitlines()]
    assert (line["event"], line["level"]) == ("failed", "error")
    assert line["message"].startswith(f"{what} 127.0.0.1:{port + offset}")
    assert "--port" in line["message"]


def test_on_a_terminal_the_log_is_text(tmp_path: Path) -> None:
    command, options = service(tmp_path, "--port", str(free_base()))
    main, terminal = pty.openpty()
    process = subprocess.Popen(command, stdin=terminal, stdout=terminal, stderr=terminal, **options)
    os.close(terminal)
    screen, told = b"", False
    with contextlib.suppress(OSError):  # the end of a terminal
        while True:
            screen += os.read(main, 1 << 16)
            if b"listens on" in screen and not told:
                process.send_signal(signal.SIGINT)
                told = True
    os.close(main)
    assert process.wait(30) == 0
    first, last = screen.decode().splitlines()
    assert re.match(
        r"\d\d:\d\d:\d\d\.\d{3} info    raven_timebar: raven_timebar listens on 127\.0\.0\.1:\d+ \(data /", first
    )
    assert re.match(r"\d\d:\d\d:\d\d\.\d{3} info    raven_timebar: raven_timebar stopped$", last)


def test_the_least_level_is_honoured(tmp_path: Path) -> None:
    for arguments, environment in ((["--log-level", "warning"], {}), ([], {"RAVEN__LOG_LEVEL": "warning"})):
        port = free_base()
        command, options = service(tmp_path, "--port", str(port), *arguments, **environment)
        process = subprocess.Popen(command, stderr=subprocess.PIPE, **options)
        wait_until(lambda port=port: not is_free(port + 1000), 60, "it serves")
        process.send_signal(signal.SIGTERM)
        assert process.communicate(timeout=30)[1] == b""
        assert process.returncode == 0


def test_an_error_nobody_foresaw_ends_the_service_with_a_clear_line(tmp_path: Path) -> None:
    program = f"""
import warnings
from raven.services import runtime, timebar

def build(environment):
    service = timebar.build(environment, [1])
    async def fail():
        warnings.warn("old ways", UserWarning)
        raise KeyError("nobody knows")
    service.runs.append(fail)
    return service

runtime.main("raven_timebar", build, host=None, port={free_base()})
"""
    _, options = service(tmp_path)
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False, **options
    )
    assert done.returncode == 1
    lines = [json.loads(line) for line in done.stderr.splitlines()]
    assert [line["event"] for line in lines] == ["started", "python_warning", "crashed"]
    assert lines[1]["message"] == "UserWarning: old ways"
    assert lines[-1]["message"] == "raven_timebar ends because of an unexpected error: KeyError: 'nobody knows'"
    assert "in fail" in lines[-1]["traceback"]
