"""What the values of settings are: ports, addresses, lists, tokens; each checked where it is read."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, SecretStr

from raven.settings.addresses import HTTP, WEBSOCKET, checked_url, parse_address

METRICS_PORT_OFFSET = 1000
MAX_PORT = 65_535


class Section(BaseModel):
    """One table of the settings file."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)


def expanded(path: str | Path) -> Path:
    """A path as people write it: `~` and `~user` stand for a home; of a user there is not, it stays as it is."""
    return Path(os.path.expanduser(path))  # noqa: PTH111 - Path's own raises RuntimeError there


def _folder(value: Any) -> Any:
    """The current folder has to be meant: a variable that is set and empty names none."""
    if not isinstance(value, str | Path):
        return value
    if not str(value).strip():
        raise ValueError("it is empty: name a folder (. is the current one), or leave it unset")
    folder = expanded(value)
    if str(folder).startswith("~"):
        raise ValueError(f"{value} is in no user's home here; write ./{value} for a folder of that name")
    return folder


def _file(text: str) -> str:
    return str(expanded(text)) if text else text


def _address(text: str) -> str:
    if text:
        parse_address(text)
    return text


def _split(value: Any) -> Any:
    """A list written as `60,300`, or a single number."""
    if isinstance(value, str):
        return [part.strip() for part in value.split(",") if part.strip()]
    return [value] if isinstance(value, int | float) else value


def _can_be_sent(token: SecretStr) -> SecretStr:
    """A header holds nothing else; a library that is given it would show the token with its error."""
    if not all("!" <= character <= "~" for character in token.get_secret_value()):
        raise ValueError("a token has visible ASCII characters only: no blanks, no line ends")
    return token


def _names_no_user(url: str) -> str:
    """The address of a database is told in messages: a password is no part of it."""
    if "@" in url.partition("?")[0]:
        raise ValueError("the URL of an InfluxDB holds no user and password; the token has a setting of its own")
    return url


Folder = Annotated[Path, BeforeValidator(_folder)]
File = Annotated[str, AfterValidator(_file)]
Port = Annotated[int, Field(ge=1, le=MAX_PORT - METRICS_PORT_OFFSET)]
Address = Annotated[str, AfterValidator(_address)]
WebSocketUrl = Annotated[str, AfterValidator(lambda url: checked_url(url, WEBSOCKET))]
LIST = BeforeValidator(_split)
HttpUrl = Annotated[str, AfterValidator(lambda url: checked_url(url, HTTP))]
OptionalHttpUrl = Annotated[str, AfterValidator(lambda url: url and checked_url(url, HTTP))]
InfluxUrl = Annotated[OptionalHttpUrl, AfterValidator(_names_no_user)]
Token = Annotated[SecretStr, AfterValidator(_can_be_sent)]
StoreName = Literal["influx", "timescale", "delta"]
LogLevel = Literal["debug", "info", "warning", "error"]
