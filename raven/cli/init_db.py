"""`raven init-db`: the tables of bars in the database of `[timescale]`."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from raven.cli import output
from raven.cli.tables import Layout
from raven.errors import SettingsError
from raven.settings import load


def init_db(json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False) -> None:
    """Make the tables of bars in the database of timescale.url, or bring them up to date; harmless to repeat."""
    from raven.sinks.timescale.schema import init_db as run  # noqa: PLC0415 - other commands need not load it

    loaded = load()
    settings = loaded.timescale
    url = settings.url.get_secret_value()
    if not url and loaded.influx.url:
        if json:
            output.print_json({"database": None})
        else:
            output.console.print("nothing to do: InfluxDB needs no tables, and timescale.url is not set")
        return
    if not url:
        raise SettingsError(
            "timescale.url is not set",
            hint="postgresql://user:password@host:5432/raven, in local.toml or RAVEN__TIMESCALE__URL",
        )
    facts = run(url, timeout_s=settings.timeout_s)
    if json:
        output.print_json(asdict(facts))
        return
    extension = "none: plain tables" if facts.timescaledb is None else f"{facts.timescaledb} ({facts.license} licence)"
    rows = [
        ("database", facts.database),
        ("PostgreSQL", facts.postgresql),
        ("TimescaleDB", extension),
        ("hypertables", ", ".join(facts.hypertables) or "none"),
        ("compressed after 30 days", ", ".join(facts.compressed) or "none"),
        ("version of the tables", str(facts.version)),
    ]
    output.table(Layout("The tables of bars are there", ("what", "is"), wraps=("is",)), rows)
