"""Trains a text router with BoPO: ``python agents/trl/bopo.py --env rlroute/BudgetRouteText-v0 --out OUT``.

Boundary-guided policy optimisation (arXiv 2602.21227, which released no code) of a language model: BoSFT's
demonstrations for a start, then GRPO on a reward that knows how hard a task is, with an advantage anchored at the two
boundary policies `[ours]`. What those do is recorded once from the log (`rlroute.envs.budget_route.boundary`), what
they are worth is in `rlroute.envs.budget_route.anchors`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import gymnasium as gym

from rlroute.agents.advantages import anchored, group_relative
from rlroute.agents.trl.arguments import parse
from rlroute.agents.trl.evaluate import episodes_of
from rlroute.agents.trl.rollouts import Rollout
from rlroute.agents.trl.trainer import Returns
from rlroute.agents.trl.training import RolloutArguments, train_on_episodes
from rlroute.envs import entry
from rlroute.envs.budget_route.anchors import Anchors, RewardArguments
from rlroute.envs.budget_route.boundary import RunArguments, boundary_runs

FAMILY = "rlroute/BudgetRoute-v0"


@dataclass(frozen=True)
class BoPOArguments(RolloutArguments):
    """The knobs of BoPO; the comment beside each is its help text."""

    env: str = "rlroute/BudgetRouteText-v0"  # id of an environment of texts
    anchors: bool = True  # anchor advantages at the boundary policies; without: GRPO's advantage on the same reward
    bonus: float = 0.5  # beta, what a success on a Hard task is worth beside 1; 0 without the difficulty bonus
    cost: str = "calls"  # what an episode costs: expensive "calls", as in the paper's experiments, or "usd"
    constant_weight: float = 0.3  # lambda, the weight of cost; negative: each episode's own cost weight
    boundary_runs: int = 5  # K, runs of always-small on every task and cap, and as many of always-large
    rollouts: int = 12  # N, runs with P(large) = k/N, among which experts are looked for


def train(arguments: BoPOArguments) -> Path:
    """Trains for `arguments.steps` updates and returns the policy folder, ``OUT/policy``.

    Decoding is constrained by the budget (paper, equation 9) unless the arguments of the environment say otherwise.
    """
    if entry(arguments.env).id != FAMILY:
        raise ValueError(f"BoPO on {arguments.env!r}: expected the text face of {FAMILY!r}, with small and large")
    arguments = replace(arguments, env_arguments={"constrained": True, **arguments.env_arguments})
    shaping = BoundaryShaping(arguments)
    estimator = anchored if arguments.anchors else group_relative
    return train_on_episodes("BoPO", arguments, estimator, shaping)


class BoundaryShaping:
    """Returns of episodes, and with anchors R_S and R_E of every group, by the boundary runs of its task and cap."""

    def __init__(self, arguments: BoPOArguments) -> None:
        env: Any = gym.make(arguments.env, disable_env_checker=True, **arguments.env_arguments).unwrapped
        weight = None if arguments.constant_weight < 0 else arguments.constant_weight
        numeric = env.dynamics.arguments
        given = {field.name: getattr(numeric, field.name) for field in fields(numeric)}
        runs = boundary_runs(given, RunArguments(arguments.boundary_runs, arguments.rollouts))
        self.table = Anchors(runs, RewardArguments(arguments.bonus, arguments.cost, weight))
        self.cost, self.anchored, self.size = arguments.cost, arguments.anchors, arguments.group_size

    def __call__(self, rollouts: Sequence[Rollout]) -> Returns:
        """Returns (N,) and anchors, each (N / group size,).

        Malformed turns are the text face's own: each takes 1 from the return, as it does from the reward.
        """
        played = episodes_of(rollouts)
        cost = played.expensive_calls if self.cost == "calls" else played.cost_usd
        scores = self.table.score(played.task, played.budget_calls, played.cost_weight, played.success, cost)
        returns = scores.returns - [len(rollout.faults) for rollout in rollouts]
        if not self.anchored:
            return returns, ()
        first = slice(None, None, self.size)  # a group shares task, cap and preference
        return returns, (scores.r_small[first], scores.r_expert[first])


if __name__ == "__main__":
    print(train(parse(BoPOArguments, (__doc__ or "").split("\n")[0])))
