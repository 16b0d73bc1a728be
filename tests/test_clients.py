"""A client that nobody here wrote: Stable-Baselines3's PPO trains on every id through `gym.make`."""

from __future__ import annotations

import gymnasium as gym
import numpy as np
import pytest

from rlroute.envs import REGISTRY


@pytest.mark.parametrize("env_id", [row.id for row in REGISTRY])
def test_stable_baselines3_trains_through_the_id_alone(env_id: str) -> None:
    sb3 = pytest.importorskip("stable_baselines3")
    model = sb3.PPO("MlpPolicy", gym.make(f"rlroute:{env_id}"), n_steps=256, batch_size=64, seed=0, device="cpu")
    before = [parameter.detach().numpy().copy() for parameter in model.policy.parameters()]
    model.learn(total_timesteps=1024)
    assert model.num_timesteps == 1024
    assert any(
        not np.array_equal(old, new.detach().numpy())
        for old, new in zip(before, model.policy.parameters(), strict=True)
    )
    assert len(model.ep_info_buffer) > 50
    assert all(np.isfinite(episode["r"]) for episode in model.ep_info_buffer)
    observation, _ = model.env.envs[0].reset(seed=1)
    action, _ = model.predict(observation, deterministic=True)
    assert model.action_space.contains(int(action))
