"""Who may call a service: token, loopback rule, bounds, TLS and mutual TLS, over real gRPC."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import grpc
import pytest
import trustme
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from raven.batches.batch import Cursor
from raven.errors import AccessError, SettingsError, UpstreamError
from raven.journal import Journal
from raven.rpc.access import Access, address, is_local, is_local_peer, peer_host
from raven.rpc.client import Client
from raven.rpc.hub import Hub
from raven.rpc.pb import control_pb2
from raven.rpc.server import Server
from raven.settings import load
from tests.unit.test_rpc import SCHEMA, Handler, publish, take

TOKEN = Access(token="right-token")
refusals: list[str] = []


@pytest.fixture(autouse=True)
def nobody_refused() -> None:
    refusals.clear()


@asynccontextmanager
async def serving(folder: Path, access: Access, host: str = "127.0.0.1") -> AsyncIterator[tuple[Hub, int]]:
    with Journal.open(folder / "journal", SCHEMA) as journal:
        hub = Hub(journal)
        server = Server(host, 0, Handler(), hub, access=access, refused=refusals.append)
        await server.start()
        try:
            yield hub, server.port
        finally:
            await server.stop()


def every_call(hub: Hub) -> dict[str, Callable[[Client], object]]:
    return {
        "start": lambda client: client.start(["BTCUSDT"]),
        "stop": lambda client: client.stop(["BTCUSDT"]),
        "stop_all": lambda client: client.stop_all(),
        "list": lambda client: client.list(),
        "status": lambda client: client.status(),
        "forget": lambda client: client.forget("known"),
        "acknowledge": lambda client: client.acknowledge("raven_tibs-1", Cursor(hub.journal.id, 1)),
        "subscribe": lambda client: take(client, "earliest", 1),
        "subscribe durably": lambda client: take(client, "earliest", 1, consumer="raven_tibs-1"),
    }


class TestToken:
    async def test_the_right_token_opens_everything(self, tmp_path: Path) -> None:
        async with serving(tmp_path, TOKEN) as (hub, port), Client(f"127.0.0.1:{port}", TOKEN) as client:
            await publish(hub, "BTCUSDT")
            for call in every_call(hub).values():
                await call(client)

    @pytest.mark.parametrize(
        ("token", "why"),
        [
            ("", "a token is needed, and none was sent"),
            ("wrong", "the token is wrong"),
            ("right-token1", "the token is wrong"),
            ("right-toke", "the token is wrong"),
        ],
    )
    async def test_any_other_is_refused_by_every_call(self, tmp_path: Path, token: str, why: str) -> None:
        async with serving(tmp_path, TOKEN) as (hub, port), Client(f"127.0.0.1:{port}", Access(token=token)) as client:
            await publish(hub, "BTCUSDT")
            for name, call in every_call(hub).items():
                with pytest.raises(AccessError, match=f"127.0.0.1:{port} refuses the call: {why}") as caught:
                    await call(client)
                assert "RAVEN__SECURITY__TOKEN" in caught.value.hint, name
                assert "right-token" not in str(caught.value).replace(token or "-", "")
            assert not hub.journal.consumers()
            assert refusals == ["token"] * len(every_call(hub))

    async def test_health_needs_none_and_reflection_does(self, tmp_path: Path) -> None:
        async with serving(tmp_path, TOKEN) as (_, port), grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            answer = await health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest())
            assert answer.status == health_pb2.HealthCheckResponse.SERVING
            stub = reflection_pb2_grpc.ServerReflectionStub(channel)
            # without a message: gRPC's client calls it an internal error when the refusal is there before it is sent
            refused = stub.ServerReflectionInfo(timeout=30)
            assert await refused.code() is grpc.StatusCode.UNAUTHENTICATED
            request = reflection_pb2.ServerReflectionRequest(list_services="")
            call = stub.ServerReflectionInfo(iter([request]), metadata=TOKEN.metadata)
            assert len((await call.read()).list_services_response.service) == 4

    async def test_the_scheme_is_bearer_in_any_case_and_two_tokens_are_none(self, tmp_path: Path) -> None:
        async def status(*values: str) -> grpc.StatusCode:
            async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
                method = channel.unary_unary(
                    "/raven.v1.Control/Status",
                    request_serializer=control_pb2.StatusRequest.SerializeToString,
                    response_deserializer=control_pb2.StatusResponse.FromString,
                )
                call = method(control_pb2.StatusRequest(), metadata=tuple(("authorization", value) for value in values))
                return await call.code()

        async with serving(tmp_path, TOKEN) as (_, port):
            assert await status("bearer right-token") is grpc.StatusCode.OK
            assert await status("Basic right-token") is grpc.StatusCode.UNAUTHENTICATED
            assert await status("right-token") is grpc.StatusCode.UNAUTHENTICATED
            assert await status("Bearer right-token", "Bearer wrong") is grpc.StatusCode.UNAUTHENTICATED


class TestLoopbackRule:
    @pytest.mark.parametrize(
        ("peer", "host", "local"),
        [
            ("ipv4:127.0.0.1:5000", "127.0.0.1", True),
            ("ipv4:127.9.8.7:5000", "127.9.8.7", True),
            ("ipv4:10.0.0.3:5000", "10.0.0.3", False),
            ("ipv6:%5B::1%5D:5000", "::1", True),
            ("ipv6:[::ffff:127.0.0.1]:5000", "::ffff:127.0.0.1", True),
            ("ipv6:[::ffff:10.0.0.3]:5000", "::ffff:10.0.0.3", False),
            ("ipv6:%5Bfe80::1%25eth0%5D:5000", "fe80::1%eth0", False),
            ("unix:", "unix", True),
            ("unknown", "unknown", False),
            ("", "", False),
        ],
    )
    def test_peers(self, peer: str, host: str, local: bool) -> None:
        assert (peer_host(peer), is_local_peer(peer)) == (host, local)

    @pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.2", "localhost", "[::1]"])
    def test_targets_on_this_machine(self, host: str) -> None:
        assert is_local(f"{host}:50001")
        assert is_local(host.strip("[]"))
        Access().require_for("binance_spot", f"{host}:50001")

    @pytest.mark.parametrize("host", ["10.0.0.1", "0.0.0.0", "[::]", "no-such-host.invalid", "[2001:db8::1]"])
    def test_targets_elsewhere_need_a_token(self, host: str) -> None:
        with pytest.raises(SettingsError, match=r"binance_spot is on another host .*no token.*raven token"):
            Access().require_for("binance_spot", f"{host}:50001")
        TOKEN.require_for("binance_spot", f"{host}:50001")
        assert TOKEN.exposes_token(f"{host}:50001")
        assert not is_local(host.strip("[]"))
        assert not Access().exposes_token(f"{host}:50001")

    @pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.2"])
    async def test_without_a_token_loopback_may_everything(self, tmp_path: Path, host: str) -> None:
        async with serving(tmp_path, Access(), host) as (hub, port), Client(f"{host}:{port}", Access()) as client:
            await publish(hub, "BTCUSDT")
            for call in every_call(hub).values():
                await call(client)

    async def test_ipv4_at_a_socket_of_ipv6_is_loopback_too(self, tmp_path: Path) -> None:
        async with serving(tmp_path, Access(), "::") as (_, port), Client(f"127.0.0.1:{port}", Access()) as client:
            assert (await client.status()).healthy

    async def test_ipv6_is_bound_and_called(self, tmp_path: Path) -> None:
        async with serving(tmp_path, Access(), "::1") as (_, port), Client(address("::1", port), Access()) as client:
            assert (await client.status()).healthy

    async def test_a_token_sent_where_none_is_needed_does_no_harm(self, tmp_path: Path) -> None:
        async with serving(tmp_path, Access()) as (_, port), Client(f"127.0.0.1:{port}", TOKEN) as client:
            assert (await client.status()).healthy


class TestBounds:
    async def test_a_peer_holds_so_many_subscriptions_and_no_more(self, tmp_path: Path) -> None:
        access = Access(max_subscriptions_per_peer=2)
        async with serving(tmp_path, access) as (hub, port), Client(f"127.0.0.1:{port}", access) as client:
            await publish(hub, "BTCUSDT")
            async with AsyncExitStack() as stack:
                for _ in range(2):
                    await anext(await stack.enter_async_context(aclosing(client.subscribe("earliest"))))
                with pytest.raises(UpstreamError, match=r"127.0.0.1 holds 2 subscriptions.*max_subscriptions_per_peer"):
                    await take(client, "earliest", 1)
                assert refusals == ["subscriptions"]
            async with asyncio.timeout(10):
                while True:  # the server hears of it
                    try:
                        assert await take(client, "earliest", 1) == [1]
                        break
                    except UpstreamError:
                        await asyncio.sleep(0.05)

    async def test_so_many_calls_at_a_time(self, tmp_path: Path) -> None:
        access = Access(max_concurrent_calls=1)
        async with (
            serving(tmp_path, access) as (_, port),
            Client(f"127.0.0.1:{port}", access) as client,
            aclosing(client.subscribe("latest")) as stream,
        ):
            await anext(stream)
            with pytest.raises(UpstreamError, match="Concurrent RPC limit"):
                await client.status()

    async def test_a_huge_request_is_refused(self, tmp_path: Path) -> None:
        async with serving(tmp_path, Access()) as (_, port), Client(f"127.0.0.1:{port}", Access()) as client:
            with pytest.raises(UpstreamError, match="larger than max"):
                await client.start(["X" * 2**21])


NOW = datetime.now(UTC)


class Authority:
    """A certificate authority that writes what it issues into `folder`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self._ca = trustme.CA()
        self.file = folder / "ca.pem"
        self._ca.cert_pem.write_to_path(str(self.file))

    def issue(self, name: str, *identities: str, expired: bool = False) -> dict[str, str]:
        days = (-2, -1) if expired else (-1, 1)
        before, after = (NOW + timedelta(days=number) for number in days)
        leaf = self._ca.issue_cert(*identities, not_before=before, not_after=after)
        certificate, key = self.folder / f"{name}.pem", self.folder / f"{name}.key"
        leaf.private_key_pem.write_to_path(str(key))
        certificate.write_bytes(b"".join(blob.bytes() for blob in leaf.cert_chain_pems))
        return {"tls_certificate": str(certificate), "tls_key": str(key)}


def access_of(**security: object) -> Access:
    return Access.of(load(security=security))


@pytest.fixture
def authority(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Authority:
    monkeypatch.chdir(tmp_path)
    return Authority(tmp_path / "ca")


class TestTls:
    async def test_signed_by_the_trusted_authority(self, tmp_path: Path, authority: Authority) -> None:
        server = access_of(tls_ca=str(authority.file), **authority.issue("service", "127.0.0.1"), token="t")
        client_access = access_of(tls_ca=str(authority.file), token="t")
        async with serving(tmp_path, server) as (hub, port), Client(f"127.0.0.1:{port}", client_access) as client:
            await publish(hub, "BTCUSDT")
            for call in every_call(hub).values():
                await call(client)
            async with Client(f"127.0.0.1:{port}", access_of(tls_ca=str(authority.file))) as without:
                with pytest.raises(AccessError, match="a token is needed"):
                    await without.status()

    @pytest.mark.parametrize(
        ("kind", "why"),
        [
            ("another authority", r"has a certificate that no authority trusted here has signed.*security.tls_ca"),
            ("expired", r"has an expired certificate"),
            ("another name", r"has a certificate of another name.*subjectAltName"),
            ("no TLS at the client", r"ends the connection at once.*wants TLS.*tls_ca"),
            ("no TLS at the service", r"speaks no TLS"),
        ],
    )
    async def test_what_is_wrong_is_said(self, tmp_path: Path, authority: Authority, kind: str, why: str) -> None:
        other = Authority(tmp_path / "other")
        identity = "elsewhere.example" if kind == "another name" else "127.0.0.1"
        server = access_of(**authority.issue("service", identity, expired=kind == "expired"))
        server = Access() if kind == "no TLS at the service" else server
        client_access = access_of(tls_ca=str(other.file if kind == "another authority" else authority.file))
        client_access = Access() if kind == "no TLS at the client" else client_access
        async with serving(tmp_path, server) as (_, port), Client(f"127.0.0.1:{port}", client_access) as client:
            for call in (client.status(), take(client, "earliest", 1)):
                with pytest.raises(AccessError, match=f"127.0.0.1:{port} {why}"):
                    await call

    async def test_mutual(self, tmp_path: Path, authority: Authority) -> None:
        other = Authority(tmp_path / "other")
        own = authority.issue("service", "127.0.0.1")
        server = access_of(tls_ca=str(authority.file), tls_client_certificates=True, **own)
        wants = r"ends the connection at once.*a client certificate"
        async with serving(tmp_path, server) as (_, port):
            target = f"127.0.0.1:{port}"
            good = access_of(tls_ca=str(authority.file), **authority.issue("client", "client.example"))
            async with Client(target, good) as client:
                assert (await client.status()).healthy
            for access in (
                access_of(tls_ca=str(authority.file)),
                access_of(tls_ca=str(authority.file), **other.issue("client", "127.0.0.1")),
                access_of(tls_ca=str(authority.file), **authority.issue("old", "127.0.0.1", expired=True)),
            ):
                async with Client(target, access) as client:
                    with pytest.raises(AccessError, match=wants):
                        await client.status()

    async def test_a_service_that_trusts_an_authority_needs_a_certificate(
        self, tmp_path: Path, authority: Authority
    ) -> None:
        with pytest.raises(SettingsError, match=r"no certificate to serve TLS with.*tls_certificate"):
            async with serving(tmp_path, access_of(tls_ca=str(authority.file))):
                pass


class TestSettings:
    @pytest.mark.parametrize(
        ("change", "why"),
        [
            ({"tls_ca": "none.pem"}, r"security.tls_ca: none.pem cannot be read: No such file"),
            ({"tls_key": "none.key"}, r"security.tls_key: none.key cannot be read: No such file"),
            ({"tls_certificate": "folder"}, r"security.tls_certificate: folder cannot be read: Is a directory"),
            ({"tls_key": ""}, r"setting security: .*tls_certificate is set and tls_key is not"),
            ({"tls_certificate": ""}, r"setting security: .*tls_key is set and tls_certificate is not"),
            ({"tls_key": "other.key"}, r"security.tls_key: other.key is not the key of service.pem"),
            ({"tls_key": "text"}, r"security.tls_key: text holds no unencrypted key in PEM"),
            ({"tls_certificate": "text"}, r"security.tls_certificate: text holds no certificate in PEM"),
            ({"tls_ca": "text"}, r"security.tls_ca: text holds no certificate in PEM"),
            ({"tls_ca": "", "tls_client_certificates": True}, r"tls_client_certificates needs .*tls_ca"),
            ({"token": "two words"}, r"setting security.token: .*visible ASCII characters only"),
            ({"token": "newline\n"}, r"setting security.token: .*visible ASCII characters only"),
        ],
    )
    def test_what_cannot_be_used_is_named(
        self, authority: Authority, monkeypatch: pytest.MonkeyPatch, change: dict[str, object], why: str
    ) -> None:
        authority.issue("service", "127.0.0.1")
        authority.issue("other", "127.0.0.1")
        monkeypatch.chdir(authority.folder)
        Path("folder").mkdir()
        Path("text").write_text("neither key nor certificate\n")
        given = {"tls_ca": "ca.pem", "tls_certificate": "service.pem", "tls_key": "service.key"}
        assert access_of(**given).tls
        with pytest.raises(SettingsError, match=why) as caught:
            access_of(**{**given, **change})
        assert not re.search(r"words|newline\b", f"{caught.value} {caught.value.__cause__}"), "a traceback shows both"

    def test_secrets_are_in_no_repr(self, authority: Authority) -> None:
        access = access_of(token="very-secret", **authority.issue("service", "127.0.0.1"))
        assert "very-secret" not in f"{access!r}{access!s}{load(security={'token': 'very-secret'})!r}"
        assert "PRIVATE" not in repr(access)
