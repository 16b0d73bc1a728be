"""How weights and money are observed: on scales on which what matters alike lies alike far apart."""

from __future__ import annotations

import math

import numpy as np

from rlroute.jit import kernel

WEIGHT_FLOOR, WEIGHT_CEILING = 1e-3, 1e2
PENALTY_CEILING = 4.0
OCTAVES = 8  # of money, above its unit and below
# The logarithm is read off a table, for a library's takes as long as all else that there is to a choice: its pieces of
# a straight line start at every number of `BITS` bits behind the first.
BITS = 6
LEAST, MOST = 2.0**-10, 2.0**10
_starts = LEAST * (2.0 ** np.arange(20)[:, None] * (1.0 + np.arange(2**BITS) / 2**BITS)).ravel()
_ends = np.append(_starts[1:], MOST)
_slope = (np.log2(_ends) - np.log2(_starts)) / (_ends - _starts)
PIECES = np.stack([np.log2(_starts) - _slope * _starts, _slope], axis=1)  # (pieces, 2): at 0, and slope
SHIFT = np.int64(52 - BITS)
FIRST = np.int64((1023 - 10) << BITS)
BELOW_MOST = np.nextafter(MOST, 0.0)


@kernel
def log2(number: float) -> float:
    """The binary logarithm, to 5e-5, of a number from 1/1024 to 1024, and of the nearer end of any other."""
    number = number if number > LEAST else LEAST  # what is no number neither
    number = min(number, BELOW_MOST)
    piece = np.uint64((np.float64(number).view(np.int64) >> SHIFT) - FIRST)
    return PIECES[piece, 0] + PIECES[piece, 1] * number


LEAST_WEIGHT = log2(WEIGHT_FLOOR)
OF_WEIGHTS = 1.0 / (log2(WEIGHT_CEILING) - LEAST_WEIGHT)


@kernel
def weight_feature(weight: float) -> float:
    """A weight on a log scale from 0.001 (and below) to 100 (and above), in [0, 1]."""
    weight = weight if weight > WEIGHT_FLOOR else WEIGHT_FLOOR
    return (log2(min(weight, WEIGHT_CEILING)) - LEAST_WEIGHT) * OF_WEIGHTS


@kernel
def money_feature(units: float) -> float:
    """An amount in multiples of its unit, on a log2 scale from 1/256 to 256 units, in [−1, 1]; 1 for no limit."""
    if units == math.inf:
        return 1.0
    return min(max(log2(units) / OCTAVES, -1.0), 1.0)


def money_features(units: np.ndarray) -> np.ndarray:
    """`money_feature` of an array of any shape, float32."""
    pieces = np.interp(np.clip(units, LEAST, MOST), np.append(_starts, MOST), np.log2(np.append(_starts, MOST)))
    return np.clip(pieces / OCTAVES, -1.0, 1.0).astype(np.float32)


@kernel
def penalty_feature(weight: float, units: float) -> float:
    """An amount in multiples of its unit as the reward will count it, weight · amount, at most 4."""
    return min(max(weight * units, 0.0), PENALTY_CEILING)


@kernel
def reserve_share(reserve_usd: float, usd_left: float) -> float:
    """A reserve as a share of the budget left, at most 1; 0 without a cap."""
    return 0.0 if math.isinf(usd_left) else min(max(reserve_usd / max(usd_left, 1e-12), 0.0), 1.0)
