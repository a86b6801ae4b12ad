"""One symbol's trades as a pure function of their ids: times, prices, quantities and sides."""

from __future__ import annotations

import math
from typing import Any, Final

import numpy as np

from raven.sources.simulated.market import Floats, Ints, Listing, split_symbol
from raven.sources.simulated.noise import hashed, key, log_normal_table, picked, uniform, value_noise

EPOCH_US: Final = 1_577_836_800_000_000  # 2020-01-01, where ids are counted from
MINUTE_US: Final = 60_000_000
_SECOND_US: Final = 1_000_000

_SCALE: Final = 1 << 36  # of the share of a minute's trades, in integers so that no rounding depends on the range
_MOST_CELLS: Final = 600
_BURSTINESS: Final = log_normal_table(1.5)
_SIZES: Final = log_normal_table(1.4)
_SWEEP_SHARE: Final = 0.3
_SWEEP_ROWS: Final = 4

_VOLATILITY: Final = 1.0e-4  # relative, per square root of a second: about 3 % a day
_PRICE_PERIODS_S: Final = tuple(4**octave for octave in range(12))
_FLOW_PERIODS_S: Final = {20: 0.10, 90: 0.14, 600: 0.12, 7_200: 0.12}

_BASE_PRICES: Final = {
    "BTCUSDT": 95_000.0, "ETHUSDT": 3_400.0, "BNBUSDT": 650.0, "SOLUSDT": 190.0, "XRPUSDT": 2.2, "DOGEUSDT": 0.32,
    "ADAUSDT": 0.9, "LTCUSDT": 105.0, "TRXUSDT": 0.25, "AVAXUSDT": 37.0, "LINKUSDT": 22.0, "DOTUSDT": 7.0,
    "ETHBTC": 0.036, "BNBBTC": 0.0068, "SHIBUSDT": 0.000021, "PEPEUSDT": 0.000018,
}  # fmt: skip
_TYPICAL_NOTIONAL: Final = {"BTC": 0.001, "ETH": 0.03, "BNB": 0.15, "TRY": 4_000.0, "JPY": 15_000.0, "IDR": 1_600_000.0}


class SymbolPath:
    """The trades of `symbol`, `per_minute` of them in every minute since the epoch."""

    def __init__(self, seed: int, symbol: str, per_minute: int) -> None:
        base, quote = split_symbol(symbol)
        names = ("place", "cell", "sweep", "side", "size")
        self._place, self._cell, self._sweep, self._side, self._size = (key(seed, symbol, n) for n in names)
        self._octaves = [(key(seed, symbol, "price", period), period) for period in _PRICE_PERIODS_S]
        self._flows = [(key(seed, symbol, "flow", period), period) for period in _FLOW_PERIODS_S]
        self._per_minute = per_minute
        self._cells = min(max(1, per_minute // 2), _MOST_CELLS)
        self._cell_us = MINUTE_US // self._cells
        unknown = 10.0 ** (4.0 * float(uniform(key(seed, symbol, "base"), np.zeros(1, dtype=np.int64))[0]) - 1.0)
        self._base_price = _BASE_PRICES.get(symbol, unknown)
        self._typical_quantity = _TYPICAL_NOTIONAL.get(quote, 100.0) / self._base_price
        price_decimals = min(max(4 - math.floor(math.log10(self._base_price)), 2), 8)
        quantity_decimals = min(max(2 - math.floor(math.log10(self._typical_quantity)), 0), 8)
        self.listing = Listing(symbol, base, quote, price_decimals, quantity_decimals)

    def times(self, first_id: int, stop_id: int) -> Ints:
        """The ascending times of first_id <= id < stop_id (ids count from 1)."""
        ids = self._from_leader(first_id, stop_id)
        return self._times(ids)[self._sweeps(ids)[0]][len(ids) - (stop_id - first_id) :]

    def columns(self, first_id: int, stop_id: int) -> dict[str, Any]:
        """The columns of MARKET_DTYPES but the symbol, for first_id <= id < stop_id (ids count from 1)."""
        ids = self._from_leader(first_id, stop_id)
        leader, step = self._sweeps(ids)
        times = self._times(ids)[leader]
        seconds = times // _SECOND_US
        first_second = int(seconds[0])
        lattice = np.arange(first_second, int(seconds[-1]) + 2, dtype=np.int64)
        level = self._level(lattice)
        index = seconds - first_second
        share = (times - seconds * _SECOND_US) / _SECOND_US
        middle = level[index] + (level[index + 1] - level[index]) * share
        is_buy = (uniform(self._side, ids) < self._buy_share(lattice, level)[index])[leader]
        direction = np.where(is_buy, 1, -1)
        ticks = np.floor(self._base_price * (1.0 + middle) * 10**self.listing.price_decimals).astype(np.int64)
        ticks = np.maximum(ticks + is_buy + direction * step, 1)
        lot = 10**self.listing.quantity_decimals
        lots = np.maximum(np.floor(picked(_SIZES, self._size, ids) * self._typical_quantity * lot), 1.0)
        wanted = slice(len(ids) - (stop_id - first_id), None)
        return {
            "trade_id": ids[wanted],
            "time_us": times[wanted],
            "price": (ticks / 10**self.listing.price_decimals)[wanted],
            "quantity": (lots / lot)[wanted],
            "is_sell": ~is_buy[wanted],
        }

    def _from_leader(self, first_id: int, stop_id: int) -> Ints:
        """The ids asked for, and before them those of a sweep the first may belong to."""
        before = (first_id - 1) % self._per_minute % _SWEEP_ROWS
        return np.arange(first_id - before, stop_id, dtype=np.int64)

    def _sweeps(self, ids: Ints) -> tuple[Ints, Ints]:
        """Each row's leader (an index), and its step in the sweep: some orders fill in four trades at one time."""
        step = (ids - 1) % self._per_minute % _SWEEP_ROWS
        swept = uniform(self._sweep, ids - step) < _SWEEP_SHARE
        step = np.where(swept, step, 0)
        return np.arange(len(ids)) - step, step

    def _times(self, ids: Ints) -> Ints:
        """Ascending times: in each minute trades fall into cells of very unequal weight, one stratum a trade."""
        minutes = (ids - 1) // self._per_minute
        first = int(minutes[0])
        edges = self._edges(first, int(minutes[-1]))
        jitter = (hashed(self._place, ids) >> np.uint64(44)).astype(np.int64)  # 20 bits
        place = ((ids - 1) % self._per_minute * _SCALE + jitter * (_SCALE >> 20)) // self._per_minute
        flat = (edges[:, :-1] + np.arange(len(edges), dtype=np.int64)[:, None] * _SCALE).ravel()
        row = minutes - first
        cell = np.searchsorted(flat, place + row * _SCALE, side="right") - 1 - row * self._cells
        low, high = edges[row, cell], edges[row, cell + 1]
        within = (place - low) * self._cell_us // (high - low)
        times: Ints = EPOCH_US + minutes * MINUTE_US + cell * self._cell_us + within
        return times

    def _edges(self, first_minute: int, last_minute: int) -> Ints:
        """(minutes, cells + 1) int64: which share of its minute's trades, of _SCALE, lies before each cell's edge."""
        numbers = np.arange(first_minute * self._cells, (last_minute + 1) * self._cells, dtype=np.int64)
        weights = (picked(_BURSTINESS, self._cell, numbers) * 1024).astype(np.int64) + 1
        sums = np.cumsum(weights.reshape(-1, self._cells), axis=1)
        edges = np.zeros((len(sums), self._cells + 1), dtype=np.int64)
        edges[:, 1:] = (sums / sums[:, -1:] * _SCALE).astype(np.int64)
        return edges

    def _level(self, seconds: Ints) -> Floats:
        """The price at each second, as a share of the base price above it: noise of all time scales."""
        level = np.zeros(len(seconds))
        for stream, period in self._octaves:
            level += value_noise(stream, seconds, period) * (_VOLATILITY * math.sqrt(period))
        return level

    def _buy_share(self, seconds: Ints, level: Floats) -> Floats:
        """The chance of a buy at each second but the last: persistent flow, and the side the price is moving to."""
        share = np.full(len(seconds) - 1, 0.5)
        for (stream, period), weight in zip(self._flows, _FLOW_PERIODS_S.values(), strict=True):
            share += value_noise(stream, seconds[:-1], period) * weight
        share += np.clip(np.diff(level) / _VOLATILITY, -1.0, 1.0) * 0.12
        bounded: Floats = np.clip(share, 0.05, 0.95)
        return bounded
