"""The help of every program and command, at 80 columns."""

from __future__ import annotations

import importlib
import sys

import pytest
from rich.cells import cell_len
from typer import Typer
from typer.testing import CliRunner

from raven.cli.raven import app as raven
from raven.cli.ravenctl import app as ravenctl
from raven.control.plan import SERVICES

COMMANDS = [
    (app, command.name or command.callback.__name__.rstrip("_"))
    for app in (raven, ravenctl)
    for command in app.registered_commands
    if command.callback
]


def check(text: str) -> None:
    assert "--help" in text
    assert "bool" not in text, "a switch is on or off: it has no type"
    assert max(map(cell_len, text.splitlines())) <= 80


@pytest.mark.parametrize(("app", "command"), [(raven, ""), (ravenctl, ""), *COMMANDS])
def test_the_help_of_a_command_fits_and_gives_switches_no_type(app: Typer, command: str) -> None:
    done = CliRunner().invoke(app, [*([command] if command else []), "--help"], env={"COLUMNS": "80"})
    assert done.exit_code == 0
    check(done.output)


@pytest.mark.parametrize("name", SERVICES)
def test_the_help_of_a_service_does_so_too(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", [name, "--help"])
    monkeypatch.setenv("COLUMNS", "80")
    with pytest.raises(SystemExit, match="0"):
        importlib.import_module(SERVICES[name].module).main()
    check(capsys.readouterr().out)
