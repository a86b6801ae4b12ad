"""Trades as somebody wrote them: columns of any spelling become those of TRADE_SCHEMA, and pass the gate. Pure.

What cannot be read as a number, a time or a side becomes null, which the gate refuses with the reason of its column. So
a value costs its row alone, and has the same reason whether it came as JSON, CSV, Parquet or a frame.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Final

import numpy as np
import polars as pl

from raven.batches.gate import Checked, Refusal, check, show, value_at
from raven.batches.schema import BUY, SELL, TRADE_DTYPES
from raven.batches.sequence import Array
from raven.errors import InputError

MAKER: Final = "is_buyer_maker"
"""The column that may stand for `side`: true where the buyer was the maker, so that the aggressor sold."""

REQUIRED: Final = ("ts_event", "price", "quantity", "side")
"""What every trade says, whoever wrote it."""

_EXACT: Final = 2**53  # beyond, a float does not tell neighbouring whole numbers apart
_SECONDS_BELOW: Final = 10**11
_MILLISECONDS_BELOW: Final = 10**14
_MICROSECONDS_BELOW: Final = 10**17
_WHOLE: Final = r"^\s*([+-]?[0-9]+)(?:\.0*)?\s*$"
_SCIENTIFIC: Final = r"^\s*([+-]?[0-9]+(?:\.[0-9]*)?[eE][+-]?[0-9]+)\s*$"
_NUMBER: Final = r"^\s*([+-]?[0-9]+\.[0-9]+)\s*$"
_USUAL: Final = "%Y-%m-%dT%H:%M:%S%.f%z"
_ISO: Final = r"^\s*(\d{4}-\d\d-\d\d)[T ](\d\d:\d\d)(:\d\d)?(\.\d+)?\s*(?:(Z|z|UTC)|([+-]\d\d):?(\d\d)?)?\s*$"
_SIDES: Final = MappingProxyType({"buy": BUY, "sell": SELL, "1": BUY, "+1": BUY, "-1": SELL})
_MAKERS: Final = MappingProxyType({"true": SELL, "false": BUY, "1": SELL, "0": BUY})


def admit(raw: pl.DataFrame, *, latest_us: int, origin: int) -> Checked:
    """The trades of `raw`, with its own columns' names and values in what is refused.

    Needed are symbol, trade_id, ts_event, price, quantity, and side or is_buyer_maker; without ts_recv it is ts_event,
    without origin `origin`. Taken are

    - ids: whole numbers that int64 holds exactly, also as float (up to 2^53), decimal or text;
    - times: datetimes (naive ones as UTC), Unix seconds, milliseconds, microseconds or nanoseconds told apart by
      magnitude, or ISO text;
    - price and quantity: numbers, decimals or text;
    - side: 1 and -1, buy and sell in any case; is_buyer_maker: true and false, in any case.

    A column venue goes along. Raises InputError where a column is missing or of a type that holds no such value.
    """
    require_columns(raw, ("symbol", "trade_id", *REQUIRED))
    source = {name: name for name in TRADE_DTYPES if name in raw.columns}
    source.setdefault("ts_recv", "ts_event")
    source.setdefault("side", MAKER)
    columns = [_read(raw, name, source.get(name), origin) for name in TRADE_DTYPES]
    if "venue" in raw.columns:
        columns.append(raw.get_column("venue").cast(pl.String))
    checked = check(pl.DataFrame(columns), latest_us=latest_us)
    return Checked(checked.trades, [_as_given(refusal, raw, source) for refusal in checked.refused])


def require_columns(raw: pl.DataFrame, names: Sequence[str]) -> None:
    """Raise InputError where one of `names` is no column of `raw`, nor, for side, is_buyer_maker."""
    missing = [name for name in names if name not in raw.columns and not (name == "side" and MAKER in raw.columns)]
    if missing:
        there = ", ".join(name for name in raw.columns if not name.startswith("_"))
        raise InputError(
            f"columns missing: {', '.join(missing)}",
            hint=f"trades need {', '.join(names)} (or {MAKER}); there are {there}",
        )


def _read(raw: pl.DataFrame, name: str, source: str | None, origin: int) -> pl.Series:
    """The column `name` of trades out of the column `source`."""
    if source is None:
        return pl.repeat(origin, raw.height, dtype=TRADE_DTYPES["origin"], eager=True).alias(name)
    column = raw.get_column(source)
    if column.dtype == TRADE_DTYPES[name] and source == name:
        return column
    return (_makers if source == MAKER else _READ[name])(column).alias(name)


def _as_given(refusal: Refusal, raw: pl.DataFrame, source: Mapping[str, str]) -> Refusal:
    """`refusal` in the words of whoever wrote the row."""
    name = source.get(refusal.column)
    return (
        refusal
        if name is None
        else refusal._replace(column=name, value=show(value_at(raw.get_column(name), refusal.row)))
    )


def epoch_us(times: Array) -> Array:
    """Unix times (n int64) as microseconds, each told by its magnitude: seconds below 10^11, then ms, us, and ns."""
    if ((times >= _MILLISECONDS_BELOW) & (times < _MICROSECONDS_BELOW)).all():
        return times
    size = np.abs(times)
    units = [size < _SECONDS_BELOW, size < _MILLISECONDS_BELOW, size < _MICROSECONDS_BELOW]
    # wrapping where a branch is not taken harms nothing
    return np.select(units, [times * 1_000_000, times * 1_000, times], default=times // 1_000)


def _symbols(column: pl.Series) -> pl.Series:
    if column.dtype == pl.Null or _is_text(column):
        return column.cast(pl.String)
    raise _misfit(column, "names")


def _ids(column: pl.Series) -> pl.Series:
    if column.dtype.is_float():
        return (
            pl.select(pl.when((column == column.floor()) & (column.abs() <= _EXACT)).then(column))
            .to_series()
            .cast(pl.Int64, strict=False)
        )
    if _is_text(column):
        text = column.cast(pl.String)
        whole = text.str.extract(_WHOLE).cast(pl.Int64, strict=False)
        return whole.fill_null(_ids(text.str.extract(_SCIENTIFIC).cast(pl.Float64, strict=False)))
    if column.dtype.is_decimal():
        return _ids(column.cast(pl.String))
    if column.dtype.is_integer() or column.dtype == pl.Null:
        return column.cast(pl.Int64, strict=False)
    raise _misfit(column, "whole numbers")


def _figures(column: pl.Series) -> pl.Series:
    if _is_text(column):
        return column.cast(pl.String).str.strip_chars().cast(pl.Float64, strict=False)
    if column.dtype.is_numeric() or column.dtype == pl.Null:
        return column.cast(pl.Float64)
    raise _misfit(column, "numbers")


def _times(column: pl.Series) -> pl.Series:
    utc = TRADE_DTYPES["ts_event"]
    dtype = column.dtype
    if isinstance(dtype, pl.Datetime):
        return _from_datetimes(column.to_physical(), dtype.time_unit).cast(utc)
    if dtype.is_float():
        return _from_floats(column).cast(utc)
    if dtype.is_integer():
        whole = column.cast(pl.Int64, strict=False)
        times_us = pl.Series(epoch_us(whole.fill_null(0).to_numpy()))
        return pl.select(pl.when(whole.is_not_null()).then(times_us)).to_series().cast(utc)
    if dtype.is_decimal():
        return _times(column.cast(pl.String))
    if _is_text(column):
        return _from_text(column.cast(pl.String)).cast(utc)
    if dtype == pl.Null:
        return column.cast(utc)
    raise _misfit(column, "times")


def _from_datetimes(numbers: pl.Series, unit: str) -> pl.Series:
    """Microseconds out of what datetimes are made of: Unix times in UTC, also of those without a zone."""
    if unit == "us":
        return numbers
    if unit == "ns":
        return numbers // 1_000
    sane = numbers.is_between(-_MICROSECONDS_BELOW // 1_000, _MICROSECONDS_BELOW // 1_000)  # others would wrap
    return pl.select(pl.when(sane).then(numbers * 1_000)).to_series()


def _from_floats(column: pl.Series) -> pl.Series:
    """Microseconds out of seconds (and the like) with a fraction."""
    values = column.cast(pl.Float64).fill_null(np.nan).to_numpy()
    size = np.abs(values)
    units = [size < _SECONDS_BELOW, size < _MILLISECONDS_BELOW, size < _MICROSECONDS_BELOW]
    scaled = np.rint(np.select(units, [values * 1e6, values * 1e3, values], default=values / 1e3))
    sane = np.abs(scaled) < _MICROSECONDS_BELOW  # of NaN, too
    whole = np.where(sane, scaled, 0).astype(np.int64)
    return pl.select(pl.when(pl.Series(sane)).then(pl.Series(whole))).to_series()


def _from_text(column: pl.Series) -> pl.Series:
    """Microseconds out of Unix times or ISO times as text; without an offset they are UTC."""
    usual = column.str.to_datetime(_USUAL, time_unit="us", strict=False)
    if not usual.null_count():
        return usual
    parts = column.str.extract_groups(_ISO).struct.unnest().get_columns()
    day, minute, second, fraction, _, hours, minutes = parts
    iso = pl.select(
        pl.concat_str(
            day, pl.lit("T"), minute, second.fill_null(":00"), fraction.fill_null("").str.head(10),
            hours.fill_null("+00"), minutes.fill_null("00"),
        ).str.to_datetime(_USUAL, time_unit="us", strict=False)
    ).to_series()  # fmt: skip
    whole = _times(column.str.extract(_WHOLE).cast(pl.Int64, strict=False))
    broken = _times(column.str.extract(_NUMBER).cast(pl.Float64, strict=False))
    return pl.select(pl.coalesce(iso, whole, broken)).to_series()


def _sides(column: pl.Series) -> pl.Series:
    if _is_text(column):
        return _spelt(column, _SIDES)
    if column.dtype.is_float():
        return pl.select(pl.when(column.abs() == 1).then(column)).to_series().cast(pl.Int8)
    if column.dtype.is_integer() or column.dtype == pl.Null:
        return column.cast(pl.Int8, strict=False)
    raise _misfit(column, "sides", hint=f"booleans are taken as {MAKER}")


def _makers(column: pl.Series) -> pl.Series:
    if column.dtype == pl.Boolean:
        return pl.select(pl.when(column).then(SELL).when(~column).then(BUY)).to_series().cast(pl.Int8)
    if _is_text(column) or column.dtype.is_integer() or column.dtype == pl.Null:
        return _spelt(column, _MAKERS)
    raise _misfit(column, "booleans")


def _spelt(column: pl.Series, words: Mapping[str, int]) -> pl.Series:
    text = column.cast(pl.String).str.strip_chars().str.to_lowercase()
    return text.replace_strict(dict(words), default=None, return_dtype=pl.Int8)


def _origins(column: pl.Series) -> pl.Series:
    if column.dtype.is_integer() or column.dtype == pl.Null:
        return column.cast(pl.Int8, strict=False)
    if _is_text(column):
        return _ids(column).cast(pl.Int8, strict=False)
    raise _misfit(column, "whole numbers")


def _is_text(column: pl.Series) -> bool:
    return column.dtype in (pl.String, pl.Categorical, pl.Enum)


def _misfit(column: pl.Series, what: str, *, hint: str = "") -> InputError:
    return InputError(f"the column {column.name} is {column.dtype}, which are no {what}", hint=hint)


_READ: Final[Mapping[str, Callable[[pl.Series], pl.Series]]] = MappingProxyType(
    {
        "symbol": _symbols,
        "trade_id": _ids,
        "ts_event": _times,
        "ts_recv": _times,
        "price": _figures,
        "quantity": _figures,
        "side": _sides,
        "origin": _origins,
    }
)
