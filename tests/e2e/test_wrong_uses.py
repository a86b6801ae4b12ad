"""Wrong uses, each a real process: a non-zero exit, one clear line that says what to do, and never a traceback."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import zipfile
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from raven.control.plan import SERVICES
from tests.e2e.cluster import Cluster, cluster

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]

CTL, RAVEN = "raven.cli.ravenctl", "raven.cli.raven"
TIMEBAR, TIBS = SERVICES["raven_timebar"].module, SERVICES["raven_tibs"].module
SPOT, TICKS = SERVICES["binance_spot"].module, SERVICES["tick_persistence"].module
READ_TRADES = "import sys, raven; raven.read_trades(sys.argv[1])"
USAGE_ERROR = 2


@dataclass(frozen=True)
class Wrong:
    """A use that must fail with `code` and say `says` (a pattern; white space is one blank).

    `files` stand in the folder it is run in. In arguments and values `{name}` is the port of a service, and `{name-}`
    the one 1000 below, whose metrics would be served there.
    """

    arguments: tuple[str, ...]
    says: str
    code: int = 1
    files: Mapping[str, str] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict)


def wrong(*arguments: str, says: str, code: int = 1, **environment: str) -> Wrong:
    files = {key.replace("_toml", ".toml"): environment.pop(key) for key in list(environment) if key.endswith("_toml")}
    return Wrong(arguments, says, code, files, environment)


USES = {
    # sizes and intervals
    "no seconds": wrong(TIMEBAR, "--seconds", "0", says="raven_timebar: a time bar cannot be 0 s long .choose"),
    "negative seconds": wrong(TIMEBAR, "--seconds=-5", says="raven_timebar: a time bar cannot be -5 s long"),
    "absurd seconds": wrong(TIMEBAR, "--seconds", "99999999999", says="raven_timebar: a time bar cannot be .* long"),
    "seconds of settings": wrong(
        TIMEBAR, says=r"raven_timebar: setting timebar.seconds.0: .*\(in RAVEN__TIMEBAR__SECONDS\)",
        RAVEN__TIMEBAR__SECONDS="0",
    ),
    "seconds in letters": wrong(TIMEBAR, "--seconds", "abc", says="Invalid value for '--seconds'", code=USAGE_ERROR),
    "negative size": wrong(TIBS, "--initial-size=-1", says="raven_tibs: --initial-size must be above 0"),
    "sizes crossed": wrong(TIBS, "--size-max", "1", says="raven_tibs: --size-max must be at least --size-min"),
    "a weight above 1": wrong(TIBS, "--alpha-size", "2", says="raven_tibs: --alpha-size must be between 0 and 1"),
    "negative ticks": wrong(TIBS, "--max-ticks=-3", says="raven_tibs: --max-ticks must be a whole number"),
    # ports, hosts, folders
    "port out of range": wrong(TIMEBAR, "--port", "65000", says="Invalid value for '--port'", code=USAGE_ERROR),
    "port taken": wrong(
        TIBS, "--port", "{tick_persistence}", says=r"raven_tibs: cannot listen on 127.0.0.1:{tick_persistence} \(.*--port"
    ),
    "metrics port taken": wrong(
        TIBS, "--port", "{tick_persistence-}", says="raven_tibs: cannot serve metrics on 127.0.0.1:{tick_persistence}"
    ),
    "a host of no machine": wrong(TIBS, "--host", "nonsense", says="raven_tibs: cannot listen on nonsense:"),
    "folder that cannot be written": wrong(
        TIBS, says="raven_tibs: the data folder local.toml/raven_tibs-.* cannot be written: .*writable",
        RAVEN__DATA="local.toml", local_toml="",
    ),
    "folder in use": wrong(
        TICKS, says="tick_persistence: another process holds .*tick_persistence-.*already running", RAVEN__DATA="{data}"
    ),
    "unknown option": wrong(TIBS, "--nope", says="No such option: --nope", code=USAGE_ERROR),
    # settings
    "bad TOML": wrong(
        SPOT, says=r"binance_spot: settings cannot be read from local.toml: .*line 2", local_toml="[server]\nhost = \n"
    ),
    "unknown key": wrong(
        SPOT, says=r"binance_spot: unknown setting server.hots \(did you mean host\?\) in local.toml",
        local_toml="[server]\nhots = 1\n",
    ),
    "unknown variable": wrong(
        CTL, "list", says=r"ravenctl: unknown setting server.hots \(did you mean host\?\) in RAVEN__SERVER__HOTS",
        RAVEN__SERVER__HOTS="x",
    ),
    "mode without a file": wrong(
        SPOT, says="binance_spot: RUN_MODE=nowhere asks for nowhere.toml", RUN_MODE="nowhere"
    ),
    "ports that are the same": wrong(
        RAVEN, "config", says="raven: .*port_timebar_minutes and port_tibs are both 7000",
        local_toml="[server]\nport_tibs = 7000\nport_timebar_minutes = 7000\n",
        RAVEN__SERVER__PORT_TIBS="7000", RAVEN__SERVER__PORT_TIMEBAR_MINUTES="7000",
    ),
    "key that is not there": wrong(
        RAVEN, "config", "server.prot_tibs", says=r"raven: there is no setting server.prot_tibs \(did you mean server.po"
    ),
    # ravenctl
    "no command": wrong(CTL, says="Usage: .*Commands", code=USAGE_ERROR),
    "unknown command": wrong(CTL, "stat", says="No such command 'stat'", code=USAGE_ERROR),
    "no symbol": wrong(CTL, "start", "--service", "ticks", says="Missing option '--symbol'", code=USAGE_ERROR),
    "no service": wrong(
        CTL, "start", "-s", "BTCUSDT", says="--service.: it is missing: name one of binance_spot, .*bar_persistence", code=USAGE_ERROR
    ),
    "two ways of status": wrong(CTL, "status", "--watch", "--json", says="ravenctl: --watch shows tables, not JSON"),
    "unknown service": wrong(
        CTL, "start", "--service", "timbar", "-s", "BTCUSDT", says=r"ravenctl: there is no service timbar \(did you mean timebar"
    ),
    "unknown venue": wrong(
        CTL, "start", "--service", "ticks", "-s", "BTCUSDT", "--venue", "coinbase", says="ravenctl: there is no venue coinbase"
    ),
    "unknown symbol": wrong(
        CTL, "start", "--service", "ticks", "-s", "BTCUSDC", says="BTCUSDC .*refused: .*did you mean BTCUSDT"
    ),
    "service down": wrong(
        CTL, "start", "--service", "tibs", "-s", "BTCUSDT", says="raven_tibs: no service answers at 127.0.0.1:.*running"
    ),
    "store down": wrong(
        CTL, "start", "--service", "bars", "-s", "BTCUSDT", "--wait", "1", says="bar_persistence: timescale/time_bars: .*; the journals keep the rows until it can be written", code=3
    ),
    "service elsewhere down": wrong(
        CTL, "status", "--service", "tibs", "--host", "127.0.0.1:1", says="not running"
    ),
    "host that is none": wrong(CTL, "list", "--host", "nonsense", says=r"^ravenctl: there is no host nonsense \(check --host.*\)$"),
    "host that is none, of one service": wrong(
        CTL, "start", "--service", "ticks", "-s", "BTCUSDT", "--host", "nonsense", says="ravenctl: there is no host nonsense"
    ),
    "host that is none, of the settings": wrong(
        CTL, "status", "--service", "ticks", says="tick_persistence: there is no host nonsense", RAVEN__UPSTREAM__TICK_PERSISTENCE="nonsense",
    ),
    "no data folder": wrong(
        SPOT, says=r"binance_spot: setting data: it is empty: name a folder .*\(in RAVEN__DATA\)", RAVEN__DATA=""
    ),
    "a home that is none": wrong(
        SPOT, says=r"binance_spot: setting data: ~nobody-here/data is in no user's home", RAVEN__DATA="~nobody-here/data"
    ),
    "address that is none": wrong(
        CTL, "list", "--service", "tibs", "--host", "a:b", says="ravenctl: a:b is not an address"
    ),
    "wrong token": wrong(
        CTL, "list", "--service", "ticks", says="ravenctl: tick_persistence at .*token", RAVEN__SECURITY__TOKEN="wrong"
    ),
    # files
    "no such file": wrong(RAVEN, "import", "nothing.zip", says="raven: nothing.zip cannot be read: No such file"),
    "corrupt zip": wrong(RAVEN, "import", "{files}/corrupt.zip", says="raven: .*corrupt.zip"),
    "corrupt zip read": wrong("-c", READ_TRADES, "{files}/corrupt.zip", says="InputError: .*corrupt.zip"),
    "journal of another version": wrong(
        RAVEN, "import", "{files}/newer", says="raven: .*newer is a journal of another version: its format is 999"
    ),
    "journal of another version read": wrong(
        "-c", READ_TRADES, "{files}/newer", says="JournalError: .*newer is a journal of another version"
    ),
    # raven
    "symbols that are none": wrong(RAVEN, "up", "--symbols", "BTC USDT", says="raven: 'BTC USDT' is not a symbol"),
    "a service up does not know": wrong(RAVEN, "up", "--only", "tiks", says="raven: there is no service tiks"),
    "a speed that is none": wrong(RAVEN, "simulate", "--speed", "fast", says="raven: --speed fast is not a speed"),
}  # fmt: skip


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, subprocess.CompletedProcess[str]]]:
    """Every use, run beside a simulated exchange, a source, a sink, and a sink whose database is down."""
    folder = tmp_path_factory.mktemp("wrong")
    files = make_files(folder / "files")
    database = "postgresql://raven:raven@127.0.0.1:1/raven"  # nothing listens there
    with cluster(folder / "cluster", RAVEN__SECURITY__TOKEN="right", RAVEN__TIMESCALE__URL=database) as run:
        run.simulate("--symbol", "BTCUSDT", "--symbol", "ETHUSDT")
        run.start("binance_spot", "tick_persistence", "bar_persistence")
        with ThreadPoolExecutor(max_workers=3) as pool:
            done = pool.map(lambda use: attempt(run, folder, files, *use), USES.items())
            yield dict(zip(USES, done, strict=True))


def make_files(folder: Path) -> Path:
    """A zip whose content is damaged, and a journal of a newer format."""
    folder.mkdir()
    with zipfile.ZipFile(folder / "corrupt.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("BTCUSDT-trades-2019-04-01.csv", "1,2.0,3.0,6.0,1554076800000,True,True\n" * 1000)
    data = bytearray((folder / "corrupt.zip").read_bytes())
    data[70:90] = bytes(20)
    (folder / "corrupt.zip").write_bytes(data)
    (folder / "newer").mkdir()
    identity = {
        "format": 999,
        "id": "a",
        "kind": "trades",
        "venue": "BINANCE_SPOT",
        "schema_version": "1",
        "created_us": 1,
    }
    (folder / "newer" / "journal.json").write_text(json.dumps(identity))
    return folder


def attempt(run: Cluster, folder: Path, files: Path, name: str, use: Wrong) -> subprocess.CompletedProcess[str]:
    own = folder / re.sub(r"\W+", "_", name)
    own.mkdir()
    for file, text in use.files.items():
        (own / file).write_text(text)
    names = places(run, files)
    module = () if use.arguments[0] == "-c" else ("-m",)
    environment = {**run.environment, "RAVEN__DATA": str(own / "data"), "COLUMNS": "200", **use.environment}
    return subprocess.run(
        [sys.executable, *module, *(fill(argument, names) for argument in use.arguments)],
        cwd=own, env={key: fill(value, names) for key, value in environment.items()},
        stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip


def places(run: Cluster, files: Path) -> dict[str, str]:
    ports = {name: str(port) for name, port in run.ports.items()}
    below = {f"{name}-": str(port - 1000) for name, port in run.ports.items()}
    return {**ports, **below, "data": str(run.data), "files": str(files)}


def fill(text: str, names: Mapping[str, str]) -> str:
    return re.sub(r"\{([\w-]+)\}", lambda match: names.get(match[1], match[0]), text)


def plain(line: str) -> str:
    """A line of standard error, be it a message or a service's JSON event, which names its program as the logger."""
    try:
        event = json.loads(line)
        return f"{event['logger'].removeprefix('raven.')}: {event['message']}"
    except (ValueError, KeyError, TypeError):
        return line


@pytest.mark.parametrize("name", USES)
def test_it_fails_and_says_what_to_do(name: str, results: dict[str, subprocess.CompletedProcess[str]]) -> None:
    use, done = USES[name], results[name]
    said = re.sub(r"[\s│]+", " ", "\n".join(plain(line) for line in done.stderr.splitlines()))
    wanted = re.sub(r"\{[\w-]+\}", r"\\d+", use.says)
    assert re.search(wanted, said) or re.search(wanted, re.sub(r"\s+", " ", done.stdout)), (done.stdout, done.stderr)
    assert done.returncode == use.code, (done.stdout, done.stderr)
    if use.arguments[0] == "-c":  # a notebook's own traceback ends with the error
        assert re.search(wanted, done.stderr.splitlines()[-1])
    else:
        assert "Traceback" not in done.stderr
