"""Which stores are in force, and what they are made of."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from pydantic import ValidationError
from typer.testing import CliRunner

from raven.cli.exchange import simulated
from raven.cli.raven import app
from raven.errors import SettingsError
from raven.settings import InfluxSettings, Settings, TimescaleSettings, load
from raven.sinks.stores import DATABASES, bar_store, limits, store_of, stores_in_force, trade_store, writer

INFLUX = InfluxSettings(url="http://127.0.0.1:1", token="t", org="o", bucket="b", flush_rows=7, flush_s=0.5)
TIMESCALE = TimescaleSettings(url="postgresql://raven:secret@127.0.0.1:1/raven")


@pytest.mark.parametrize(
    ("sections", "stores", "trades", "bars"),
    [
        ({}, [], ["delta"], ["delta"]),
        ({"influx": INFLUX}, [], ["influx"], ["delta"]),
        ({"influx": INFLUX, "simulated": True}, [], ["delta"], ["delta"]),
        ({"influx": INFLUX, "simulated": True}, ["influx", "delta"], ["influx", "delta"], ["delta"]),
        ({"timescale": TIMESCALE}, [], ["delta"], ["timescale"]),
        ({"influx": INFLUX, "timescale": TIMESCALE}, [], ["influx"], ["timescale"]),
        ({"influx": INFLUX, "timescale": TIMESCALE}, ["delta"], ["delta"], ["delta"]),
        ({"influx": INFLUX}, ["influx", "delta"], ["influx", "delta"], ["delta"]),
        (
            {"influx": INFLUX, "timescale": TIMESCALE},
            ["delta", "timescale", "influx"],
            ["delta", "influx"],
            ["delta", "timescale"],
        ),
    ],
)
def test_where_rows_go(sections: dict[str, object], stores: list[str], trades: list[str], bars: list[str]) -> None:
    settings = Settings.model_validate({**sections, "stores": stores})
    assert stores_in_force(settings, "trades") == trades
    assert stores_in_force(settings, "bars") == bars


def test_a_sink_without_a_store_says_so() -> None:
    settings = Settings.model_validate({"influx": INFLUX, "stores": ["influx"]})
    assert stores_in_force(settings, "trades") == ["influx"]
    with pytest.raises(SettingsError, match=r"none that takes bars: influx \(add timescale or delta to it\)"):
        stores_in_force(settings, "bars")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"stores": ["influx"]}, "influx.url is not set"),
        ({"stores": ["delta", "timescale"]}, "timescale.url is not set"),
        ({"stores": ["delta", "delta"]}, "one is named twice"),
        ({"stores": ["postgres"]}, "'influx', 'timescale' or 'delta'"),
        ({"influx": {"url": "http://127.0.0.1:1", "org": "o"}}, "bucket, token not"),
        ({"influx": {"url": "influx:8086"}}, "not a URL of this kind"),
        ({"timescale": {"url": "mysql://raven:secret@127.0.0.1/raven"}}, "it begins with postgresql://"),
    ],
)
def test_settings_that_do_not_fit(values: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError) as told:
        Settings.model_validate(values)
    assert message in str(told.value)
    assert "secret" not in str(told.value)


def test_each_store_has_its_own_limits() -> None:
    settings = Settings.model_validate({"influx": INFLUX, "store_probe_s": 5})
    assert (limits(settings, "influx").rows, limits(settings, "influx").age_s) == (7, 0.5)
    assert limits(settings, "delta").rows == settings.delta.flush_rows
    assert {limits(settings, store).probe_s for store in ("influx", "timescale", "delta")} == {5}


def test_stores_are_made_by_name(tmp_path: Path) -> None:
    settings = Settings.model_validate({"data": tmp_path, "influx": INFLUX, "timescale": TIMESCALE})
    assert trade_store("influx", settings, tmp_path).name == "influx"
    assert trade_store("delta", settings, tmp_path).name == "delta"
    bars = bar_store("timescale", "tick_imbalance_bars", settings, tmp_path)
    assert (bars.name, bars.table, bars.kind) == ("timescale", "tick_imbalance_bars", "tick_imbalance_bars")
    for name, table in (("timescale", "time_bars"), ("delta", "time_bars"), ("delta", "trades"), ("influx", "trades")):
        found = store_of(name, table, settings, tmp_path)
        assert (found.name, found.table) == (name, table)
    for name, table in (("influx", "time_bars"), ("timescale", "trades"), ("mysql", "trades")):
        with pytest.raises(SettingsError, match=f"no store {name}"):
            store_of(name, table, settings, tmp_path)
    with pytest.raises(SettingsError, match=r"influx\.url is not set"):
        store_of(DATABASES["trades"], "trades", Settings(), tmp_path)


def test_who_writes_stays_the_same_over_restarts(tmp_path: Path) -> None:
    first = writer(tmp_path / "bar_persistence-50092")
    assert first.startswith("bar_persistence-50092-")
    assert writer(tmp_path / "bar_persistence-50092") == first
    assert writer(tmp_path / "other" / "bar_persistence-50092") != first


def test_what_is_simulated_goes_into_no_database(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAVEN__INFLUX__URL", "http://127.0.0.1:1")
    for name in ("TOKEN", "ORG", "BUCKET"):
        monkeypatch.setenv(f"RAVEN__INFLUX__{name}", "x")
    monkeypatch.setenv("RAVEN__TIMESCALE__URL", "postgresql://raven@127.0.0.1:1/raven")
    assert stores_in_force(load(), "trades") == ["influx"]
    for name, value in simulated(load(), 9443, "SIMULATED").environment.items():
        monkeypatch.setenv(name, value)
    settings = load()
    assert (stores_in_force(settings, "trades"), stores_in_force(settings, "bars")) == (["delta"], ["delta"])


@pytest.mark.parametrize("stores", ["[]", '["influx"]', '["influx", "delta"]'])
def test_init_db_with_only_influxdb_has_nothing_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stores: str
) -> None:
    monkeypatch.chdir(tmp_path)
    for name, value in {"URL": "http://127.0.0.1:1", "TOKEN": "t", "ORG": "o", "BUCKET": "b"}.items():
        monkeypatch.setenv(f"RAVEN__INFLUX__{name}", value)
    monkeypatch.setenv("RAVEN__STORES", stores)
    done = CliRunner().invoke(app, ["init-db"])
    assert (done.exit_code, done.output) == (
        0,
        "nothing to do: InfluxDB needs no tables, and timescale.url is not set\n",
    )
    done = CliRunner().invoke(app, ["init-db", "--json"])
    assert (done.exit_code, json.loads(done.output)) == (0, {"database": None})
