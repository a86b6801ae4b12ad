"""What the tests of the InfluxDB store share: settings of a bucket, a store on it, what it holds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import polars as pl

from raven.errors import StoreError
from raven.settings import InfluxSettings
from raven.sinks.dead_letters import FOLDER, DeadLetters
from raven.sinks.influx import InfluxTradeStore, scan_trades
from tests.servers.influx import Bucket


def settings_of(place: Bucket, **changes: Any) -> InfluxSettings:
    """Settings that lead to the bucket `place`."""
    given = {"url": place.url, "token": place.token, "org": place.org, "bucket": place.name, "timeout_s": 20}
    return InfluxSettings.model_validate(given | changes)


def make_store(settings: InfluxSettings, where: Path) -> InfluxTradeStore:
    """A store that keeps its progress and its dead letters in `where`."""
    return InfluxTradeStore(settings, where, dead_letters=DeadLetters(where / FOLDER))


def letters_in(where: Path) -> pl.DataFrame:
    """The dead letters in `where`, with their reasons."""
    return pl.concat([letters.rows for letters in DeadLetters(where / FOLDER).read()])


def held(settings: InfluxSettings) -> pl.DataFrame:
    """All trades in the bucket of `settings`; none where it has never had any."""
    try:
        return scan_trades(settings).collect()
    except StoreError as error:
        if "no trades are stored" not in error.message:
            raise
        return pl.DataFrame(schema={"venue": pl.String, "symbol": pl.String, "trade_id": pl.Int64})
