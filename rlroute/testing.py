"""A conformance check for routing environments: ``check_routing_env(env)``, for rlroute's own and for yours."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np

from rlroute.rewards import INVALID_ACTION_REWARD, VECTOR_NAMES

MOST_STEPS = 100_000  # of an episode; more than that is taken for no end


def check_routing_env(env: gym.Env, *, episodes: int = 20, seed: int = 0) -> None:
    """Play `episodes` seeded episodes, legal ones and illegal ones, and raise AssertionError where a promise is broken.

    The promises, which Gymnasium's own ``check_env`` does not know about:

    - ``info["action_mask"]`` is int8 of shape (num_actions,) at every reset and step, and equals the mask in a Dict
      observation;
    - observations lie in their space at every step, and in its bounds;
    - a masked action raises nothing, changes no observation, is rewarded with −1 and ends nothing but by time;
    - ``info["reward_vector"]`` is (quality, cost_usd, latency_s, format), finite, with costs and latencies ≥ 0, and
      sums to ``info["totals"]``;
    - quality lies in [0, 1] and is paid in the last step only;
    - every episode ends, and one that is terminated is not truncated as well;
    - the same seed and actions give the same trajectory, bit for bit, in two environments side by side.

    `env` must be freshly made; it is played with and left in an arbitrary state. A spec (from ``gymnasium.make``)
    is needed for the last promise and it is skipped for environments that have none.
    """
    assert isinstance(env.action_space, gym.spaces.Discrete), f"action space {env.action_space}: expected Discrete"
    twin = gym.make(env.spec) if env.spec is not None else None
    rng = np.random.default_rng(seed)
    for episode in range(episodes):
        first_seed = seed if episode == 0 else None
        observation, info = env.reset(seed=first_seed)
        twin_outcome = twin.reset(seed=first_seed) if twin is not None else None
        _check_info(env, observation, info, "reset")
        if twin_outcome is not None:
            _check_same(observation, twin_outcome[0], "reset")
        _check_episode(env, twin, observation, info, rng, illegal=episode % 2 == 1)


def _check_episode(
    env: gym.Env,
    twin: gym.Env | None,
    observation: Any,
    info: dict[str, Any],
    rng: np.random.Generator,
    illegal: bool,
) -> None:
    total = np.zeros(len(VECTOR_NAMES))
    ended = truncated = False
    for _ in range(MOST_STEPS):
        mask = info["action_mask"]
        masked, allowed = np.flatnonzero(mask == 0), np.flatnonzero(mask)
        break_rule = illegal and len(masked) > 0 and len(allowed) > 0 and rng.random() < 0.3
        pool = masked if break_rule or not len(allowed) else allowed
        action = int(rng.choice(pool))
        before = observation
        observation, reward, ended, truncated, info = env.step(action)
        where = f"step with action {action}"
        _check_info(env, observation, info, where)
        if twin is not None:
            twin_observation, twin_reward, twin_ended, twin_truncated, _ = twin.step(action)
            _check_same(observation, twin_observation, where)
            same = (reward, ended, truncated) == (twin_reward, twin_ended, twin_truncated)
            assert same, f"{where}: the same seed gave another outcome in a second environment"
        total += info["reward_vector"]
        if break_rule:
            assert reward == INVALID_ACTION_REWARD, f"{where}: a masked action was rewarded with {reward}, expected −1"
            assert not ended, f"{where}: a masked action terminated the episode"
            assert not np.any(info["reward_vector"]), (
                f"{where}: a masked action has the reward vector {info['reward_vector']}"
            )
            _check_same(observation, before, where + " (masked)")
        assert not (ended and truncated), f"{where}: both terminated and truncated"
        assert ended or info["reward_vector"][0] == 0, f"{where}: quality was paid before the end"
        assert np.allclose(info["totals"], total), f"{where}: totals {info['totals']}, expected {total}"
        if ended or truncated:
            assert 0 <= total[0] <= 1, f"{where}: quality {total[0]}, expected a number in [0, 1]"
            return
    raise AssertionError(f"an episode did not end within {MOST_STEPS} steps: expected termination or a time limit")


def _check_info(env: gym.Env, observation: Any, info: dict[str, Any], where: str) -> None:
    assert env.observation_space.contains(observation), f"{where}: observation outside {env.observation_space}"
    mask = info.get("action_mask")
    assert isinstance(mask, np.ndarray), f"{where}: info has no action_mask array"
    assert mask.dtype == np.int8, f"{where}: action_mask of type {mask.dtype}, expected int8"
    actions = int(env.action_space.n)  # type: ignore[attr-defined]
    assert mask.shape == (actions,), f"{where}: action_mask of shape {mask.shape}, expected ({actions},)"
    assert set(np.unique(mask)) <= {0, 1}, f"{where}: action_mask holds {np.unique(mask)}, expected 0 and 1"
    if isinstance(observation, dict):
        assert np.array_equal(observation["action_mask"], mask), f"{where}: masks of observation and info differ"
    vector = np.asarray(info.get("reward_vector"))
    assert vector.shape == (len(VECTOR_NAMES),), (
        f"{where}: reward_vector of shape {vector.shape}, expected ({len(VECTOR_NAMES)},)"
    )
    assert np.isfinite(vector).all(), f"{where}: reward_vector {vector} is not finite"
    assert (vector[1:3] >= 0).all(), f"{where}: cost or latency below 0 in {vector}"


def _check_same(first: Any, second: Any, where: str) -> None:
    if isinstance(first, dict):
        for name in first:
            _check_same(first[name], second[name], f"{where}, {name}")
        return
    assert np.array_equal(first, second), f"{where}: observations differ where they must be the same"
