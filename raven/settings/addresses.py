"""Addresses as people write them: where a service is, and the endpoints of an exchange. Errors are ValueError."""

from __future__ import annotations

import re
from typing import Final
from urllib.parse import urlsplit

HTTP: Final = ("http", "https")
WEBSOCKET: Final = ("ws", "wss")
POSTGRESQL: Final = ("postgresql", "postgres")
_ESCAPE: Final = "write special characters of the password as %XX, and the port as a number up to 65535"
USAGE: Final = "give host, host:port or http://host:port"
_PASSWORD: Final = re.compile(r"(?<=://)([^/@\s:]*):\S*@")  # also one with characters that had to be escaped


def parse_address(text: str) -> tuple[str, int | None]:
    """The host and, where given, the port of a service's address: host, host:port or URL."""
    if text.isdigit():
        raise ValueError(f"{text} is a port without a host; did you mean 127.0.0.1:{text}?")
    if "//" not in text and text.count(":") > 1 and not text.startswith("["):
        raise ValueError(f"{text} has several colons; an IPv6 address stands in brackets: [::1]:50051")
    try:
        parts = urlsplit(text if "//" in text else f"//{text}")
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise ValueError(f"{text} is not an address: {error}; {USAGE}") from error
    if not host or any(letter.isspace() for letter in host):
        raise ValueError(f"{text} is not an address; {USAGE}")
    if parts.scheme not in ("", *HTTP):
        raise ValueError(f"{text} is not an address: {parts.scheme}:// is no way to reach a service; {USAGE}")
    if parts.path.strip("/") or parts.query:
        raise ValueError(f"{text} is not an address: services have no path; {USAGE}")
    return host, port


def checked_url(text: str, schemes: tuple[str, ...], *, secret: bool = False) -> str:
    """`text`, if it is a URL of one of `schemes` with a host; the error about a `secret` one shows nothing of it."""
    shown = "what it holds" if secret else hide_password(text)
    example = " or ".join(f"{scheme}://…" for scheme in schemes)
    try:
        parts = urlsplit(text)
        host, _ = parts.hostname, parts.port
    except ValueError as error:
        reason = str(error) if shown == text else _ESCAPE
        raise ValueError(f"{shown} is not a URL: {reason}") from error
    if parts.scheme not in schemes:
        raise ValueError(f"{shown or 'an empty text'} is not a URL of this kind; it begins with {example}")
    if not host:
        raise ValueError(f"{shown} names no host")
    return text


def hide_password(text: str) -> str:
    """The text with the passwords of the URLs in it hidden."""
    return _PASSWORD.sub(r"\1:**********@", text)
