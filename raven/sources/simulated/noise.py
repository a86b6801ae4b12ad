"""Randomness without state: hashes of (key, number), and continuous noise made of them.

Everything here is elementwise, so a value does not depend on which others are computed with it.
"""

from __future__ import annotations

import hashlib
from statistics import NormalDist
from typing import Final

import numpy as np
import numpy.typing as npt

from raven.sources.simulated.market import Floats, Ints

_GOLDEN: Final = np.uint64(0x9E3779B97F4A7C15)
_MIX_1: Final = np.uint64(0xBF58476D1CE4E5B9)
_MIX_2: Final = np.uint64(0x94D049BB133111EB)
_QUANTILES: Final = 4_096


def key(*parts: object) -> np.uint64:
    """A 64-bit key of anything that has a text."""
    text = "\x00".join(map(str, parts)).encode()
    return np.uint64(int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "little"))


def hashed(stream: np.uint64, numbers: Ints) -> npt.NDArray[np.uint64]:
    """64 random bits for each of `numbers` (splitmix64)."""
    mixed = numbers.astype(np.uint64) * _GOLDEN + stream
    mixed = (mixed ^ (mixed >> np.uint64(30))) * _MIX_1
    mixed = (mixed ^ (mixed >> np.uint64(27))) * _MIX_2
    mixed ^= mixed >> np.uint64(31)
    return mixed


def uniform(stream: np.uint64, numbers: Ints) -> Floats:
    """Uniform in [0, 1), one for each of `numbers`."""
    return (hashed(stream, numbers) >> np.uint64(11)).astype(np.float64) * 2.0**-53


def log_normal_table(sigma: float) -> Floats:
    """The quantiles of a log-normal of median 1, for `picked`; a table keeps exp() out of the hot path."""
    places = (np.arange(_QUANTILES) + 0.5) / _QUANTILES
    normal = NormalDist()
    return np.exp(sigma * np.array([normal.inv_cdf(place) for place in places]))


def picked(table: Floats, stream: np.uint64, numbers: Ints) -> Floats:
    """One entry of a table of quantiles for each of `numbers`."""
    return table[(hashed(stream, numbers) >> np.uint64(52)).astype(np.int64)]


def value_noise(stream: np.uint64, seconds: Ints, period_s: int) -> Floats:
    """Noise in [-1, 1], linear between random values at every multiple of `period_s`."""
    lattice = seconds // period_s
    first, last = int(lattice.min()), int(lattice.max())
    values = 2.0 * uniform(stream, np.arange(first, last + 2, dtype=np.int64)) - 1.0
    index = lattice - first
    share = (seconds - lattice * period_s) / period_s
    low = values[index]
    return low + (values[index + 1] - low) * share
