"""What an episode is played for: the weights of cost and latency, and the budgets; fixed, or drawn per episode."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from rlroute.draws import Stream, integers, uniform

Range = float | tuple[float, float]


@dataclass
class Terms:
    """One row per slot, each array of shape (num_envs,); infinite budgets bind nothing."""

    cost_weight: np.ndarray
    latency_weight: np.ndarray
    budget_usd: np.ndarray
    budget_calls: np.ndarray

    @classmethod
    def empty(cls, num_envs: int) -> Terms:
        return cls(*(np.zeros(num_envs), np.zeros(num_envs), np.full(num_envs, np.inf), np.full(num_envs, np.inf)))


@dataclass(frozen=True)
class TermRanges:
    """Where the terms of an episode come from. A pair is a range: weights are log-uniform, budgets uniform."""

    preference: Range
    latency_preference: Range
    budget_usd: Range | None
    budget_calls: Range | None

    def __post_init__(self) -> None:
        for name in ("preference", "latency_preference"):
            low, high = ends(getattr(self, name))
            if not (0 <= low <= high < math.inf) or (low < high and low == 0):
                raise ValueError(
                    f"{name}={getattr(self, name)!r}: expected a number ≥ 0, or a pair (low, high) with 0 < low ≤ high"
                )
        for name in ("budget_usd", "budget_calls"):
            value = getattr(self, name)
            if value is None:
                continue
            low, high = ends(value)
            if not 0 <= low <= high < math.inf:
                raise ValueError(
                    f"{name}={value!r}: expected None, a number ≥ 0, or a pair (low, high) with low ≤ high"
                )
            if name == "budget_calls" and (low != int(low) or high != int(high)):
                raise ValueError(f"budget_calls={value!r}: expected whole numbers of calls")

    def draw(self, terms: Terms, which: np.ndarray, key: np.uint64, slot: np.ndarray, episode: np.ndarray) -> None:
        """Fill the rows `which` of `terms`; `slot` and `episode` are their counters, of the same length."""
        terms.cost_weight[which] = _log_uniform(self.preference, key, slot, episode, Stream.COST_WEIGHT)
        terms.latency_weight[which] = _log_uniform(self.latency_preference, key, slot, episode, Stream.LATENCY_WEIGHT)
        if self.budget_usd is not None:
            low, high = ends(self.budget_usd)
            terms.budget_usd[which] = low + (high - low) * uniform(key, slot, episode, Stream.BUDGET_USD)
        if self.budget_calls is not None:
            low, high = (int(end) for end in ends(self.budget_calls))
            terms.budget_calls[which] = low + integers(key, high - low + 1, slot, episode, Stream.BUDGET_CALLS)


def ends(value: Range) -> tuple[float, float]:
    """A number as the range from itself to itself."""
    if isinstance(value, (tuple, list)):
        low, high = value
        return float(low), float(high)
    return float(value), float(value)


def _log_uniform(value: Range, key: np.uint64, slot: np.ndarray, episode: np.ndarray, stream: Stream) -> np.ndarray:
    low, high = ends(value)
    if low == high:
        return np.full(slot.shape, low)
    return low * (high / low) ** uniform(key, slot, episode, stream)
