"""Trains a router with GRPO on one environment: ``python agents/rllib/grpo.py ENV OUT`` or `train`.

Group-relative policy optimisation (Shao et al. 2024): every task is played by a group of slots that share preference
and budget, and the advantage of an episode is its return against its group's mean. There is no critic.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlroute.agents.rllib.arguments import TrainingArguments
from rlroute.agents.rllib.configure import configure
from rlroute.agents.rllib.train import Progress, run_command_line, train_algorithm

if TYPE_CHECKING:
    from rlroute.agents.rllib.algorithm import ColumnarConfig


@dataclass(frozen=True)
class GroupArguments(TrainingArguments):
    """The knobs of algorithms that learn from groups; the comment beside each is its help text."""

    num_envs: int = 1024  # environments stepped side by side, by every runner: one episode of each between two updates
    group_size: int = 8  # of them that play the same task with the same preference and budget
    epochs: int = 1  # passes over every batch


@dataclass(frozen=True)
class GRPOArguments(GroupArguments):
    """The knobs of GRPO; the comment beside each is its help text."""

    scale: bool = False  # divide by the group's deviation, so that nearly settled tasks count as open ones


def train(
    env_id: str,
    env_arguments: Mapping[str, Any],
    out_dir: str | Path,
    arguments: GRPOArguments | None = None,
    progress: Progress | None = None,
    resume: bool = False,
) -> Path:
    """`rlroute.agents.rllib.train.train_algorithm` with GRPO."""
    arguments = arguments or GRPOArguments()
    return train_algorithm("GRPO", build_config, env_id, env_arguments, out_dir, arguments, progress, resume)


def build_config(
    env_id: str, env_arguments: Mapping[str, Any], arguments: GRPOArguments, steps_done: int = 0
) -> ColumnarConfig:
    """RLlib's configuration of a run; one resumed at `steps_done` draws other numbers than at its start."""
    from rlroute.agents.advantages import group_relative

    estimator = partial(group_relative, scale=arguments.scale)
    return group_config(env_id, env_arguments, arguments, steps_done, estimator)


def group_config(
    env_id: str,
    env_arguments: Mapping[str, Any],
    arguments: GroupArguments,
    steps_done: int,
    estimator: Callable[..., Any],
    shaping: Callable[..., Any] | None = None,
) -> ColumnarConfig:
    """RLlib's configuration of an algorithm that learns from groups; for `shaping` see `ColumnarConfig.training`."""
    from rlroute.agents.rllib.algorithm import ColumnarConfig

    config = configure(ColumnarConfig(), env_id, env_arguments, arguments, "disabled", "auto", steps_done)
    episodes = arguments.num_envs * max(1, arguments.num_env_runners)
    return config.training(
        group_size=arguments.group_size,
        estimator=estimator,
        shaping=shaping,
        overlap=arguments.overlap,
        use_critic=False,
        minibatch_size=arguments.minibatch,
        train_batch_size_per_learner=max(arguments.minibatch, episodes),  # RLlib asks for one; a wave has no set size
    )


if __name__ == "__main__":
    run_command_line(GRPOArguments, train, (__doc__ or "").split("\n")[0])
