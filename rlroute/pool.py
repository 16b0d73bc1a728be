"""The pool of choices a router picks from: prices, limits, and what a call of each usually costs and takes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from rlroute.jit import kernel, records

if TYPE_CHECKING:
    from rlroute.arrays import LogArrays
    from rlroute.features import LogFeatures


# What kernels know of a choice, see `Pool`; families add fields of their own.
PRICES: dict[str, Any] = {
    "input_usd": np.float64,
    "cached_input_usd": np.float64,
    "output_usd": np.float64,
    "max_completion_tokens": np.float64,
    "cache_ttl_s": np.float64,
    "mean_cost_usd": np.float64,
    "mean_completion_tokens": np.float64,
    "mean_latency_s": np.float64,
    "priced": np.bool_,  # prices and the mean completion length are known
}


# The formulas take scalars in kernels, and arrays that broadcast elsewhere.


@kernel
def call_usd(
    prompt_tokens: Any, cached_tokens: Any, completion_tokens: Any, input_usd: Any, cached_usd: Any, output_usd: Any
) -> Any:
    """Cost of one call from its tokens."""
    return (prompt_tokens - cached_tokens) * input_usd + cached_tokens * cached_usd + completion_tokens * output_usd


@kernel
def likely_usd(pool: np.ndarray, choice: int, prompt_tokens: int, cached_tokens: int) -> float:
    """What one call is likely to cost, as `Pool.expected_cost_usd` has it; `cached_tokens` ≤ `prompt_tokens`."""
    c = pool[choice]
    if prompt_tokens < 0 or not c.priced:
        return c.mean_cost_usd
    mean = c.mean_completion_tokens
    return call_usd(prompt_tokens, cached_tokens, mean, c.input_usd, c.cached_input_usd, c.output_usd)


@kernel
def reserve_usd(prompt_tokens: Any, max_completion_tokens: Any, input_usd: Any, output_usd: Any) -> Any:
    """The most that a call can cost: input price × prompt tokens + output price × completion limit."""
    return np.maximum(prompt_tokens, 0) * input_usd + max_completion_tokens * output_usd


@dataclass(frozen=True)
class Pool:
    """Constants of the choices, each array of shape (num_choices,)."""

    names: tuple[str, ...]
    input_usd: np.ndarray  # USD per prompt token, 0 unknown
    cached_input_usd: np.ndarray  # USD per prompt token served from the provider's cache
    output_usd: np.ndarray  # USD per completion token, 0 unknown
    max_completion_tokens: np.ndarray  # limit sent with a call, −1 unknown
    cache_ttl_s: np.ndarray  # how long a cached prefix lives
    mean_cost_usd: np.ndarray  # of one call on train
    mean_completion_tokens: np.ndarray  # of one call on train, NaN unknown
    mean_latency_s: np.ndarray  # of one call on train

    @classmethod
    def from_log(cls, arrays: LogArrays, features: LogFeatures) -> Pool:
        return cls(
            names=tuple(arrays.choice_names),
            input_usd=np.asarray(arrays.input_usd),
            cached_input_usd=np.asarray(arrays.cached_input_usd),
            output_usd=np.asarray(arrays.output_usd),
            max_completion_tokens=np.asarray(arrays.max_completion_tokens),
            cache_ttl_s=np.asarray(arrays.cache_ttl_s),
            mean_cost_usd=np.asarray(features.mean_cost_usd),
            mean_completion_tokens=np.asarray(features.mean_completion_tokens),
            mean_latency_s=np.asarray(features.mean_latency_s),
        )

    @property
    def size(self) -> int:
        return len(self.names)

    def to_records(self, **more: np.ndarray) -> np.ndarray:
        """The pool as kernels read it, (num_choices,) records of `PRICES` and of `more` columns."""
        table = records(self.size, {**PRICES, **{name: column.dtype for name, column in more.items()}})
        for name in PRICES:
            table[name] = getattr(self, name)
        for name, column in more.items():
            table[name] = column
        return table

    def expected_cost_usd(self, prompt_tokens: np.ndarray, cached_tokens: np.ndarray | int = 0) -> np.ndarray:
        """What a call is likely to cost, (N, num_choices): token prices at the mean completion length of train.

        Where prompt tokens (−1), prices or completion lengths are unknown it is the mean cost on train.
        """
        served = np.minimum(cached_tokens, np.maximum(prompt_tokens, 0))
        prices = (self.input_usd, self.cached_input_usd, self.output_usd)
        by_tokens = call_usd(prompt_tokens, served, self.mean_completion_tokens, *prices)
        return np.where((prompt_tokens >= 0) & self.priced, by_tokens, self.mean_cost_usd)

    @property
    def priced(self) -> np.ndarray:
        """(num_choices,) bool: prices and the mean completion length are known."""
        return np.isfinite(self.mean_completion_tokens) & (self.input_usd + self.output_usd > 0)

    def cost_usd(
        self,
        choice: np.ndarray,
        prompt_tokens: np.ndarray,
        cached_tokens: np.ndarray,
        completion_tokens: np.ndarray,
    ) -> np.ndarray:
        """Cost of one call from its tokens; all arrays of shape (N,)."""
        prices = (self.input_usd[choice], self.cached_input_usd[choice], self.output_usd[choice])
        return np.asarray(call_usd(prompt_tokens, cached_tokens, completion_tokens, *prices))

    def reserve_usd(self, prompt_tokens: np.ndarray) -> np.ndarray:
        """The most a call can cost, (N, num_choices)."""
        return np.asarray(reserve_usd(prompt_tokens, self.max_completion_tokens, self.input_usd, self.output_usd))

    def without_limit(self) -> list[str]:
        """Choices whose reserve is unknown, because their completion limit or a price is."""
        known = (self.max_completion_tokens >= 0) & (self.input_usd + self.output_usd > 0)
        return [name for name, ok in zip(self.names, known, strict=True) if not ok]

    def to_dict(self) -> dict[str, Any]:
        """Plain data for a policy file: one mapping per choice."""
        columns = [name for name in vars(self) if name != "names"]
        return {
            name: {column: float(getattr(self, column)[i]) for column in columns} for i, name in enumerate(self.names)
        }

    @classmethod
    def from_dict(cls, data: dict[str, dict[str, float]]) -> Pool:
        names = tuple(data)
        columns = [name for name in cls.__dataclass_fields__ if name != "names"]
        return cls(names, *(np.array([data[name][column] for name in names]) for column in columns))
