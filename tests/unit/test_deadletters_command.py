"""`raven deadletters`: what it lists, and what becomes of letters that it cannot deliver."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from raven.cli.raven import app
from raven.sinks.dead_letters import FOLDER, DeadLetters
from raven.sinks.encode import encode_trades
from raven.sinks.store import Refusal, TradeFlush
from tests.unit.store_compliance import SPOT, some_trades

CONFLICT = "a field [of] another type"


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("RUN_MODE", raising=False)


@pytest.fixture
def letters(tmp_path: Path) -> DeadLetters:
    made = DeadLetters(tmp_path / "data" / "tick_persistence-50091" / FOLDER)
    rows = encode_trades(TradeFlush([(SPOT, some_trades("BTCUSDT", 0, 10))]))
    made.add("influx", "trades", rows, [Refusal(2, CONFLICT), Refusal(3, "a bad line")])
    made.add("influx", "trades", rows, [Refusal(7, CONFLICT)])
    return made


def run(*arguments: str, code: int = 0) -> str:
    done = CliRunner().invoke(app, ["deadletters", *arguments])
    assert done.exit_code == code, done.output
    return done.output


@pytest.mark.usefixtures("letters")
def test_they_are_summed_up_by_reason() -> None:
    first, second = json.loads(run("--json"))
    assert (first["store"], first["table"], first["reason"], first["rows"]) == ("influx", "trades", CONFLICT, 2)
    assert first["service"] == "tick_persistence-50091"
    assert first["example"]["trade_id"] == 2
    assert first["example"]["symbol"] == "BTCUSDT"
    assert first["first"] <= first["last"]
    assert first["first"].startswith("20")
    assert (second["reason"], second["rows"]) == ("a bad line", 1)
    text = run()
    assert CONFLICT in text
    assert "trade_id=2" in text
    assert "\x1b" not in text
    assert json.loads(run("--json", "--service", "ticks")) == [first, second]
    assert json.loads(run("--json", "--service", "bar_persistence")) == []
    assert run("--service", "bar_persistence") == "no dead letters\n"


def test_without_any_there_is_nothing_to_do() -> None:
    assert run() == "no dead letters\n"
    assert run("--resend") == "no dead letters\n"
    assert json.loads(run("--resend", "--json")) == {"stored": 0, "refused": 0}


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({}, "influx.url is not set"),
        ({"URL": "http://127.0.0.1:9", "TOKEN": "t", "ORG": "o", "BUCKET": "b"}, "does not answer"),
    ],
)
def test_letters_that_cannot_be_sent_stay(
    letters: DeadLetters, monkeypatch: pytest.MonkeyPatch, settings: dict[str, str], says: str
) -> None:
    for name, value in settings.items():
        monkeypatch.setenv(f"RAVEN__INFLUX__{name}", value)
    done = CliRunner().invoke(app, ["deadletters", "--resend"])
    assert done.exit_code == 1
    assert says in str(done.exception)
    assert sum(one.rows.height for one in letters.read()) == 3
