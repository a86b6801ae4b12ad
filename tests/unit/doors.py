"""Rows of trades as people write them, good and broken in every way, and the doors they may come in by."""

from __future__ import annotations

import json
import math
import random
import re
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import polars as pl

from raven.batches.gate import BadReason, count
from raven.clock import tomorrow_us
from raven.sources.binance.messages import decode_frames
from raven.sources.binance.replies import read_list
from raven.sources.recordings.kinds import describe
from raven.sources.recordings.reading import _chunks, _plan
from raven.tabular import admitted

LONGEST_ID = 2**63 - 1
COLUMNS = ("symbol", "trade_id", "ts_event", "price", "quantity", "is_buyer_maker")

GOOD = {
    "symbol": ["BTCUSDT", "ETHUSDT", "币安人生USDT", "1000SATSUSDT", "BTC-USD"],
    "ts_event": [
        "1700000000", "1700000000123", "1700000000123456", "1700000000123456789", "2024-01-31T12:00:00.123456Z",
        "2024-01-31 12:00:00", "2024-01-31T12:00+02:00",
    ],
    "price": ["1", "0.00000001", "61837.63000000", "1e5", "+2.5", "99999999.5"],
    "quantity": ["3", "0.02", "1e-8", "1000000"],
    "is_buyer_maker": ["true", "false", "True", "FALSE", "1", "0"],
}  # fmt: skip
BAD = {
    "symbol": ["", None, "BTC USDT", "\x1b[31mUSDT", "X" * 65],
    "trade_id": ["-1", "1.5", "9223372036854775808", "99999999999999999999999", "abc", "", None, "1e-3", "NaN"],
    "ts_event": [
        "0",
        "-1700000000000",
        "1230767999999",
        "4102444800000",
        "yesterday",
        "2024-13-01T00:00:00Z",
        "",
        None,
    ],
    "price": ["0", "-5", "NaN", "inf", "-inf", "1e400", "dear", "", None, "1_000", "0x10"],
    "quantity": ["0.0", "-0.5", "nan", "Infinity", "much", "", None],
    "is_buyer_maker": ["maybe", "2", "", None, "buy"],
}
REASONS = dict(
    zip(
        COLUMNS,
        (BadReason.BAD_SYMBOL, BadReason.BAD_ID, BadReason.BAD_TIME, BadReason.BAD_PRICE, BadReason.BAD_QUANTITY, BadReason.BAD_SIDE),
        strict=True,
    )
)  # fmt: skip

Row = dict[str, str | None]


class Outcome(NamedTuple):
    """What came through a door: (symbol, id, Unix microseconds, price, quantity, side), and the refusals by reason."""

    accepted: list[tuple[object, ...]]
    refused: Counter[BadReason]


def random_rows(number: int, seed: int) -> list[Row]:
    """`number` rows, a third of them with one value broken or more."""
    draw = random.Random(seed)
    rows = []
    for place in range(number):
        row: Row = {name: draw.choice(values) for name, values in GOOD.items()}
        row["trade_id"] = draw.choice((str(place), f"{place}.0"))
        if draw.random() < 1 / 3:
            for name in draw.sample(COLUMNS, draw.choice((1, 1, 1, 2, 6))):
                row[name] = draw.choice(BAD[name])
        rows.append({name: row[name] for name in COLUMNS})
    return rows


def judged(rows: list[Row]) -> Outcome:
    """What is right, row by row in plain Python, by the words of the contract."""
    accepted, refused = [], Counter()
    for row in rows:
        read = {name: _READ[name](row[name] or "") for name in COLUMNS}
        if read["price"] is not None and read["quantity"] is not None and read["price"] * read["quantity"] == math.inf:
            read["quantity"] = None
        broken = next((name for name in COLUMNS if read[name] is None), None)
        if broken is None:
            accepted.append(tuple(read.values()))
        else:
            refused[REASONS[broken]] += 1
    return Outcome(accepted, refused)


def _symbol(text: str) -> str | None:
    return text if 1 <= len(text) <= 64 and text.isprintable() and " " not in text else None


def _id(text: str) -> int | None:
    match = re.fullmatch(r"([+-]?\d+)(\.0*)?", text)
    return int(match[1]) if match is not None and 0 <= int(match[1]) <= LONGEST_ID else None


def _time(text: str) -> int | None:
    try:
        if re.fullmatch(r"-?\d+", text):
            value = int(text)
            unit = next(unit for below, unit in ((11, 6), (14, 3), (17, 0), (99, -3)) if abs(value) < 10**below)
            time_us = value * 10**unit if unit >= 0 else value // 1000
        else:
            read = datetime.fromisoformat(text)
            zoned = read if read.tzinfo else read.replace(tzinfo=UTC)
            time_us = round(zoned.timestamp() * 1e6)
    except ValueError:
        return None
    return time_us if 1_230_768_000_000_000 <= time_us < tomorrow_us() else None


def _figure(text: str) -> float | None:
    if not re.fullmatch(r"[+-]?[\d.]+([eE][+-]?\d+)?", text):
        return None
    value = float(text)
    return value if 0 < value < math.inf else None


def _side(text: str) -> int | None:
    return {"true": -1, "1": -1, "false": 1, "0": 1}.get(text.lower())


_READ: dict[str, Callable[[str], object]] = {
    "symbol": _symbol,
    "trade_id": _id,
    "ts_event": _time,
    "price": _figure,
    "quantity": _figure,
    "is_buyer_maker": _side,
}


def table(rows: list[Row]) -> pl.DataFrame:
    return pl.DataFrame(rows, schema=dict.fromkeys(COLUMNS, pl.String))


def _outcome(trades: pl.DataFrame, refused: Counter[BadReason]) -> Outcome:
    columns = trades.select("symbol", "trade_id", pl.col("ts_event").dt.epoch("us"), "price", "quantity", "side")
    return Outcome(columns.rows(), refused)


def _read(path: Path) -> Outcome:
    plan = _plan([path], None, None, None, "skip")
    chunks = list(_chunks(plan, describe(path)))
    return _outcome(
        pl.concat([chunk.trades for chunk in chunks]), sum((count(chunk.bad) for chunk in chunks), Counter())
    )


def _json(name: str, text: str | None) -> object:
    """As an exchange writes it: ids and times are numbers, what is no number stays text."""
    if text is not None and name in {"trade_id", "ts_event"} and re.fullmatch(r"-?\d+(\.\d+)?", text):
        return json.loads(text)
    if name == "is_buyer_maker" and text in {"true", "false"}:
        return text == "true"
    return text


def _objects(rows: list[Row], names: dict[str, str], **fixed: str) -> Iterator[bytes]:
    for row in rows:
        values = {short: _json(name, row[name]) for name, short in names.items()}
        yield json.dumps({**fixed, **values}, ensure_ascii=False, separators=(",", ":")).encode()


def frames(rows: list[Row]) -> list[bytes]:
    """WebSocket frames of single trades."""
    names = dict(zip(COLUMNS, ("s", "t", "T", "p", "q", "m"), strict=True))
    return list(_objects(rows, names, e="trade"))


def by_frames(rows: list[Row], folder: Path) -> Outcome:  # noqa: ARG001
    decoded = decode_frames(frames(rows), None, event="trade", latest_us=tomorrow_us())
    return _outcome(decoded.trades, Counter(dead.reason for dead in decoded.dead))


def by_capture(rows: list[Row], folder: Path) -> Outcome:
    path = folder / "capture_spot.jsonl"
    path.write_bytes(b"\n".join(frames(rows)))
    return _read(path)


def by_list(rows: list[Row], folder: Path) -> Outcome:
    path = folder / "list_spot.json"
    path.write_bytes(b"[" + b",\n".join(frames(rows)) + b"]")
    return _read(path)


def by_rest(rows: list[Row], folder: Path) -> Outcome:  # noqa: ARG001
    """A reply names no symbol: who asked does."""
    names = {
        "trade_id": "id",
        "ts_event": "time",
        "price": "price",
        "quantity": "qty",
        "is_buyer_maker": "isBuyerMaker",
    }
    symbols = pl.Series([row["symbol"] for row in rows], dtype=pl.String)
    body = b"[" + b",".join(_objects(rows, names)) + b"]"
    checked = read_list(body, "trade", symbols, recv_us=None, origin=1, latest_us=tomorrow_us())
    return _outcome(checked.trades, count(checked.refused))


def by_csv(rows: list[Row], folder: Path) -> Outcome:
    path = folder / "rows_spot.csv"
    lines = [",".join(COLUMNS), *(",".join(row[name] or "" for name in COLUMNS) for row in rows)]
    path.write_text("\n".join(lines) + "\n")
    return _read(path)


def by_parquet(rows: list[Row], folder: Path) -> Outcome:
    table(rows).write_parquet(folder / "rows_spot.parquet")
    return _read(folder / "rows_spot.parquet")


def by_arrow(rows: list[Row], folder: Path) -> Outcome:
    table(rows).write_ipc(folder / "rows_spot.arrow")
    return _read(folder / "rows_spot.arrow")


def by_frame(rows: list[Row], folder: Path) -> Outcome:  # noqa: ARG001
    given = admitted(table(rows), venue="spot", symbol="", on_bad="skip")
    return _outcome(given.trades, count(given.refused))


DOORS = (by_frames, by_capture, by_list, by_rest, by_csv, by_parquet, by_arrow, by_frame)
