"""`ravenctl`: start, stop and watch collections.

Options may stand before or after the subcommand.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Collection, Mapping, Sequence
from typing import Annotated, get_args

import typer
from rich.markup import escape
from rich.text import Text

from raven.cli import output
from raven.cli.calls import call_at_once, call_in_order, targets
from raven.cli.status import collection_lines, status_lines
from raven.cli.watching import Answers, watch_status
from raven.control.folders import WANTED, folder_of, left_behind
from raven.control.plan import (
    SERVICES,
    VENUES,
    port_of,
    resolve,
    resolve_venue,
)
from raven.control.wanted import WantedFile
from raven.errors import AccessError, InputError, TooLateError, UnknownHostError, UpstreamError
from raven.programs import Program
from raven.rpc.access import is_local
from raven.rpc.client import Client
from raven.rpc.pb import control_pb2
from raven.settings import StoreName, load

POLL_S = 0.5
STOP_S = 12.0
STORE_S = 15.0
"""A store that has not answered by then is called down by its service before."""
STORE_DOWN = 3
"""Exit code of `start` when all is collected, and not stored now."""
FAILED = (control_pb2.SYMBOL_STATE_REFUSED, control_pb2.SYMBOL_STATE_NOT_WANTED)

app = Program("Start, stop and watch Raven's collections.")
app.callback()(output.options)

ServiceOption = Annotated[str, typer.Option("--service", help=f"One of {', '.join(SERVICES)}. Default: all.")]


def _named(service: str) -> str:
    if not service:
        raise typer.BadParameter(f"it is missing: name one of {', '.join(SERVICES)}", param_hint="'--service'")
    return service


OwnService = Annotated[
    str,
    typer.Option("--service", help=f"Required. One of {', '.join(SERVICES)}.", show_default=False, callback=_named),
]
SymbolOption = Annotated[
    list[str],
    typer.Option(
        "--symbol",
        "-s",
        help="The venue's name, such as BTCUSDT, or a pattern, '*USDT'; several repeated or with commas.",
    ),
]
VenueOption = Annotated[str, typer.Option("--venue", help=f"One of {', '.join(VENUES)}, or spot or futures.")]
HostOption = Annotated[str, typer.Option("--host", help="Where the service is: host, host:port or URL.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@app.command()
def start(
    symbol: SymbolOption,
    service: OwnService = "",
    venue: VenueOption = "",
    host: HostOption = "",
    wait: Annotated[float, typer.Option(help="Seconds to wait for the first row.", min=0)] = 5.0,
    json: JsonOption = False,
) -> None:
    """Collect symbols with a service, and start what it needs. Without --venue: the service's own, or spot.

    Exit code 0: all are collected; 1: a symbol is refused, or the service does not answer; 3: they are collected, and a
    store cannot be written now: the journals keep their rows until it can.
    """
    name, of_venue = resolve(service), resolve_venue(venue) if venue else ""
    stores: list[control_pb2.Store] = []

    async def ask(client: Client) -> list[control_pb2.SymbolResult]:
        results = await client.start(_split(symbol), venue=of_venue, wait_s=wait, timeout_s=wait + 30)
        taken = {result.venue for result in results if result.state not in FAILED}
        stores.extend(await _stores_down(client, taken, patience_s=STORE_S if wait else 0.0) if taken else [])
        return results

    results = call_in_order(targets(name, host), ask, host=host)
    for store in stores:
        sys.stderr.write(f"{name}: {store.error}; the journals keep the rows until it can be written\n")
    _report({name: results[name]}, json, otherwise=STORE_DOWN if stores else 0)


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
    asked = {
        found: target
        for found, target in targets(name, host).items()
        if name or SERVICES[found].venue in ("", of_venue or SERVICES[found].venue)
    }
    answers = call_in_order(
        asked, lambda client: client.stop(_split(symbol), venue=of_venue, timeout_s=STOP_S), host=host
    )
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
    results = call_in_order(
        targets(name, host), lambda client: client.stop_all(force=not name, timeout_s=STOP_S), host=host
    )
    reached = {found: answer for found, answer in results.items() if not isinstance(answer, UpstreamError)}
    if not reached:
        why = "; ".join(f"{found}: {error}" for found, error in results.items())
        raise InputError(f"no service answers: {why}", hint="what runs elsewhere is found with --host or [upstream]")
    late = {found: error for found, error in results.items() if isinstance(error, TooLateError)}
    _report({**late, **reached}, json)


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
        for name, answer in call_at_once(
            targets(resolve(service) if service else "", host), lambda client: client.list(), host=host
        ).items()
    }
    refused = [error for error in results.values() if isinstance(error, AccessError)]
    answered = any(not isinstance(answer, UpstreamError) for answer in results.values())
    failed = bool(refused) or (bool(service or host) and not answered)
    if json:
        output.print_json({name: _plain(answer) for name, answer in results.items()})
    else:
        lines = collection_lines(results, output.width())
        output.print_lines(lines)
        if not lines and answered:
            output.say("Nothing is being collected. Begin with: ravenctl start --service timebar --symbol BTCUSDT")
        elif not answered and not failed:
            output.console.print("No service is running. `raven up` starts them all.")
        _print_errors(results)
    raise typer.Exit(1 if failed else 0)


@app.command()
def status(
    service: ServiceOption = "",
    host: HostOption = "",
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Show it anew every two seconds until Ctrl-C.")] = False,
    json: JsonOption = False,
) -> None:
    """Show how the services are; exit code 1 when something wanted is unhealthy."""
    asked = targets(resolve(service) if service else "", host)

    def ask() -> Answers:
        return call_at_once(asked, lambda client: client.status(), host=host)

    if watch and json:
        raise InputError("--watch shows tables, not JSON", hint="give one of them; --json can be asked again and again")
    results = watch_status(ask, lambda found, width: _status_lines(asked, found, width)) if watch else ask()
    found = _answered(results)
    if json:
        output.print_json(
            {name: output.as_dict(found[name]) if name in found else {"error": str(results[name])} for name in results}
        )
    else:
        output.print_lines(_status_lines(asked, results, output.width()))
    told = AccessError | TooLateError | UnknownHostError
    refusals = {name: answer for name, answer in results.items() if isinstance(answer, told)}
    _print_errors(refusals)
    missed = _missed(asked, results)
    for sentence in missed:
        sys.stderr.write(f"{sentence}\n")
    unhealthy = [*refusals, *(name for name, answer in found.items() if not answer.healthy)]
    raise typer.Exit(1 if unhealthy or missed or ((service or host) and not found) else 0)


def _answered(results: Answers) -> dict[str, control_pb2.StatusResponse]:
    return {name: answer for name, answer in results.items() if isinstance(answer, control_pb2.StatusResponse)}


def _status_lines(asked: Mapping[str, str], results: Answers, width: int | None) -> list[Text]:
    return status_lines(results, width, {name: target.rpartition(":")[0] for name, target in asked.items()})


def _missed(asked: Mapping[str, str], results: Answers) -> list[str]:
    """What does not run here and should: a sentence each."""
    return [
        f"{name} is not running, but is wanted to collect {', '.join(wanted)}"
        for name, answer in results.items()
        if isinstance(answer, UpstreamError) and is_local(asked[name]) and (wanted := _wanted_here(name))
    ]


@app.command()
def forget(
    consumer: Annotated[str, typer.Argument(help="The consumer's name, such as raven_tibs-50052.")],
    service: ServiceOption = "",
    host: HostOption = "",
    json: JsonOption = False,
) -> None:
    """Free the hold of a consumer that will not come back on what the journals keep; of a sink that of each store."""
    asked = targets(resolve(service) if service else "", host)
    names = [consumer, *(f"{consumer}-{store}" for store in get_args(StoreName))]

    async def forget_all(client: Client) -> bool:
        return any([await client.forget(name) for name in names])

    results = call_in_order(asked, forget_all, host=host)
    known = [name for name, answer in results.items() if answer is True]
    if not known:
        raise InputError(f"no running service knows a consumer {consumer}", hint="names look like raven_tibs-50052")
    if json:
        output.print_json({"consumer": consumer, "forgotten_by": known})
        return
    output.console.print(f"{consumer} is forgotten by {', '.join(known)}")


async def _stores_down(client: Client, venues: Collection[str], *, patience_s: float) -> list[control_pb2.Store]:
    """The stores of a service that cannot be written now; one that is being opened is waited for.

    A sink needs the services before it, of `venues`, once its store is open.
    """
    deadline = time.monotonic() + patience_s
    while True:
        answer = await client.status()
        down = [store for store in answer.stores if not store.healthy]
        if down or not answer.stores or time.monotonic() >= deadline:
            return down
        if all(link.needed for link in answer.links if SERVICES[link.name].venue in ("", *venues)):
            return []
        await asyncio.sleep(POLL_S)


def _split(symbols: Sequence[str]) -> list[str]:
    return [symbol for given in symbols for symbol in given.split(",")]


def _wanted_here(name: str) -> list[str]:
    """What a service that does not answer is remembered to collect, when its data is on this machine."""
    settings = load()
    own = folder_of(settings.data, name, port_of(settings, name))
    folders = [own] if own.exists() else left_behind(own)  # which it takes along when it starts
    return sorted({str(one) for folder in folders for one in WantedFile(folder / WANTED).entries})


def _report(
    results: Mapping[str, list[control_pb2.SymbolResult] | UpstreamError], json: bool, *, otherwise: int = 0
) -> None:
    """What became of each symbol; exits 1 when something failed, else with `otherwise`."""
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
    raise typer.Exit(1 if failed else otherwise)


def _print_errors(results: Mapping[str, object]) -> None:
    for name, answer in results.items():
        if isinstance(answer, UpstreamError):
            sys.stderr.write(f"{name}: {answer}\n")


def _plain(answer: object) -> object:
    if isinstance(answer, UpstreamError):
        return {"error": str(answer)}
    assert isinstance(answer, list)
    return [output.as_dict(entry) for entry in answer]


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
