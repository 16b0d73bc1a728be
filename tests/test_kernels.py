"""Kernels: compiled and interpreted ones play the same episodes, bit for bit."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from logs import budget_vec, think_vec
from numpy.testing import assert_array_equal
from random_logs import many_questions, many_tasks

from rlroute import jit
from rlroute.envs import REGISTRY, episodes
from rlroute.envs.effort_route.env import EffortRouteVectorEnv
from rlroute.envs.episodes import MANY
from rlroute.log import Log

pytest.importorskip("numba")
pytestmark = [
    pytest.mark.usefixtures("handmade"),
    pytest.mark.filterwarnings("ignore::rlroute.log.LogWarning"),
]

SLOTS, STEPS = 7, 200
FEW, MANY_STEPS = 8, 60
COMPARED = ("rlroute/ThinkRoute-v0",)  # in quick tests
Make = Callable[..., Any]


def effort_vec(log: Log, num_envs: int, **arguments: Any) -> Any:
    return EffortRouteVectorEnv(num_envs, log=log, split="test", **arguments)


def played(env: Any) -> list[np.ndarray]:
    """All that a run shows under a fixed rule, which breaks the mask now and then."""
    observation, info = env.reset(seed=3)
    story = [observation, info["action_mask"]]
    for k in range(STEPS):
        mask = info["action_mask"]
        score = np.sin(3.7 * k + 11.3 * np.arange(SLOTS)[:, None] + 5.1 * np.arange(mask.shape[1]))
        action = np.where(mask == 1, score, -2).argmax(axis=1)
        action[k % SLOTS] = k % mask.shape[1]
        observation, reward, terminated, truncated, info = env.step(action)
        story += [
            observation,
            reward,
            terminated,
            truncated,
            info["action_mask"],
            info["reward_vector"],
            info["totals"],
        ]
    return story


@pytest.mark.parametrize(
    ("make", "log", "arguments"),
    [
        (think_vec, many_questions, {"preference": (0.1, 1.0), "latency_preference": (0.1, 1.0)}),
        (think_vec, many_questions, {"checker": "action", "check_cost_usd": 1e-5, "budget_usd": (200e-6, 900e-6)}),
        (think_vec, many_questions, {"pool_size": (1, 3), "budget_usd": 900e-6, "obs": "index", "checker": "action"}),
        (think_vec, many_questions, {"checker": None, "commit": "plurality", "repeat": "same", "max_rounds": 6}),
        (
            think_vec,
            many_questions,
            {"commit": "verdict", "reward": "router_r1", "max_episode_steps": 5},
        ),
        (think_vec, many_questions, {"obs": "index", "reward": "router_r1", "reward_window": "running"}),
        (budget_vec, many_tasks, {"preference": (0.1, 1.0), "budget_calls": (0, 4)}),
        (budget_vec, many_tasks, {"budget_usd": (0.001, 0.003), "prompt_cache": False, "latency_preference": 0.3}),
        (
            budget_vec,
            many_tasks,
            {"obs": "index", "reward": "router_r1", "reward_window": "running"},
        ),
        (effort_vec, many_tasks, {"reward": "ares", "budget_calls": 3}),
    ],
)
@pytest.mark.parametrize("constants", [False, pytest.param(True, marks=pytest.mark.slow)])  # True compiles anew each
def test_compiled_and_interpreted_kernels_give_the_same_bits(
    monkeypatch: pytest.MonkeyPatch, make: Make, log: Callable[[], Log], arguments: dict[str, Any], constants: bool
) -> None:
    stories = []
    monkeypatch.setattr(episodes, "MANY", 1 if constants else MANY)
    for switch in ("1", "0"):
        monkeypatch.setenv("RLROUTE_JIT", switch)
        assert jit.enabled() == (switch == "1")
        stories.append(played(make(log(), SLOTS, autoreset="next_step", **arguments)))
    for compiled, interpreted in zip(*stories, strict=True):
        assert compiled.dtype == interpreted.dtype
        assert_array_equal(compiled, interpreted)
    assert sum(ended.sum() for ended in stories[0][4::7]) > SLOTS


@pytest.mark.parametrize(
    "env_id", [pytest.param(row.id, marks=[pytest.mark.slow] * (row.id not in COMPARED)) for row in REGISTRY]
)
def test_constants_compiled_in_for_many_slots_change_no_bit(env_id: str) -> None:
    wide, narrow = (
        gym.make_vec(env_id, num_envs=num_envs, vectorization_mode="vector_entry_point").unwrapped
        for num_envs in (MANY, FEW)
    )
    for group in (1, 4):  # which is no constant
        for env in (wide, narrow):
            env.reset(seed=4, options={"group": group})
        ends = 0
        for k in range(MANY_STEPS):
            mask = wide.dynamics.action_mask
            score = np.sin(3.7 * k + 5.1 * np.arange(mask.size)).reshape(mask.shape)
            action = np.where(mask == 1, score, -2).argmax(axis=1)
            *shown, wide_info = wide.step(action)
            *few, narrow_info = narrow.step(action[:FEW])
            for many, some in zip(shown, few, strict=True):
                assert_array_equal(many[:FEW], some)
            for name in ("action_mask", "reward_vector", "totals"):
                assert_array_equal(wide_info[name][:FEW], narrow_info[name])
            ends += few[2].sum()
        assert ends > 0


@pytest.mark.parametrize("env_id", [row.id for row in REGISTRY])
def test_a_pickled_environment_plays_the_same_episodes(env_id: str) -> None:
    env: Any = gym.make_vec(
        env_id, num_envs=4, vectorization_mode="vector_entry_point", autoreset="same_step"
    ).unwrapped
    env.reset(seed=1)
    copy = pickle.loads(pickle.dumps(env))
    assert_array_equal(env.reset(seed=0)[0], copy.reset(seed=0)[0])
    for _ in range(20):
        action = env.dynamics.action_mask.argmax(axis=1)
        for ours, theirs in zip(env.step(action)[:4], copy.step(action)[:4], strict=True):
            assert_array_equal(ours, theirs)
    assert pickle.loads(pickle.dumps(gym.make(env_id).unwrapped)).layout == env.layout
