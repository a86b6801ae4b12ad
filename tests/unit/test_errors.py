"""Errors speak the language of the interface in use."""

from __future__ import annotations

import pytest

from raven.cli.output import exit_on_error
from raven.errors import InputError, argument, in_a_command


def test_an_argument_is_spelt_as_the_caller_gives_it():
    assert (argument("venue"), argument("on_bad", "skip")) == ("venue=", "on_bad='skip'")
    with in_a_command():
        assert (argument("venue"), argument("on_bad", "skip")) == ("--venue", "--on-bad skip")
    assert argument("venue") == "venue="


def test_commands_speak_of_options(capsys):
    def run():
        raise InputError("it is not told", hint=f"pass {argument('venue')}")

    with pytest.raises(SystemExit):
        exit_on_error("raven", run)
    assert capsys.readouterr().err == "raven: it is not told (pass --venue)\n"
    assert argument("venue") == "venue="
