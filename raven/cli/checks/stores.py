"""Whether the stores in force would take rows."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from raven.cli.checks.finding import CONNECT_S, Finding, Level
from raven.errors import RavenError
from raven.settings import Settings, StoreName
from raven.sinks.delta.table import READABLE_PATH
from raven.sinks.stores import What, delta_root, stores_in_force, trade_store
from raven.sinks.timescale.schema import examine

SINKS: Final[dict[str, What]] = {"tick_persistence": "trades", "bar_persistence": "bars"}
"""What each service stores."""


async def stores(settings: Settings, what: What) -> Sequence[Finding]:
    """Whether every store that is in force for these rows would take them."""
    names = stores_in_force(settings, what)
    return await asyncio.gather(*(_store(settings, what, name) for name in names))


async def _store(settings: Settings, what: What, name: StoreName) -> Finding:
    check = f"{what} in {name}"
    if name == "delta":
        return judge_delta(check, delta_root(settings).absolute())
    probe = _influx if name == "influx" else _timescale
    try:
        return await asyncio.to_thread(probe, check, _hasty(settings, name))
    except RavenError as error:
        return Finding.of(check, error)


def judge_delta(check: str, root: Path) -> Finding:
    """Whether Delta tables can lie below `root`; that it can be written is the data folder's check."""
    if READABLE_PATH.fullmatch(str(root)):
        return Finding(check, Level.OK, f"tables below {root}")
    fix = "set `data` to a folder whose path has no spaces and only ASCII letters"
    return Finding(check, Level.FAILED, f"{root} cannot hold Delta tables that every reader opens", fix)


def _influx(check: str, settings: Settings) -> Finding:
    """Open the store as the service would, which writes nothing into the bucket but asks whether it could."""
    with TemporaryDirectory() as folder, closing(trade_store("influx", settings, Path(folder))) as store:
        store.open()
    takes = f"{settings.influx.url} takes trades into the bucket {settings.influx.bucket}"
    if store.unreadable:
        fix = "mend that to read them back: scan_trades and `raven.stored` need it, collecting does not"
        return Finding(check, Level.WARNING, f"{takes}, but {store.unreadable}", fix)
    return Finding(check, Level.OK, takes)


def _timescale(check: str, settings: Settings) -> Finding:
    """Look at the server and the tables."""
    facts = examine(settings.timescale.url.get_secret_value(), timeout_s=settings.timescale.timeout_s)
    extension = f"TimescaleDB {facts.timescaledb} ({facts.license} licence)" if facts.timescaledb else "no TimescaleDB"
    tables = f"the tables of version {facts.version} in {facts.database}"
    return Finding(check, Level.OK, f"PostgreSQL {facts.postgresql}, {extension}; {tables}")


def _hasty(settings: Settings, name: StoreName) -> Settings:
    section = getattr(settings, name)
    hasty = section.model_copy(update={"timeout_s": min(CONNECT_S, section.timeout_s)})
    return settings.model_copy(update={name: hasty})
