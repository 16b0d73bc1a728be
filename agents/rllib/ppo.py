"""Trains a router with PPO on one environment: ``python agents/rllib/ppo.py ENV OUT`` or `train`.

Writes ``OUT/policy`` (see `rlroute.policy`) and, on the way, ``OUT/checkpoints``. A run that is killed at any
moment goes on from its last checkpoint with ``--resume``. Checkpoints are RLlib's and hold pickles: resume
only your own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlroute.agents.rllib.arguments import TrainingArguments
from rlroute.agents.rllib.configure import configure
from rlroute.agents.rllib.train import Progress, run_command_line, train_algorithm

if TYPE_CHECKING:
    from ray.rllib.algorithms.ppo import PPOConfig


@dataclass(frozen=True)
class PPOArguments(TrainingArguments):
    """The knobs of PPO; the comment beside each is its help text."""

    rollout_length: int = 16  # steps of each environment between two updates
    gamma: float = 1.0  # discount a step; 1 because episodes end and cost counts the same whenever it is paid
    gae_lambda: float = 0.95  # 1: unbiased advantages; less: less noise, more trust in the value head
    value_weight: float = 0.5  # weight of the value loss
    runner: str = "columnar"  # or "stock": RLlib's own runner and learner, many times slower, for comparison


def train(
    env_id: str,
    env_arguments: Mapping[str, Any],
    out_dir: str | Path,
    arguments: PPOArguments | None = None,
    progress: Progress | None = None,
    resume: bool = False,
) -> Path:
    """`rlroute.agents.rllib.train.train_algorithm` with PPO (Schulman et al. 2017)."""
    arguments = arguments or PPOArguments()
    return train_algorithm("PPO", build_config, env_id, env_arguments, out_dir, arguments, progress, resume)


def build_config(
    env_id: str, env_arguments: Mapping[str, Any], arguments: PPOArguments, steps_done: int = 0
) -> PPOConfig:
    """RLlib's configuration of a run; one resumed at `steps_done` draws other numbers than at its start."""
    from ray.rllib.algorithms.ppo import PPOConfig

    from rlroute.agents.rllib.algorithm import ColumnarConfig

    if arguments.runner not in ("columnar", "stock"):
        raise ValueError(f"runner={arguments.runner!r}: expected 'columnar' or 'stock'")
    stock = arguments.runner == "stock"
    if stock and (arguments.text_noise or arguments.overlap):
        raise ValueError("runner='stock' blurs no texts and overlaps nothing: expected text_noise=0 and overlap=False")
    config = configure(
        PPOConfig() if stock else ColumnarConfig().training(overlap=arguments.overlap),
        env_id,
        env_arguments,
        arguments,
        "next_step" if stock else "same_step",
        arguments.rollout_length,
        steps_done,
    )
    batch = arguments.num_envs * arguments.rollout_length * max(1, arguments.num_env_runners)
    return config.training(
        gamma=arguments.gamma,
        lambda_=arguments.gae_lambda,
        vf_loss_coeff=arguments.value_weight,
        minibatch_size=min(arguments.minibatch, batch),
        train_batch_size_per_learner=batch,
    )


if __name__ == "__main__":
    run_command_line(PPOArguments, train, (__doc__ or "").split("\n")[0])
