"""Seeded draws that both built-in logs share."""

from __future__ import annotations

import math
import zlib
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import pyarrow as pa


def named_streams(seed: int, names: tuple[str, ...]) -> dict[str, np.random.Generator]:
    """One independent PCG64 stream a name: changing what one concern draws leaves the others alone."""
    return {
        name: np.random.Generator(np.random.PCG64(np.random.SeedSequence([seed, zlib.crc32(name.encode())])))
        for name in names
    }


def draw_kinds(probability: np.ndarray, num_attempts: int, rng: np.random.Generator) -> np.ndarray:
    """Independent draws from `probability` (..., K), shape (..., num_attempts): indices of kinds."""
    threshold = probability.cumsum(axis=-1)[..., None, :-1]  # the last kind takes what rounding leaves over
    uniform = rng.random((*probability.shape[:-1], num_attempts, 1))
    return (uniform >= threshold).sum(axis=-1)


def lognormal_tokens(
    median: np.ndarray, sigma: float, limit: int, rng: np.random.Generator, shape: tuple[int, ...]
) -> np.ndarray:
    """Completion tokens: a rounded log-normal, at least 1 and cut at `limit`."""
    return np.clip(np.rint(median * np.exp(sigma * rng.standard_normal(shape))), 1, limit).astype(np.int64)


def mean_lognormal_tokens(median: np.ndarray, sigma: float, limit: int) -> np.ndarray:
    """Exact mean of `lognormal_tokens`, for every median.

    E[n] = sum over m = 1..limit of P(n >= m), and n >= m (m >= 2) exactly when the log-normal exceeds m -
    1/2.
    """
    values, inverse = np.unique(median, return_inverse=True)
    means = [
        1.0 + sum(0.5 * math.erfc(math.log((m - 0.5) / value) / (sigma * math.sqrt(2.0))) for m in range(2, limit + 1))
        for value in values.tolist()
    ]
    return np.array(means)[inverse].reshape(median.shape)


def picked(values: Sequence[str], index: np.ndarray) -> pa.Array:
    """A column of strings: `values` at every position of `index`."""
    import pyarrow as pa

    return pa.array(values, pa.string()).take(pa.array(index))
