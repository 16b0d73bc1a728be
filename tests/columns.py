"""Small columnar algorithms on the toy family, for tests of runner, learner and restoring."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from rlroute.agents.rllib import grpo, ppo

ENV = "bandit:toy/Bandit-v0"
SMALL = ppo.PPOArguments(
    total_steps=3000, num_envs=32, rollout_length=16, minibatch=256, hidden=16, checkpoint_every=1, text_noise=0.0
)
SMALL_GROUPS = grpo.GRPOArguments(
    total_steps=3000, num_envs=32, group_size=8, minibatch=64, hidden=16, checkpoint_every=1, text_noise=0.0
)


def config(knobs: dict[str, Any] | None = None, **env_arguments: Any) -> Any:
    """PPO's configuration on the bandit."""
    return ppo.build_config(ENV, env_arguments, replace(SMALL, **(knobs or {})))


def group_config(knobs: dict[str, Any] | None = None, **env_arguments: Any) -> Any:
    """GRPO's configuration on the bandit."""
    return grpo.build_config(ENV, env_arguments, replace(SMALL_GROUPS, **(knobs or {})))
