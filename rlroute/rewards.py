"""Rewards: a vector of what happened, and named functions that make one number of it.

The vector is (quality, cost_usd, latency_s, format). Quality is paid once, when an episode ends; cost and latency
are those of the step; format is −1 for malformed text and 0 elsewhere.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

QUALITY, COST_USD, LATENCY_S, FORMAT = range(4)
VECTOR_NAMES = ("quality", "cost_usd", "latency_s", "format")
EXACT_MATCH = 0.999
INVALID_ACTION_REWARD = -1.0


@dataclass
class Totals:
    """Sums over the episode so far, each of shape (num_envs,)."""

    quality: np.ndarray
    cost_usd: np.ndarray
    latency_s: np.ndarray
    format: np.ndarray
    output_cost_usd: np.ndarray  # completion tokens alone, the cost of Router-R1

    @classmethod
    def zeros(cls, num_envs: int) -> Totals:
        return cls(*(np.zeros(num_envs) for _ in range(5)))

    def clear(self, which: np.ndarray) -> None:
        for total in vars(self).values():
            total[which] = 0.0

    def vector(self) -> np.ndarray:
        """(num_envs, 4), in the order of the reward vector."""
        return np.stack([self.quality, self.cost_usd, self.latency_s, self.format], axis=1)


@dataclass(frozen=True)
class Reference:
    """The units in which cost and latency enter a reward: means of the best single choice on train."""

    choice: str
    cost_usd: float
    latency_s: float
    # Percentiles of sqrt(output cost) of one call under uniform routing on train, for `router_r1`.
    root_cost_p5: float
    root_cost_p95: float


class Reward(Protocol):
    """The scalar reward of one step of a batch of episodes."""

    def __call__(
        self,
        vector: np.ndarray,  # (num_envs, 4), this step
        totals: Totals,  # this step included
        ended: np.ndarray,  # (num_envs,) bool, terminated in this step
        cost_weight: np.ndarray,  # (num_envs,)
        latency_weight: np.ndarray,  # (num_envs,)
    ) -> np.ndarray: ...  # (num_envs,)


@dataclass
class Linear:
    """quality − w_c · cost / c_ref − w_l · latency / l_ref, each paid when it arises."""

    reference: Reference

    def __call__(
        self,
        vector: np.ndarray,
        totals: Totals,
        ended: np.ndarray,
        cost_weight: np.ndarray,
        latency_weight: np.ndarray,
    ) -> np.ndarray:
        cost = cost_weight * vector[:, COST_USD] / self.reference.cost_usd
        latency = latency_weight * vector[:, LATENCY_S] / max(self.reference.latency_s, 1e-9)
        return vector[:, QUALITY] - cost - latency + vector[:, FORMAT]


@dataclass
class RouterR1:
    """Router-R1's hierarchical reward (arXiv 2506.09033, reward section and code), paid at the end.

    Format wrong: −1. Wrong answer: 0. Right answer: (1 − α) + α·C, where α is the cost weight and
    C = 1 − clip((√c − p5) / (p95 − p5), 0, 1) falls with the completion-token cost c of all calls (C = 0.5 where
    p95 − p5 < 1e-8). `metric="f1"` scales the same term by the recorded quality [ours: the paper only says that F1
    may stand in].

    p5 and p95 are frozen on train, so that a reward depends on its episode alone. `window="running"` takes them from
    the last 1,000 episodes as the paper's code does; rewards then depend on the order of episodes.
    """

    reference: Reference
    metric: str = "em"
    window: str = "frozen"
    _recent: deque[float] = field(default_factory=lambda: deque(maxlen=1000))

    def __call__(
        self,
        vector: np.ndarray,
        totals: Totals,
        ended: np.ndarray,
        cost_weight: np.ndarray,
        latency_weight: np.ndarray,
    ) -> np.ndarray:
        root_cost = np.sqrt(totals.output_cost_usd)
        if self.window == "running":
            self._recent.extend(root_cost[ended].tolist())
            recent = np.array(self._recent) if self._recent else np.zeros(1)
            low, high = np.percentile(recent, [5, 95])
        else:
            low, high = self.reference.root_cost_p5, self.reference.root_cost_p95
        # The code's threshold of 1e-8 is for costs in token·USD per million; ours are in USD, √1e-6 of that.
        span = high - low
        saved = 0.5 if span < 1e-11 else 1.0 - np.clip((root_cost - low) / span, 0.0, 1.0)
        right = (totals.quality >= EXACT_MATCH).astype(np.float64) if self.metric == "em" else totals.quality
        reward = right * ((1.0 - cost_weight) + cost_weight * saved)
        return np.where(ended, np.where(totals.format < 0, -1.0, reward), 0.0)


REWARDS = (
    "linear",
    "router_r1",
    "ares",  # of EffortRoute, see `ares`
    "utility",  # of ToolGraph, see rlroute.envs.tool_graph.utility
)
ARES_SUCCESS = 5.0
ARES_STEP = (-0.2, -0.5, -1.0)  # of a step at low, mid and high effort


def ares_step_costs(num_levels: int) -> np.ndarray:
    """(num_levels,) reward of one step by level from the least effort to the most: −0.2, −0.5, −1.0 for three.

    For another number of levels they lie on a geometric line between the ends [ours].
    """
    if num_levels == len(ARES_STEP):
        return np.array(ARES_STEP)
    return -np.geomspace(-ARES_STEP[0], -ARES_STEP[-1], num_levels)


def ares(success: np.ndarray, steps: np.ndarray) -> np.ndarray:
    """Ares' reward of whole episodes (arXiv 2603.07915), (N,): 1[success] · (5 + mean over steps of their cost).

    The formula is reconstructed from the paper's numbers [ours]; its −1 for bad format belongs to text. `success` (N,)
    in {0, 1}; `steps` (N, num_levels) counts the steps at each level, from the least effort to the most. Known faults:
    failures cost nothing, and since steps are averaged a longer episode costs no more than a short one.
    """
    mean = steps @ ares_step_costs(steps.shape[1]) / np.maximum(steps.sum(axis=1), 1)
    return np.asarray(success * (ARES_SUCCESS + mean))


def make_reward(name: str, reference: Reference, *, metric: str = "em", window: str = "frozen") -> Reward:
    """The reward called `name`: ``linear`` or ``router_r1``."""
    if name == "linear":
        return Linear(reference)
    if name == "router_r1":
        return RouterR1(reference, metric, window)
    raise ValueError(f"unknown reward {name!r}: expected one of {list(REWARDS)}")
