"""Trains a router with BoPO on BudgetRoute: ``python agents/rllib/bopo.py ENV OUT`` or `train`.

Boundary-guided policy optimisation (arXiv 2602.21227, which released no code): GRPO on a reward that knows how hard a
task is, with an advantage anchored at the two boundary policies, from a supervised start. What the boundary policies do
is recorded once from the log (`rlroute.envs.budget_route.boundary`), what they are worth is in
`rlroute.envs.budget_route.anchors`. Beyond the paper, which trains at one λ, `[ours]` trains over a range of caps and
preferences, both observed, and anchors every group at its own. At inference the action mask is the paper's
budget-constrained decoding, its equation (9).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rlroute.agents.rllib.grpo import GroupArguments, group_config
from rlroute.agents.rllib.train import Progress, run_command_line, train_algorithm
from rlroute.envs.budget_route.anchors import Anchors, RewardArguments
from rlroute.envs.budget_route.boundary import RunArguments, boundary_runs, runs_env
from rlroute.envs.budget_route.demonstrations import labels
from rlroute.envs.terms import ends

if TYPE_CHECKING:
    from rlroute.agents.rllib.algorithm import ColumnarConfig
    from rlroute.rollout import Episodes

FAMILY = "rlroute/BudgetRoute-v0"


@dataclass(frozen=True)
class BoPOArguments(GroupArguments):
    """The knobs of BoPO; the comment beside each is its help text."""

    synthesis: bool = True  # data synthesis: start from a clone of the demonstrations (BoSFT), unless start is given
    anchors: bool = True  # anchor advantages at the boundary policies; without: GRPO's advantage
    bonus: float = 0.5  # beta, what a success on a Hard task is worth beside 1; 0 without the difficulty bonus
    cost: str = "calls"  # what an episode costs: expensive "calls", as in the paper's experiments, or "usd"
    constant_weight: float = -1.0  # a constant lambda as in the paper; negative: each episode's own cost weight
    boundary_runs: int = 5  # K, runs of always-small on every task and cap, and as many of always-large
    rollouts: int = 12  # N, runs with P(large) = k/N, among which experts are looked for
    boundary_seed: int = 0  # of these runs
    clone_epochs: int = 3  # passes of the supervised start over the demonstrations

    @property
    def runs(self) -> RunArguments:
        """How often the boundary policies are run."""
        return RunArguments(self.boundary_runs, self.rollouts, self.boundary_seed)

    @property
    def reward(self) -> RewardArguments:
        """What episodes are worth."""
        constant = None if self.constant_weight < 0 else self.constant_weight
        return RewardArguments(self.bonus, self.cost, constant)


def train(
    env_id: str,
    env_arguments: Mapping[str, Any],
    out_dir: str | Path,
    arguments: BoPOArguments | None = None,
    progress: Progress | None = None,
    resume: bool = False,
) -> Path:
    """`rlroute.agents.rllib.train.train_algorithm` with BoPO; the supervised start is written to ``out_dir/bosft``."""
    arguments = arguments or BoPOArguments()
    _refuse_unusable(env_id, env_arguments, arguments)
    if arguments.synthesis and not arguments.start:
        start = Path(out_dir) / "bosft"
        if not (resume and start.exists()):
            supervised_start(env_arguments, start, arguments)
        arguments = replace(arguments, start=str(start))
    return train_algorithm("BoPO", build_config, env_id, env_arguments, out_dir, arguments, progress, resume)


def build_config(
    env_id: str, env_arguments: Mapping[str, Any], arguments: BoPOArguments, steps_done: int = 0
) -> ColumnarConfig:
    """RLlib's configuration of a run; one resumed at `steps_done` draws other numbers than at its start."""
    from rlroute.agents.advantages import anchored, group_relative

    _refuse_unusable(env_id, env_arguments, arguments)
    shaping = BoundaryShaping(env_arguments, arguments)
    estimator = anchored if arguments.anchors else group_relative
    return group_config(env_id, env_arguments, arguments, steps_done, estimator, shaping)


def supervised_start(env_arguments: Mapping[str, Any], path: str | Path, arguments: BoPOArguments) -> Path:
    """BoSFT: a policy folder that imitates the demonstrations of all train tasks, under every cap of the range."""
    from rlroute.agents.rllib.cloning import CloneArguments, Demonstrations, imitate

    anchors = Anchors(boundary_runs(env_arguments, arguments.runs), arguments.reward)
    shown = labels(anchors, env_arguments)
    unknown = np.full(len(shown.action), np.nan, np.float32)  # nothing is learned of values: there is no critic
    knobs = CloneArguments(
        epochs=arguments.clone_epochs,
        minibatch=arguments.minibatch,
        hidden=arguments.hidden,
        text_noise=arguments.text_noise,
        seed=arguments.seed,
    )
    given = Demonstrations(shown.observation, shown.action_mask, shown.action, unknown)
    return imitate(runs_env(env_arguments, 1, np.inf), given, "BoSFT", path, knobs)


class BoundaryShaping:
    """Returns of episodes, and the two anchors of every group, by the boundary runs of its task and cap.

    It is pickled with the configuration, but not what it has read: whoever unpickles it reads that from the cache, or
    records it again.
    """

    def __init__(self, env_arguments: Mapping[str, Any], arguments: BoPOArguments) -> None:
        self.env_arguments, self.arguments = dict(env_arguments), arguments

    @cached_property
    def table(self) -> Anchors:
        return Anchors(boundary_runs(self.env_arguments, self.arguments.runs), self.arguments.reward)

    def __call__(self, episodes: Episodes) -> tuple[np.ndarray, tuple[np.ndarray, ...]]:
        """Returns (N,) of a wave of N episodes, and with anchors R_S and R_E of its groups, each (N / group size,)."""
        cost = episodes.expensive_calls if self.arguments.cost == "calls" else episodes.cost_usd
        scores = self.table.score(episodes.task, episodes.budget_calls, episodes.cost_weight, episodes.success, cost)
        if not self.arguments.anchors:
            return scores.returns, ()
        first = slice(None, None, self.arguments.group_size)  # a group shares task, cap and preference
        return scores.returns, (scores.r_small[first], scores.r_expert[first])

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "table"}


def _refuse_unusable(env_id: str, env_arguments: Mapping[str, Any], arguments: BoPOArguments) -> None:
    """Faults that show before anything is recorded."""
    if env_id.split(":")[-1] != FAMILY:
        raise ValueError(f"BoPO on {env_id!r}: expected {FAMILY!r}, whose choices are small or large")
    preference = env_arguments.get("preference", 0.0)
    highest, most = ends(preference)[1], 1 + arguments.bonus
    if arguments.reward.cost_weight is None and highest >= most:
        raise ValueError(
            f"preference={preference!r}: expected weights below 1 + bonus = {most:g}, else failing cheaply pays more "
            "than any success"
        )


if __name__ == "__main__":
    run_command_line(BoPOArguments, train, (__doc__ or "").split("\n")[0])
