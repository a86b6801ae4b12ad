"""The shape every bar type has: a frozen configuration, plain-data state, one step function."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import polars as pl
    import pyarrow as pa

    from raven.batches.batch import TradeBatch


class Kernel(Protocol):
    """A bar type with its parameters.

    The state is a Polars frame of plain columns, one row a symbol, of one venue. `step` never changes its
    arguments. However a trade stream is cut into batches, the bars are the same (floating sums to 1e-12).
    """

    @property
    def kind(self) -> str:
        """Which table the bars belong to: `time_bars`, or `tick_imbalance_bars` for all that trades close."""

    @property
    def spec(self) -> str:
        """The label in the bars' `spec` column."""

    @property
    def schema(self) -> pa.Schema:
        """The Arrow schema of the bars."""

    @property
    def fingerprint(self) -> str:
        """Identifies the bar's own parameters; a saved state of another fingerprint is refused."""

    def initial(self) -> pl.DataFrame:
        """The state before the first trade."""

    def step(self, state: pl.DataFrame, batch: TradeBatch) -> tuple[pl.DataFrame, pl.DataFrame]:
        """The next state and the bars (columns of `schema`) that `batch` closed or revised."""

    def open_bars(self, state: pl.DataFrame, venue: str) -> pl.DataFrame:
        """The bars still open in `state`, as they stand, never complete."""
