"""`raven token`: what it prints, and what it leaves of a settings file it writes to."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path

import pytest
from typer.testing import CliRunner

from raven.cli.raven import app
from raven.cli.token import write_token
from raven.errors import InputError, SettingsError
from raven.settings import load, origins


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("RUN_MODE", raising=False)


def run(*arguments: str) -> str:
    done = CliRunner().invoke(app, ["token", *arguments])
    assert done.exit_code == 0, done.output
    return done.output


def test_a_fresh_token_and_how_to_set_it() -> None:
    first, second = run(), run()
    token = first.splitlines()[0]
    assert len(token) >= 40
    assert f'token = "{token}"' in first
    assert f"RAVEN__SECURITY__TOKEN={token}" in first
    assert token not in second
    assert not Path("local.toml").exists()
    made = json.loads(run("--json"))
    assert made["written_to"] is None
    assert load(security={"token": made["token"]}).security.token.get_secret_value() == made["token"]


def test_written_it_is_in_force_and_for_its_owner_alone() -> None:
    made = json.loads(run("--write", "--json"))
    assert Path("local.toml").stat().st_mode & 0o777 == 0o600
    assert load().security.token.get_secret_value() == made["token"]
    shown = {entry.key: entry.value for entry in origins()}
    assert shown["security.token"] == "**********"
    Path("local.toml").unlink()
    shown_to_people = run("--write")
    assert load().security.token.get_secret_value() not in shown_to_people
    assert "local.toml" in shown_to_people


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[server]\nport_tibs = 6000 # mine\n",
        "data = 'x'",
        "[security] # ours\ntls_ca = 'ca.pem'\n\n[tibs]\nmax_ticks = 3\n",
        "[ security ]\n",
        "[security]",
        "[security]\ntoken_note = 1\n",
    ],
)
def test_what_was_there_stays(text: str) -> None:
    path = Path("local.toml")
    path.write_text(text)
    path.chmod(0o644)
    write_token(path, "made")
    after = path.read_text()
    assert [line for line in after.splitlines() if line in text.splitlines()] == text.splitlines()
    before = tomllib.loads(text)
    assert tomllib.loads(after) == {**before, "security": {**before.get("security", {}), "token": "made"}}
    assert path.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    ("text", "error", "why"),
    [
        ("[security]\ntoken = 'old'\n", InputError, "has a token already"),
        ("security.token = 'old'\n", InputError, "has a token already"),
        ("security = { tls_ca = 'ca.pem' }\n", InputError, r"in a way of its own.*by hand"),
        ("security.tls_ca = 'ca.pem'\n", InputError, "in a way of its own"),
        ("note = '''\n[security]\n'''\n", InputError, "in a way of its own"),
        ("[security\n", SettingsError, "cannot be read"),
    ],
)
def test_what_it_cannot_add_to_it_leaves_alone(text: str, error: type[Exception], why: str) -> None:
    path = Path("local.toml")
    path.write_text(text)
    with pytest.raises(error, match=why) as caught:
        write_token(path, "made")
    assert "made" not in str(caught.value)
    assert path.read_text() == text
    assert list(path.parent.iterdir()) == [path]


def test_a_link_stays_a_link() -> None:
    Path("shared.toml").write_text("data = 'x'\n")
    Path("local.toml").symlink_to("shared.toml")
    write_token(Path("local.toml"), "made")
    assert Path("local.toml").is_symlink()
    assert load().security.token.get_secret_value() == "made"
