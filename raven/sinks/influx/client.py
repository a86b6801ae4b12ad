"""One InfluxDB over influxdb-client: writes and queries become answers, whatever goes wrong on the way.

Its own batching, retries and compression stay off: the first loses points silently, the others are ours to decide
(its compression is gzip's default, which takes thirty times as long as igzip's level 1 for a fifth less).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import urllib3
from influxdb_client.client.influxdb_client import InfluxDBClient
from influxdb_client.rest import ApiException
from influxdb_client.service.write_service import WriteService
from isal import igzip
from urllib3.exceptions import HTTPError, InsecureRequestWarning, MaxRetryError, NewConnectionError
from urllib3.exceptions import TimeoutError as Urllib3TimeoutError

from raven.settings import InfluxSettings
from raven.sinks.influx.responses import Answer
from raven.sinks.store import StoreRefusedError

GZIP_LEVEL: Final = 1


class Client:
    """Writes and queries at `settings.url`; every call ends `settings.timeout_s` after the server's last byte.

    They raise StoreRefusedError when the settings name a file that is not there, and nothing else.
    """

    def __init__(self, settings: InfluxSettings) -> None:
        if not settings.verify_tls:
            urllib3.disable_warnings(InsecureRequestWarning)  # it was asked for; one warning a request helps nobody
        self._settings = settings
        self._client: Any = None

    def _connected(self) -> Any:
        """The library's client, made at the first call."""
        if self._client is None:
            settings = self._settings
            if settings.tls_ca and not Path(settings.tls_ca).is_file():
                raise StoreRefusedError(f"influx.tls_ca: there is no file {settings.tls_ca}", hint="mend influx.tls_ca")
            self._client = InfluxDBClient(
                settings.url,
                settings.token.get_secret_value(),
                timeout=round(settings.timeout_s * 1000),
                org=settings.org,
                verify_ssl=settings.verify_tls,
                ssl_ca_cert=settings.tls_ca or None,
                retries=False,
            )
        return self._client.api_client

    def write(self, lines: bytes | memoryview) -> Answer:
        """Write line protocol with times in nanoseconds."""
        return self._answer(
            WriteService(self._connected()).post_write,
            self._settings.org,
            self._settings.bucket,
            igzip.compress(lines, GZIP_LEVEL, mtime=0),
            precision="ns",
            content_encoding="gzip",
            content_type="text/plain; charset=utf-8",
        )

    def query(self, text: str, database: str, policy: str = "", *, accept: str) -> Answer:
        """Ask in InfluxQL, over the route that InfluxDB 1.x and 2 share; times are nanoseconds."""
        parameters = {"db": database, "org": self._settings.org, "q": text, "epoch": "ns"}
        return self._get("/query", parameters | ({"rp": policy} if policy else {}), accept)

    def bucket(self, bucket_id: str) -> Answer:
        """What InfluxDB 2 tells of the bucket of this id."""
        return self._get(f"/api/v2/buckets/{bucket_id}", {}, "application/json")

    def buckets(self, name: str) -> Answer:
        """What InfluxDB 2 tells of the buckets of this name."""
        return self._get("/api/v2/buckets", {"org": self._settings.org, "name": name}, "application/json")

    def _get(self, path: str, parameters: Mapping[str, str], accept: str) -> Answer:
        return self._answer(
            self._connected().call_api,
            path,
            "GET",
            query_params=list(parameters.items()),
            header_params={"Accept": accept},
            auth_settings=[],
            _return_http_data_only=True,
        )

    def close(self) -> None:
        """Drop the connections; the next call makes new ones."""
        if self._client is not None:
            self._client.close()
            self._client = None

    def _answer(self, call: Any, *arguments: Any, **options: Any) -> Answer:
        """The answer as bytes: decoding it is not left to the client, which takes all of them for UTF-8."""
        try:
            try:
                response = call(*arguments, **options, _preload_content=False)
            except ApiException as error:
                if error.response is None:  # the client's own word for a failed handshake
                    return Answer(None, self._unreached(error.reason))
                response = error.response
            body = response.data
        except (HTTPError, OSError) as error:
            cause = error.reason if isinstance(error, MaxRetryError) else error
            return Answer(None, self._unreached(cause))
        return Answer(response.status, body, response.headers)

    def _unreached(self, cause: object) -> bytes:
        """urllib3 names its connection objects; what comes after them is for people.

        Of time-outs it tells what was left of the time when it began to wait: another text each time.
        """
        if isinstance(cause, Urllib3TimeoutError | TimeoutError) and not isinstance(cause, NewConnectionError):
            return f"{self._settings.url} does not answer within {self._settings.timeout_s:g} s".encode()
        text = " ".join(str(cause).split())
        if text.startswith(("HTTPConnection", "HTTPSConnection", "<")):
            text = text.partition(": ")[2]
        return f"{self._settings.url} does not answer: {text}".encode()
