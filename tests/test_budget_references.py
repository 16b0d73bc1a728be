"""Reference policies of BudgetRoute."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from invented import task_log

from rlroute.envs.budget_route.env import BudgetRouteVectorEnv
from rlroute.envs.budget_route.references import (
    FirstLarge,
    Learned,
    MyopicBandit,
    RandomMix,
    StepRule,
    references,
    small_and_large,
)
from rlroute.evaluation import Setting, tune
from rlroute.graph import prospects
from rlroute.log import Log
from rlroute.policies import Policy
from rlroute.rollout import Episodes, rollout

pytestmark = [
    pytest.mark.usefixtures("handmade"),
    pytest.mark.filterwarnings("ignore::rlroute.log.LogWarning"),
]
SMALL, LARGE = 0, 1


@pytest.fixture(scope="module")
def log() -> Log:
    return task_log(300)


def make_env(log: Log, split: str = "test", **arguments: Any) -> BudgetRouteVectorEnv:
    return BudgetRouteVectorEnv(64, autoreset="disabled", log=log, split=split, featuriser="letters", **arguments)


def play(env: BudgetRouteVectorEnv, policy: Policy) -> Episodes:
    return rollout(env, policy, env.dynamics.roots)


def test_small_is_the_cheapest_and_large_the_best_of_the_others(log: Log) -> None:
    assert small_and_large(make_env(log).dynamics) == (SMALL, LARGE)


def test_value_after_a_choice_is_that_of_the_states_it_leads_to(log: Log) -> None:
    arrays = log.arrays
    after = prospects(arrays)
    last = np.flatnonzero(arrays.step == 4)
    won = np.asarray(arrays.success)[np.asarray(arrays.next_state)[arrays.cell[last * 2]]]
    assert np.array_equal(after[last, SMALL], won.astype(float))
    assert after[arrays.step == 0].mean() < after[arrays.step == 4].mean()


def test_first_large_spends_exactly_the_cap_first(log: Log) -> None:
    env = make_env(log, budget_calls=2)
    played = play(env, FirstLarge(SMALL, LARGE))
    assert (played.expensive_calls == np.minimum(played.calls, 2)).all()
    assert not played.violation.any()


def test_the_first_k_large_policy_is_always_small_at_zero(log: Log) -> None:
    env = make_env(log)
    assert (play(env, FirstLarge(SMALL, LARGE, 0)).expensive_calls == 0).all()
    assert play(env, FirstLarge(SMALL, LARGE, 3)).expensive_calls.max() == 3


def test_random_mix_calls_large_as_often_as_it_says_and_is_repeatable(log: Log) -> None:
    env = make_env(log)
    first, again = (play(env, RandomMix(SMALL, LARGE, 0.3)) for _ in range(2))
    assert first.expensive_calls.sum() / first.calls.sum() == pytest.approx(0.3, abs=0.06)
    assert np.array_equal(first.cost_usd, again.cost_usd)


def test_per_step_rule_wants_large_where_steps_are_hard(log: Log) -> None:
    env = make_env(log)
    learned = Learned.of(env.dynamics)
    hard = np.asarray(env.dynamics.arrays.extra)[:, 0] > 0.5
    live = ~np.asarray(env.dynamics.arrays.terminal)
    assert learned.gain[hard & live].mean() > learned.gain[~hard & live].mean() + 0.15


@pytest.mark.parametrize("family", ["per-step rule", "myopic bandit"])
def test_rules_tuned_under_a_cap_beat_first_large(log: Log, family: str) -> None:
    settings = [Setting.calls(2)]
    table = references(make_env(log, "train"))
    tuned = tune(lambda split, **a: make_env(log, split, **a), settings, {family: table[family]})
    env = make_env(log, budget_calls=2)
    rule, first = play(env, tuned[family][0].policy), play(env, FirstLarge(SMALL, LARGE))
    assert rule.success.mean() > first.success.mean() + 0.05
    assert not rule.violation.any()


def test_a_threshold_above_every_gain_never_calls_large(log: Log) -> None:
    env = make_env(log)
    assert (play(env, StepRule(Learned.of(env.dynamics), 1.1)).expensive_calls == 0).all()


def test_myopic_bandit_turns_to_small_as_the_weight_of_cost_grows(log: Log) -> None:
    calls = []
    for weight in (0.0, 0.3, 100.0):
        env = make_env(log, preference=weight)
        calls.append(play(env, MyopicBandit(Learned.of(env.dynamics))).expensive_calls.mean())
    assert calls[0] > calls[1] > calls[2] == 0
