"""The HTTP server of the metrics, which asks nobody for a token: what strangers can take of it is bounded."""

from __future__ import annotations

import socket
import sys
import threading
import time
from collections import Counter
from socketserver import ThreadingMixIn
from types import TracebackType
from typing import Any, Final, Self
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

from prometheus_client import CollectorRegistry, make_wsgi_app

MAX_CONNECTIONS: Final = 64
MAX_PER_PEER: Final = 16
SILENT_S: Final = 10.0
"""A connection without a byte for so long is closed."""

_NO_FILE_PAUSE_S: Final = 0.1


class MetricsServer:
    """The running HTTP server of a registry, on `port` (0 was asked for: any free one); OSError where it is taken."""

    def __init__(self, registry: CollectorRegistry, host: str, port: int) -> None:
        family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        self._server = _Server(family, (str(address[0]), port))
        self._server.set_app(make_wsgi_app(registry))
        self._thread = threading.Thread(target=self._server.serve_forever, name="metrics", daemon=True)
        self._thread.start()
        self.port: int = self._server.server_port

    def close(self) -> None:
        """Let go of the port."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


class _Handler(WSGIRequestHandler):
    timeout = SILENT_S

    def log_message(self, *_: object) -> None:
        """Log nothing."""


class _Server(ThreadingMixIn, WSGIServer):
    """A thread for each connection, as many as there may be."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, family: int, address: tuple[str, int]) -> None:
        self.address_family = family
        self._open: dict[socket.socket, str] = {}
        self._changing = threading.Lock()
        super().__init__(address, _Handler)

    def get_request(self) -> tuple[socket.socket, Any]:
        """The next connection."""
        try:
            return super().get_request()
        except OSError:  # no file left for it: it still waits when we come again
            time.sleep(_NO_FILE_PAUSE_S)
            raise

    def verify_request(self, request: Any, client_address: Any) -> bool:
        """Whether it may be served: there is room for it."""
        host = client_address[0]
        with self._changing:
            if len(self._open) >= MAX_CONNECTIONS or Counter(self._open.values())[host] >= MAX_PER_PEER:
                return False
            self._open[request] = host
        return True

    def shutdown_request(self, request: Any) -> None:
        """It is over, or was refused."""
        with self._changing:
            self._open.pop(request, None)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A caller that falls silent or hangs up is none of ours."""
        if not isinstance(sys.exception(), OSError):
            super().handle_error(request, client_address)
