"""Services on several machines: the page that describes it, as it stands, and what is refused."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.cluster import MODULES, cluster, wait_until
from tests.e2e.machines import ROOT, Machine, carry, network

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]

PAGE = ROOT / "docs" / "several_machines.md"
BLOCK = re.compile(r"^```(\w+)\n# (.*?) ?on ([\d.]+)\n(.*?)^```", re.MULTILINE | re.DOTALL)
SOURCE, BARS, STORE, YOURS = "10.0.0.1", "10.0.0.2", "10.0.0.3", "10.0.0.4"
SERVICE_PORTS = {SOURCE: (50001,), BARS: (50051, 50052), STORE: (50091, 50092)}
STARTED = ("binance_spot", "raven_timebar", "raven_tibs", "tick_persistence", "bar_persistence")
SIMULATED = {
    "RAVEN__BINANCE_SPOT__WEBSOCKET_URL": "ws://127.0.0.1:9443",
    "RAVEN__BINANCE_SPOT__REST_URL": "http://127.0.0.1:9443",
    "RAVEN__TIMEBAR__SECONDS": "[2]",
    "RAVEN__DELTA__FLUSH_S": "1",
}
STATUS = "ravenctl status --service binance_spot --host 10.0.0.1"
HEALTH = """python -c "
import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
channel = grpc.insecure_channel('10.0.0.1:50001')
print(health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=10).status)
" """
FIRST_BATCH = """python -c "
import asyncio, raven
async def first():
    async for batch in raven.live(host='10.0.0.1', start='earliest'):
        print(batch.height)
        break
asyncio.run(first())
" """
DURABLE = """python -c "
import asyncio
from contextlib import aclosing
from raven.batches.batch import Cursor
from raven.errors import AccessError
from raven.rpc.access import Access
from raven.rpc.client import Client
async def calls():
    async with Client('10.0.0.1:50001', Access()) as client:
        async with aclosing(client.subscribe('earliest', consumer='raven_tibs-50052')) as stream:
            try:
                await anext(stream)
            except AccessError as error:
                print(error)
        try:
            await client.acknowledge('raven_tibs-50052', Cursor('journal', 1))
        except AccessError as error:
            print(error)
asyncio.run(calls())
" """
METRICS = """python -c "
import urllib.request
print(urllib.request.urlopen('http://10.0.0.1:51001/metrics', timeout=5).status)
" """


def blocks(language: str, about: str, address: str) -> list[str]:
    """What the page says to do `about` something on a machine."""
    return [text for found, what, where, text in BLOCK.findall(PAGE.read_text()) if (found, what, where) == (
        language, about, address)]  # fmt: skip


@pytest.fixture
def machines(tmp_path: Path) -> Iterator[dict[str, Machine]]:
    with network(tmp_path, SOURCE, BARS, STORE, YOURS, **SIMULATED) as made:
        made[SOURCE].background("raven simulate")
        made[SOURCE].listens(9443)
        yield made


def start_services(machines: dict[str, Machine]) -> None:
    for address, ports in SERVICE_PORTS.items():
        [text] = [text for text in blocks("sh", "", address) if text.rstrip().endswith("&")]
        machines[address].background(text)
        machines[address].listens(*ports)


def stored(machines: dict[str, Machine]) -> list[int]:
    """Rows of trades, time bars and TIBs on the machine that stores."""
    code = (
        "import raven; print(raven.scan_trades().collect().height, raven.scan_bars().collect().height,"
        " raven.scan_bars(kind='tick_imbalance_bars').collect().height)"
    )
    done = machines[STORE].shell(f'python -c "{code}"')
    return [int(number) for number in done.stdout.split()] if done.returncode == 0 else [0, 0, 0]


def until_more_is_stored(machines: dict[str, Machine]) -> None:
    before = stored(machines)

    def more() -> bool:
        return all(now > then for now, then in zip(stored(machines), before, strict=True))

    logs = "\n".join(machine.log()[-3000:] for machine in machines.values())
    wait_until(more, 120, f"trades and bars of both kinds are stored: {before}\n{logs}")


def test_every_block_of_the_page_is_run() -> None:
    text = PAGE.read_text()
    assert text.count("\n```") == 2 * len(BLOCK.findall(text))
    assert sorted((language, about, where) for language, about, where, _ in BLOCK.findall(text)) == sorted([
        *(("toml", "local.toml", address) for address in (SOURCE, BARS, STORE, YOURS)),
        *(("sh", "", address) for address in (SOURCE, SOURCE, SOURCE, BARS, STORE, YOURS)),
        ("toml", "added to [security] in local.toml", BARS), ("toml", "added to [server] in local.toml", SOURCE),
    ])  # fmt: skip


def test_the_page_as_it_stands(machines: dict[str, Machine]) -> None:
    for address, machine in machines.items():
        [text] = blocks("toml", "local.toml", address)
        (machine.folder / "local.toml").write_text(text)
    [make_token] = [text for text in blocks("sh", "", SOURCE) if "raven token" in text]
    machines[SOURCE].succeeds(make_token)
    lines = (machines[SOURCE].folder / "local.toml").read_text().splitlines()
    security = lines[lines.index("[security]") :]
    for machine in list(machines.values())[1:]:
        with (machine.folder / "local.toml").open("a") as file:
            file.write("\n" + "\n".join(security) + "\n")
    start_services(machines)
    [commands] = blocks("sh", "", YOURS)
    outputs = [machines[YOURS].succeeds(command) for command in commands.splitlines()]
    assert re.fullmatch(r"tick_persistence BTCUSDT( of BINANCE_SPOT)? streaming\n", outputs[0])
    assert outputs[1].startswith("bar_persistence BTCUSDT ")
    assert re.search(r"raven_timebar +BINANCE_SPOT +BTCUSDT", outputs[2])
    until_more_is_stored(machines)
    assert json.loads(machines[YOURS].succeeds("ravenctl status --json"))["bar_persistence"]["healthy"]
    refused_without_the_right_token(machines)
    everything_over_mutual_tls(machines)
    assert security[1].split('"')[1] not in "".join(machine.log() for machine in machines.values())


def refused_without_the_right_token(machines: dict[str, Machine]) -> None:
    yours = machines[YOURS]
    assert "10.0.0.1:50001 refuses the call: the token is wrong" in yours.fails(STATUS, RAVEN__SECURITY__TOKEN="wrong")
    without = yours.fails(STATUS, RAVEN__SECURITY__TOKEN="")
    assert re.fullmatch(
        r"ravenctl: binance_spot at 10.0.0.1:50001 refuses the call: a token is needed, and none was sent "
        r"\(set security.token .*\)\n",
        without,
    )
    assert yours.fails("ravenctl status", RAVEN__SECURITY__TOKEN="wrong")
    assert yours.succeeds(HEALTH) == "1\n"
    assert machines[SOURCE].log().count("the token and the data go in clear text") == 1


def everything_over_mutual_tls(machines: dict[str, Machine]) -> None:
    [make_certificates] = [text for text in blocks("sh", "", SOURCE) if "openssl" in text]
    verified = machines[SOURCE].succeeds(make_certificates)
    assert verified.count("OK") == 4
    [added] = blocks("toml", "added to [security] in local.toml", BARS)
    for address, machine in machines.items():
        if address != SOURCE:
            carry(machines[SOURCE], machine, "ca.pem", f"{address}.pem", f"{address}.key")
        with (machine.folder / "local.toml").open("a") as file:
            file.write(added.replace(BARS, address))
    for address in SERVICE_PORTS:
        machines[address].stop()
    machines[SOURCE].background("raven simulate")
    machines[SOURCE].listens(9443)
    start_services(machines)
    until_more_is_stored(machines)
    yours = machines[YOURS]
    status = json.loads(yours.succeeds("ravenctl status --json"))
    assert [name for name in STARTED if not status[name]["healthy"]] == []
    plain = yours.fails(
        STATUS, RAVEN__SECURITY__TLS_CA="", RAVEN__SECURITY__TLS_CERTIFICATE="", RAVEN__SECURITY__TLS_KEY="",
        RAVEN__SECURITY__TLS_CLIENT_CERTIFICATES="false",
    )  # fmt: skip
    assert "10.0.0.1:50001 ends the connection at once (it wants TLS" in plain
    anonymous = yours.fails(
        STATUS, RAVEN__SECURITY__TLS_CERTIFICATE="", RAVEN__SECURITY__TLS_KEY="",
        RAVEN__SECURITY__TLS_CLIENT_CERTIFICATES="false",
    )  # fmt: skip
    assert "a client certificate" in anonymous


def test_without_a_token_a_service_obeys_only_its_own_machine(machines: dict[str, Machine]) -> None:
    source, yours = machines[SOURCE], machines[YOURS]
    source.background("binance_spot --host 0.0.0.0")
    source.listens(50001, 51001)
    assert source.log().count("listening on 0.0.0.0 without a token") == 1
    assert "streaming" in source.succeeds("ravenctl start --service binance_spot --symbol BTCUSDT")
    for command in ("status", "list", "stop --symbol BTCUSDT", "stop-all", "forget raven_tibs-50052"):
        refused = yours.fails(f"ravenctl {command} --service binance_spot --host 10.0.0.1")
        assert re.search(r"no token is set there, so Control.\w+ answers only its own machine, not 10.0.0.4", refused)
        assert "raven token" in refused
    status = json.loads(source.succeeds("ravenctl status --service binance_spot --json"))
    assert status["binance_spot"]["counters"]["refused_calls"] == 5
    assert int(yours.succeeds(FIRST_BATCH)) > 0, "batches may be read"
    durable, acknowledgement = yours.succeeds(DURABLE).splitlines()
    assert "the subscription of a durable consumer answers only its own machine, not 10.0.0.4" in durable
    assert "MarketData.Acknowledge answers only its own machine" in acknowledgement
    assert "BTCUSDT" in source.succeeds("ravenctl list"), "nothing was stopped"
    assert yours.shell(METRICS).returncode != 0, "metrics are for the own machine"

    refused = yours.fails("tick_persistence", RAVEN__UPSTREAM__BINANCE_SPOT="10.0.0.1:50001")
    why = "binance_spot is on another host (10.0.0.1:50001) and no token is set"
    assert json.loads(refused)["message"].startswith(why)


def test_metrics_are_served_where_the_settings_say(machines: dict[str, Machine]) -> None:
    [host] = blocks("toml", "local.toml", SOURCE)
    [added] = blocks("toml", "added to [server] in local.toml", SOURCE)
    (machines[SOURCE].folder / "local.toml").write_text(host + added)
    machines[SOURCE].background("binance_spot")
    machines[SOURCE].listens(50001)
    machines[SOURCE].listens(51001, host=SOURCE)
    assert machines[YOURS].succeeds(METRICS) == "200\n"


def test_on_addresses_of_loopback_a_wrong_token_is_said_once_and_healed_by_itself(tmp_path: Path) -> None:
    with cluster(tmp_path, RAVEN__SECURITY__TOKEN="theirs") as run:
        source, sink = (
            f"127.0.0.{number}:{run.ports[name]}" for number, name in ((2, "binance_spot"), (3, "tick_persistence"))
        )
        run.environment["RAVEN__UPSTREAM__BINANCE_SPOT"] = source
        run.environment["RAVEN__UPSTREAM__TICK_PERSISTENCE"] = sink
        run.simulate()
        run.run("binance_spot", MODULES["binance_spot"], "--host", "127.0.0.2")
        wait_until(lambda: "listens on 127.0.0.2" in run.log("binance_spot"), 60, run.log("binance_spot"))
        run.environment["RAVEN__SECURITY__TOKEN"] = "ours"
        run.run("tick_persistence", MODULES["tick_persistence"], "--host", "127.0.0.3")
        wait_until(lambda: "listens on 127.0.0.3" in run.log("tick_persistence"), 60, run.log("tick_persistence"))

        why = f"{source} refuses the call: the token is wrong"
        [started] = run.ctl("start", "--service", "tick_persistence", "--symbol", "BTCUSDT", "--wait", "1")[
            "tick_persistence"
        ]
        assert started["state"] == "connecting"
        assert why in started["message"]
        status = run.ctl("status", "--service", "tick_persistence", code=1)["tick_persistence"]
        assert why in status["links"][0]["error"]
        assert not status["links"][0]["connected"]
        time.sleep(3)  # it tries again
        assert run.log("tick_persistence").count(why) == 1

        run.terminate("binance_spot")
        run.run("binance_spot", MODULES["binance_spot"], "--host", "127.0.0.2")
        wait_until(lambda: run.rows("trades") > 0, 60, f"trades are stored:\n{run.log('tick_persistence')}")
        assert run.ctl("status", "--service", "tick_persistence")["tick_persistence"]["healthy"]
        logs = run.log("binance_spot") + run.log("tick_persistence")
        assert "theirs" not in logs
        assert "clear text" not in logs, "nothing leaves this machine"
