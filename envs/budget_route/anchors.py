"""Rewards of BoPO, and what they are measured against: the boundary policies on the same task and cap.

Two numbers anchor a group of episodes that share a task, a cap and a preference λ (after BoPO, arXiv 2602.21227):

    C_norm = clip((C − C_min) / (C_max − C_min + ε), 0, 1)                                       (6)
    R      = 1[success] + β · 1[success and Hard] − λ · C_norm                                `[ours]`
    R_S    = mean R of the K runs of always-small
    R_E    = R of the cheapest recorded success where the task is Hard, else mean R of the K runs of always-large

C_min and C_max are the smaller and the larger mean cost of the two boundary policies `[ours]`. A task is, under a cap,

    Easy          if always-small succeeds in at least ⌈K/2⌉ of K runs,
    Hard          if not, and any recorded run succeeds (small, large, or between),
    Intractable   otherwise                                                                   `[ours]`

All of it depends on the group's own cap. λ is the group's own cost weight, the preference that its policy observes;
the paper trains at one constant.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rlroute.envs.budget_route.boundary import BoundaryRuns

Floats = NDArray[np.float64]
EPSILON = 1e-8  # of eq. (6): no cost to tell apart is no cost
COSTS = ("calls", "usd")


class Kind(IntEnum):
    """What the boundary runs make of a task under a cap."""

    EASY = 0
    HARD = 1
    INTRACTABLE = 2


@dataclass(frozen=True)
class RewardArguments:
    """The knobs of BoPO's reward."""

    bonus: float = 0.5  # β, what a success on a Hard task is worth beside 1; 0 without the difficulty bonus
    cost: str = "calls"  # what an episode costs: expensive "calls", as in the paper's experiments, or "usd"
    cost_weight: float | None = None  # a constant λ; None: each episode's own cost weight

    def __post_init__(self) -> None:
        if self.cost not in COSTS:
            raise ValueError(f"cost={self.cost!r}: expected one of {', '.join(map(repr, COSTS))}")
        if not self.bonus >= 0:
            raise ValueError(f"bonus={self.bonus!r}: expected a number ≥ 0")
        if self.cost_weight is not None and not 0 <= self.cost_weight < 1 + self.bonus:
            raise ValueError(
                f"cost_weight={self.cost_weight!r}: expected None or a number in [0, 1 + bonus = {1 + self.bonus:g}), "
                "else failing cheaply pays more than any success"
            )


class Scores(NamedTuple):
    """Episodes and their anchors, each (N,)."""

    returns: Floats
    r_small: Floats  # R_S
    r_expert: Floats  # R_E
    kind: NDArray[np.int8]  # of `Kind`


class Anchors:
    """The taxonomy, the cost range and the anchors of every (cap, task) of recorded runs.

    Attributes, L caps × M tasks: `kind`, `c_min`, `c_max`, `expert` (the run of the cheapest success; −1: none).
    """

    def __init__(self, runs: BoundaryRuns, arguments: RewardArguments | None = None) -> None:
        self.runs, self.arguments = runs, arguments or RewardArguments()
        cost = (runs.calls if self.arguments.cost == "calls" else runs.cost_usd).astype(np.float64)  # (L, M, R)
        self.kind = taxonomy(runs)
        means = np.stack([cost[..., runs.small].mean(axis=-1), cost[..., runs.large].mean(axis=-1)])
        self.c_min, self.c_max = means.min(axis=0), means.max(axis=0)
        self.expert = cheapest_success(runs, cost)
        # R = gain − λ · norm, so that anchors are linear in λ: gains and norms are all there is to keep.
        hard = self.kind == Kind.HARD
        gain = runs.success * (1.0 + self.arguments.bonus * hard[..., None])
        norm = normalised(cost, self.c_min[..., None], self.c_max[..., None])
        at = np.maximum(self.expert, 0)[..., None]

        def expert(of: Floats) -> Floats:
            cheapest = np.take_along_axis(of, at, axis=-1)[..., 0]
            return np.where(hard, cheapest, of[..., runs.large].mean(axis=-1))

        self._small = gain[..., runs.small].mean(axis=-1), norm[..., runs.small].mean(axis=-1)
        self._expert = expert(gain), expert(norm)

    def score(
        self,
        task_rows: ArrayLike,
        budget_calls: ArrayLike,
        cost_weight: ArrayLike,
        success: ArrayLike,
        cost: ArrayLike,
    ) -> Scores:
        """Returns and anchors of N episodes.

        `task_rows` (N,) are rows of root states, `budget_calls` (N,) the caps, infinite where there is none, `cost`
        (N,) expensive calls or USD as `RewardArguments.cost` says. A task or a cap without runs is a ValueError.
        """
        at = self.where(task_rows, budget_calls)
        weight: Any = np.asarray(cost_weight, np.float64)
        if self.arguments.cost_weight is not None:
            weight = np.full(weight.shape, self.arguments.cost_weight)
        kind = self.kind[at]
        gain = np.asarray(success, bool) * (1.0 + self.arguments.bonus * (kind == Kind.HARD))
        norm = normalised(np.asarray(cost, np.float64), self.c_min[at], self.c_max[at])
        small, expert = (of[0][at] - weight * of[1][at] for of in (self._small, self._expert))
        return Scores(gain - weight * norm, small, expert, kind)

    def where(self, task_rows: ArrayLike, budget_calls: ArrayLike) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Positions of N (cap, task) pairs along the first two axes of all arrays."""
        return (
            _find(np.asarray(budget_calls, np.float64), self.runs.caps, "budget_calls"),
            _find(np.asarray(task_rows, np.int64), self.runs.tasks, "task row"),
        )


def taxonomy(runs: BoundaryRuns) -> NDArray[np.int8]:
    """`Kind` of every task under every cap, (L, M)."""
    small = runs.success[..., runs.small].sum(axis=-1)
    easy = small >= -(-runs.arguments.boundary_runs // 2)
    solved = runs.success.any(axis=-1)
    return np.where(easy, Kind.EASY, np.where(solved, Kind.HARD, Kind.INTRACTABLE)).astype(np.int8)


def cheapest_success(runs: BoundaryRuns, cost: Floats) -> NDArray[np.int64]:
    """The run of the cheapest success (L, M), −1 where none succeeds; of equal `cost` (L, M, R) the least USD."""
    of_success = np.where(runs.success, cost, np.inf)
    least = runs.success & (of_success == of_success.min(axis=-1, keepdims=True))
    run = np.where(least, runs.cost_usd, np.inf).argmin(axis=-1)
    return np.where(runs.success.any(axis=-1), run, -1)


def normalised(cost: Floats, c_min: Floats, c_max: Floats) -> Floats:
    """C_norm, eq. (6), in [0, 1]."""
    return np.clip((cost - c_min) / (c_max - c_min + EPSILON), 0.0, 1.0)


def _find(values: NDArray[Any], among: NDArray[Any], what: str) -> NDArray[np.int64]:
    """Positions of `values` in the rising array `among`."""
    at = np.minimum(np.searchsorted(among, values), len(among) - 1)
    wrong = np.flatnonzero(among[at] != values)
    if len(wrong):
        some = ", ".join(f"{x:g}" for x in among[:8]) + (", …" if len(among) > 8 else "")
        raise ValueError(f"{what} {values[wrong[0]]:g} has no boundary runs: expected one of {some}")
    return at.astype(np.int64)
