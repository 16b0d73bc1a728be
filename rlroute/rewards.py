"""Rewards: a vector of what happened, and named functions that make one number of it.

The vector is (quality, cost_usd, latency_s, format). Quality is paid once, when an episode ends; cost and latency
are those of the step; format is −1 for malformed text and 0 elsewhere.

`linear` and `ares` take scalars where environments compute with them, and arrays that broadcast elsewhere.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from rlroute.jit import kernel

QUALITY, COST_USD, LATENCY_S, FORMAT = range(4)
VECTOR_NAMES = ("quality", "cost_usd", "latency_s", "format")
EXACT_MATCH = 0.999
INVALID_ACTION_REWARD = -1.0
RECENT = 1000  # episodes of the running window of Router-R1


class Totals(NamedTuple):
    """Sums over the episode so far, each of shape (num_envs,)."""

    quality: np.ndarray
    cost_usd: np.ndarray
    latency_s: np.ndarray
    format: np.ndarray
    output_cost_usd: np.ndarray  # completion tokens alone, the cost of Router-R1


@dataclass(frozen=True)
class Reference:
    """The units in which cost and latency enter a reward: means of the best single choice on train."""

    choice: str
    cost_usd: float
    latency_s: float
    # Percentiles of sqrt(output cost) of one call under uniform routing on train, for `router_r1`.
    root_cost_p5: float
    root_cost_p95: float


@kernel
def linear(
    quality: Any, cost_usd: Any, latency_s: Any, cost_weight: Any, latency_weight: Any, c_ref: float, l_ref: float
) -> Any:
    """quality − w_c · cost / c_ref − w_l · latency / l_ref, each paid when it arises."""
    return quality - cost_weight * cost_usd / c_ref - latency_weight * latency_s / max(l_ref, 1e-9)


@kernel
def router_r1(right: float, format_: float, output_cost_usd: float, cost_weight: float, p5: float, p95: float) -> float:
    """Router-R1's hierarchical reward of a whole episode (arXiv 2506.09033, reward section and code).

    Format wrong: −1. Wrong answer: 0. Right answer: (1 − α) + α·C, where α is the cost weight and
    C = 1 − clip((√c − p5) / (p95 − p5), 0, 1) falls with the completion-token cost c of all calls (C = 0.5 where
    p95 − p5 < 1e-8). `right` is 1 for an exact match and 0 otherwise, or the recorded quality where F1 stands in
    [ours: the paper only says that it may].
    """
    if format_ < 0:
        return -1.0
    return right * ((1.0 - cost_weight) + cost_weight * saved_share(output_cost_usd, p5, p95))


@kernel
def router_r1_fixed(right: float, format_: float, cost_usd: float, cost_weight: float, p5: float, p95: float) -> float:
    """`router_r1` with costs that count on wrong answers too [ours]: format wrong −1, else (1 − α) · right + α·C.

    `cost_usd` is all that the episode cost, prompts and the router's own tokens included; p5 and p95 belong to it.
    """
    if format_ < 0:
        return -1.0
    return (1.0 - cost_weight) * right + cost_weight * saved_share(cost_usd, p5, p95)


@kernel
def saved_share(cost_usd: float, p5: float, p95: float) -> float:
    """Router-R1's C: 1 at √cost ≤ p5, 0 at √cost ≥ p95, 0.5 where the two are as good as one."""
    # The code's threshold of 1e-8 is for costs in token·USD per million; ours are in USD, √1e-6 of that.
    if p95 - p5 < 1e-11:
        return 0.5
    return 1.0 - min(max((math.sqrt(cost_usd) - p5) / (p95 - p5), 0.0), 1.0)


@kernel
def ares(success: Any, mean_step: Any) -> Any:
    """Ares' reward of whole episodes (arXiv 2603.07915): 1[success] · (5 + mean over the steps of their cost).

    The formula is reconstructed from the paper's numbers [ours]; its −1 for bad format belongs to text. Known faults:
    failures cost nothing, and since steps are averaged a longer episode costs no more than a short one.
    """
    return success * (ARES_SUCCESS + mean_step)


@kernel
def push(recent: np.ndarray, value: float) -> tuple[float, float]:
    """Adds a value to the latest ones; returns their 5th and 95th percentile, linearly interpolated.

    `recent` (2, RECENT + 1): how many values there have been and the values; behind them, the values in order.
    """
    size = recent.shape[1] - 1
    pushed = int(recent[0, 0])
    oldest = 1 + pushed % size
    held, k = min(pushed + 1, size), min(pushed + 1, size)
    if pushed >= size:  # the new value takes the place of the oldest
        k = 1
        while recent[1, k] != recent[0, oldest]:
            k += 1
    while k > 1 and recent[1, k - 1] > value:
        recent[1, k] = recent[1, k - 1]
        k -= 1
    while k < held and recent[1, k + 1] < value:
        recent[1, k] = recent[1, k + 1]
        k += 1
    recent[1, k] = recent[0, oldest] = value
    recent[0, 0] += 1.0
    return quantile(recent[1], held, 0.05), quantile(recent[1], held, 0.95)


@kernel
def quantile(ordered: np.ndarray, size: int, share: float) -> float:
    """The quantile `share` of the values 1 to `size`, which are sorted."""
    at = share * (size - 1)
    below = math.floor(at)
    above = min(below + 1, size - 1)
    return ordered[1 + below] + (at - below) * (ordered[1 + above] - ordered[1 + below])


class RewardRules(NamedTuple):
    """Which reward, and its constants, as kernels read them."""

    name: int  # index of REWARDS
    f1: bool  # of router_r1: the recorded quality stands for an exact match
    running: bool  # of router_r1: percentiles over the last episodes, not those frozen on train
    c_ref: float
    l_ref: float
    root_cost_p5: float
    root_cost_p95: float


@kernel
def replay_reward(rules: RewardRules, recent: np.ndarray, slots: np.ndarray, i: int, ended: bool) -> float:
    """The reward of one step of slot `i`: `linear` at every step, `router_r1` where it `ended`.

    A slot has the reward vector of this step, the totals with it, and the weights. For `recent` see `push`.
    """
    me = slots[i]
    if rules.name == LINEAR:
        quality, cost_usd, latency_s, format_ = me.vector[0], me.vector[1], me.vector[2], me.vector[3]
        c_ref, l_ref = rules.c_ref, rules.l_ref
        return linear(quality, cost_usd, latency_s, me.cost_weight, me.latency_weight, c_ref, l_ref) + format_
    if not ended:
        return 0.0
    p5, p95 = rules.root_cost_p5, rules.root_cost_p95
    if rules.running:
        p5, p95 = push(recent, math.sqrt(me.output_cost_usd))
    right = me.quality if rules.f1 else (1.0 if me.quality >= EXACT_MATCH else 0.0)
    return router_r1(right, me.format, me.output_cost_usd, me.cost_weight, p5, p95)


REWARDS = (
    "linear",
    "router_r1",
    "ares",  # of EffortRoute
    "utility",  # of ToolGraph, see rlroute.envs.tool_graph.utility
)
LINEAR, ROUTER_R1, ARES, UTILITY = range(len(REWARDS))
ARES_SUCCESS = 5.0
ARES_STEP = (-0.2, -0.5, -1.0)  # of a step at low, mid and high effort


def ares_step_costs(num_levels: int) -> np.ndarray:
    """(num_levels,) reward of one step by level from the least effort to the most: −0.2, −0.5, −1.0 for three.

    For another number of levels they lie on a geometric line between the ends [ours].
    """
    if num_levels == len(ARES_STEP):
        return np.array(ARES_STEP)
    return -np.geomspace(-ARES_STEP[0], -ARES_STEP[-1], num_levels)


def reward_rules(name: str, reference: Reference, *, metric: str = "em", window: str = "frozen") -> RewardRules:
    """The reward called `name` in the units of `reference`."""
    if name not in REWARDS:
        raise ValueError(f"unknown reward {name!r}: expected one of {list(REWARDS)}")
    return RewardRules(
        REWARDS.index(name),
        metric == "f1",
        window == "running",
        float(reference.cost_usd),
        float(reference.latency_s),
        float(reference.root_cost_p5),
        float(reference.root_cost_p95),
    )
