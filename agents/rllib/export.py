"""From an RLlib algorithm to a policy folder that acts without torch and Ray."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import ray
from ray.rllib.algorithms.algorithm import Algorithm

from rlroute.policy import save_policy


def export_policy(
    algorithm: Algorithm,
    path: str | Path,
    training: Mapping[str, Any] | None = None,
    metrics: Mapping[str, Any] | None = None,
) -> Path:
    """Writes the algorithm's current weights as a policy folder.

    The environment describes itself: `policy_card()` (family, choices, layout, featuriser, log, reward) and
    `policy_tensors()` (arrays its observation is made with). `training` says how the weights came about,
    `metrics` how well they do.
    """
    config, module = algorithm.config, algorithm.get_module()
    env = gym.make_vec(config.env, num_envs=1, vectorization_mode="vector_entry_point", **config.env_config).unwrapped
    card = {
        **env.policy_card(),
        "network": {"hidden": int(module.model_config["hidden"])},
        "training": {"trainer": f"ray {ray.__version__}", **(training or {})},
        "metrics": dict(metrics or {}),
    }
    parameters = {name: np.asarray(value, np.float32) for name, value in module.get_state().items()}
    return save_policy(path, card, parameters, env.policy_tensors())
