"""The reward of ToolGraph: what the end is worth, minus what was spent and what harm was done."""

from __future__ import annotations

import numpy as np

GOAL_VALUE, ESCALATED_VALUE = 1.0, 0.1
HARM = 1.0  # of a silent failure, of every repeated side effect, of every irreversible effect under a true risk


def utility(
    value: np.ndarray,  # (N,) of the end: goal 1, demoted its own value, escalated 0.1, else 0
    harms: np.ndarray,  # (N,) silent failures, repeated side effects and effects under a true risk
    cost_usd: np.ndarray,  # (N,) of calls, failed ones included
    latency_s: np.ndarray,  # (N,)
    model_calls: np.ndarray,  # (N,)
    cost_weight: np.ndarray,  # (N,) w_c, 0.1 by default
    latency_weight: np.ndarray,  # (N,) w_l, 0 by default
    model_cost: np.ndarray,  # (N,) c_model
    cheapest_usd: np.ndarray,  # (N,) cost of the cheapest outage-free completion
    l_ref: float,  # seconds
) -> np.ndarray:
    """value − w_c · cost / cheapest − w_l · latency / l_ref − c_model · model calls − harms, (N,) [ours].

    Of one step: summed over an episode it is the episode's utility.
    """
    spent = cost_weight * cost_usd / cheapest_usd + latency_weight * latency_s / l_ref
    return np.asarray(value - spent - model_cost * model_calls - HARM * harms)
