"""Frontiers over weights, and the best mix of single choices.

What is chosen (vertices of a hull, shares of a mix) is chosen on val; what is reported is scored on test.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rlroute import metrics
from rlroute.evaluation import Evaluation, Score
from rlroute.policies import mix_weights

Floats = NDArray[np.float64]


def best_mix_at_cost(
    val: Evaluation, test: Evaluation, singles: Sequence[str], costs: Sequence[float], name: str = "best mix"
) -> None:
    """Add to `test` the mix of single choices that spends `costs[i]` at setting i, vertices chosen on `val`.

    An episode's score is its expected score under the mix, which is exact: the coin is not tossed. Single
    choices are those whose score is the same at every setting but for the weight in its reward.
    """
    val_points = np.array([[float(x[0]) for x in val.points(s)] for s in singles])
    scores, details = [], []
    for i, cost in enumerate(costs):
        weights = mix_weights(val_points[:, 0].tolist(), val_points[:, 1].tolist(), float(cost))
        used = np.flatnonzero(weights > 0)
        parts = [(weights[k], test.scores[singles[k]][i]) for k in used.tolist()]
        scores.append(
            Score(
                parts[0][1].group,
                *(
                    np.sum([w * getattr(s, f) for w, s in parts], axis=0)
                    for f in ("quality", "cost_usd", "reward", "success", "violation", "overspend_usd")
                ),
            )
        )
        details.append(" + ".join(f"{weights[k]:.0%} {singles[k]}" for k in used.tolist()))
    test.add(name, "reference", scores, details)


@dataclass(frozen=True)
class Frontier:
    """A policy's frontier over settings: hull vertices chosen on val, figures of those vertices on test."""

    policy: str
    cost_usd: Floats
    quality: Floats
    aiq: float  # paper's definition, over the pool's cost range
    aiq_routerbench_code: float
    quality_gain: float  # at the cost of the best single choice, over its quality
    cost_to_match: float  # share of the best single choice's cost that gives its quality; NaN if never


def frontier(
    policy: str,
    val: tuple[Floats, Floats],
    test: tuple[Floats, Floats],
    singles: tuple[Floats, Floats],
    best: int,
) -> Frontier:
    """From (cost, quality) of the policy on val and on test, in the same order.

    `singles` are the (cost, quality) of the single choices on test, `best` the one that did best on val.
    """
    vertices = metrics.upper_hull(*val)
    cost, quality = test[0][vertices], test[1][vertices]
    pool_cost, pool_quality = singles
    low, high = float(pool_cost.min()), float(pool_cost.max())
    spread = high > low
    match = metrics.cost_to_reach(cost, quality, float(pool_quality[best]))
    return Frontier(
        policy=policy,
        cost_usd=cost,
        quality=quality,
        aiq=metrics.aiq(cost, quality, low, high) if spread else float("nan"),
        aiq_routerbench_code=metrics.aiq_routerbench_code(cost, quality, high) if spread else float("nan"),
        quality_gain=float(metrics.quality_at(cost, quality, pool_cost[best]) - pool_quality[best]),
        cost_to_match=match / float(pool_cost[best]) if pool_cost[best] > 0 else float("nan"),
    )
