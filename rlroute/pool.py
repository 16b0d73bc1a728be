"""The pool of choices a router picks from: prices, limits, and what a call of each usually costs and takes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from rlroute.arrays import LogArrays
    from rlroute.features import LogFeatures


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

    def expected_cost_usd(self, prompt_tokens: np.ndarray, cached_tokens: np.ndarray | int = 0) -> np.ndarray:
        """What a call is likely to cost, (N, num_choices): token prices at the mean completion length of train.

        Where prompt tokens (−1), prices or completion lengths are unknown it is the mean cost on train.
        """
        fresh = np.maximum(prompt_tokens - cached_tokens, 0)
        by_tokens = (
            fresh * self.input_usd
            + np.minimum(cached_tokens, prompt_tokens) * self.cached_input_usd
            + self.mean_completion_tokens * self.output_usd
        )
        priced = self.input_usd + self.output_usd > 0
        known = (prompt_tokens >= 0) & np.isfinite(by_tokens) & priced
        return np.where(known, by_tokens, self.mean_cost_usd)

    def cost_usd(
        self,
        choice: np.ndarray,
        prompt_tokens: np.ndarray,
        cached_tokens: np.ndarray,
        completion_tokens: np.ndarray,
    ) -> np.ndarray:
        """Cost of one call from its tokens; all arrays of shape (N,)."""
        return (
            (prompt_tokens - cached_tokens) * self.input_usd[choice]
            + cached_tokens * self.cached_input_usd[choice]
            + completion_tokens * self.output_usd[choice]
        )

    def reserve_usd(self, prompt_tokens: np.ndarray) -> np.ndarray:
        """The most a call can cost, (N, num_choices): input price × prompt tokens + output price × completion limit."""
        return np.maximum(prompt_tokens, 0) * self.input_usd + self.max_completion_tokens * self.output_usd

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
