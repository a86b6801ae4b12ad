"""`raven import`: recorded files into a journal."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from raven.cli import output
from raven.cli.interruption import interruptible
from raven.cli.replay import OnBadOption
from raven.control.plan import resolve_venue
from raven.files import keep_private
from raven.settings import load

if TYPE_CHECKING:
    from raven.sources.importing import ImportReport


def import_(
    file: Annotated[
        list[Path], typer.Argument(help="Archive zips or CSVs, raw captures, Parquet, journals; in any order.")
    ],
    into: Annotated[Path | None, typer.Option(help="Journal folder; default <data>/imported-<venue>.")] = None,
    venue: Annotated[str | None, typer.Option(help="spot or futures; default: as the file tells.")] = None,
    symbol: Annotated[str | None, typer.Option(help="For files that name no symbol.")] = None,
    on_bad: OnBadOption = "raise",
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Turn recordings into a journal that can be replayed and read by Polars and pyarrow.

    Each trade once, in the order of ids, whatever the order of files and rows; also together with what the journal
    holds already. All of it or, after an error, nothing.
    """
    from raven.sources.importing import import_files  # noqa: PLC0415 - other commands need not load it

    venue = None if venue is None else resolve_venue(venue)
    settings = load()
    keep_private(group_reads=settings.group_reads)
    with interruptible("nothing was imported"), output.progress("importing", enabled=not json) as advance:
        report = import_files(
            file, into=into and into.expanduser(), data=settings.data, venue=venue, symbol=symbol, on_bad=on_bad,
            advance=advance,
        )  # fmt: skip
    if json:
        output.print_json(report.as_dict())
    else:
        _print(report)


def _print(report: ImportReport) -> None:
    symbols = ", ".join(report.symbols[:10]) + (" …" if len(report.symbols) > 10 else "")
    output.console.print(f"{output.counted(report.rows, 'trade')} of {symbols} into {report.journal}", markup=False)
    if report.rebuilt:
        output.console.print("They belong among those that were there: the journal was written anew, in order")
    for sentence in report.left_out:
        output.console.print(sentence, markup=False)
    if report.gaps:
        gaps, ids = output.counted(report.gaps, "gap"), output.counted(report.missing_ids, "id")
        output.console.print(f"{gaps}, {ids} missing")
