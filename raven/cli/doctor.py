"""`raven doctor`: what would keep Raven from working on this machine, and what to do about it."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from typing import Final

import typer
from rich.markup import escape

from raven.cli import output
from raven.cli.checks import machine, network, security
from raven.cli.checks.finding import Check, Finding, Level, run_checks
from raven.cli.checks.stores import SINKS, stores
from raven.control.plan import SERVICES
from raven.errors import SettingsError
from raven.rpc.access import Access
from raven.settings import Settings, load, origins

LEVEL_WIDTH: Final = max(len(level) for level in Level)
COLOURS: Final = {Level.OK: "green", Level.WARNING: "yellow", Level.FAILED: "red"}


def doctor(services: Sequence[str], *, json: bool) -> None:
    """Print what is found about running `services` here (none: those that are not elsewhere); exits 1 when it fails."""
    logging.getLogger("raven").addHandler(logging.NullHandler())  # what is found is told once, below
    findings = diagnose(services)
    works = all(finding.level is not Level.FAILED for finding in findings)
    if json:
        output.print_json({"works": works, "findings": [asdict(finding) for finding in findings]})
    else:
        for finding in findings:
            output.say(line(finding), indent=LEVEL_WIDTH + 1)
    raise typer.Exit(0 if works else 1)


def line(finding: Finding) -> str:
    """A finding for people."""
    level = f"[{COLOURS[finding.level]}]{finding.level:<{LEVEL_WIDTH}}[/]"
    fix = f" ({finding.fix})" if finding.fix else ""
    return f"{level} {escape(f'{finding.check}: {finding.found}{fix}')}"


def diagnose(only: Sequence[str] = ()) -> list[Finding]:
    """Everything that is found about running `only` these services here; none named: all that are not elsewhere."""
    try:
        settings, given = load(), origins()
    except SettingsError as error:
        fix = error.hint or "mend this first: nothing else was checked"
        return [Finding("settings", Level.FAILED, problem, fix) for problem in error.problems]
    places = sorted({origin.source for origin in given} - {"default"})
    found = f"set in {', '.join(places)}" if places else "all defaults"
    here = [name for name in SERVICES if (name in only if only else not getattr(settings.upstream, name))]
    return [Finding("settings", Level.OK, found), *run_checks(checks(settings, here))]


def checks(settings: Settings, here: Sequence[str]) -> list[Check]:
    """What there is to look at where the services `here` shall run."""
    access, made = _access(settings)
    elsewhere = [name for name in SERVICES if getattr(settings.upstream, name) and name not in here]
    sources = [name for name in here if SERVICES[name].venue]
    return [
        *made,
        Check("security", partial(security.exposure, settings, access, elsewhere)),
        Check("data folder", partial(machine.data_folder, settings)),
        Check("disk", partial(machine.disk, settings, here)),
        *(Check(f"store of {what}", partial(stores, settings, what)) for name, what in SINKS.items() if name in here),
        *(Check(f"ports of {name}", partial(machine.ports, settings, access, name)) for name in here),
        *(Check(f"upstream {name}", partial(network.upstream, settings, access, name)) for name in elsewhere),
        *(Check(f"REST of {name}", partial(network.exchange_rest, settings, name)) for name in sources),
        *(Check(f"WebSocket of {name}", partial(network.exchange_websocket, settings, name)) for name in sources),
    ]


def _access(settings: Settings) -> tuple[Access, list[Check]]:
    """What services and their clients show each other, as far as it can be read, and the check of it."""
    try:
        return Access.of(settings), [Check("certificate", partial(security.certificate, settings.security))]
    except SettingsError as error:
        finding = Finding.of("certificate", error)

        async def unreadable() -> Sequence[Finding]:
            return [finding]

        return Access(settings.security.token.get_secret_value()), [Check("certificate", unreadable)]
