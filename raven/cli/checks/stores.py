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
from raven.sinks.store import BAR_SCHEMAS, Store
from raven.sinks.stores import What, bar_store, delta_root, stores_in_force, trade_store

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
    try:
        await asyncio.to_thread(_open, _hasty(settings, name), what, name)
    except RavenError as error:
        return Finding.of(check, error)
    return Finding(check, Level.OK, "answers, and would take rows")


def judge_delta(check: str, root: Path) -> Finding:
    """Whether Delta tables can lie below `root`; that it can be written is the data folder's check."""
    if READABLE_PATH.fullmatch(str(root)):
        return Finding(check, Level.OK, f"tables below {root}")
    fix = "set `data` to a folder whose path has no spaces and only ASCII letters"
    return Finding(check, Level.FAILED, f"{root} cannot hold Delta tables that every reader opens", fix)


def _open(settings: Settings, what: What, name: StoreName) -> None:
    """Open a database's stores as a service would, which probes them, but from a folder of no service."""
    with TemporaryDirectory() as folder:
        for store in _made(settings, what, name, Path(folder)):
            with closing(store):
                store.open()


def _made(settings: Settings, what: What, name: StoreName, folder: Path) -> Sequence[Store]:
    if what == "trades":
        return [trade_store(name, settings, folder)]
    return [bar_store(name, kind, settings, folder) for kind in BAR_SCHEMAS]


def _hasty(settings: Settings, name: StoreName) -> Settings:
    section = getattr(settings, name)
    hasty = section.model_copy(update={"timeout_s": min(CONNECT_S, section.timeout_s)})
    return settings.model_copy(update={name: hasty})
