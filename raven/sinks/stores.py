"""Which stores are in force, and how each is made from the settings and a service's folder."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Final, Literal

from raven.errors import SettingsError
from raven.files import write_atomically
from raven.settings import DeltaSettings, InfluxSettings, Settings, StoreName, TimescaleSettings
from raven.sinks.dead_letters import FOLDER, DeadLetters
from raven.sinks.delta import DeltaBarStore, DeltaTradeStore
from raven.sinks.sink import FlushLimits
from raven.sinks.store import BarKind, BarStore, TradeStore

What = Literal["trades", "bars"]
DATABASES: Final[Mapping[What, StoreName]] = {"trades": "influx", "bars": "timescale"}
"""The database that each kind of rows goes to."""


def stores_in_force(settings: Settings, what: What) -> list[StoreName]:
    """Where these rows go: what `stores` names for them, else the database that is configured, else Delta Lake.

    Raises SettingsError when `stores` names none for them.
    """
    database = DATABASES[what]
    if not settings.stores:
        urls = {"influx": settings.influx.url, "timescale": settings.timescale.url.get_secret_value()}
        return [database] if urls[database] else ["delta"]
    named = [name for name in settings.stores if name in (database, "delta")]
    if not named:
        raise SettingsError(
            f"stores names none that takes {what}: {', '.join(settings.stores)}", hint=f"add {database} or delta to it"
        )
    return named


def limits(settings: Settings, store: StoreName) -> FlushLimits:
    """When a store is written."""
    section: InfluxSettings | TimescaleSettings | DeltaSettings = getattr(settings, store)
    return FlushLimits(section.flush_rows, section.flush_s, settings.delta.maintain_s, settings.store_probe_s)


def delta_root(settings: Settings) -> Path:
    """The folder of the embedded tables."""
    return settings.data / "delta"


def dead_letters(folder: Path) -> DeadLetters:
    """Where the rows lie that the databases refused of the service in `folder`."""
    return DeadLetters(folder / FOLDER)


def writer(folder: Path) -> str:
    """Who writes, for a database that several services share: random, made once, kept in the service's folder."""
    path = folder / "writer"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, f"{folder.name}-{secrets.token_hex(8)}".encode())
    return path.read_text()


def trade_store(name: StoreName, settings: Settings, folder: Path) -> TradeStore:
    """The store of trades called `name`, for the service in `folder`; not open yet."""
    if name == "delta":
        return DeltaTradeStore(delta_root(settings))
    raise SettingsError(f"{name} takes no trades yet: {folder}")


def bar_store(name: StoreName, kind: BarKind, settings: Settings, folder: Path) -> BarStore:
    """The store of bars of `kind` called `name`, for the service in `folder`; not open yet."""
    if name == "delta":
        return DeltaBarStore(delta_root(settings), kind)
    raise SettingsError(f"{name} takes no bars yet: {folder}")
