"""Random numbers as a function of where they are drawn: a counter-based hash instead of a stream.

A draw depends on (key, slot, episode, …) alone, never on how many draws came before it or on how many slots run
beside it, so a scalar environment repeats any slot of a vector environment exactly, and two policies that meet the
same state in the same episode hear the same response.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from rlroute.jit import kernel

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_MIX_1 = np.uint64(0xBF58476D1CE4E5B9)
_MIX_2 = np.uint64(0x94D049BB133111EB)
_LAST = np.uint64(2**64 - 1)  # above every rank
_1, _11, _27, _30, _31 = (np.uint64(n) for n in (1, 11, 27, 30, 31))


class Stream(IntEnum):
    """What a draw is for; the streams of one episode are independent."""

    TASK = 1
    COST_WEIGHT = 2
    LATENCY_WEIGHT = 3
    BUDGET_USD = 4
    BUDGET_CALLS = 5
    ATTEMPT = 6
    POLICY = 7
    MODEL_COST = 8
    REGIME = 9
    FAULT = 10
    PROVIDER = 11
    RISK = 12
    PROBE = 13
    POOL_SIZE = 14
    POOL = 15


def key_from_seed(seed: int | np.random.SeedSequence | None) -> np.uint64:
    """The 64-bit key of a run: one `SeedSequence` per `reset(seed)`."""
    sequence = seed if isinstance(seed, np.random.SeedSequence) else np.random.SeedSequence(seed)
    return np.uint64(sequence.generate_state(1, np.uint64)[0])


@kernel
def fold(state: Any, counter: Any) -> Any:
    """One round of the hash: a counter folded into a state. Scalars in compiled code, arrays elsewhere, all uint64."""
    state = (state ^ counter) + _GOLDEN
    state = (state ^ (state >> _30)) * _MIX_1
    state = (state ^ (state >> _27)) * _MIX_2
    return state ^ (state >> _31)


@kernel
def to_unit(state: Any) -> Any:
    """A number in [0, 1) from the upper 53 bits of a hash."""
    return np.float64(state >> _11) * 2.0**-53


def hash_u64(key: np.uint64, *counters: ArrayLike) -> np.ndarray:
    """SplitMix64's finaliser (Steele, Lea & Flood 2014) folded over the counters, which broadcast."""
    with np.errstate(over="ignore"):
        state = np.asarray(key, np.uint64)
        for counter in counters:
            state = fold(state, np.asarray(counter).astype(np.uint64))
    return np.asarray(state, np.uint64)


def uniform(key: np.uint64, *counters: ArrayLike) -> np.ndarray:
    """Float64 in [0, 1) from the upper 53 bits of the hash."""
    return np.asarray(to_unit(hash_u64(key, *counters)))


def integers(key: np.uint64, high: ArrayLike, *counters: ArrayLike) -> np.ndarray:
    """Integers in [0, high); the bias is below high · 2⁻⁵³."""
    return (uniform(key, *counters) * np.asarray(high)).astype(np.int64)


def permuted_index(key: np.uint64, size: np.ndarray, position: np.ndarray, *counters: ArrayLike) -> np.ndarray:
    """Element `position` of a keyed random permutation of range(size); all arrays of shape (N,).

    Sorting the hashes of 0 … size−1 gives the permutation; sizes are a handful (attempts of one choice in one state).
    """
    largest = int(size.max(initial=1))
    if largest == 1:
        return np.zeros(size.shape, np.int64)
    columns = np.arange(largest, dtype=np.uint64)
    expanded = [np.broadcast_to(np.asarray(c), size.shape)[:, None] for c in counters]
    rank = hash_u64(key, *expanded, columns) >> _1  # (N, largest)
    rank[columns >= size[:, None].astype(np.uint64)] = np.uint64(2**64 - 1)
    order = np.argsort(rank, axis=1, kind="stable")
    return order[np.arange(len(size)), position]


@kernel
def permuted(state: Any, size: int, position: int) -> int:
    """Element `position` of the permutation of range(size) that `permuted_index` draws, from the hash of its counters.

    Walks up the ranks one by one: positions are mostly 0.
    """
    if size == 1:
        return 0
    if size == 2:  # likely, and free of branches
        first = (fold(state, np.uint64(1)) >> _1) < (fold(state, np.uint64(0)) >> _1)
        return int(first != (position == 1))
    chosen, beaten = 0, np.uint64(0)
    for passed in range(position + 1):
        best, found = _LAST, -1
        for column in range(size):
            rank = fold(state, np.uint64(column)) >> _1
            later = passed == 0 or rank > beaten or (rank == beaten and column > chosen)
            if later and rank < best:
                best, found = rank, column
        chosen, beaten = found, best
    return chosen
