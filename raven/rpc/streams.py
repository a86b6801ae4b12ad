"""Reading a stream until something else happens."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import TypeVar

T = TypeVar("T")


async def until(stream: AsyncIterator[T], stop: asyncio.Event) -> AsyncIterator[T]:
    """Items of `stream` until `stop` is set; an item that has been read is always handed on."""
    stopped = asyncio.ensure_future(stop.wait())
    try:
        while True:
            read = asyncio.ensure_future(anext(stream))
            try:
                await asyncio.wait({read, stopped}, return_when=asyncio.FIRST_COMPLETED)
                if not read.done():
                    return
                try:
                    item = read.result()
                except StopAsyncIteration:
                    return
            finally:
                if not read.done():
                    read.cancel()
                    await asyncio.wait({read})  # awaited by itself it could swallow a cancellation of the caller
            yield item
            if stopped.done():
                return
    finally:
        stopped.cancel()
