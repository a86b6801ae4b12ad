"""Write the tables of docs/observability.md from the closed lists: `python -m raven.telemetry.document`.

A test fails when the page is stale.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from raven.telemetry.events import EVENTS
from raven.telemetry.metrics import METRICS, exported

PAGE: Final = Path(__file__).resolve().parents[2] / "docs" / "observability.md"


def metrics_table() -> str:
    """The metrics as a Markdown table."""
    return _table(
        ("metric", "kind", "labels", "tells", "in `Status`"),
        (
            (f"`{exported(name).name}`", metric.kind, ", ".join(metric.labels), metric.help, _in_status(name))
            for name, metric in METRICS.items()
        ),
    )


def _in_status(name: str) -> str:
    return "" if METRICS[name].kind == "histogram" else f"`{name}`"


def events_table() -> str:
    """The events as a Markdown table."""
    return _table(
        ("event", "level", "means"),
        (
            (
                f"`{name}`",
                event.level,
                event.meaning
                + (" Repeats are logged once a minute." if event.repeats else "")
                + (f" Ends {', '.join(f'`{name}`' for name in event.ends)}." if event.ends else ""),
            )
            for name, event in EVENTS.items()
        ),
    )


def _table(columns: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    lines = [list(columns)]
    lines += [["---"] * len(lines[0])]
    lines += [list(row) for row in rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def written(page: str) -> str:
    """The page with what stands between its markers made anew."""
    for name, table in (("metrics", metrics_table()), ("events", events_table())):
        begin, end = f"<!-- {name}: begin -->\n", f"<!-- {name}: end -->"
        before, rest = page.split(begin, maxsplit=1)
        page = before + begin + table + end + rest.split(end, maxsplit=1)[1]
    return page


if __name__ == "__main__":
    PAGE.write_text(written(PAGE.read_text()))
    sys.stdout.write(f"written {PAGE}\n")
