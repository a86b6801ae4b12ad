"""`raven`: everything on one machine, the simulated exchange, importing and replaying recordings."""

from __future__ import annotations

import asyncio
from typing import Annotated

import typer

from raven.cli import output
from raven.cli.config import config
from raven.cli.deadletters import deadletters
from raven.cli.importing import import_
from raven.cli.init_db import init_db
from raven.cli.replay import replay
from raven.cli.simulate import SIMULATED_PORT, simulate
from raven.cli.token import token
from raven.control.plan import resolve
from raven.files import keep_private
from raven.programs import Program
from raven.settings import MAX_PORT, load

app = Program("Raven: trades, bars, and both in your databases.")
app.callback()(output.options)
app.command()(simulate)
app.command()(config)
app.command()(token)
app.command()(deadletters)
app.command("init-db")(init_db)
app.command()(replay)
app.command("import")(import_)


@app.command()
def up(
    symbols: Annotated[
        list[str] | None,
        typer.Option(
            "--symbols",
            "--symbol",
            "-s",
            help="What to collect: names or patterns, BTCUSDT,ETHUSDT or futures:BTCUSDT or '*USDT'; may be repeated. "
            "Default: what was collected before; the first time BTCUSDT and ETHUSDT.",
        ),
    ] = None,
    venue: Annotated[str, typer.Option(help="Venue of symbols that name none: spot or futures.")] = "",
    only: Annotated[
        list[str] | None,
        typer.Option("--only", help="Run this service and no others; several repeated or with commas."),
    ] = None,
    collect: Annotated[
        bool, typer.Option("--collect/--no-collect", help="Ask for symbols, or only go on with what was collected.")
    ] = True,
    simulate: Annotated[
        bool | None,
        typer.Option("--simulate/--live", help="Insist on the simulated exchange, or on the real one."),
    ] = None,
    simulated_port: Annotated[
        int, typer.Option(help="Port of the simulated exchange.", min=1, max=MAX_PORT)
    ] = SIMULATED_PORT,
    rate: Annotated[
        float, typer.Option(help="Trades a second and symbol on the simulated exchange.", min=0.001)
    ] = 20.0,
    logs: Annotated[bool, typer.Option("--logs", help="Follow the services' logs instead of showing tables.")] = False,
) -> None:
    """Run every service on this machine and show trades and bars until Ctrl-C; a second Ctrl-C ends all at once."""
    from raven.cli.instruments import parse_instruments  # noqa: PLC0415 - other commands need not load it
    from raven.cli.up import Plan, services_of  # noqa: PLC0415
    from raven.cli.up import up as run_up  # noqa: PLC0415

    plan = Plan(
        services=services_of(dict.fromkeys(resolve(name) for given in only or [] for name in given.split(","))),
        instruments=parse_instruments(symbols or [], venue),
        collect=collect, simulate=simulate, simulated_port=simulated_port, rate=rate, logs=logs,
    )  # fmt: skip
    settings = load()
    keep_private(group_reads=settings.group_reads)
    asyncio.run(run_up(settings, plan))


@app.command()
def doctor(
    only: Annotated[
        list[str] | None,
        typer.Option("--only", help="Check for this service and no others; several repeated or with commas."),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Check this machine before the first start; exit code 1 when something would not work."""
    from raven.cli.doctor import doctor as run_doctor  # noqa: PLC0415 - other commands need not load it

    run_doctor(list(dict.fromkeys(resolve(name) for given in only or [] for name in given.split(","))), json=json)


def main() -> None:
    """Console entry point."""
    output.exit_on_error("raven", app)


if __name__ == "__main__":
    main()
