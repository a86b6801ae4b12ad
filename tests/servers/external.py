"""Servers of the environment: not started here, and broken by a proxy on the way to them."""

from __future__ import annotations

import http.client
import json
import secrets
from urllib.parse import urlencode, urlsplit, urlunsplit

import pytest
import trustme

from tests.servers.influx import AnyInflux, Bucket
from tests.servers.postgres import AnyPostgres
from tests.servers.proxy import Proxy


class ExternalPostgres(AnyPostgres):
    """A server of the environment behind a proxy: what befalls a managed server befalls the way to this one."""

    managed = False

    def __init__(self, url: str) -> None:
        self._url = urlsplit(url)
        self._proxy = Proxy(self._url.hostname or "127.0.0.1", self._url.port or 5432)
        self.port = self._proxy.port

    def url(self, database: str = "postgres", *, port: int | None = None) -> str:
        login = self._url.netloc.rpartition("@")[0]
        place = f"{login}@127.0.0.1:{self.port if port is None else port}"
        return urlunsplit(self._url._replace(netloc=place, path=f"/{database}"))

    def start(self) -> None:
        self._proxy.mode = "pass"

    def stop(self) -> None:
        self._proxy.mode = "refuse"

    def kill(self) -> None:
        self._proxy.mode = "refuse"

    def pause(self) -> None:
        self._proxy.mode = "hang"

    def resume(self) -> None:
        self._proxy.mode = "pass"

    def fill_disk(self, leave_bytes: int = 0) -> None:  # noqa: ARG002 - as for a managed one
        pytest.skip("the disk of a server of the environment is not filled")

    def free_disk(self) -> None:
        """There is nothing to give back."""

    def serve_tls(self, certificate: trustme.LeafCert) -> None:  # noqa: ARG002 - as for a managed one
        pytest.skip("the certificate of a server of the environment is not changed")

    def close(self) -> None:
        self._proxy.close()


class ExternalInflux(AnyInflux):
    """An InfluxDB 2 of the environment behind a proxy: what befalls a managed server befalls the way to this one."""

    managed = False

    def __init__(self, url: str, token: str, org: str, bucket: str) -> None:
        place = urlsplit(url)
        if place.scheme != "http":
            raise ValueError(f"RAVEN_TEST_INFLUX_URL: {url} is not http, which the proxy of tests needs")
        self._proxy = Proxy(place.hostname or "127.0.0.1", place.port or 8086)
        self.port = self._proxy.port
        self.url = f"http://127.0.0.1:{self.port}"
        self.token, self.org, self._bucket = token, org, bucket

    def start(self) -> None:
        self._proxy.mode = "pass"

    def stop(self) -> None:
        self._proxy.mode = "refuse"

    def kill(self) -> None:
        self._proxy.mode = "refuse"

    def pause(self) -> None:
        self._proxy.mode = "hang"

    def resume(self) -> None:
        self._proxy.mode = "pass"

    def fill_disk(self, leave_bytes: int = 0) -> None:  # noqa: ARG002 - as for a managed one
        pytest.skip("the disk of a server of the environment is not filled")

    def free_disk(self) -> None:
        """There is nothing to give back."""

    def close(self) -> None:
        self._proxy.close()

    def set_token(self, token: str) -> None:  # noqa: ARG002 - as for a managed one
        pytest.skip("the tokens of a server of the environment are not changed")

    def answer_writes(self, status: int | None, *, retry_after_s: int | None = None) -> None:  # noqa: ARG002
        pytest.skip("a server of the environment answers as it likes")

    def create_bucket(self, name: str | None = None, *, retention_s: int | None = None) -> Bucket:
        name = f"raven_{secrets.token_hex(6)}" if name is None else name
        rules = [] if retention_s is None else [{"type": "expire", "everySeconds": retention_s}]
        body = {"orgID": self._org_id(), "name": name, "retentionRules": rules}
        self._api("POST", "/api/v2/buckets", body)
        return Bucket(self, name)

    def delete_bucket(self, name: str) -> None:
        for found in self._api("GET", f"/api/v2/buckets?{urlencode({'org': self.org, 'name': name})}")["buckets"]:
            self._api("DELETE", f"/api/v2/buckets/{found['id']}")

    def _org_id(self) -> str:
        """Of the bucket that is given, since a token need not be allowed to list organisations."""
        named = urlencode({"org": self.org, "name": self._bucket})
        return str(self._api("GET", f"/api/v2/buckets?{named}")["buckets"][0]["orgID"])

    def _api(self, method: str, path: str, body: object = None) -> dict:
        data = b"" if body is None else json.dumps(body).encode()
        status, text = self.request(method, path, data, {"Content-Type": "application/json"})
        if status >= http.HTTPStatus.BAD_REQUEST:
            raise RuntimeError(f"{method} {path}: {status} {text}")
        return json.loads(text) if text else {}
