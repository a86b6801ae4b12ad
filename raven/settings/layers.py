"""The layers of settings over the defaults: the TOML files in force, then the environment."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, EnvSettingsSource, InitSettingsSource, PydanticBaseSettingsSource

from raven.errors import SettingsError

PREFIX: Final = "RAVEN__"


class Layer(NamedTuple):
    """One layer as pydantic reads it, and the file it is; empty: the environment."""

    source: PydanticBaseSettingsSource
    file: str

    @property
    def values(self) -> Mapping[str, Any]:
        """What it sets, nested as the sections are."""
        return self.source()

    def place_of(self, path: Sequence[str]) -> str:
        """Where a user finds the value at `path` if this layer holds it: the file, or the variable."""
        return self.file or PREFIX + "__".join(path).upper()

    def holder(self, path: Sequence[str]) -> str | None:
        """The place where this layer sets the value at `path`, or one that contains it; None: it does not."""
        values: Any = self.values
        for depth, part in enumerate(path):
            if not isinstance(values, Mapping):
                return self.place_of(path[:depth])
            if part not in values:
                return None
            values = values[part]
        if isinstance(values, Mapping) and not self.file:
            return ", ".join(self.place_of([*path, name]) for name in values)
        return self.place_of(path)


class Environment(EnvSettingsSource):
    """`RAVEN__SECTION__KEY`; a list may be JSON or, in short, `60,300`."""

    def decode_complex_value(self, field_name: str, field: FieldInfo, value: Any) -> Any:
        """JSON; a text that is none is left to the key's own check, which says what is wrong with it."""
        try:
            return super().decode_complex_value(field_name, field, value)
        except ValueError:
            return value


def layers(settings: type[BaseSettings]) -> list[Layer]:
    """The layers in force, weakest first; raises SettingsError for a file that is missing or cannot be read."""
    files = [Layer(InitSettingsSource(settings, init_kwargs=_read(path)), str(path)) for path in _files()]
    return [*files, Layer(Environment(settings), "")]


def variables() -> dict[str, list[str]]:
    """The environment's variables for Raven, and the path of the key each names."""
    return {name: name.removeprefix(PREFIX).lower().split("__") for name in os.environ if name.startswith(PREFIX)}


def _files() -> Iterator[Path]:
    """The settings files in force, weakest first."""
    mode = os.environ.get("RUN_MODE")
    if mode:
        path = Path(f"{mode}.toml")
        if not path.exists():
            raise SettingsError(
                f"RUN_MODE={mode} asks for {path}, which is not in {Path.cwd()}",
                hint="run from the folder that holds it, or unset RUN_MODE",
            )
        yield path
    if Path("local.toml").exists():
        yield Path("local.toml")


def _read(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8-sig"))  # some editors begin files with a byte-order mark
    except OSError as error:
        raise SettingsError(f"settings cannot be read from {path}: {error.strerror}") from error
    except ValueError as error:  # the line and the column are in it
        raise SettingsError(f"settings cannot be read from {path}: {error}", hint="it has to be TOML") from error
