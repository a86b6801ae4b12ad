"""Ids that begin anew are told from old frames that come again, by what the exchange says."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from aiohttp import web
from websockets.asyncio.server import ServerConnection

from tests.unit.collecting import begin, collecting, recorded, rows_of, serving, total, until
from tests.unit.exchanges import trade

OLD = 5_000_000
LATER_US = 1_770_000_000_000_000


@asynccontextmanager
async def listing(newest: int) -> AsyncIterator[str]:
    """A REST that has the trades 1 to `newest` of any symbol."""

    async def trades(request: web.Request) -> web.Response:
        limit = int(request.query["limit"])
        first = int(request.query.get("fromId", newest - limit + 1))
        rows = [
            {"id": number, "price": "1.5", "qty": "1", "time": 1_760_000_000_000_000 + number, "isBuyerMaker": False}
            for number in range(max(1, first), min(newest, first + limit - 1) + 1)
        ]
        return web.json_response(rows)

    app = web.Application()
    app.add_routes([web.get("/api/v3/historicalTrades", trades)])
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


def frame(number: int, *, time_us: int | None = None) -> str:
    text = trade("btcusdt@trade", number)
    return text if time_us is None else text.replace(str(1_760_000_000_000_000 + number), str(time_us))


async def test_ids_that_the_exchange_numbers_anew_are_collected_from_the_first_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def script(socket: ServerConnection) -> None:
        for number in (OLD, OLD + 1):
            await socket.send(frame(number))
        await until(lambda: rows_of(source) == 2)
        for number in range(3, 200):
            await socket.send(frame(number, time_us=LATER_US + number))
            await asyncio.sleep(0.02)

    async with (
        listing(3_000) as rest_url,
        serving(script) as url,
        collecting(tmp_path, url, rest_url, hold_max_s=20) as source,
    ):
        begin(source, "BTCUSDT")
        await until(lambda: rows_of(source) > 20)
        assert total(source, "gaps") == 0
    ids = recorded(tmp_path)[0].get_column("trade_id").to_list()
    assert ids[:2] == [OLD, OLD + 1]
    assert ids[2:] == list(range(3, 1 + len(ids)))
    assert "numbers its trades anew" in caplog.text


async def test_old_frames_that_come_again_are_no_new_ids(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def script(socket: ServerConnection) -> None:
        for number in (OLD, 3, OLD + 1, 4, 3):
            await socket.send(frame(number))
        await socket.send(frame(5, time_us=LATER_US))  # as if its time were wrong; the exchange knows better
        await socket.wait_closed()

    async with listing(OLD + 1) as rest_url, serving(script) as url:
        for duplicates in (4, 6):  # the second time it is not known how new the last trade was
            async with collecting(tmp_path, url, rest_url) as source:
                source.want({"BTCUSDT": None})
                await until(lambda: total(source, "duplicate_rows") == duplicates)  # noqa: B023
                await until(lambda: total(source, "rest_requests") > 0)
                await asyncio.sleep(0.2)
    assert recorded(tmp_path)[0].get_column("trade_id").to_list() == [OLD, OLD + 1]
    assert "anew" not in caplog.text
