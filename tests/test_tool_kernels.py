"""Compiled kernels of ToolGraph do what they do as plain Python, and what is updated step by step is what is known."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from rlroute.envs.tool_graph.env import ToolGraphVectorEnv
from rlroute.envs.tool_graph.observation import observe_goal, observe_progress, observe_terms
from rlroute.envs.tool_graph.progress import believe_all

CASES: dict[str, dict[str, Any]] = {
    "mixed": {"faults": "mixed"},
    "correlated": {"faults": "correlated", "budget_usd": (0.02, 0.08), "budget_calls": (0, 2)},
    "ranges": {"faults": "late", "model_cost": (0.05, 0.5), "preference": (0.01, 1.0), "latency_preference": 0.1},
    "index": {"faults": "transient", "obs": "index", "max_episode_steps": 6},
    "scenario": {"log": "healing-19", "split": "test"},
}


def story(steps: int, num_envs: int, **arguments: Any) -> list[np.ndarray]:
    """All that an environment says in so many steps, a tenth of them illegal or at random."""
    env = ToolGraphVectorEnv(num_envs, **arguments)
    observation, info = env.reset(seed=1)
    rng, told = np.random.default_rng(0), []
    for _ in range(steps):
        mask = info["action_mask"]
        score = rng.random(mask.shape) * (mask + 0.02)
        score[:, 2:4] *= 0.8  # longer episodes
        observation, *outcome, info = env.step(score.argmax(axis=1))
        told += [observation, *outcome, *(value for name, value in info.items() if not name.startswith("_"))]
    return [*told, *env.dynamics.progress.beliefs]


@pytest.mark.parametrize("case", CASES)
def test_compiled_and_interpreted_kernels_agree_bit_for_bit(case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    compiled = story(100, 3, **CASES[case])
    monkeypatch.setenv("RLROUTE_JIT", "0")
    interpreted = story(100, 3, **CASES[case])
    assert len(compiled) == len(interpreted)
    for a, b in zip(compiled, interpreted, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("faults", ["correlated", "wrong", "late"])
def test_what_is_observed_step_by_step_is_what_is_observed_from_nothing(faults: str) -> None:
    env = ToolGraphVectorEnv(8, autoreset="disabled", faults=faults)
    _, info = env.reset(seed=2)
    sight, rng = env.dynamics.game.sight, np.random.default_rng(0)
    for _ in range(12):
        observation, *_, info = env.step((rng.random(info["action_mask"].shape) * info["action_mask"]).argmax(axis=1))
        sight.seen[:] = np.nan
        for i in range(8):
            believe_all(sight.known, i)
            observe_terms(sight, i)
            observe_goal(sight, i)
            observe_progress(sight, i)
        np.testing.assert_array_equal(sight.seen, observation)
