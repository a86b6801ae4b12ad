"""What services and their clients show each other: the token, certificates, and the channel made of both.

An `Access` is made once of the settings and given to every server and client; there is no client without one.
"""

from __future__ import annotations

import socket
import ssl
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path
from typing import Any, Final, Self
from urllib.parse import unquote, urlsplit

import grpc

from raven.errors import SettingsError
from raven.settings import SecuritySettings, Settings

DEFAULTS: Final = SecuritySettings()


@dataclass(frozen=True, slots=True)
class Access:
    """The `[security]` settings with the files read. Without arguments: no token, no TLS."""

    token: str = field(default="", repr=False)
    certificate: bytes = b""
    key: bytes = field(default=b"", repr=False)
    ca: bytes = b""
    client_certificates: bool = False
    max_subscriptions_per_peer: int = DEFAULTS.max_subscriptions_per_peer
    max_concurrent_calls: int = DEFAULTS.max_concurrent_calls
    max_connections_per_peer: int = DEFAULTS.max_connections_per_peer
    max_connections: int = DEFAULTS.max_connections

    @classmethod
    def of(cls, settings: Settings) -> Self:
        """The access in force; raises SettingsError naming the key and the file that cannot be used."""
        security = settings.security
        access = cls(
            token=security.token.get_secret_value(),
            certificate=_read("tls_certificate", security.tls_certificate),
            key=_read("tls_key", security.tls_key),
            ca=_read("tls_ca", security.tls_ca),
            client_certificates=security.tls_client_certificates,
            max_subscriptions_per_peer=security.max_subscriptions_per_peer,
            max_concurrent_calls=security.max_concurrent_calls,
            max_connections_per_peer=security.max_connections_per_peer,
            max_connections=security.max_connections,
        )
        _check_files(security)
        return access

    @property
    def tls(self) -> bool:
        """Whether calls are made over TLS."""
        return bool(self.ca or self.certificate)

    @property
    def metadata(self) -> tuple[tuple[str, str], ...]:
        """What is sent along with every call."""
        return (("authorization", f"Bearer {self.token}"),) if self.token else ()

    def channel(self, target: str, options: list[tuple[str, Any]]) -> grpc.aio.Channel:
        """A channel to `target`, over TLS when a certificate or a CA is set."""
        if not self.tls:
            return grpc.aio.insecure_channel(target, options=options)
        credentials = grpc.ssl_channel_credentials(self.ca or None, self.key or None, self.certificate or None)
        return grpc.aio.secure_channel(target, credentials, options=options)

    def add_port(self, server: grpc.aio.Server, address: str) -> int:
        """Let `server` listen on `address`; the port. Raises RuntimeError when it cannot, SettingsError without key."""
        if not self.tls:
            return server.add_insecure_port(address)
        if not self.certificate:
            raise SettingsError(
                "security.tls_ca is set, but this service has no certificate to serve TLS with",
                hint="set security.tls_certificate and security.tls_key, too",
            )
        credentials = grpc.ssl_server_credentials(
            [(self.key, self.certificate)], self.ca or None, require_client_auth=self.client_certificates
        )
        return server.add_secure_port(address, credentials)

    def require_for(self, upstream: str, target: str) -> None:
        """Raises SettingsError when `upstream` is on another host and there is no token: it would refuse us."""
        if not self.token and not is_local(target):
            raise SettingsError(
                f"{upstream} is on another host ({target}) and no token is set: it obeys only callers that have one",
                hint="set security.token to the same token there and here; `raven token` makes one",
            )

    def exposes_token(self, target: str) -> bool:
        """Whether the token travels in clear text between machines when `target` is called or listened on."""
        return bool(self.token) and not self.tls and not is_local(target)


def address(host: str, port: int) -> str:
    """`host:port`, an IPv6 address in brackets."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def is_local(target: str) -> bool:
    """Whether `host:port` (or `host`) is on loopback; a name that does not resolve is not."""
    bare_ipv6 = target.count(":") > 1 and not target.startswith("[")
    host = target if bare_ipv6 else urlsplit(f"//{target}").hostname or ""
    try:
        found = {str(entry[4][0]) for entry in socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)}
    except OSError:
        return False
    return bool(host) and all(_is_loopback(entry) for entry in found)


def peer_host(peer: str) -> str:
    """The address in gRPC's name of a peer, such as `ipv4:10.0.0.3:41234`; of a Unix socket `unix`."""
    kind, _, rest = unquote(peer).partition(":")
    return rest.rpartition(":")[0].strip("[]") if kind in {"ipv4", "ipv6"} else kind


def is_local_peer(peer: str) -> bool:
    """Whether a call came over loopback or a Unix socket."""
    host = peer_host(peer)
    return host == "unix" or _is_loopback(host)


def _is_loopback(host: str) -> bool:
    try:
        found: IPv4Address | IPv6Address = ip_address(host.partition("%")[0])
    except ValueError:
        return False
    if isinstance(found, IPv6Address) and found.ipv4_mapped is not None:
        found = found.ipv4_mapped
    return found.is_loopback


def _read(key: str, path: str) -> bytes:
    if not path:
        return b""
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise SettingsError(
            f"security.{key}: {path} cannot be read: {error.strerror}",
            hint="relative paths are looked for in the working directory",
        ) from error


def _check_files(security: SecuritySettings) -> None:
    """Say at once what gRPC would only report as a failed handshake; raises SettingsError."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    if security.tls_ca:
        try:
            context.load_verify_locations(security.tls_ca)
        except ssl.SSLError as error:
            raise SettingsError(f"security.tls_ca: {security.tls_ca} holds no certificate in PEM") from error
    if not security.tls_certificate:
        return
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(security.tls_certificate)
    except ssl.SSLError as error:
        raise SettingsError(
            f"security.tls_certificate: {security.tls_certificate} holds no certificate in PEM"
        ) from error
    try:
        context.load_cert_chain(security.tls_certificate, security.tls_key, password=b"")
    except ssl.SSLError as error:
        fits = error.reason != "KEY_VALUES_MISMATCH"
        why = "holds no unencrypted key in PEM" if fits else f"is not the key of {security.tls_certificate}"
        raise SettingsError(f"security.tls_key: {security.tls_key} {why}") from error
