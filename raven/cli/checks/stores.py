"""Whether the databases that are configured would take rows."""

from __future__ import annotations

from raven.settings import Settings, StoreName


def stores_in_force(settings: Settings) -> list[StoreName]:
    """Where rows go: `stores`, or else each database that is configured, and Delta Lake for what has none."""
    if settings.stores:
        return settings.stores
    configured: dict[StoreName, bool] = {
        "influx": bool(settings.influx.url),
        "timescale": bool(settings.timescale.url.get_secret_value()),
    }
    found = [name for name, is_set in configured.items() if is_set]
    return found if len(found) == len(configured) else [*found, "delta"]
