"""Settings as they are in force, where each comes from, and every problem with them in the user's own terms."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from pydantic import BaseModel, ValidationError

from raven.errors import SettingsError
from raven.settings.addresses import hide_password
from raven.settings.layers import Layer, layers, variables
from raven.settings.sections import Settings


def load(**overrides: Any) -> Settings:
    """The settings in force; raises SettingsError that lists every problem: the place, the key, what is wrong."""
    problems = list(_unknown_variables())
    try:
        settings = Settings(**overrides)
    except ValidationError as error:
        found = layers(Settings)
        problems += [_explain(item, found) for item in error.errors()]
    if problems:
        different = list(dict.fromkeys(problems))
        raise SettingsError("; ".join(different), problems=different)
    return settings


class Origin(NamedTuple):
    """One setting in force: its key, its value (secrets hidden), and where it comes from."""

    key: str
    value: Any
    source: str


def origins() -> list[Origin]:
    """Every setting in force and its origin: a file, an environment variable, or `default`. Raises SettingsError."""
    settings, found = load(), layers(Settings)
    return [
        Origin(key, hide_password(value) if isinstance(value, str) else value, _place(key.split("."), found, "default"))
        for key, value in flat(settings.model_dump(mode="json"))
    ]


def flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Every key of nested tables as `section.key`, with its value."""
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def nearest(name: str, known: Sequence[str]) -> str:
    """A hint that names the nearest of the known names, or all of them."""
    close = difflib.get_close_matches(name, known, n=1)
    return f"did you mean {close[0]}?" if close else f"known here: {', '.join(known)}"


def _place(path: Sequence[str], found: Sequence[Layer], default: str) -> str:
    return next((place for layer in reversed(found) if (place := layer.holder(path)) is not None), default)


def _unknown_variables() -> Iterator[str]:
    """A misspelt `RAVEN__…` variable would otherwise be ignored."""
    for variable, path in variables().items():
        if path[0] not in Settings.model_fields:
            yield f"unknown setting {variable} ({nearest(path[0], list(Settings.model_fields))})"


def _explain(item: Any, found: Sequence[Layer]) -> str:
    path = [str(part) for part in item["loc"]]
    name, place = ".".join(path), _place(path, found, "the defaults")
    if item["type"] == "extra_forbidden":
        return f"unknown setting {name} ({nearest(path[-1], _known(path[:-1]))}) in {place}"
    message = item["msg"].removeprefix("Value error, ")
    return f"setting {name}: {hide_password(message)} (in {place})"


def _known(path: Sequence[str]) -> list[str]:
    """The keys there are in the section at `path`."""
    section: type[BaseModel] = Settings
    for part in path:
        annotation = section.model_fields[part].annotation
        assert isinstance(annotation, type)
        section = annotation
    return list(section.model_fields)
