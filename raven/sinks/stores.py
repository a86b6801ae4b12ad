"""Which stores are in force, and how each is made from the settings and a service's folder."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

from raven.errors import SettingsError
from raven.files import write_atomically
from raven.settings import DeltaSettings, InfluxSettings, Settings, StoreName, TimescaleSettings
from raven.sinks.dead_letters import FOLDER, DeadLetters
from raven.sinks.delta import DeltaBarStore, DeltaTradeStore
from raven.sinks.encode import TRADES
from raven.sinks.sink import FlushLimits
from raven.sinks.store import BAR_SCHEMAS, BarKind, BarStore, Store, TradeStore

if TYPE_CHECKING:
    from raven.sinks.influx import InfluxTradeStore
    from raven.sinks.timescale import TimescaleBarStore

What = Literal["trades", "bars"]
DATABASES: Final[Mapping[What, StoreName]] = {"trades": "influx", "bars": "timescale"}
"""The database that each kind of rows goes to."""


def stores_in_force(settings: Settings, what: What) -> list[StoreName]:
    """Where these rows go: what `stores` names for them, else the database that is configured, else Delta Lake.

    What is simulated goes into a database only where `stores` names it. Raises SettingsError when that names none.
    """
    database = DATABASES[what]
    if not settings.stores:
        urls = {"influx": settings.influx.url, "timescale": settings.timescale.url.get_secret_value()}
        return [database] if urls[database] and not settings.simulated else ["delta"]
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
    """Where the rows lie that were refused of the service in `folder`."""
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
    return DeltaTradeStore(delta_root(settings)) if name == "delta" else _influx(settings, folder)


def bar_store(name: StoreName, kind: BarKind, settings: Settings, folder: Path) -> BarStore:
    """The store of bars of `kind` called `name`, for the service in `folder`; not open yet."""
    return DeltaBarStore(delta_root(settings), kind) if name == "delta" else _timescale(settings, kind, folder)


def store_of(name: str, table: str, settings: Settings, folder: Path) -> Store:
    """The store called `name` as the service in `folder` writes to its `table`; not open yet.

    Raises SettingsError when it is not configured, or there is none.
    """
    for kind in BAR_SCHEMAS:
        if table == kind and name in ("delta", "timescale"):
            return bar_store(name, kind, settings, folder)  # type: ignore[arg-type]
    if table == TRADES.name and name in ("delta", "influx"):
        return trade_store(name, settings, folder)  # type: ignore[arg-type]
    raise SettingsError(f"there is no store {name} that takes {table}")


def _influx(settings: Settings, folder: Path) -> InfluxTradeStore:
    from raven.sinks.influx import InfluxTradeStore  # noqa: PLC0415 - loading it takes time that most commands save

    if not settings.influx.url:
        raise SettingsError("influx.url is not set", hint="set it to the InfluxDB that the trades are for")
    return InfluxTradeStore(settings.influx, folder, dead_letters=dead_letters(folder))


def _timescale(settings: Settings, kind: BarKind, folder: Path) -> TimescaleBarStore:
    from raven.sinks.timescale import TimescaleBarStore  # noqa: PLC0415 - likewise

    if not settings.timescale.url.get_secret_value():
        raise SettingsError("timescale.url is not set", hint="set it to the database that the bars are for")
    return TimescaleBarStore(settings.timescale, kind, writer=writer(folder), dead_letters=dead_letters(folder))
