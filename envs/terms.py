"""What an episode is played for: the weights of cost and latency, and the budgets; fixed, or drawn per episode."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from rlroute.draws import Stream, fold, to_unit
from rlroute.jit import kernel

Range = float | tuple[float, float]


COST_WEIGHT, LATENCY_WEIGHT, BUDGET_USD, BUDGET_CALLS = (
    np.uint64(stream) for stream in (Stream.COST_WEIGHT, Stream.LATENCY_WEIGHT, Stream.BUDGET_USD, Stream.BUDGET_CALLS)
)


class Terms(NamedTuple):
    """One row per slot, each array of shape (num_envs,); infinite budgets bind nothing."""

    cost_weight: np.ndarray
    latency_weight: np.ndarray
    budget_usd: np.ndarray
    budget_calls: np.ndarray


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

    @property
    def bounds(self) -> TermBounds:
        """The ranges as kernels read them."""
        no_cap = (math.inf, math.inf)
        usd, calls = (no_cap if cap is None else ends(cap) for cap in (self.budget_usd, self.budget_calls))
        return TermBounds(*ends(self.preference), *ends(self.latency_preference), *usd, *calls)


class TermBounds(NamedTuple):
    """Lower and upper ends of `TermRanges`; infinite ones are no cap."""

    cost_low: float
    cost_high: float
    latency_low: float
    latency_high: float
    usd_low: float
    usd_high: float
    calls_low: float
    calls_high: float


@kernel
def draw_terms(bounds: TermBounds, slots: np.ndarray, i: int, seed: np.uint64) -> None:
    """Fill the terms of slot `i` from `seed`, the hash of the run's key, the group and the episode."""
    slots[i].cost_weight = log_uniform(bounds.cost_low, bounds.cost_high, fold(seed, COST_WEIGHT))
    slots[i].latency_weight = log_uniform(bounds.latency_low, bounds.latency_high, fold(seed, LATENCY_WEIGHT))
    low, high = bounds.usd_low, bounds.usd_high
    slots[i].budget_usd = low if low == high else low + (high - low) * to_unit(fold(seed, BUDGET_USD))
    low, high = bounds.calls_low, bounds.calls_high
    more = 0.0 if low == high else math.floor((high - low + 1.0) * to_unit(fold(seed, BUDGET_CALLS)))
    slots[i].budget_calls = low + more


@kernel
def log_uniform(low: float, high: float, seed: np.uint64) -> float:
    """A number between `low` and `high`, uniform on a log scale."""
    return low if low == high else low * (high / low) ** to_unit(seed)


def ends(value: Range) -> tuple[float, float]:
    """A number as the range from itself to itself."""
    if isinstance(value, (tuple, list)):
        low, high = value
        return float(low), float(high)
    return float(value), float(value)
