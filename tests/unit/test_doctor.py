"""`raven doctor`: what is judged how, and what is found of real ports, folders, certificates, services and exchanges."""

from __future__ import annotations

import asyncio
import errno
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from http import HTTPStatus
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from raven.cli.checks import machine, network, security
from raven.cli.checks.finding import Check, Finding, Level, run_checks
from raven.cli.checks.stores import stores
from raven.cli.doctor import diagnose, line
from raven.cli.raven import app
from raven.control.plan import SERVICES
from raven.errors import AccessError, ExchangeError, RegionBlockedError, TooLateError, UpstreamError
from raven.rpc.access import Access
from raven.rpc.pb import control_pb2
from raven.rpc.server import Server
from raven.settings import Settings, load
from raven.sources.simulated import GeneratedMarket, RecordedMarket, SimulatedExchange
from raven.sources.simulated.venue import FUTURES
from tests.unit.exchanges import Exchange
from tests.unit.simulated_clients import made
from tests.unit.test_access import Authority
from tests.unit.test_binance_endpoints import answering, closed_port
from tests.unit.test_rpc import Handler

GIB = 2**30
OK, WARNING, FAILED = Level.OK, Level.WARNING, Level.FAILED


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("RUN_MODE", raising=False)


def only(findings: Sequence[Finding]) -> Finding:
    assert len(findings) == 1, findings
    return findings[0]


@contextmanager
def occupied(host: str = "127.0.0.1") -> Iterator[int]:
    """A port that a program holds which is none of ours."""
    with socket.socket() as holder:
        holder.bind((host, 0))
        holder.listen()
        yield int(holder.getsockname()[1])


@asynccontextmanager
async def service(name: str, access: Access | None = None) -> AsyncIterator[int]:
    """The port of a running service of that name."""

    class Named(Handler):
        def status(self) -> control_pb2.StatusResponse:
            return control_pb2.StatusResponse(service=name, healthy=True)

    server = Server("127.0.0.1", 0, Named(), None, access=access or Access())
    await server.start()
    try:
        yield server.port
    finally:
        await server.stop()


class TestSettings:
    def test_each_problem_has_its_line_with_file_and_key(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        (tmp_path / "local.toml").write_text('[server]\nport_tibs = "x"\nport_timebar_minutes = 50001\n')
        monkeypatch.setenv("RAVEN__DETLA__FLUSH_S", "1")
        findings = diagnose()
        assert {finding.level for finding in findings} == {FAILED}
        assert [finding.found for finding in findings] == [
            "unknown setting RAVEN__DETLA__FLUSH_S (did you mean delta?)",
            "setting server.port_tibs: Input should be a valid integer, unable to parse string as an integer (in local.toml)",
        ]

    def test_a_problem_that_holds_a_semicolon_stays_one(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("RAVEN__SERVER__PORT_TIBS", "50051")
        assert "give each service a port of its own" in only(diagnose()).found

    def test_a_file_that_is_not_there(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("RUN_MODE", "prod")
        finding = only(diagnose())
        assert "RUN_MODE=prod asks for prod.toml" in finding.found
        assert "run from the folder that holds it" in finding.fix

    def test_what_is_in_force_comes_from(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("raven.cli.doctor.run_checks", lambda _: [])
        assert only(diagnose()) == Finding("settings", OK, "all defaults")
        (tmp_path / "local.toml").write_text("[server]\nport_tibs = 6000\n")
        monkeypatch.setenv("RAVEN__DELTA__FLUSH_S", "1")
        assert only(diagnose()).found == "set in RAVEN__DELTA__FLUSH_S, local.toml"


class TestDataFolder:
    async def test_one_that_can_be_written_is_left_as_it_was(self, tmp_path: Path) -> None:
        finding = only(await machine.data_folder(load(data=tmp_path / "not" / "yet")))
        assert finding == Finding("data folder", OK, f"{tmp_path}/not/yet can be written")
        assert list(tmp_path.iterdir()) == []

    async def test_a_file_in_its_place(self, tmp_path: Path) -> None:
        (tmp_path / "data").write_text("")
        finding = only(await machine.data_folder(load()))
        assert (finding.level, finding.found) == (FAILED, f"{tmp_path}/data cannot be written: Not a directory")

    async def test_a_disk_that_is_full_and_one_that_is_small(self, tmp_path: Path) -> None:
        disk = tmp_path / "disk"
        disk.mkdir()
        mounted = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(disk)], capture_output=True, check=False, text=True
        )
        if mounted.returncode != 0:
            if os.environ.get("CI") == "true":
                pytest.fail(mounted.stderr)
            pytest.skip(f"no small disk can be mounted: {mounted.stderr}")
        try:
            settings = load(data=disk / "data")
            small = only(await machine.disk(settings, list(SERVICES)))
            assert (small.level, small.found) == (FAILED, "1 MiB free")
            with pytest.raises(OSError, match="No space left"):
                (disk / "filler").write_bytes(bytes(2**21))
            full = only(await machine.data_folder(settings))
            assert full.level is FAILED
            assert full.found.endswith("cannot be written: No space left on device")
        finally:
            subprocess.run(["umount", str(disk)], check=True)


class TestDisk:
    @pytest.mark.parametrize(
        ("free", "used", "journals", "level"),
        [
            (200 * GIB, 0, 4, OK), (80 * GIB, 0, 4, OK), (80 * GIB - 1, 0, 4, WARNING), (40 * GIB, 40 * GIB, 4, OK),
            (30 * GIB, 0, 1, OK), (10 * GIB, 0, 1, WARNING), (10 * GIB, 0, 0, OK), (GIB // 8, 79 * GIB, 4, FAILED),
            (GIB // 8, 0, 0, FAILED),
        ],
    )  # fmt: skip
    def test_room_against_what_journals_may_take(self, free: int, used: int, journals: int, level: Level) -> None:
        assert machine.judge_disk(free, used, journals, 20 * GIB).level is level

    def test_the_fix_fits(self) -> None:
        finding = machine.judge_disk(8 * GIB, 0, 4, 20 * GIB)
        most = int(finding.fix.split("journal.max_bytes to ")[1].split()[0])
        assert machine.judge_disk(8 * GIB, 0, 4, most).level is OK

    async def test_what_journals_hold_already_counts(self, tmp_path: Path) -> None:
        for name in ("binance_spot-50001", "tick_persistence-50091"):
            (tmp_path / "data" / name).mkdir(parents=True)
            (tmp_path / "data" / name / f"{1:020}.arrows").write_bytes(bytes(1000))
        free, used = machine._room(tmp_path / "data", [tmp_path / "data" / "binance_spot-50001", tmp_path / "none"])
        assert free > 0
        assert used == 1000

    def test_who_has_a_journal(self) -> None:
        assert [name for name in SERVICES if machine.has_journal(name)] == list(SERVICES)[:4]


class TestPorts:
    async def look(self, port: int, access: Access | None = None, **server: Any) -> Finding:
        settings = load(server={"port_tibs": port, **server})
        return only(await machine.ports(settings, access or Access(), "raven_tibs"))

    async def test_free_ones(self) -> None:
        port = closed_port()
        assert await self.look(port) == Finding("ports of raven_tibs", OK, f"{port} and {port + 1000} are free")

    async def test_held_by_another_program(self) -> None:
        with occupied() as port:
            finding = await self.look(port)
        assert (finding.level, finding.found) == (FAILED, f"127.0.0.1:{port} is held by another program")
        assert "server.port_tibs" in finding.fix

    async def test_its_metrics_port_is(self) -> None:
        with occupied() as port:
            finding = await self.look(port - 1000)
        assert finding.level is FAILED
        assert finding.found == f"nothing can listen on 127.0.0.1:{port}: Address already in use"

    async def test_held_on_one_address_where_all_are_wanted(self) -> None:
        with occupied() as port:
            assert (await self.look(port, host="0.0.0.0")).level is FAILED

    async def test_held_by_that_very_service(self) -> None:
        async with service("raven_tibs") as port:
            finding = await self.look(port)
        assert (finding.level, finding.found) == (OK, f"raven_tibs is running at 127.0.0.1:{port}")

    async def test_held_by_another_service(self) -> None:
        async with service("raven_timebar") as port:
            finding = await self.look(port)
        assert (finding.level, finding.found) == (FAILED, f"127.0.0.1:{port} is held by raven_timebar")

    async def test_held_by_a_service_with_another_token(self) -> None:
        async with service("raven_tibs", Access(token="right")) as port:
            finding = await self.look(port, Access(token="wrong"))
        assert finding.level is FAILED
        assert "the token is wrong" in finding.found

    async def test_an_address_of_another_machine(self) -> None:
        finding = await self.look(closed_port(), host="203.0.113.1", metrics_host="127.0.0.1")
        assert finding.level is FAILED
        assert "Cannot assign requested address" in finding.found
        assert "addresses of this machine" in finding.fix

    def test_a_name_that_is_none(self) -> None:
        assert machine.bind_problem("nowhere.invalid", 0) == errno.EADDRNOTAVAIL


def spot_at(rest: str, websocket: str = "ws://127.0.0.1:1") -> Settings:
    return load(binance_spot={"rest_url": rest, "websocket_url": websocket, "connect_timeout_s": 2})


@asynccontextmanager
async def simulated(market: Any, *beside: Any) -> AsyncIterator[SimulatedExchange]:
    exchange = SimulatedExchange(market, port=0, beside=beside)
    await exchange.start()
    try:
        yield exchange
    finally:
        await exchange.stop()


class TestExchange:
    async def test_one_that_answers(self) -> None:
        futures = FUTURES, GeneratedMarket(["BTCUSDT"])
        async with simulated(GeneratedMarket(["BTCUSDT"]), futures) as exchange:
            settings = load(
                binance_spot={"rest_url": f"{exchange.rest_url}/", "websocket_url": exchange.ws_url},
                binance_futures={"rest_url": exchange.rest_url, "websocket_url": f"{exchange.ws_url}/market"},
            )
            for name in ("binance_spot", "binance_futures"):
                found = [
                    *await network.exchange_rest(settings, name),
                    *await network.exchange_websocket(settings, name),
                ]
                assert [finding.level for finding in found] == [OK] * 3, found

    async def test_a_clock_that_is_wrong(self) -> None:
        async with simulated(RecordedMarket(made("BTCUSDT", 10))) as exchange:  # of another day
            rest, clock = await network.exchange_rest(spot_at(exchange.rest_url), "binance_spot")
        assert rest.level is OK
        assert clock.level is WARNING
        assert "the exchange's clock is -" in clock.found
        assert "set this machine's clock" in clock.fix

    @pytest.mark.parametrize(
        ("offset_ms", "error_ms", "level"),
        [(0, 5, OK), (-900, 5, OK), (1_200, 5, WARNING), (-1_200, 5, WARNING), (1_200, 500, OK)],
    )
    def test_how_far_clocks_may_be_apart(self, offset_ms: float, error_ms: float, level: Level) -> None:
        assert network.judge_clock("clock", offset_ms, error_ms).level is level

    async def test_a_blocked_region_is_told_from_a_missing_network(self) -> None:
        async with answering(451) as rest, Exchange().running() as venue:
            venue.status = HTTPStatus.UNAVAILABLE_FOR_LEGAL_REASONS
            with pytest.raises(RegionBlockedError, match="answers 451: this region is blocked") as blocked:
                await network.exchange_rest(spot_at(rest), "binance_spot")
            assert "set binance_spot.rest_url to https://data-api.binance.vision" in blocked.value.hint
            with pytest.raises(RegionBlockedError, match="answers 451: this region is blocked") as blocked:
                await network.exchange_websocket(spot_at(rest, venue.url), "binance_spot")
            assert "set binance_spot.websocket_url to wss://data-stream.binance.vision" in blocked.value.hint
        for look in (network.exchange_rest, network.exchange_websocket):
            port = closed_port()
            settings = spot_at(f"http://127.0.0.1:{port}", f"ws://127.0.0.1:{port}")
            with pytest.raises(ExchangeError, match="cannot be reached: connection refused") as missing:
                await look(settings, "binance_spot")
            assert not isinstance(missing.value, RegionBlockedError)

    def test_one_that_stands_in(self) -> None:
        finding = network.judge_address("REST", "binance_spot.rest_url", "https://api", "https://data-api")
        assert finding.level is WARNING
        assert "set binance_spot.rest_url to https://data-api" in finding.fix

    async def test_one_that_opens_no_websocket(self) -> None:
        async with answering(200, '{"serverTime":1760000000000}') as url:
            with pytest.raises(ExchangeError, match="answers 200"):
                await network.exchange_websocket(spot_at(url, url.replace("http", "ws")), "binance_spot")


class TestUpstreams:
    async def look(self, port: int, access: Access | None = None) -> Finding:
        settings = load(upstream={"raven_tibs": f"127.0.0.1:{port}"})
        return only(await network.upstream(settings, access or Access(), "raven_tibs"))

    async def test_one_that_answers(self) -> None:
        async with service("raven_tibs", Access(token="t")) as port:
            assert (await self.look(port, Access(token="t"))).level is OK

    async def test_another_service(self) -> None:
        async with service("raven_timebar") as port:
            finding = await self.look(port)
        assert (finding.level, finding.found) == (FAILED, f"127.0.0.1:{port} is raven_timebar")

    async def test_one_that_refuses_the_token(self) -> None:
        async with service("raven_tibs", Access(token="right")) as port:
            finding = await self.look(port)
        assert finding.level is FAILED
        assert "RAVEN__SECURITY__TOKEN" in finding.fix

    async def test_one_that_does_not_run_yet(self) -> None:
        finding = await self.look(closed_port())
        assert finding.level is WARNING
        assert "start raven_tibs there" in finding.fix

    async def test_one_that_never_answers(self) -> None:
        with occupied() as port:
            finding = await self.look(port)
        assert finding.level is FAILED

    @pytest.mark.parametrize(
        ("error", "level"), [(AccessError("x"), FAILED), (TooLateError("x"), FAILED), (UpstreamError("x"), WARNING)]
    )
    def test_which_silence_is_a_failure(self, error: UpstreamError, level: Level) -> None:
        assert network.judge_silence("raven_tibs", error).level is level


class TestSecurity:
    @pytest.mark.parametrize(
        ("access", "wide", "remote", "level", "found"),
        [
            (Access(), False, [], OK, "obey this machine alone"),
            (Access(), True, [], WARNING, "without a token"),
            (Access(), False, ["10.0.0.1:50001"], FAILED, "10.0.0.1:50001 would refuse"),
            (Access(token="t"), False, [], OK, "a token is set"),
            (Access(token="t"), True, [], WARNING, "in clear text"),
            (Access(token="t"), False, ["10.0.0.1:50001"], WARNING, "in clear text"),
            (Access(token="t", ca=b"x"), True, ["10.0.0.1:50001"], OK, "calls go over TLS"),
        ],
    )
    def test_who_can_do_what(self, access: Access, wide: bool, remote: list[str], level: Level, found: str) -> None:
        finding = only(security.judge_exposure("0.0.0.0", access, listens_widely=wide, remote=remote))
        assert finding.level is level
        assert found in finding.found

    async def test_addresses_are_looked_up(self) -> None:
        settings = load(server={"host": "localhost"}, upstream={"raven_tibs": "localhost", "raven_timebar": "10.0.0.2"})
        finding = only(await security.exposure(settings, Access(), ["raven_tibs", "raven_timebar"]))
        assert finding.level is FAILED
        assert "and 10.0.0.2:50051 would refuse" in finding.found

    @pytest.mark.parametrize(("days", "level"), [(400, OK), (31, OK), (29, WARNING), (0, WARNING)])
    def test_how_long_a_certificate_lasts(self, days: float, level: Level) -> None:
        assert security.judge_expiry("a.pem", days * 86_400).level is level

    async def test_a_certificate_that_ends_soon(self, tmp_path: Path) -> None:
        authority = Authority(tmp_path / "ca")
        own = authority.issue("own", "127.0.0.1")
        for trust in ({"tls_ca": str(authority.file)}, {}):
            finding = only(await security.certificate(load(security={**own, **trust}).security))
            assert finding.level is WARNING
            assert finding.found == f"{own['tls_certificate']} is valid for 1 days more"

    async def test_one_that_has_expired(self, tmp_path: Path) -> None:
        authority = Authority(tmp_path / "ca")
        own = authority.issue("own", "127.0.0.1", expired=True)
        for trust in ({"tls_ca": str(authority.file)}, {}):
            finding = only(await security.certificate(load(security={**own, **trust}).security))
            assert finding.level is FAILED
            assert "has expired" in finding.found

    async def test_one_of_another_authority(self, tmp_path: Path) -> None:
        own = Authority(tmp_path / "ca").issue("own", "127.0.0.1")
        other = Authority(tmp_path / "other")
        finding = only(await security.certificate(load(security={**own, "tls_ca": str(other.file)}).security))
        assert finding.level is FAILED
        assert "clients do not trust" in finding.found

    def test_files_that_cannot_be_read(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("RAVEN__SECURITY__TLS_CA", "nowhere.pem")
        monkeypatch.setenv("RAVEN__UPSTREAM__RAVEN_TIBS", f"127.0.0.1:{closed_port()}")
        findings = {finding.check: finding for finding in diagnose(["tick_persistence"])}
        assert findings["certificate"].level is FAILED
        assert "security.tls_ca: nowhere.pem cannot be read" in findings["certificate"].found
        assert findings["ports of tick_persistence"]


INFLUX = {"url": "http://127.0.0.1:8086", "token": "t", "org": "o", "bucket": "b"}


class TestStores:
    async def test_the_embedded_one(self, tmp_path: Path) -> None:
        finding = only(await stores(load(), "trades"))
        assert finding == Finding("trades in delta", OK, f"tables below {tmp_path}/data/delta")
        assert list(tmp_path.iterdir()) == []

    @pytest.mark.parametrize("name", ["my data", "größe"])
    async def test_a_path_that_delta_cannot_hold(self, tmp_path: Path, name: str) -> None:
        finding = only(await stores(load(data=tmp_path / name), "bars"))
        assert finding.level is FAILED
        assert "only ASCII letters" in finding.fix

    def test_one_that_is_named_and_takes_no_such_rows(self, monkeypatch: pytest.MonkeyPatch) -> None:
        for key, value in INFLUX.items():
            monkeypatch.setenv(f"RAVEN__INFLUX__{key}", value)
        monkeypatch.setenv("RAVEN__STORES", "influx")
        finding = next(finding for finding in diagnose(["bar_persistence"]) if finding.check == "store of bars")
        assert finding.level is FAILED
        assert finding.fix == "add timescale or delta to it"


class TestCommand:
    def test_nothing_hangs_it(self) -> None:
        """Neither a coroutine that waits nor a thread, such as one that looks up a name, outlives the command."""
        program = """
import asyncio, time
from raven.cli.checks.finding import Check, run_checks
async def waits(): await asyncio.sleep(300)
async def blocks(): await asyncio.to_thread(time.sleep, 300)
async def fails(): raise OSError("no")
print(run_checks([Check("waits", waits), Check("blocks", blocks), Check("fails", fails)], limit_s=0.5))
"""
        began_s = time.monotonic()
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=120)
        assert done.returncode == 0, done.stderr
        assert done.stdout.count("no answer within 0.5 s") == 2
        assert time.monotonic() - began_s < 60

    def test_findings_keep_their_order(self) -> None:
        def check(number: int) -> Check:
            async def find() -> list[Finding]:
                await asyncio.sleep((3 - number) * 0.05)
                return [Finding(str(number), OK, "")]

            return Check(str(number), find)

        assert [finding.check for finding in run_checks([check(0), check(1), check(2)])] == ["0", "1", "2"]

    def test_a_line_says_what_is_wrong_and_what_to_do(self) -> None:
        assert line(Finding("disk", FAILED, "[red] left", "free some")) == (
            r"[red]failed [/] disk: \[red] left (free some)"
        )

    @pytest.mark.parametrize("as_json", [True, False])
    @pytest.mark.slow
    async def test_a_machine_that_is_fit(self, as_json: bool, tmp_path: Path) -> None:
        async with simulated(GeneratedMarket(["BTCUSDT"])) as exchange:
            done = await self.run(exchange, *(["--json"] if as_json else []))
        assert done[0] == 0, done
        assert not done[2]
        checks = ["settings", "security", "data folder", "disk", "ports of binance_spot"]
        checks += ["REST of binance_spot", "clock of binance_spot", "WebSocket of binance_spot"]
        if as_json:
            document = json.loads(done[1])
            assert document["works"] is True
            assert [finding["check"] for finding in document["findings"]] == checks
            assert all(finding["level"] == "ok" for finding in document["findings"])
        else:
            assert [text.split(":")[0] for text in done[1].splitlines()] == [f"ok      {name}" for name in checks]
        assert list(tmp_path.iterdir()) == []

    @pytest.mark.slow
    async def test_one_that_is_not(self) -> None:
        async with simulated(GeneratedMarket(["BTCUSDT"])) as exchange:
            with occupied() as port:
                code, text, _ = await self.run(exchange, RAVEN__SERVER__PORT_BINANCE_SPOT=str(port))
        assert code == 1
        assert [found.split(":")[0] for found in text.splitlines() if found.startswith("failed")] == [
            "failed  ports of binance_spot"
        ]

    async def run(self, exchange: SimulatedExchange, *arguments: str, **variables: str) -> tuple[int | None, str, str]:
        environment = {
            "RAVEN__BINANCE_SPOT__REST_URL": exchange.rest_url,
            "RAVEN__BINANCE_SPOT__WEBSOCKET_URL": exchange.ws_url,
            "RAVEN__SERVER__PORT_BINANCE_SPOT": str(closed_port()),
            "RAVEN__JOURNAL__MAX_BYTES": str(2**20),
            **variables,
        }
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "raven.cli.raven", "doctor", "--only", "spot", *arguments,
            env={**os.environ, **environment}, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip
        async with asyncio.timeout(60):
            out, errors = await process.communicate()
        return process.returncode, out.decode(), errors.decode()

    def test_a_service_that_there_is_not(self) -> None:
        done = CliRunner().invoke(app, ["doctor", "--only", "spott"])
        assert done.exit_code == 1
        assert "spott" in str(done.exception)
