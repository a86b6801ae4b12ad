"""What is wanted and by whom; the plan of services; settings; ravenctl's arguments."""

from __future__ import annotations

from pathlib import Path

import pytest

from raven.batches.batch import Cursor
from raven.batches.instrument import Instrument
from raven.cli.ravenctl import subcommand_first
from raven.control.plan import SERVICES, downstream_first, resolve, resolve_venue, target_from, target_of
from raven.control.wanted import USER, WantedFile
from raven.errors import InputError, SettingsError
from raven.settings import load, origins

BTC, ETH = Instrument("BINANCE_SPOT", "BTCUSDT"), Instrument("BINANCE_SPOT", "ETHUSDT")


def test_a_symbol_is_collected_while_anyone_wants_it(tmp_path: Path) -> None:
    wanted = WantedFile(tmp_path / "wanted.json")
    wanted.add(BTC, USER, session_start=Cursor("j", 3), joining=["binance_spot"])
    wanted.add(BTC, "raven_tibs-50052")
    wanted.add(ETH, "raven_tibs-50052")
    wanted.add(Instrument("BINANCE_FUTURES", "BTCUSDT"), "raven_tibs-50052")
    wanted.save()
    again = WantedFile(tmp_path / "wanted.json")
    assert again.entries[BTC].session_start == Cursor("j", 3)
    assert again.remove(BTC, "raven_tibs-50052") == [USER]
    assert again.remove(ETH, "raven_tibs-50052") == []
    assert list(again.entries) == [BTC, Instrument("BINANCE_FUTURES", "BTCUSDT")]
    again.joined("binance_spot", [BTC, ETH])
    assert WantedFile(tmp_path / "wanted.json").entries[BTC].joining == []


def test_names_of_services() -> None:
    assert resolve("timebar") == resolve("raven_timebar") == "raven_timebar"
    assert resolve("tibs") == "raven_tibs"
    with pytest.raises(InputError, match=r"no service timbar.*did you mean timebar"):
        resolve("timbar")


def test_names_of_venues() -> None:
    assert resolve_venue("spot") == resolve_venue("Binance_Spot") == "BINANCE_SPOT"
    assert resolve_venue("FUTURES") == "BINANCE_FUTURES"
    with pytest.raises(InputError, match=r"no venue coinbase.*BINANCE_SPOT, BINANCE_FUTURES"):
        resolve_venue("coinbase")


def test_consumers_come_before_what_they_consume() -> None:
    order = downstream_first()
    for name, plan in SERVICES.items():
        for upstream in plan.upstreams:
            assert order.index(name) < order.index(upstream)


@pytest.mark.parametrize(
    ("address", "target"),
    [
        ("10.0.0.1", "10.0.0.1:50051"),
        ("raven.example:7000", "raven.example:7000"),
        ("http://127.0.0.1:50052", "127.0.0.1:50052"),
        ("http://[::1]:50052/", "[::1]:50052"),
    ],
)
def test_addresses(address: str, target: str) -> None:
    assert target_from(address, 50051) == target


@pytest.mark.parametrize(
    ("bound", "upstream", "target"),
    [
        ("127.0.0.1", "", "127.0.0.1:50052"),
        ("0.0.0.0", "", "127.0.0.1:50052"),
        ("10.0.0.2", "", "10.0.0.2:50052"),
        ("::1", "", "[::1]:50052"),
        ("127.0.0.1", "10.0.0.2:7000", "10.0.0.2:7000"),
        ("127.0.0.1", "bars.example", "bars.example:50052"),
    ],
)
def test_where_a_service_is_found(bound: str, upstream: str, target: str) -> None:
    assert target_of(load(server={"host": bound}, upstream={"raven_tibs": upstream}), "raven_tibs") == target


@pytest.mark.parametrize("address", ["http://", "host:port", ":1"])
def test_bad_addresses(address: str) -> None:
    with pytest.raises(InputError, match="is not an address"):
        target_from(address, 1)


@pytest.mark.parametrize(
    "arguments",
    [
        ["start", "--service", "timebar", "--symbol", "BTCUSDT"],
        ["--service", "timebar", "start", "--symbol", "BTCUSDT"],
        ["--service", "timebar", "--symbol", "BTCUSDT", "start"],
    ],
)
def test_options_on_either_side_of_the_subcommand(arguments: list[str]) -> None:
    assert subcommand_first(arguments) == ["start", "--service", "timebar", "--symbol", "BTCUSDT"]


def test_a_value_that_looks_like_a_subcommand_stays_one() -> None:
    assert subcommand_first(["--symbol", "stop", "start"]) == ["start", "--symbol", "stop"]


class TestSettings:
    @pytest.fixture(autouse=True)
    def elsewhere(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)
        monkeypatch.delenv("RUN_MODE", raising=False)

    def test_later_sources_win(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        (tmp_path / "prod.toml").write_text('[server]\nhost = "0.0.0.0"\nport_tibs = 1111\n[influx]\ntoken = "secret"')
        (tmp_path / "local.toml").write_text("[server]\nport_tibs = 2222\nport_timebar_minutes = 2223\n")
        monkeypatch.setenv("RUN_MODE", "prod")
        monkeypatch.setenv("RAVEN__SERVER__PORT_TIMEBAR_MINUTES", "3333")
        settings = load()
        assert (settings.server.host, settings.server.port_tibs, settings.server.port_timebar_minutes) == (
            "0.0.0.0",
            2222,
            3333,
        )
        assert settings.server.port_binance_spot == 50001
        assert "secret" not in repr(settings)

    def test_where_each_value_comes_from(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        (tmp_path / "prod.toml").write_text('[server]\nhost = "::1"\nport_tibs = 1111\n[influx]\ntoken = "secret"')
        (tmp_path / "local.toml").write_text("[server]\nport_tibs = 2222\n")
        monkeypatch.setenv("RUN_MODE", "prod")
        monkeypatch.setenv("RAVEN__DELTA__FLUSH_S", "3")
        found = {entry.key: (entry.value, entry.source) for entry in origins()}
        assert found["server.host"] == ("::1", "prod.toml")
        assert found["server.port_tibs"] == (2222, "local.toml")
        assert found["delta.flush_s"] == (3.0, "RAVEN__DELTA__FLUSH_S")
        assert found["server.port_binance_spot"] == (50001, "default")
        assert found["influx.token"] == ("**********", "prod.toml")
        assert set(found) >= {"data", "tibs.size_max", "timescale.url", "timebar.seconds"}

    def test_unknown_keys_name_the_nearest(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        (tmp_path / "local.toml").write_text("[server]\nhots = 1\n")
        with pytest.raises(SettingsError, match=r"unknown setting server.hots \(did you mean host\?\)"):
            load()
        (tmp_path / "local.toml").unlink()
        monkeypatch.setenv("RAVEN__SERVR__HOST", "x")
        with pytest.raises(SettingsError, match=r"unknown setting RAVEN__SERVR__HOST.*did you mean server"):
            load()

    def test_bad_toml_and_bad_values(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        (tmp_path / "local.toml").write_text("[server\n")
        with pytest.raises(SettingsError, match=r"cannot be read from local.toml"):
            load()
        (tmp_path / "local.toml").write_text("[server]\nport_tibs = 70000\n")
        with pytest.raises(SettingsError, match=r"setting server.port_tibs: .*less than or equal to"):
            load()
        (tmp_path / "local.toml").unlink()
        monkeypatch.setenv("RUN_MODE", "prod")
        with pytest.raises(SettingsError, match=r"RUN_MODE=prod asks for prod.toml"):
            load()
