"""Who can see and do what: the token, TLS, and how long the certificate is valid."""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Final

from raven.cli.checks.finding import Finding, Level
from raven.control.plan import target_of
from raven.rpc.access import Access, is_local
from raven.settings import SecuritySettings, Settings

EXPIRED: Final = 10  # OpenSSL's X509_V_ERR_CERT_HAS_EXPIRED
SOON_S: Final = 30 * 86_400.0
FLIGHTS: Final = 6  # more than any handshake needs
RENEW: Final = "renew it, and start the services again"


async def exposure(settings: Settings, access: Access, elsewhere: Sequence[str]) -> Sequence[Finding]:
    """What other machines may do, and whether the token can be overheard; `elsewhere`: services on other machines."""
    host = settings.server.host
    targets = [target_of(settings, name) for name in elsewhere]
    local = await asyncio.gather(*(asyncio.to_thread(is_local, target) for target in (host, *targets)))
    remote = [target for target, is_here in zip(targets, local[1:], strict=True) if not is_here]
    return judge_exposure(host, access, listens_widely=not local[0], remote=remote)


def judge_exposure(host: str, access: Access, *, listens_widely: bool, remote: Sequence[str]) -> list[Finding]:
    """Services bind to `host`, which other machines reach if it `listens_widely`, and call those at `remote`."""
    if not access.token and remote:
        found = f"no token is set, and {', '.join(remote)} would refuse whoever has none"
        return [_finding(Level.FAILED, found, "set security.token to the same token there and here")]
    if not access.token and listens_widely:
        found = f"services listen on {host} without a token: other machines can read the data, and control nothing"
        return [_finding(Level.WARNING, found, "set security.token; `raven token` makes one")]
    if not access.token:
        return [_finding(Level.OK, "services obey this machine alone")]
    if not access.tls and (listens_widely or remote):
        found = "the token and the data go in clear text between machines"
        return [
            _finding(Level.WARNING, found, "set security.tls_… (docs/several_machines.md), or keep the network private")
        ]
    return [_finding(Level.OK, f"a token is set{', calls go over TLS' if access.tls else ''}")]


async def certificate(security: SecuritySettings) -> Sequence[Finding]:
    """Whether those who call a service can trust its certificate, and how long; nothing where none is set."""
    if not security.tls_certificate:
        return []
    try:
        expires_s = await asyncio.to_thread(_trusted_until_s, security)
    except ssl.SSLCertVerificationError as error:
        return [judge_distrust(security.tls_certificate, error.verify_code, error.verify_message)]
    return [judge_expiry(security.tls_certificate, expires_s - time.time())]


def judge_distrust(path: str, code: int, reason: str) -> Finding:
    """A client did not trust the certificate at `path`, in OpenSSL's words because of `reason`."""
    if code == EXPIRED:
        return Finding("certificate", Level.FAILED, f"{path} or its authority has expired", RENEW)
    fix = "set security.tls_ca to the authority that signed security.tls_certificate"
    return Finding("certificate", Level.FAILED, f"clients do not trust {path}: {reason}", fix)


def judge_expiry(path: str, left_s: float) -> Finding:
    """The certificate at `path` is valid for `left_s` more."""
    found = f"{path} is valid for {left_s / 86_400:,.0f} days more"
    if left_s < SOON_S:
        return Finding("certificate", Level.WARNING, found, RENEW)
    return Finding("certificate", Level.OK, found)


def _trusted_until_s(security: SecuritySettings) -> float:
    """When a service's certificate expires (UTC, seconds since the epoch), told by a handshake within this process.

    Raises SSLCertVerificationError when a client would not trust it. Without tls_ca, which authorities clients trust is
    not known here, and the certificate has to stand for itself.
    """
    server_context, client_context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    server_context.load_cert_chain(security.tls_certificate, security.tls_key)
    client_context.check_hostname = False  # services are called by several names
    client_context.load_verify_locations(security.tls_ca or security.tls_certificate)
    if not security.tls_ca:
        client_context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = client_context.wrap_bio(to_client, to_server)
    server = server_context.wrap_bio(to_server, to_client, server_side=True)
    for _ in range(FLIGHTS):
        for side in (client, server):
            with suppress(ssl.SSLWantReadError):
                side.do_handshake()
    found = client.getpeercert()
    assert found is not None
    return ssl.cert_time_to_seconds(str(found["notAfter"]))


def _finding(level: Level, found: str, fix: str = "") -> Finding:
    return Finding("security", level, found, fix)
