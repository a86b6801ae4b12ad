"""A TCP proxy on loopback that can pass, refuse, hang or cut: the faults of a way between client and server."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import threading
from collections.abc import Awaitable
from typing import Literal

from tests.servers.sandbox import free_port

Mode = Literal["pass", "refuse", "hang", "cut", "mute"]

_RESET = struct.pack("ii", 1, 0)


class Proxy:
    """Stands before `host:port`, on `port` of 127.0.0.1; set `mode` at any time, it holds when the setter returns.

    - pass: bytes go both ways.
    - refuse: nobody listens, open connections are cut.
    - hang: connections are taken and nothing goes either way, in open ones too; what waits goes on with "pass".
    - cut: connections are taken and closed at once, open ones are cut.
    - mute: what the client says arrives, what the server answers is lost: "was it written?".
    """

    def __init__(self, host: str, port: int) -> None:
        self.port = free_port()
        self._target = (host, port)
        self._mode: Mode = "refuse"
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._flows = asyncio.Event()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="proxy", daemon=True)
        self._thread.start()
        self.mode = "pass"

    @property
    def mode(self) -> Mode:
        return self._mode

    @mode.setter
    def mode(self, mode: Mode) -> None:
        self._do(self._change(mode))

    def close(self) -> None:
        """Refuse from now on and end."""
        self.mode = "refuse"
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()

    def _run(self) -> None:
        self._loop.run_forever()
        self._loop.run_until_complete(asyncio.sleep(0.01))  # sockets of cut connections close in the next turns
        self._loop.close()

    def _do(self, action: Awaitable[None]) -> None:
        asyncio.run_coroutine_threadsafe(action, self._loop).result(10)  # type: ignore[arg-type]

    async def _change(self, mode: Mode) -> None:
        self._mode = mode
        if mode in ("pass", "mute"):
            self._flows.set()
        else:
            self._flows.clear()
        if mode == "refuse" and self._server is not None:
            self._server.close()
            self._server = None
        if mode in ("refuse", "cut"):
            tasks = list(self._tasks)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        if mode != "refuse" and self._server is None:
            self._server = await asyncio.start_server(self._handle, "127.0.0.1", self.port)

    async def _handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        writers = [writer]
        try:
            if self._mode in ("cut", "refuse"):  # taken just before nobody listened any more
                raise ConnectionResetError
            await self._flows.wait()
            there_reader, there_writer = await asyncio.open_connection(*self._target)
            writers.append(there_writer)
            async with asyncio.TaskGroup() as both:
                both.create_task(self._pump(reader, there_writer))
                both.create_task(self._pump(there_reader, writer, answers=True))
        except* (OSError, asyncio.CancelledError):
            for each in writers:  # both sides see a reset, not an end
                each.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
                each.transport.abort()
        finally:
            self._tasks.discard(task)
            for each in writers:
                each.close()

    async def _pump(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, *, answers: bool = False) -> None:
        while data := await source.read(65_536):
            await self._flows.wait()
            if answers and self._mode == "mute":
                continue
            sink.write(data)
            await sink.drain()
        with contextlib.suppress(OSError):
            sink.write_eof()
