"""Policies that need no training."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from invented import question_log, task_log

from rlroute.envs.budget_route.env import BudgetRouteVectorEnv
from rlroute.envs.think_route.env import ThinkRouteVectorEnv
from rlroute.policies import AlwaysChoice, Policy, RandomPolicy, best_legal, mix_weights
from rlroute.rollout import rollout

pytestmark = [
    pytest.mark.usefixtures("handmade"),
    pytest.mark.filterwarnings("ignore::rlroute.log.LogWarning"),
]


def think_env(**arguments: Any) -> ThinkRouteVectorEnv:
    given: dict[str, Any] = {"log": question_log(), "split": "test", "featuriser": "letters", **arguments}
    return ThinkRouteVectorEnv(30, autoreset="disabled", **given)


def test_always_one_choice_calls_it_once_and_accepts() -> None:
    env = think_env()
    for choice, name in enumerate(env.dynamics.pool.names):
        played = rollout(env, AlwaysChoice(choice, name), env.dynamics.roots)
        assert (played.calls == 1).all()
        assert np.allclose(played.cost_usd, 100e-6 * (1.0, 4.0, 20.0)[choice])


def test_a_masked_choice_falls_back_to_the_cheapest_that_is_open() -> None:
    log = task_log()
    env = BudgetRouteVectorEnv(24, autoreset="disabled", log=log, split="test", featuriser="letters", budget_calls=2)
    played = rollout(env, AlwaysChoice(1), env.dynamics.roots)
    assert played.expensive_calls.max() == 2
    assert not played.violation.any()
    assert (played.calls[played.success] == 5).all()


@pytest.mark.parametrize("policy", [RandomPolicy(3), AlwaysChoice(2)])
def test_no_policy_ever_takes_a_masked_action(policy: Policy) -> None:
    env = think_env(max_rounds=2)
    observation, info = env.reset(seed=0)
    policy.begin(env)
    while env.dynamics.active.any():
        action = policy.act(observation, info["action_mask"])
        active = env.dynamics.active
        assert info["action_mask"][np.arange(30), action][active].all()
        observation, _, _, _, info = env.step(action)


def test_random_is_repeatable_and_depends_on_its_seed() -> None:
    env = think_env()
    first, again, other = (rollout(env, RandomPolicy(s), env.dynamics.roots).cost_usd for s in (0, 0, 1))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_best_legal_never_picks_a_masked_action() -> None:
    assert best_legal(np.array([[3.0, 2.0, 1.0]]), np.array([[0, 1, 1]])).tolist() == [1]


def test_mix_weights_lie_on_the_hull_and_ignore_what_is_under_it() -> None:
    weights = mix_weights([1.0, 2.0, 3.0, 9.0], [0.2, 0.3, 0.8, 0.7], 2.0)
    assert weights == pytest.approx([0.5, 0.0, 0.5, 0.0])
    assert mix_weights([1.0, 3.0], [0.2, 0.8], 0.1) == pytest.approx([1.0, 0.0])
    assert mix_weights([1.0, 3.0], [0.2, 0.8], 50.0) == pytest.approx([0.0, 1.0])
