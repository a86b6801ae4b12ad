"""What deploy/ holds, as far as it can be checked without an engine and a service manager that run."""

from __future__ import annotations

import json
import os
import re
import shutil
import stat
import subprocess
import sys
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from raven.control.plan import SERVICES, port_of, target_of
from raven.settings import METRICS_PORT_OFFSET, Settings, load
from tests.e2e.machines import network

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(180)]

ROOT = Path(__file__).resolve().parents[2]
BIN = Path(sys.executable).parent
PAGE = ROOT / "docs" / "deploy.md"
UNITS = ROOT / "deploy" / "systemd"
BUILT = ("pyproject.toml", "README.md", "LICENSE", "prod.toml", "raven", "sql")
DATABASES = ("timescaledb", "influxdb")
COMMANDS = {"ravenctl": ["ravenctl"], "raven": ["raven"]}
DRAWN = ("RAVEN_TOKEN", "TIMESCALE_PASSWORD", "INFLUX_PASSWORD", "INFLUX_TOKEN")


def missing(what: str) -> None:
    """A missing tool is a failure in CI, a skip elsewhere."""
    why = f"{what} is missing; `make tools` looks for it"
    if os.environ.get("CI") == "true":
        pytest.fail(why)
    pytest.skip(why)


@cache
def compose_command() -> tuple[str, ...]:
    for command in (("docker", "compose"), (str(BIN / "docker-compose"),)):
        try:
            done = subprocess.run([*command, "version", "--short"], capture_output=True, check=False, text=True)
        except OSError:
            continue
        if done.returncode == 0 and done.stdout.lstrip("v").split(".")[0] not in ("", "1"):
            return command
    return ()


def compose(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    if not compose_command():
        missing("Docker Compose v2")
    environment = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    return subprocess.run(
        [*compose_command(), "-f", str(folder / "compose.yaml"), *arguments],
        env=environment, cwd=folder.parent, capture_output=True, text=True, check=False,
    )  # fmt: skip


def make_env(folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([str(folder / "make-env")], capture_output=True, text=True, check=False, cwd="/")


def variables(folder: Path) -> dict[str, str]:
    return dict(line.split("=", 1) for line in (folder / ".env").read_text().splitlines())


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy of deploy/ in which nothing was made yet."""
    copy = tmp_path / "raven" / "deploy"
    shutil.copytree(ROOT / "deploy", copy, ignore=shutil.ignore_patterns(".env*"))
    return copy


@pytest.fixture
def services(folder: Path) -> dict[str, Any]:
    """Every service of the composition, as Docker Compose understands it."""
    assert make_env(folder).returncode == 0
    done = compose(folder, "--profile", "*", "config", "--format", "json")
    assert done.returncode == 0, done.stderr
    assert not done.stderr
    found: dict[str, Any] = json.loads(done.stdout)["services"]
    return found


class TestMakeEnv:
    def test_it_draws_every_secret_anew_for_its_owner_alone(self, folder: Path) -> None:
        made = []
        for _ in range(2):
            done = make_env(folder)
            assert done.returncode == 0, done.stderr
            assert stat.S_IMODE((folder / ".env").stat().st_mode) == 0o600
            made.append(variables(folder))
            (folder / ".env").unlink()
        drawn = [values[name] for values in made for name in DRAWN]
        assert len(set(drawn)) == 2 * len(DRAWN)
        assert all(re.fullmatch(r"[0-9a-f]{64}", secret) for secret in drawn)
        assert not any(secret in done.stdout for secret in drawn)
        assert sorted(path.name for path in folder.glob(".env*")) == []

    def test_what_is_there_is_never_replaced(self, folder: Path) -> None:
        (folder / ".env").write_text("RAVEN_TOKEN=mine\n")
        done = make_env(folder)
        assert done.returncode == 1
        assert "already" in done.stderr
        assert (folder / ".env").read_text() == "RAVEN_TOKEN=mine\n"
        assert sorted(path.name for path in folder.glob(".env*")) == [".env"]

    def test_it_is_not_committed(self) -> None:
        done = subprocess.run(["git", "check-ignore", "deploy/.env"], cwd=ROOT, capture_output=True, check=False)
        assert done.returncode == 0


class TestCompose:
    @pytest.mark.parametrize("lost", [*DRAWN, "INFLUX_ORG", "INFLUX_BUCKET"])
    def test_without_a_secret_it_says_what_to_run(self, folder: Path, lost: str) -> None:
        make_env(folder)
        kept = [f"{name}={value}\n" for name, value in variables(folder).items() if name != lost]
        (folder / ".env").write_text("".join(kept))
        done = compose(folder, "config")
        assert done.returncode != 0
        assert f"{lost} is missing a value: run deploy/make-env first" in done.stderr

    def test_without_any_it_does_too(self, folder: Path) -> None:
        done = compose(folder, "config")
        assert done.returncode != 0
        assert "run deploy/make-env first" in done.stderr

    def test_it_has_every_service_and_no_other(self, services: dict[str, Any]) -> None:
        assert set(services) == {*SERVICES, *DATABASES, *COMMANDS, "init-db"}
        for name in SERVICES:
            assert services[name]["command"] == [name]
            assert "entrypoint" not in services[name] or services[name]["entrypoint"] is None
        for name, entrypoint in COMMANDS.items():
            assert services[name]["entrypoint"] == entrypoint
            assert services[name]["profiles"] == ["commands"]
        assert services["init-db"]["command"] == ["raven", "init-db"]

    def test_images_are_pinned(self, services: dict[str, Any]) -> None:
        bases = re.findall(r"^FROM (\S+)", (ROOT / "deploy" / "Dockerfile").read_text(), re.MULTILINE)
        for image in [*bases, *(service["image"] for service in services.values())]:
            assert re.fullmatch(r"[\w/.-]+:\d+\.\d+\.\d+(-[\w-]+)?", image), image

    def test_ports_are_published_on_loopback_alone(self, services: dict[str, Any]) -> None:
        defaults = Settings.model_construct()
        for name, service in services.items():
            ports = service.get("ports", [])
            assert all(port["host_ip"] == "127.0.0.1" for port in ports), name
            assert all(port["published"] == str(port["target"]) for port in ports), name
            if name in SERVICES:
                own = port_of(defaults, name)
                assert [port["target"] for port in ports] == [own, own + METRICS_PORT_OFFSET]
            assert service.get("network_mode") is None

    def test_what_raven_runs_is_shut_in(self, services: dict[str, Any]) -> None:
        for name in set(services) - set(DATABASES):
            assert services[name]["read_only"] is True
            assert services[name]["cap_drop"] == ["ALL"]
            assert services[name]["security_opt"] == ["no-new-privileges:true"]
        text = (ROOT / "deploy" / "Dockerfile").read_text()
        assert text.rstrip().splitlines()[-1] == "USER raven"

    def test_order_and_restarts(self, services: dict[str, Any]) -> None:
        conditions = {
            name: {on: entry["condition"] for on, entry in service.get("depends_on", {}).items()}
            for name, service in services.items()
        }
        assert conditions["init-db"] == {"timescaledb": "service_healthy"}
        assert conditions["bar_persistence"] == {"init-db": "service_completed_successfully"}
        assert conditions["tick_persistence"] == {"influxdb": "service_healthy"}
        once = {"init-db", *COMMANDS}
        for name, service in services.items():
            assert service["restart"] == ("no" if name in once else "unless-stopped")
            assert ("healthcheck" in service) == (name not in once)

    def test_health_is_asked_of_each_service_itself(self, services: dict[str, Any]) -> None:
        for name in SERVICES:
            assert services[name]["healthcheck"]["test"] == ["CMD", "ravenctl", "status", "--service", name]

    def test_names_are_fixed(self, services: dict[str, Any]) -> None:
        for name in [*SERVICES, *DATABASES]:
            assert services[name]["hostname"] == name

    def test_the_same_secrets_set_databases_up_and_open_them(self, folder: Path, services: dict[str, Any]) -> None:
        drawn = variables(folder)
        influx = services["influxdb"]["environment"]
        store = settings_of(services["tick_persistence"]).influx
        assert influx["DOCKER_INFLUXDB_INIT_ADMIN_TOKEN"] == store.token.get_secret_value() == drawn["INFLUX_TOKEN"]
        assert influx["DOCKER_INFLUXDB_INIT_ORG"] == store.org
        assert influx["DOCKER_INFLUXDB_INIT_BUCKET"] == store.bucket
        assert store.url == "http://influxdb:8086"
        postgres = services["timescaledb"]["environment"]
        url = settings_of(services["bar_persistence"]).timescale.url.get_secret_value()
        assert url == f"postgresql://raven:{drawn['TIMESCALE_PASSWORD']}@timescaledb:5432/raven"
        assert (postgres["POSTGRES_USER"], postgres["POSTGRES_DB"]) == ("raven", "raven")
        assert postgres["POSTGRES_PASSWORD"] == drawn["TIMESCALE_PASSWORD"]

    def test_every_variable_is_a_setting(self, folder: Path, services: dict[str, Any]) -> None:
        token = variables(folder)["RAVEN_TOKEN"]
        for name in set(services) - set(DATABASES):
            settings = settings_of(services[name])
            assert services[name]["environment"]["RUN_MODE"] == "prod"
            assert settings.security.token.get_secret_value() == token
            assert settings.data == Path("/var/lib/raven")
            for other in SERVICES:
                assert target_of(settings, other) == f"{other}:{port_of(settings, other)}"

    def test_each_knows_the_passwords_it_needs_and_no_others(self, services: dict[str, Any]) -> None:
        holders = {
            name: {
                kind
                for kind in ("INFLUX", "TIMESCALE")
                if any(key.startswith(f"RAVEN__{kind}__") for key in services[name]["environment"])
            }
            for name in set(services) - set(DATABASES)
        }
        assert {name: kinds for name, kinds in holders.items() if kinds} == {
            "tick_persistence": {"INFLUX"},
            "bar_persistence": {"TIMESCALE"},
            "init-db": {"TIMESCALE"},
            "raven": {"INFLUX", "TIMESCALE"},
        }


def settings_of(service: Mapping[str, Any]) -> Settings:
    """The settings in force in a container; a variable that is none is an error."""
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith("RAVEN__")]:
            patch.delenv(name)
        for name, value in service["environment"].items():
            if name.startswith("RAVEN__") or name == "RUN_MODE":
                patch.setenv(name, value)
        patch.chdir(ROOT)  # where prod.toml is, as in the image
        return load()


YOURS = "10.9.0.2"
ADDRESSES = {name: f"10.9.0.{number}" for number, name in enumerate(SERVICES, 10)}
SIMULATED = {
    "RAVEN__BINANCE_SPOT__WEBSOCKET_URL": "ws://127.0.0.1:9443",
    "RAVEN__BINANCE_SPOT__REST_URL": "http://127.0.0.1:9443",
    "RAVEN__TIMEBAR__SECONDS": "1",
}


def test_the_servers_of_tests_can_be_composed() -> None:
    done = compose(ROOT / "tests" / "servers", "config", "--format", "json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)["services"]
    assert found.keys() == {"timescale", "postgres", "influx"}
    assert all(port["host_ip"] == "127.0.0.1" for service in found.values() for port in service["ports"])


class TestRunning:
    """Every service with its environment of the composition, each on a machine of its name; Delta Lake stores."""

    def test_they_find_and_obey_each_other(self, services: dict[str, Any], tmp_path: Path) -> None:
        hosts = tmp_path / "hosts"
        hosts.write_text("".join(f"{address} {name}\n" for name, address in ADDRESSES.items()))
        named = f"mount --bind {hosts} /etc/hosts"  # a machine's commands have mounts of their own
        with network(tmp_path / "machines", YOURS, *ADDRESSES.values()) as machines:
            source = machines[ADDRESSES["binance_spot"]]
            source.background("raven simulate")
            source.listens(9443)
            for name, address in ADDRESSES.items():
                shutil.copy(ROOT / "prod.toml", machines[address].folder)
                machines[address].background(
                    f"{named}; {' '.join(services[name]['command'])}", **self.given(services[name])
                )
            shutil.copy(ROOT / "prod.toml", machines[YOURS].folder)
            for name, address in ADDRESSES.items():
                machines[address].listens(port_of(Settings.model_construct(), name))
            yours = self.given(services["ravenctl"])
            start = "ravenctl start --symbol BTCUSDT --wait 5 --service"
            machines[YOURS].succeeds(f"{named}; {start} tick_persistence; {start} bar_persistence", **yours)
            machines[YOURS].succeeds(f"{named}; ravenctl status", **yours)
            for name, address in ADDRESSES.items():
                kind, *health = services[name]["healthcheck"]["test"]
                assert kind == "CMD"
                machines[address].succeeds(f"{named}; {' '.join(health)}", **self.given(services[name]))
            told = machines[YOURS].succeeds(f"{named}; raven doctor --json", **self.given(services["raven"]))
            levels = {found["check"]: found["level"] for found in json.loads(told)["findings"]}
            assert [levels[f"upstream {name}"] for name in SERVICES] == ["ok"] * len(SERVICES)
            assert levels["security"] == "warning"  # in clear text
            refused = machines[YOURS].shell(f"{named}; ravenctl status", **{**yours, "RAVEN__SECURITY__TOKEN": "x"})
            assert refused.returncode == 1
            assert "token is wrong" in refused.stderr

    def given(self, service: Mapping[str, Any]) -> dict[str, str]:
        """The environment of a container, but for the databases and what lies elsewhere here."""
        kept = {
            name: value
            for name, value in service["environment"].items()
            if not name.startswith(("RAVEN__INFLUX__", "RAVEN__TIMESCALE__"))
        }
        return {**kept, **SIMULATED, "RAVEN__DATA": "data"}


class TestImage:
    def test_it_is_built_of_what_the_build_needs(self, tmp_path: Path) -> None:
        allowed = (ROOT / "deploy" / "Dockerfile.dockerignore").read_text().splitlines()
        named = [line.removeprefix("!") for line in allowed if line.startswith("!")]
        assert set(BUILT) <= set(named)
        assert allowed.index("*") < min(number for number, line in enumerate(allowed) if line.startswith("!"))
        source, site = tmp_path / "src", tmp_path / "site"
        source.mkdir()
        for name in named:
            if (ROOT / name).is_dir():
                shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
            elif (ROOT / name).exists():
                shutil.copy(ROOT / name, source)
        done = subprocess.run(
            [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "--target", site,
             source],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        built = {path.relative_to(site) for path in (site / "raven").rglob("*.py")}
        assert built == {path.relative_to(ROOT) for path in (ROOT / "raven").rglob("*.py")}
        assert {path.name for path in (site / "bin").iterdir()} >= set(SERVICES)
        assert {path.name for path in (site / "share").rglob("*.sql")} == {
            path.name for path in (ROOT / "sql").glob("*.sql")
        }


@pytest.fixture
def units(tmp_path: Path) -> Path:
    """The units with the scripts where they are here."""
    if shutil.which("systemd-analyze") is None:
        missing("systemd-analyze")
    for path in UNITS.iterdir():
        text = path.read_text()
        (tmp_path / path.name).write_text(text.replace("/opt/raven/bin/", f"{BIN}/"))
    return tmp_path


def analyze(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["systemd-analyze", *arguments], cwd=folder, capture_output=True, text=True, check=False,
        env={**os.environ, "SYSTEMD_UNIT_PATH": f"{folder}:"},
    )  # fmt: skip


class TestUnits:
    def instances(self) -> list[str]:
        text = (UNITS / "raven.target").read_text()
        return [unit for line in re.findall(r"^Wants=(.*)$", text, re.MULTILINE) for unit in line.split()]

    def test_the_target_wants_every_service(self) -> None:
        assert self.instances() == [f"raven@{name}.service" for name in SERVICES]

    def test_they_are_understood_and_start_what_there_is(self, units: Path) -> None:
        done = analyze(units, "verify", "raven.target", *self.instances())
        assert done.returncode == 0, done.stderr
        assert not done.stderr

    def test_a_service_that_there_is_not_would_be_seen(self, units: Path) -> None:
        done = analyze(units, "verify", "raven@binance_sport.service")
        assert "is not executable" in done.stderr

    def test_they_are_hardened(self, units: Path) -> None:
        done = analyze(units, "security", "--offline=true", "--threshold=25", "./raven@binance_spot.service")
        assert done.returncode == 0, done.stdout[-200:]

    def test_their_variables_are_settings(self) -> None:
        line = re.search(r"^Environment=(.*)$", (UNITS / "raven@.service").read_text(), re.MULTILINE)
        assert line is not None
        environment = dict(part.split("=", 1) for part in line[1].split())
        settings = settings_of({"environment": environment})
        assert environment["RUN_MODE"] == "prod"
        assert settings.data == Path("/var/lib/raven")


class TestPage:
    """docs/deploy.md: its commands, below another root, with the user who is there, and without the service manager."""

    def blocks(self, section: str) -> list[str]:
        text = PAGE.read_text().split(f"## {section}\n")[1].split("\n## ")[0]
        return re.findall(r"^```(?:sh|ini)\n(.*?)^```", text, re.MULTILINE | re.DOTALL)

    def test_it_names_services_that_there_are(self, services: dict[str, Any]) -> None:
        commands = [line for block in self.blocks("With Docker Compose") for line in block.splitlines()]
        for line in commands:
            words = line.split()
            if words[0] == "docker":
                assert words[:4] == ["docker", "compose", "-f", "deploy/compose.yaml"]
                assert words[4:6] == ["up", "--detach"] or (words[4:6] == ["run", "--rm"] and words[6] in services)
            else:
                assert words == ["deploy/make-env"]
        for word in re.findall(r"`(\w+-(?:data|config))`", PAGE.read_text()):
            assert f"  {word}:" in (ROOT / "deploy" / "compose.yaml").read_text()

    def test_its_files_lie_where_the_units_look_for_them(self, tmp_path: Path) -> None:
        installation, secrets, use = self.blocks("With systemd")
        user = subprocess.run(["id", "-un"], capture_output=True, text=True, check=True).stdout.strip()
        (tmp_path / "opt").mkdir()
        (tmp_path / "etc" / "systemd" / "system").mkdir(parents=True)
        (tmp_path / "opt" / "raven").symlink_to(BIN.parent)

        def elsewhere(commands: str) -> str:
            kept = [
                re.sub(r"(?<=[\s\"'=])/(?=(opt|etc|var)/)", f"{tmp_path}/", line)
                for line in commands.splitlines()
                if not re.match(r"useradd|systemctl|python3 -m venv|\S+/pip install", line)
            ]
            text = "\n".join(kept).replace("-o raven -g raven", "").replace("uid raven", f"uid {user}")
            return text.replace("--regid raven", f"--regid {user}")

        self.run(elsewhere(installation))
        etc = tmp_path / "etc" / "raven"
        assert stat.S_IMODE((etc / "secrets.env").stat().st_mode) == 0o600
        (etc / "secrets.env").write_text(secrets.replace("…", "drawn"))
        assert {path.name for path in (tmp_path / "etc/systemd/system").iterdir()} == {
            path.name for path in UNITS.iterdir()
        }
        function, *commands = elsewhere(use).partition("\n}\n")
        assert [line.split()[:3] for line in commands[1].splitlines()] == [
            ["run_as_raven", "raven", "init-db"],
            ["run_as_raven", "raven", "doctor"],
            ["run_as_raven", "ravenctl", "start"],
            ["run_as_raven", "ravenctl", "status"],
        ]
        told = self.run(f"{function}\n}}\nrun_as_raven raven config --json")
        found = {entry["key"]: entry["value"] for entry in json.loads(told)}
        assert found["data"] == f"{tmp_path}/var/lib/raven"
        assert found["influx.token"].startswith("*")
        assert found["timescale.url"].startswith("*")

    def run(self, commands: str) -> str:
        environment = {name: value for name, value in os.environ.items() if not name.startswith("RAVEN__")}
        done = subprocess.run(
            ["sh", "-euc", commands], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout
