"""How many connections a service holds, in all and of one address, and how many files this process may open.

gRPC bounds the connections of a server in all, and ends those that do not speak HTTP/2 in time. Of one address it
bounds nothing, and hands no connection out: those are found among the open files of the process, and shut down.
"""

from __future__ import annotations

import os
import resource
import socket
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, NamedTuple

HANDSHAKE_MS: Final = 10_000
IDLE_MS: Final = 300_000
ENOUGH_FILES: Final = 1024
_OPEN_FILES: Final = Path("/dev/fd")
_INTERNET: Final = (socket.AF_INET, socket.AF_INET6)


def raise_file_limit() -> int:
    """Let this process open as many files and connections as it may have at all; how many that is."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(OSError, ValueError):  # some systems allow less than they say
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        soft = hard
    return soft if soft != resource.RLIM_INFINITY else 2**20


def server_options(most: int) -> list[tuple[str, Any]]:
    """What bounds the connections of a gRPC server: `most` at once, and none that says or asks nothing for long."""
    return [
        ("grpc.max_allowed_incoming_connections", most),
        ("grpc.server_handshake_timeout_ms", HANDSHAKE_MS),
        ("grpc.max_connection_idle_ms", IDLE_MS),
    ]


def most_connections(most: int, file_limit: int) -> int:
    """How many connections there may be: the rest of the files is what a service needs to go on."""
    return min(most, max(8, file_limit // 2))


class Bounded(NamedTuple):
    """`held` connections are open; `closed` tells how many were just closed of each address that had too many."""

    held: int
    closed: Counter[str]


class Connections:
    """The connections to `port` of this process, of each address `most_per_peer` at most."""

    def __init__(self, port: int, most_per_peer: int) -> None:
        self._port = port
        self._most = most_per_peer
        self._known: dict[tuple[Any, ...], None] = {}

    def bound(self) -> Bounded:
        """Close the newest connections of each address that has too many. Raises OSError when it cannot look."""
        found = dict(self._found())
        known = {peer: None for peer in (*self._known, *found) if peer in found}  # the oldest first
        held: Counter[str] = Counter()
        closed: Counter[str] = Counter()
        for peer in known:
            host = peer[0].removeprefix("::ffff:")
            held[host] += 1
            if held[host] > self._most:
                closed[host] += 1
                with suppress(OSError):  # it is gone already
                    found[peer].shutdown(socket.SHUT_RDWR)
        for connection in found.values():
            connection.close()  # a copy: the server, which sees its end, closes its own
        self._known = known
        return Bounded(len(found) - closed.total(), closed)

    def _found(self) -> Iterator[tuple[tuple[Any, ...], socket.socket]]:
        """The other end of each connection, and a copy of its socket."""
        for path in list(_OPEN_FILES.iterdir()):
            connection = _copy_of(int(path.name))
            if connection is None:
                continue
            with suppress(OSError):  # it listens, or its other end is gone
                if connection.family in _INTERNET and connection.getsockname()[1] == self._port:
                    yield connection.getpeername(), connection
                    continue
            connection.close()


def _copy_of(descriptor: int) -> socket.socket | None:
    """A copy of the socket behind an open file; None when it is none, or closed meanwhile."""
    try:
        copy = os.dup(descriptor)
    except OSError:
        return None
    try:
        return socket.socket(fileno=copy)
    except OSError:
        os.close(copy)
        return None
