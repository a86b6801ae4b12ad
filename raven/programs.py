"""Command lines as all of Raven's programs have them: in their help a switch has no type."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup


def _without_types(options: list[Any]) -> list[Any]:
    """The options of a command, the switches (`--help` among them) shown as what they are, not as `<bool>`."""
    for option in options:
        if getattr(option, "is_bool_flag", False) and option.metavar is None:
            option.metavar = ""
    return options


class _Command(TyperCommand):
    def get_params(self, ctx: Any) -> list[Any]:
        """The options of this command."""
        return _without_types(super().get_params(ctx))


class _Group(TyperGroup):
    def get_params(self, ctx: Any) -> list[Any]:
        """The options beside the commands."""
        return _without_types(super().get_params(ctx))


class Program(typer.Typer):
    """A program of several commands."""

    def __init__(self, description: str) -> None:
        super().__init__(no_args_is_help=True, add_completion=False, help=description, cls=_Group)

    def command(self, name: str | None = None, **options: Any) -> Callable[[Any], Any]:
        """As of Typer."""
        return super().command(name, cls=_Command, **options)


def run(command: Callable[..., None]) -> None:
    """Run a program that is one command, with the arguments it was started with."""
    app = typer.Typer(add_completion=False)
    app.command(cls=_Command)(command)
    app()
