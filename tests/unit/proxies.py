"""Small real proxies for tests: HTTP (CONNECT and absolute addresses) and SOCKS5, both with user and password."""

from __future__ import annotations

import asyncio
import base64
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from urllib.parse import urlsplit

USER, PASSWORD = "raven", "s3cret%21"
PLAIN_PASSWORD = "s3cret!"


@dataclass
class Proxy:
    """Where it listens, and what it was asked to reach, as host:port; `refuses` answers 403 to everyone."""

    port: int = 0
    reached: list[str] = field(default_factory=list)
    refuses: bool = False


@asynccontextmanager
async def http_proxy() -> AsyncIterator[Proxy]:
    proxy = Proxy()
    granted = base64.b64encode(f"{USER}:{PLAIN_PASSWORD}".encode()).decode()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        method, target, _ = head.split("\r\n", 1)[0].split(" ")
        if proxy.refuses or f"Basic {granted}" not in head:
            status = "403 Forbidden" if proxy.refuses else "407 Proxy Authentication Required"
            writer.write(f"HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n".encode())
            await writer.drain()
            writer.close()
            return
        address = urlsplit(target if "://" in target else f"//{target}")
        proxy.reached.append(address.netloc)
        there_reader, there_writer = await asyncio.open_connection(address.hostname, address.port)
        if method == "CONNECT":
            writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        else:
            path = target.partition(address.netloc)[2]
            there_writer.write(head.replace(target, path, 1).encode("latin-1"))
        await _relay(reader, writer, there_reader, there_writer)

    async with _listening(proxy, handle):
        yield proxy


@asynccontextmanager
async def socks_proxy() -> AsyncIterator[Proxy]:
    proxy = Proxy()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        _, methods = await reader.readexactly(2)
        await reader.readexactly(methods)
        writer.write(b"\x05\x02")  # user and password
        _, length = await reader.readexactly(2)
        user = await reader.readexactly(length)
        password = await reader.readexactly((await reader.readexactly(1))[0])
        is_granted = (user.decode(), password.decode()) == (USER, PLAIN_PASSWORD)
        writer.write(b"\x01\x00" if is_granted else b"\x01\x01")
        if not is_granted:
            writer.close()
            return
        kind = (await reader.readexactly(4))[3]
        if kind == 1:
            host = ".".join(map(str, await reader.readexactly(4)))
        else:
            host = (await reader.readexactly((await reader.readexactly(1))[0])).decode()
        port = int.from_bytes(await reader.readexactly(2))
        proxy.reached.append(f"{host}:{port}")
        there = await asyncio.open_connection(host, port)
        writer.write(b"\x05\x00\x00\x01" + bytes(6))
        await _relay(reader, writer, *there)

    async with _listening(proxy, handle):
        yield proxy


@asynccontextmanager
async def _listening(proxy, handle) -> AsyncIterator[None]:
    tasks: set[asyncio.Task[None]] = set()

    async def guarded(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        try:
            with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
                await handle(reader, writer)
        finally:
            tasks.discard(task)
            await _close(writer)

    server = await asyncio.start_server(guarded, "127.0.0.1", 0)
    proxy.port = server.sockets[0].getsockname()[1]
    try:
        yield
    finally:
        server.close()
        left = list(tasks)
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)


async def _close(writer: asyncio.StreamWriter) -> None:
    writer.close()
    with contextlib.suppress(ConnectionError):
        await writer.wait_closed()


async def _relay(reader, writer, there_reader, there_writer) -> None:
    async def pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            while data := await source.read(65_536):
                sink.write(data)
                await sink.drain()
        sink.close()

    try:
        await asyncio.gather(pump(reader, there_writer), pump(there_reader, writer))
    finally:
        await _close(there_writer)
