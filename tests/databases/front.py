"""An HTTP server on loopback that stands before an InfluxDB: it notes what comes, and answers itself when told to."""

from __future__ import annotations

import gzip
import http.client
import ssl
import threading
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

import trustme


@dataclass(frozen=True)
class Reply:
    """An answer: status, body, headers."""

    status: int
    body: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Request:
    """What came: the path with its query, and the body, unpacked."""

    path: str
    body: bytes


class Front:
    """Listens on `url` and passes requests on to `target`.

    - `requests`: all that came.
    - `certificate`: what it shows; with one it speaks TLS.
    - `replies`: what is answered instead of the target, one request each.
    - `judge`: asked about each request after that; None passes it on.
    - `route`: the path that is asked of the target for a path that came.
    - `passed`: called after the target has answered, before its answer goes back.
    """

    def __init__(self, target: str, certificate: trustme.LeafCert | None = None) -> None:
        self.requests: list[Request] = []
        self.replies: deque[Reply] = deque()
        self.judge: Callable[[Request], Reply | None] = lambda _: None
        self.route: Callable[[str], str] = lambda path: path
        self.passed: Callable[[Request], None] = lambda _: None
        place = urlsplit(target)
        front = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            wbufsize = -1
            disable_nagle_algorithm = True

            def log_message(self, *_: object) -> None:
                pass

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                plain = gzip.decompress(body) if self.headers.get("Content-Encoding") == "gzip" else body
                request = Request(self.path, plain)
                front.requests.append(request)
                reply = front.replies.popleft() if front.replies else front.judge(request)
                if reply is not None:
                    self._answer(reply.status, reply.body.encode(), reply.headers)
                    return
                there = http.client.HTTPConnection(place.hostname or "", place.port, timeout=30)
                try:
                    there.request(self.command, front.route(self.path), body, dict(self.headers))
                    answer = there.getresponse()
                    front.passed(request)
                    kept = {name: value for name, value in answer.getheaders() if name.startswith(("X-", "Content-T"))}
                    self._answer(answer.status, answer.read(), kept)
                finally:
                    there.close()

            do_GET = do_POST  # noqa: N815

            def _answer(self, status: int, body: bytes, headers: Mapping[str, str]) -> None:
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                if status != 204:
                    self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        if certificate is not None:
            tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            certificate.configure_cert(tls)
            self._server.socket = tls.wrap_socket(self._server.socket, server_side=True)
            self.url = f"https://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
