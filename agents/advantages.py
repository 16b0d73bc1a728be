"""Advantages from columns: how much better a decision, or a whole episode, went than was to be expected.

Columns are (T, N): one row a step, one column a slot. Groups are (G, K): G tasks, each played by K slots.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating]

SAME = 1e-8  # returns of a group that lie within this of each other are equal


def gae(
    rewards: Floats,
    values: Floats,
    last_values: Floats,
    terminated: NDArray[np.bool_],
    truncated: NDArray[np.bool_],
    final_values: Floats,
    gamma: float,
    lambda_: float,
) -> Floats:
    """Generalised advantage estimates (Schulman et al. 2016, equation 16), (T, N), of same-step autoreset columns.

    `rewards`, `values` (of the observation before each step), `terminated` and `truncated` are (T, N);
    `last_values` (N,) belong to the observation after the last step. A terminated step has no value after it. A
    truncated one has that of the observation at which its episode was cut, `final_values` (T, N), read only there;
    nothing is carried across an end. Targets of the value function are the advantages plus `values`.
    """
    following = np.concatenate([values[1:], last_values[None]])
    following = np.where(terminated, 0.0, np.where(truncated, final_values, following))
    surprise = rewards + gamma * following - values
    carry = gamma * lambda_ * ~(terminated | truncated)
    advantages = np.empty_like(surprise, dtype=np.float32)
    carried = np.zeros_like(surprise[0])
    for t in range(len(surprise) - 1, -1, -1):
        carried = surprise[t] + carry[t] * carried
        advantages[t] = carried
    return advantages


def group_relative(returns: Floats, anchors: tuple[Floats, ...] = (), scale: bool = False) -> Floats:
    """GRPO (Shao et al. 2024): return minus its group's mean, (G, K); with `scale` over the group's deviation.

    Scaling weighs groups equally that differ in how much there was to choose, so that nearly settled tasks count as
    much as open ones (Liu et al. 2025); it is therefore off by default. A group of equal returns teaches nothing.
    """
    _refuse_anchors(anchors)
    advantages = returns - returns.mean(axis=1, keepdims=True)
    if scale:
        deviation = returns.std(axis=1, keepdims=True)
        advantages = np.where(deviation > SAME, advantages / np.maximum(deviation, SAME), 0.0)
    return advantages


def leave_one_out(returns: Floats, anchors: tuple[Floats, ...] = ()) -> Floats:
    """RLOO (Ahmadian et al. 2024): return minus the mean of the others of its group, (G, K)."""
    _refuse_anchors(anchors)
    size = returns.shape[1]
    if size < 2:
        raise ValueError(f"groups of {size}: expected at least 2, each return is compared with the others")
    return (returns - returns.mean(axis=1, keepdims=True)) * (size / (size - 1))


def anchored(returns: Floats, anchors: tuple[Floats, ...]) -> Floats:
    """Reference-guided advantages of BoPO (arXiv 2602.21227), (G, K); the formula is [ours].

    A_i = R_i − mean({R_j} ∪ anchors): what reference policies earn on the same task, each (G,), joins the group's mean,
    so that a group of equal returns still learns whether they are good. Scaled by the standard deviation of all
    returns of the batch, not of the group: a group without variance keeps a finite advantage.
    """
    beside = np.stack(anchors, axis=1) if anchors else np.empty((len(returns), 0))
    advantages = returns - np.concatenate([returns, beside], axis=1).mean(axis=1, keepdims=True)
    deviation = float(returns.std())
    return advantages / deviation if deviation > SAME else advantages


def share_without_variance(returns: Floats) -> float:
    """The share of groups (G, K) whose returns are all equal, from which a plain group mean learns nothing."""
    return float((np.ptp(returns, axis=1) <= SAME).mean())


def _refuse_anchors(anchors: tuple[Floats, ...]) -> None:
    if anchors:
        raise ValueError(f"found {len(anchors)} anchors, expected none: only `anchored` compares with them")
