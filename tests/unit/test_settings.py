"""Settings: the layers, every problem in the user's terms, and prod.toml, which lists all there is."""

from __future__ import annotations

import json
import re
import shutil
import tomllib
from pathlib import Path

import pytest
from pydantic import ValidationError
from typer.testing import CliRunner

import raven
from raven.cli.raven import app
from raven.control.plan import target_of
from raven.errors import InputError, SettingsError
from raven.settings import Settings, TimescaleSettings, load, origins
from raven.settings.loading import flat

ROOT = Path(__file__).resolve().parents[2]
KEY_LINE = re.compile(r"^# (?=\w+ = )", re.MULTILINE)


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("RUN_MODE", raising=False)


class TestProdToml:
    def test_it_lists_every_key_with_its_default(self) -> None:
        listed = tomllib.loads(KEY_LINE.sub("", (ROOT / "prod.toml").read_text()))
        defaults = Settings.model_construct().model_dump(mode="json")
        assert dict(flat(listed)) == dict(flat(defaults))
        assert set(listed) == set(defaults)

    def test_it_works_as_it_stands_and_changes_nothing(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        default = load()
        shutil.copy(ROOT / "prod.toml", tmp_path)
        monkeypatch.setenv("RUN_MODE", "prod")
        assert load() == default

    def test_with_every_key_uncommented_each_comes_from_it(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        default = load()
        (tmp_path / "prod.toml").write_text(KEY_LINE.sub("", (ROOT / "prod.toml").read_text()))
        monkeypatch.setenv("RUN_MODE", "prod")
        assert load() == default
        assert {entry.source for entry in origins()} == {"prod.toml"}


class TestPaths:
    def test_a_home_is_meant_by_its_sign(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        monkeypatch.setenv("HOME", str(tmp_path))
        monkeypatch.setenv("RAVEN__DATA", "~/data")
        monkeypatch.setenv("RAVEN__SECURITY__TLS_CA", "~/ca.pem")
        monkeypatch.setenv("RAVEN__INFLUX__TLS_CA", "~/influx.pem")
        settings = load()
        assert settings.data == tmp_path / "data"
        assert settings.security.tls_ca == str(tmp_path / "ca.pem")
        assert settings.influx.tls_ca == str(tmp_path / "influx.pem")

    def test_of_a_command_too(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        monkeypatch.setenv("HOME", str(tmp_path))
        (tmp_path / "BTCUSDT-trades-2019-04-01.csv").write_text("1,2.0,3.0,6.0,1554076800000,True,True\n")
        arguments = ["import", "~/BTCUSDT-trades-2019-04-01.csv", "--into=~/journal", "--venue", "spot"]
        assert CliRunner().invoke(app, arguments, catch_exceptions=False).exit_code == 0
        assert next(iter(raven.replay("~/journal")))["trade_id"].to_list() == [1]
        assert raven.read_trades("~/BTCUSDT-trades-2019-04-01.csv")["trade_id"].to_list() == [1]

    @pytest.mark.parametrize(
        ("text", "says"), [("", "it is empty"), ("  ", "it is empty"), ("~nobody-here/x", "no user")]
    )
    def test_a_data_folder_that_is_none(self, text: str, says: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("RAVEN__DATA", text)
        with pytest.raises(SettingsError, match=rf"setting data: .*{says}.*\(in RAVEN__DATA\)"):
            load()


@pytest.mark.parametrize("text", ["60,300", "[60,300]", " 60 , 300 "])
def test_a_list_in_the_environment(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAVEN__TIMEBAR__SECONDS", text)
    assert load().timebar.seconds == [60, 300]


@pytest.mark.parametrize(
    ("variable", "value", "message"),
    [
        ("RAVEN__SERVER__HOTS", "x", r"unknown setting server.hots \(did you mean host\?\) in RAVEN__SERVER__HOTS"),
        ("RAVEN__TIMEBAR__SECONDS", "60,x", r"timebar.seconds.1: .*integer.*\(in RAVEN__TIMEBAR__SECONDS\)"),
        ("RAVEN__TIMEBAR__SECONDS", "0", r"timebar.seconds.0: .*greater than or equal to 1"),
        ("RAVEN__SERVER", "nonsense", r"setting server: .*dictionary.*\(in RAVEN__SERVER\)"),
        ("RAVEN__UPSTREAM__RAVEN_TIBS", "50052", r"port without a host; did you mean 127.0.0.1:50052\?"),
        ("RAVEN__UPSTREAM__RAVEN_TIBS", "::1", r"IPv6 address stands in brackets"),
        ("RAVEN__UPSTREAM__RAVEN_TIBS", "host:x", r"host:x is not an address"),
        ("RAVEN__UPSTREAM__RAVEN_TIBS", "ftp://host", r"ftp:// is no way"),
        ("RAVEN__UPSTREAM__RAVEN_TIBS", "http://host/path", r"services have no path"),
        ("RAVEN__BINANCE_SPOT__WEBSOCKET_URL", "https://x", r"begins with ws://… or wss://…"),
        ("RAVEN__BINANCE_SPOT__REST_URL", "https://", r"names no host"),
        ("RAVEN__SERVER__PORT_TIBS", "50051", r"port_timebar_minutes and port_tibs are both 50051"),
        ("RAVEN__SERVER__PORT_TIBS", "51051", r"port_tibs is 51051, where the service of port_timebar_minutes serves"),
        ("RAVEN__SERVER__PORT_TIBS", "64536", r"server.port_tibs: .*less than or equal to 64535"),
    ],
)
def test_what_is_wrong_in_the_environment(
    variable: str, value: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(SettingsError, match=message):
        load()


def test_every_problem_is_named_with_its_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "local.toml").write_text('[server]\nport_tibs = "x"\n[tibz]\nx = 1\n')
    monkeypatch.setenv("RAVEN__DELTA__FLUSH_S", "-1")
    monkeypatch.setenv("RAVEN__DETLA__FLUSH_S", "1")
    with pytest.raises(SettingsError) as caught:
        load()
    for part in (
        "unknown setting RAVEN__DETLA__FLUSH_S (did you mean delta?)",
        "server.port_tibs: Input should be a valid integer, unable to parse string as an integer (in local.toml)",
        "unknown setting tibz (did you mean tibs?) in local.toml",
        "delta.flush_s: Input should be greater than 0 (in RAVEN__DELTA__FLUSH_S)",
    ):
        assert part in str(caught.value)


def test_toml_that_cannot_be_read_names_file_line_and_reason(tmp_path: Path) -> None:
    (tmp_path / "local.toml").write_text('[server]\nhost = "a"\nport_tibs =\n')
    with pytest.raises(SettingsError, match=r"local.toml: Invalid value \(at line 3, column 12\)"):
        load()


@pytest.mark.parametrize(
    ("address", "target"),
    [
        ("", "127.0.0.1:50052"), ("other", "other:50052"), ("other:7", "other:7"), ("http://other:7", "other:7"),
        ("[::1]", "[::1]:50052"),
    ],
)  # fmt: skip
def test_where_an_upstream_is_found(address: str, target: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAVEN__UPSTREAM__RAVEN_TIBS", address)
    assert target_of(load(), "raven_tibs") == target


def test_this_machine_is_found_at_an_ipv6_address_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAVEN__SERVER__HOST", "::1")
    assert target_of(load(), "raven_tibs") == "[::1]:50052"


class TestConfigCommand:
    def run(self, *arguments: str) -> list[dict[str, object]]:
        done = CliRunner().invoke(app, ["config", *arguments, "--json"])
        assert done.exit_code == 0, done.output
        found: list[dict[str, object]] = json.loads(done.stdout)
        return found

    def test_secrets_are_hidden_in_urls_too(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("RAVEN__BINANCE_SPOT__PROXY", "http://me:hidden@proxy:3128")
        monkeypatch.setenv("RAVEN__TIMESCALE__URL", "postgresql://raven:hidden@db/raven")
        assert "hidden" not in repr(load())
        monkeypatch.setenv("RAVEN__BINANCE_SPOT__REST_URL", "https://me:hidden@mirror")
        found = self.run()
        assert "hidden" not in json.dumps(found)
        assert {"key": "binance_spot.rest_url", "value": "https://me:**********@mirror",
                "source": "RAVEN__BINANCE_SPOT__REST_URL"} in found  # fmt: skip

    def test_one_key_a_section_a_part_of_a_name(self) -> None:
        assert self.run("timebar.seconds") == [{"key": "timebar.seconds", "value": [60], "source": "default"}]
        assert [entry["key"] for entry in self.run("delta.")] == [
            "delta.flush_rows", "delta.flush_s", "delta.maintain_s"
        ]  # fmt: skip
        assert {entry["key"] for entry in self.run("port_t")} == {
            "server.port_timebar_minutes", "server.port_tibs", "server.port_tick_persistence"
        }  # fmt: skip

    def test_an_unknown_key_names_the_nearest(self) -> None:
        done = CliRunner().invoke(app, ["config", "server.prot_tibs"])
        assert isinstance(done.exception, InputError)
        assert "did you mean server.port_tibs?" in str(done.exception)


@pytest.mark.parametrize("password", ["se/cret", "se#cret", "se?cret"])
def test_a_password_that_is_not_escaped_is_not_shown_with_the_error_about_it(password: str) -> None:
    with pytest.raises(SettingsError, match="%XX") as caught:
        load(timescale={"url": f"postgresql://raven:{password}@db/raven"})
    assert "cret" not in str(caught.value)
    assert "'se'" not in str(caught.value)


@pytest.mark.parametrize(
    "url",
    [
        "postgres//raven:hidden@db/raven", "mysql://raven:hidden@db/raven", "postgresql://raven:hid den@/@db/raven",
        "postgresql://raven:hidden@db:99999/raven", "host=db password=hidden dbname=raven",
    ],
)  # fmt: skip
def test_nothing_of_a_database_url_is_shown_with_the_error_about_it(url: str) -> None:
    with pytest.raises(SettingsError, match=r"timescale.url: what it holds ") as caught:
        load(timescale={"url": url})
    assert "hid" not in str(caught.value)


def test_nothing_of_a_database_url_is_shown_where_its_section_is_made_alone() -> None:
    with pytest.raises(ValidationError, match="is not a URL") as caught:
        TimescaleSettings.model_validate({"url": "postgresql://raven:hid[den@db/raven"})
    assert "hid" not in str(caught.value)


@pytest.mark.parametrize("section", ["influx", "security"])
@pytest.mark.parametrize("token", ["hidden\r", "hid den", "hidden\n", "…"])
def test_a_token_that_no_header_holds_is_refused_and_not_shown(section: str, token: str) -> None:
    with pytest.raises(SettingsError, match=f"{section}.token: a token has visible ASCII") as caught:
        load(**{section: {"token": token}})
    assert token not in str(caught.value)


def test_influx_takes_no_password_in_its_url() -> None:
    with pytest.raises(SettingsError, match=r"influx.url: .* holds no user and password") as caught:
        load(influx={"url": "http://raven:hidden@db:8086", "token": "t", "org": "o", "bucket": "b"})
    assert "hidden" not in str(caught.value)
