"""The reward of ToolGraph: what the end is worth, minus what was spent and what harm was done."""

from __future__ import annotations

from rlroute.jit import kernel

GOAL_VALUE, ESCALATED_VALUE = 1.0, 0.1
HARM = 1.0  # of a silent failure, of every repeated side effect, of every irreversible effect under a true risk


@kernel
def utility(
    value: float,  # of the end: goal 1, demoted its own value, escalated 0.1, else 0
    harms: int,  # silent failures, repeated side effects and effects under a true risk
    cost_usd: float,  # of calls, failed ones included
    latency_s: float,
    model_calls: int,
    cost_weight: float,  # w_c, 0.1 by default
    latency_weight: float,  # w_l, 0 by default
    model_cost: float,  # c_model
    cheapest_usd: float,  # cost of the cheapest outage-free completion
    l_ref: float,  # seconds
) -> float:
    """value − w_c · cost / cheapest − w_l · latency / l_ref − c_model · model calls − harms [ours].

    Of one step: summed over an episode it is the episode's utility.
    """
    spent = cost_weight * cost_usd / cheapest_usd + latency_weight * latency_s / l_ref
    return value - spent - model_cost * model_calls - HARM * harms
