"""Episodes that each have a random few of the choices in their pool, for training policies on pools to come."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from logs import budget_vec, think_env, think_vec
from numpy.testing import assert_array_equal
from random_logs import many_questions, many_tasks

from rlroute.testing import check_routing_env

pytestmark = [
    pytest.mark.usefixtures("handmade"),
    pytest.mark.filterwarnings("ignore::rlroute.log.LogWarning"),
]

FAMILIES: dict[str, tuple[Callable[..., Any], Callable[..., Any], str]] = {
    "think": (think_vec, many_questions, "call"),
    "budget": (budget_vec, many_tasks, "choose"),
}


def callable_choices(env: Any, action: str, mask: np.ndarray) -> np.ndarray:
    """(num_envs, num_choices) bool."""
    first = env.layout.action(action, 0)
    return np.asarray(mask[:, first : first + env.layout.num_choices], bool)


@pytest.mark.parametrize("name", FAMILIES)
def test_every_size_and_every_choice_of_the_range_occurs(name: str) -> None:
    make, log, action = FAMILIES[name]
    env = make(log(), 256, pool_size=(1, 2))
    _, info = env.reset(seed=0)
    there = callable_choices(env, action, info["action_mask"])
    assert set(there.sum(axis=1).tolist()) == {1, 2}
    assert (there.mean(axis=0) > 0.2).all()
    _, info = env.reset()
    assert not np.array_equal(callable_choices(env, action, info["action_mask"]), there)  # drawn anew


def test_a_choice_outside_the_pool_stays_masked_to_the_end_of_the_episode() -> None:
    env = think_vec(many_questions(), 64, pool_size=1, repeat="same", max_rounds=3)
    _, info = env.reset(seed=0)
    there = callable_choices(env, "call", info["action_mask"])
    assert (there.sum(axis=1) == 1).all()
    for _ in range(2):
        _, _, _, _, info = env.step(env.layout.action("call", 0) + there.argmax(axis=1))
        assert_array_equal(callable_choices(env, "call", info["action_mask"]), there)


def test_without_it_every_choice_is_there() -> None:
    env = think_vec(many_questions(), 16)
    _, info = env.reset(seed=0)
    assert callable_choices(env, "call", info["action_mask"]).all()


def test_slots_of_a_group_have_the_same_pool() -> None:
    env = think_vec(many_questions(), 32, pool_size=(1, 3))
    _, info = env.reset(seed=0, options={"group": 4})
    there = callable_choices(env, "call", info["action_mask"]).reshape(8, 4, 3)
    assert (there == there[:, :1]).all()
    assert not (there == there[:1]).all()


def test_the_scalar_face_repeats_a_slot() -> None:
    vector, scalar = think_vec(many_questions(), 8, pool_size=(1, 3)), think_env(many_questions(), pool_size=(1, 3))
    observations, info = vector.reset(seed=5)
    for slot in range(8):
        observation, own = scalar.reset(seed=5, options={"slot": slot})
        assert_array_equal(own["action_mask"], info["action_mask"][slot])
        assert_array_equal(observation, observations[slot])


def test_such_an_environment_keeps_its_promises() -> None:
    check_routing_env(think_env(many_questions(), pool_size=(1, 2)), episodes=5)


@pytest.mark.parametrize("size", [0, 4, (2, 1), (1, 2.5), (2, 4)])
def test_sizes_that_cannot_be_are_refused(size: Any) -> None:
    with pytest.raises(ValueError, match="pool_size="):
        think_env(many_questions(), pool_size=size)
