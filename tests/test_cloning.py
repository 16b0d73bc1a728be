"""Clones: what is watched, what is imitated, and training that starts from one."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from rlroute.policy import load_policy
from rlroute.rollout import rollout

pytest.importorskip("ray")
pytest.importorskip("torch")

from rlroute.agents.rllib import ppo
from rlroute.agents.rllib.cloning import (
    CloneArguments,
    Demonstrations,
    choose_teacher,
    clone,
    clone_reference,
    demonstrate,
)
from rlroute.envs.contest import vector_env
from rlroute.envs.tool_graph.healing import HealingRouter, Knobs
from rlroute.envs.tool_graph.references import references
from rlroute.evaluation import Setting

ENV = "rlroute/ToolGraph-v0"
pytestmark = pytest.mark.usefixtures("one_ray")


class Countdown:
    """Episodes of three steps, each with reward 1 for action 1 and 0 for action 0; resets in the same step."""

    num_envs = 4

    def reset(self, seed: int | None = None) -> tuple[NDArray[Any], dict[str, Any]]:
        self.step_number = 0
        return self._observe()

    def step(self, action: NDArray[Any]) -> tuple[Any, ...]:
        self.step_number += 1
        observation, info = self._observe()
        ended = np.full(4, self.step_number % 3 == 0)
        return observation, (action == 1).astype(float), ended, np.zeros(4, bool), info

    def _observe(self) -> tuple[NDArray[Any], dict[str, Any]]:
        return np.full((4, 1), self.step_number % 3, np.float32), {"action_mask": np.ones((4, 2), np.int8)}


class AlwaysOne:
    """Action 1 whatever is seen."""

    name = "one"

    def begin(self, env: Any) -> None:
        pass

    def act(self, observation: NDArray[Any], action_mask: NDArray[Any]) -> NDArray[np.int64]:
        return np.ones(len(observation), np.int64)


def test_values_are_rewards_to_the_end_of_the_episode_and_unknown_where_it_was_not_seen() -> None:
    seen = demonstrate(Countdown(), AlwaysOne(), CloneArguments(steps=7, wandering=0.0))
    assert seen.observation.shape == (28, 1)
    assert (seen.action == 1).all()
    expected = np.repeat([3, 2, 1, 3, 2, 1, np.nan], 4)
    np.testing.assert_array_equal(seen.value, expected.astype(np.float32))


def test_where_the_teacher_wanders_its_own_action_is_learned() -> None:
    seen = demonstrate(Countdown(), AlwaysOne(), CloneArguments(steps=300, wandering=0.5))
    assert (seen.action == 1).all()
    whole = np.isfinite(seen.value)
    # Of three steps a quarter earns nothing: half wander, and half of those take action 0.
    assert seen.value[whole & (seen.observation[:, 0] == 0)].mean() == pytest.approx(2.25, abs=0.15)


@pytest.fixture(scope="module")
def cloned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clone of a healing router that consults, on generated graphs."""
    env = vector_env(ENV, "train", 256, faults="independent", autoreset="same_step")
    out = tmp_path_factory.mktemp("clone")
    return clone(env, HealingRouter(Knobs()), out, CloneArguments(steps=100, hidden=32, minibatch=512, epochs=12))


def test_a_clone_does_what_its_teacher_does_on_graphs_never_seen(cloned: Path) -> None:
    env = vector_env(ENV, "val", 1, faults="independent")
    tasks = env.dynamics.roots
    teacher = rollout(env, HealingRouter(Knobs()), tasks, 2, seed=1).reward.mean()
    policy = load_policy(cloned)
    mean = rollout(env, policy, tasks, 2, seed=1).reward.mean()
    policy.parameters = {name: value * 0 for name, value in policy.parameters.items()}
    nothing = rollout(env, policy, tasks, 2, seed=1).reward.mean()
    assert mean > teacher - 0.08
    assert mean > nothing + 0.3
    assert policy.card["training"]["teacher"] == HealingRouter(Knobs()).name


def arguments(start: Path | str, **knobs: Any) -> ppo.PPOArguments:
    small = {"total_steps": 512, "num_envs": 32, "rollout_length": 16, "minibatch": 256, "hidden": 32}
    return ppo.PPOArguments(**{**small, "start": str(start), "text_noise": 0.0, **knobs})


def test_training_starts_from_the_clone(cloned: Path, tmp_path: Path) -> None:
    env_id, given = f"rlroute:{ENV}", {"faults": "independent"}
    start = load_policy(cloned).parameters
    still = load_policy(ppo.train(env_id, given, tmp_path / "still", arguments(cloned, learning_rate=0.0)))
    assert all(np.array_equal(still.parameters[name], start[name]) for name in start)
    moved = load_policy(ppo.train(env_id, given, tmp_path / "moved", arguments(cloned)))
    assert not any(np.array_equal(moved.parameters[name], start[name]) for name in start if "weight" in name)
    assert max(np.abs(moved.parameters[name] - start[name]).max() for name in start) < 0.1
    assert moved.card["training"]["arguments"] == asdict(arguments(cloned))


def test_a_start_of_another_kind_is_refused_before_training(cloned: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"its layers are 32 wide, expected hidden=64"):
        ppo.train(f"rlroute:{ENV}", {}, tmp_path, arguments(cloned, hidden=64))
    with pytest.raises(ValueError, match=r"its context is .*expected .*picks_left"):
        ppo.train("bandit:toy/Bandit-v0", {}, tmp_path, arguments(cloned))


def test_a_start_may_have_seen_another_number_of_choices(tmp_path: Path) -> None:
    bandits = "bandit:toy/Bandit-v0"
    start = ppo.train(bandits, {"num_choices": 4}, tmp_path / "four", arguments(""))
    six = ppo.train(bandits, {"num_choices": 6}, tmp_path / "six", arguments(start, learning_rate=0.0))
    found, expected = load_policy(six), load_policy(start)
    assert found.card["layout"]["num_choices"] == 6
    assert all(np.array_equal(found.parameters[name], expected.parameters[name]) for name in expected.parameters)


def test_each_lesson_is_watched_under_its_own_arguments(tmp_path: Path) -> None:
    given, first = {"faults": "mixed"}, Setting.model_cost(0.1)
    lessons = [({"faults": "noisy"}, 0), ({"faults": "wrong"}, 3)]
    knobs = CloneArguments(steps=10, hidden=8, minibatch=64, epochs=1)
    card = load_policy(
        clone_reference(ENV, given, "healing router", first, tmp_path, knobs, num_envs=16, lessons=lessons)
    ).card
    teachers = references(vector_env(ENV, "train", 1, faults="noisy"))["healing router"]
    assert card["training"]["teacher"] == f"{teachers[0].name}; {teachers[3].name}"
    assert card["arguments"]["faults"] == "mixed"


def test_demonstrations_are_put_together_row_by_row() -> None:
    seen = demonstrate(Countdown(), AlwaysOne(), CloneArguments(steps=7))
    both = Demonstrations.together([seen, seen])
    assert both.observation.shape == (56, 1)
    np.testing.assert_array_equal(both.value, np.tile(seen.value, 2))


def test_the_teacher_chosen_is_the_best_on_val() -> None:
    assert choose_teacher(ENV, {"faults": "independent"}, "escalate at once", Setting.model_cost(0.1), 1) == 0
