"""`ravenctl`: start, stop and watch collections.

Options may stand before or after the subcommand.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Annotated, TypeVar

import typer
from rich.markup import escape

from raven.cli import output
from raven.clock import now_us
from raven.control.plan import (
    SERVICES,
    VENUES,
    downstream_first,
    port_of,
    resolve,
    resolve_venue,
    target_from,
    target_of,
)
from raven.control.wanted import WantedFile
from raven.errors import AccessError, InputError, UpstreamError
from raven.rpc.access import Access
from raven.rpc.client import Client
from raven.rpc.pb import control_pb2
from raven.settings import load

T = TypeVar("T")
FAILED = (control_pb2.SYMBOL_STATE_REFUSED, control_pb2.SYMBOL_STATE_NOT_WANTED)

app = typer.Typer(no_args_is_help=True, add_completion=False, help="Start, stop and watch Raven's collections.")

ServiceOption = Annotated[str, typer.Option("--service", help=f"One of {', '.join(SERVICES)}. Default: all.")]
SymbolOption = Annotated[
    list[str],
    typer.Option(
        "--symbol", "-s", help="The venue's name, such as BTCUSDT, or a pattern, '*USDT'; repeat for several."
    ),
]
VenueOption = Annotated[str, typer.Option("--venue", help=f"One of {', '.join(VENUES)}, or spot or futures.")]
HostOption = Annotated[str, typer.Option("--host", help="Where the service is: host, host:port or URL.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@app.command()
def start(
    symbol: SymbolOption,
    service: Annotated[str, typer.Option("--service", help=f"One of {', '.join(SERVICES)}.")],
    venue: VenueOption = "",
    host: HostOption = "",
    wait: Annotated[float, typer.Option(help="Seconds to wait for the first row.", min=0)] = 5.0,
    json: JsonOption = False,
) -> None:
    """Collect symbols with a service, and start what it needs. Without --venue: the service's own, or spot."""
    name, of_venue = resolve(service), resolve_venue(venue) if venue else ""
    results = _run(
        _targets(name, host),
        lambda client: client.start(symbol, venue=of_venue, wait_s=wait, timeout_s=wait + 30),
    )
    _report({name: results[name]}, json)


@app.command()
def stop(
    symbol: SymbolOption,
    service: ServiceOption = "",
    venue: VenueOption = "",
    host: HostOption = "",
    json: JsonOption = False,
) -> None:
    """Stop collecting symbols; without --service everywhere, consumers first; without --venue at every venue."""
    of_venue = resolve_venue(venue) if venue else ""
    name = resolve(service) if service else ""
    targets = {
        found: target
        for found, target in _targets(name, host).items()
        if name or SERVICES[found].venue in ("", of_venue or SERVICES[found].venue)
    }
    answers = _run(targets, lambda client: client.stop(symbol, venue=of_venue))
    if name:
        _report(answers, json)
        return
    results: dict[str, list[control_pb2.SymbolResult] | UpstreamError] = {}
    for found, answer in answers.items():
        if isinstance(answer, UpstreamError):
            continue  # a service that does not run collects nothing
        kept = [result for result in answer if result.state != control_pb2.SYMBOL_STATE_NOT_WANTED]
        if kept:
            results[found] = kept
    if not results:
        raise InputError(f"{', '.join(symbol)}: not collected by any running service")
    _report(results, json)


@app.command("stop-all")
def stop_all(service: ServiceOption = "", host: HostOption = "", json: JsonOption = False) -> None:
    """Stop collecting anything, consumers first; in one service what users asked for."""
    name = resolve(service) if service else ""
    results = _run(_targets(name, host), lambda client: client.stop_all(force=not name))
    reached = {found: answer for found, answer in results.items() if not isinstance(answer, UpstreamError)}
    if not reached:
        raise InputError("no service answers", hint="what runs elsewhere is found with --host or [upstream]")
    _report(reached, json)


@app.command("list")
def list_(
    service: ServiceOption = "",
    venue: VenueOption = "",
    host: HostOption = "",
    json: JsonOption = False,
) -> None:
    """Show what is being collected, of one venue or of all."""
    of_venue = resolve_venue(venue) if venue else ""
    results = {
        name: answer if isinstance(answer, UpstreamError) else [one for one in answer if of_venue in ("", one.venue)]
        for name, answer in _ask_all(
            _targets(resolve(service) if service else "", host), lambda client: client.list()
        ).items()
    }
    failed = bool(service or host) and all(isinstance(answer, UpstreamError) for answer in results.values())
    if json:
        output.print_json({name: _plain(answer) for name, answer in results.items()})
    else:
        rows = [
            [
                name, entry.venue, entry.symbol, output.state_text(entry.state), output.count(entry.rows),
                str(entry.last_trade_id or ""), _wanted_by(entry), entry.message,
            ]
            for name, answer in results.items()
            if not isinstance(answer, UpstreamError)
            for entry in answer
        ]  # fmt: skip
        if rows:
            columns = ("service", "venue", "symbol", "state", "rows>", "last id>", "wanted by", "")
            output.table("Collections", columns, rows)
        else:
            output.console.print(
                "Nothing is being collected. Begin with: ravenctl start --service timebar --symbol BTCUSDT"
            )
        _print_errors(results)
    raise typer.Exit(1 if failed else 0)


@app.command()
def status(service: ServiceOption = "", host: HostOption = "", json: JsonOption = False) -> None:
    """Show how the services are; exit code 1 when something wanted is unhealthy."""
    results = _ask_all(_targets(resolve(service) if service else "", host), lambda client: client.status())
    found = {name: answer for name, answer in results.items() if not isinstance(answer, UpstreamError)}
    if json:
        output.print_json(
            {name: output.as_dict(found[name]) if name in found else {"error": str(results[name])} for name in results}
        )
    else:
        output.table(
            "Services",
            (
                "service",
                "state",
                "up",
                "symbols>",
                "rows>",
                "gaps>",
                "missing ids>",
                "duplicates>",
                "lag>",
                "problems",
            ),
            [_status_row(name, found.get(name)) for name in results],
        )
        if any(answer.simulated for answer in found.values()):
            output.console.print("[yellow]SIMULATED exchange: not a real market[/]")
    unhealthy = [name for name, answer in found.items() if not answer.healthy]
    missed = [name for name in results if name not in found and _wanted_here(name)]
    for name in missed:
        sys.stderr.write(f"{name} is not running, but is wanted to collect {', '.join(_wanted_here(name))}\n")
    raise typer.Exit(1 if unhealthy or missed or ((service or host) and not found) else 0)


@app.command()
def forget(
    consumer: Annotated[str, typer.Argument(help="The consumer's name, such as raven_tibs-50052.")],
    service: ServiceOption = "",
    host: HostOption = "",
) -> None:
    """Free the hold of a consumer that will not come back on what the journals keep."""
    targets = _targets(resolve(service) if service else "", host)
    results = _run(targets, lambda client: client.forget(consumer))
    known = [name for name, answer in results.items() if answer is True]
    if not known:
        raise InputError(f"no running service knows a consumer {consumer}", hint="names look like raven_tibs-50052")
    output.console.print(f"{consumer} is forgotten by {', '.join(known)}")


def _wanted_here(name: str) -> list[str]:
    """What a service that does not answer is remembered to collect, when its data is on this machine."""
    settings = load()
    path = settings.data / f"{name}-{port_of(settings, name)}" / "wanted.json"
    return sorted({entry.symbol for entry in WantedFile(path).entries.values()})


def _targets(name: str, host: str) -> dict[str, str]:
    """Where to ask: one service, or all of them, consumers first."""
    settings = load()
    names = [name] if name else downstream_first()
    if host and not name and ":" in host.rsplit("//", maxsplit=1)[-1]:
        raise InputError(f"{host} is one service", hint="name it with --service, or give a host without a port")
    return {
        found: target_from(host, port_of(settings, found)) if host else target_of(settings, found) for found in names
    }


async def _one(target: str, access: Access, call: Callable[[Client], Awaitable[T]]) -> T | UpstreamError:
    async with Client(target, access) as client:
        try:
            return await call(client)
        except UpstreamError as error:
            return error


def _run(targets: Mapping[str, str], call: Callable[[Client], Awaitable[T]]) -> dict[str, T | UpstreamError]:
    """Call the services one after the other, in order; one that cannot be reached answers with its error.

    Raises AccessError when one refuses the caller or cannot be trusted.
    """
    access = Access.of(load())

    async def every() -> dict[str, T | UpstreamError]:
        return {name: await _one(target, access, call) for name, target in targets.items()}

    return _admitted(asyncio.run(every()))


def _ask_all(targets: Mapping[str, str], call: Callable[[Client], Awaitable[T]]) -> dict[str, T | UpstreamError]:
    """As `_run`, but all at once."""
    access = Access.of(load())

    async def every() -> dict[str, T | UpstreamError]:
        answers = await asyncio.gather(*(_one(target, access, call) for target in targets.values()))
        return dict(zip(targets, answers, strict=True))

    return _admitted(asyncio.run(every()))


def _admitted(answers: dict[str, T | UpstreamError]) -> dict[str, T | UpstreamError]:
    for name, answer in answers.items():
        if isinstance(answer, AccessError):
            raise AccessError(f"{name} at {answer.message}", hint=answer.hint)
    return answers


def _report(results: Mapping[str, list[control_pb2.SymbolResult] | UpstreamError], json: bool) -> None:
    """What became of each symbol; exits 1 when something failed."""
    failed = False
    for answer in results.values():
        failed |= isinstance(answer, UpstreamError) or any(result.state in FAILED for result in answer)
    if json:
        output.print_json({name: _plain(answer) for name, answer in results.items()})
    else:
        for name, answer in results.items():
            if isinstance(answer, UpstreamError):
                continue
            for result in answer:
                message = f": {result.message}" if result.message else ""
                venue = f" of {result.venue}" if result.venue else ""
                shown = escape(f"{name} {result.symbol}{venue}")
                output.console.print(f"{shown} {output.state_text(result.state)}{escape(message)}")
        _print_errors(results)
        if not any(results.values()):
            output.console.print("Nothing was being collected.")
    raise typer.Exit(1 if failed else 0)


def _wanted_by(entry: control_pb2.Subscription) -> str:
    wanted_by = ", ".join(entry.wanted_by)
    return f"{wanted_by} ({entry.pattern})" if entry.pattern else wanted_by


def _print_errors(results: Mapping[str, object]) -> None:
    for name, answer in results.items():
        if isinstance(answer, UpstreamError):
            sys.stderr.write(f"{name}: {answer}\n")


def _plain(answer: object) -> object:
    if isinstance(answer, UpstreamError):
        return {"error": str(answer)}
    assert isinstance(answer, list)
    return [output.as_dict(entry) for entry in answer]


def _status_row(name: str, answer: control_pb2.StatusResponse | None) -> list[str]:
    if answer is None:
        return [name, "[dim]not running[/]", *[""] * 8]
    entries = [entry for entry in answer.subscriptions if not entry.matches]  # a pattern's symbols speak for it
    health = "[green]ok[/]" if answer.healthy else "[red]unhealthy[/]"
    state = health if entries else "[dim]idle[/]"
    lag_us = max((link.lag_us for link in answer.links), default=0)
    return [
        name,
        state,
        output.duration((now_us() - answer.started_us) / 1e6),
        str(len(entries)),
        output.count(sum(entry.rows for entry in entries)),
        output.count(sum(entry.gaps for entry in entries)),
        output.count(sum(entry.missing_ids for entry in entries)),
        output.count(answer.counters.get("duplicate_rows", 0)),
        output.duration(lag_us / 1e6) if entries and answer.links else "",
        "; ".join(answer.problems),
    ]


def subcommand_first(arguments: Sequence[str]) -> list[str]:
    """Move the subcommand before the options that precede it."""
    names = [command.name or command.callback.__name__ for command in app.registered_commands if command.callback]
    for position, argument in enumerate(arguments):
        follows_value_option = position > 0 and arguments[position - 1] in {
            "--service",
            "--symbol",
            "-s",
            "--venue",
            "--host",
            "--wait",
        }
        if argument in names and not follows_value_option:
            return [argument, *arguments[:position], *arguments[position + 1 :]]
    return list(arguments)


def main() -> None:
    """Console entry point."""
    output.exit_on_error("ravenctl", lambda: app(args=subcommand_first(sys.argv[1:])))


if __name__ == "__main__":
    main()
