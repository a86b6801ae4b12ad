"""What the tables hold: which groups of bars, as far as that is told soon, and how many of each, counted."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import polars as pl
import pyarrow as pa

from raven.settings import TimescaleSettings
from raven.sinks.contents import CONTENTS, as_contents
from raven.sinks.encode import Layout
from raven.sinks.store import StoreUnavailableError
from raven.sinks.timescale.schema import is_there
from raven.sinks.timescale.session import session
from raven.sinks.timescale.sql import count_groups, distinct_groups, one_row

LOOK_S: Final = 2.0
"""For so long a server is asked what it holds before it is left at that."""


def groups_without(settings: TimescaleSettings, layout: Layout, asked: Mapping[str, str]) -> pl.DataFrame | None:
    """The groups (columns `layout.group`) of the table if it holds none as `asked`, by columns.

    None when it holds one, or does not tell within LOOK_S.
    """
    try:
        with session(settings.url.get_secret_value(), timeout_s=min(LOOK_S, settings.timeout_s)) as opened:
            if not any("\0" in value for value in asked.values()):  # no text in a database holds NUL
                values = [pa.array([value], pa.string()) for value in asked.values()]
                row = pa.RecordBatch.from_arrays(values, names=list(asked)) if asked else None
                if opened.run(one_row(layout, list(asked)), row).num_rows:
                    return None
            found = pl.from_arrow(opened.run(distinct_groups(layout)))
    except StoreUnavailableError:
        return None
    assert isinstance(found, pl.DataFrame)
    return found


def contents(settings: TimescaleSettings, layout: Layout) -> pl.DataFrame:
    """How many bars of each group the table holds, and the first and last open_time; see CONTENTS.

    The server counts, for as long as it takes. Raises StoreError when it cannot be reached.
    """
    with session(settings.url.get_secret_value(), timeout_s=settings.timeout_s, patient=True) as opened:
        if not is_there(opened, layout.name):
            return pl.DataFrame(schema=CONTENTS)
        found = pl.from_arrow(opened.run(count_groups(layout)))
    assert isinstance(found, pl.DataFrame)
    return as_contents(found)
