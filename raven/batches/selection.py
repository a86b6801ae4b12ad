"""Which symbols are wanted, and the rows that are theirs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import polars as pl

from raven.batches.instrument import Instrument, regex


class Selection:
    """A changing set of instruments, and the rows that are theirs."""

    def __init__(self, instruments: Iterable[Instrument] = ()) -> None:
        self._instruments: dict[Instrument, None] = {}
        self._conditions: dict[str, pl.Expr] = {}
        self.update(instruments)

    def update(self, instruments: Iterable[Instrument]) -> None:
        """Select these, too."""
        self._instruments.update(dict.fromkeys(instruments))
        self._conditions.clear()

    def discard(self, instruments: Iterable[Instrument]) -> None:
        """Select these no more; a symbol that a pattern matches stays selected by it."""
        for instrument in instruments:
            self._instruments.pop(instrument, None)
        self._conditions.clear()

    def __contains__(self, instrument: Instrument) -> bool:
        return instrument in self._instruments or any(
            mine.venue == instrument.venue and mine.matches(instrument.symbol) for mine in self._patterns
        )

    def __iter__(self) -> Iterator[Instrument]:
        return iter(self._instruments)

    def __len__(self) -> int:
        return len(self._instruments)

    @property
    def _patterns(self) -> list[Instrument]:
        return [instrument for instrument in self._instruments if instrument.is_pattern]

    def filter(self, rows: pl.DataFrame, venue: str | None = None) -> pl.DataFrame:
        """The selected rows (columns symbol, and venue unless all are of `venue`)."""
        if venue is not None:
            return rows.filter(self._of_venue(venue))
        venues = sorted({instrument.venue for instrument in self._instruments})
        chosen = [(pl.col("venue") == name) & self._of_venue(name) for name in venues]
        return rows.filter(pl.any_horizontal(chosen)) if chosen else rows.clear()

    def _of_venue(self, venue: str) -> pl.Expr:
        condition = self._conditions.get(venue)
        if condition is None:
            own = [instrument for instrument in self._instruments if instrument.venue == venue]
            names = pl.Series([one.symbol for one in own if not one.is_pattern], dtype=pl.String)
            patterns = "|".join(regex(one.symbol) for one in own if one.is_pattern)
            condition = pl.col("symbol").is_in(names.implode())
            if patterns:
                condition = condition | pl.col("symbol").str.contains(patterns)
            self._conditions[venue] = condition
        return condition
