"""The rollout loop: common random numbers, the order of episodes, and what is recorded of them."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import numpy as np
import pytest
from logs import budget_vec, think_vec, walk_log
from numpy.testing import assert_allclose, assert_array_equal
from random_logs import many_questions, many_tasks, witness_draws

from rlroute.policies import AlwaysChoice, RandomPolicy, best_legal
from rlroute.rollout import Episodes, places, rollout

pytestmark = [
    pytest.mark.usefixtures("handmade"),
    pytest.mark.filterwarnings("ignore::rlroute.log.LogWarning"),
]


def test_policies_meet_the_same_responses_in_the_same_place() -> None:
    def heard(policy: Any, seed: int) -> dict[tuple[int, ...], int]:
        env = think_vec(many_questions(), 16)
        drawn = witness_draws(env.dynamics)
        rollout(env, policy, env.dynamics.roots, episodes=20, seed=seed)
        return {draw[:-1]: draw[-1] for draw in drawn}

    first, second = heard(RandomPolicy(3), 5), heard(AlwaysChoice(1, think=True), 5)
    common = first.keys() & second.keys()
    assert len(common) > 100
    assert len(first.keys() - common) > 100
    assert all(first[place] == second[place] for place in common)
    # With another seed they differ.
    assert heard(AlwaysChoice(1, think=True), 6) != second


def test_the_same_arguments_give_the_same_episodes() -> None:
    log = many_tasks()
    runs = [rollout(budget_vec(log, 7), RandomPolicy(1), np.array([0, 13, 26]), 4, seed=2) for _ in range(2)]
    for field in fields(Episodes):
        assert_array_equal(getattr(runs[0], field.name), getattr(runs[1], field.name))


def test_episodes_come_in_the_order_of_tasks_and_repetitions() -> None:
    env = think_vec(many_questions(), 8)
    tasks = env.dynamics.roots[[5, 2, 11]]
    played = rollout(env, AlwaysChoice(0), tasks, episodes=7, seed=0)
    assert len(played) == 21
    assert_array_equal(played.task, np.repeat(tasks, 7))
    assert_array_equal(played.group, env.dynamics.arrays.group[np.repeat(tasks, 7)])


def test_padding_of_the_last_batch_leaves_no_trace() -> None:
    env = budget_vec(many_tasks(), 8, budget_calls=(0, 4), preference=(0.1, 1.0))
    tasks = env.dynamics.roots
    long = rollout(env, AlwaysChoice(1), tasks[:12], seed=1)
    short = rollout(env, AlwaysChoice(1), tasks[:9], seed=1)
    assert len(short) == 9
    for field in fields(Episodes):
        if field.name != "extra":  # of families that tell more; this one does not
            assert_array_equal(getattr(short, field.name), getattr(long, field.name)[:9])


def test_returns_are_quality_less_weighted_cost_and_latency() -> None:
    env = think_vec(many_questions(), 200, preference=(0.01, 1.0), latency_preference=(0.01, 0.1))
    dynamics = env.dynamics
    played = rollout(env, RandomPolicy(0), dynamics.roots, episodes=10, seed=3)
    expected = played.quality - played.cost_weight * played.cost_usd / dynamics.c_ref
    assert_allclose(played.reward, expected - dynamics.w_latency * played.latency_s / dynamics.l_ref)
    assert len(np.unique(played.cost_weight)) == len(played) == 200
    assert 0 < played.quality.mean() < 1
    assert_array_equal(played.success, played.quality == 1)


def test_calls_are_counted() -> None:
    env = budget_vec(walk_log(5), 3)
    tasks = env.dynamics.roots.repeat(2)
    large, small = rollout(env, AlwaysChoice(1), tasks), rollout(env, AlwaysChoice(0), tasks)
    assert large.calls.tolist() == small.calls.tolist() == [5, 5]
    assert large.expensive_calls.tolist() == [5, 5]
    assert small.expensive_calls.tolist() == [0, 0]
    assert large.quality.tolist() == [1, 1]
    assert small.quality.tolist() == [0, 0]
    assert_allclose(large.latency_s, 300)


def test_caps_are_recorded_as_they_were_drawn() -> None:
    free = rollout(budget_vec(walk_log(5), 3), AlwaysChoice(1), np.array([0]), 3)
    assert np.isinf(free.budget_usd).all()
    assert np.isinf(free.budget_calls).all()
    assert not free.violation.any()
    assert not free.overspend_usd.any()
    env = budget_vec(walk_log(5), 50, budget_calls=(1, 4), budget_usd=(0.001, 0.02))
    capped = rollout(env, AlwaysChoice(1), env.dynamics.roots, episodes=120)
    assert set(capped.budget_calls) == {1, 2, 3, 4}
    assert 0.001 <= capped.budget_usd.min() < 0.002
    assert 0.018 < capped.budget_usd.max() <= 0.02
    assert len(np.unique(capped.budget_usd)) == 120
    assert (capped.expensive_calls <= capped.budget_calls).all()
    assert not capped.violation.any()


def test_violations_and_overspend_are_those_of_the_caps() -> None:
    columns = {field.name: np.zeros(4) for field in fields(Episodes) if field.name != "extra"}
    columns |= {
        "cost_usd": np.array([1.0, 1.0, 1.0 + 1e-12, 3.0]),
        "budget_usd": np.array([np.inf, 1.0, 1.0, 2.5]),
        "expensive_calls": np.array([9, 3, 3, 3]),
        "budget_calls": np.array([np.inf, 2, 3, 3]),
    }
    episodes = Episodes(**columns, extra={})
    assert episodes.violation.tolist() == [False, True, False, True]
    assert_allclose(episodes.overspend_usd, [0, 0, 0, 0.5], atol=1e-9)


def test_a_policy_that_breaks_the_rules_for_ever_is_cut_off() -> None:
    class Stubborn:
        name = "stubborn"

        def begin(self, env: Any) -> None: ...

        def act(self, observation: np.ndarray, action_mask: np.ndarray) -> np.ndarray:
            return np.ones(len(action_mask), int)  # large, which no budget allows

    env = budget_vec(walk_log(5), 2, budget_calls=0, max_episode_steps=9)
    played = rollout(env, Stubborn(), env.dynamics.roots, episodes=3)
    assert played.truncated.all()
    assert played.reward.tolist() == [-9, -9, -9]
    assert played.calls.tolist() == [0, 0, 0]


def test_policies_see_a_flat_observation_even_where_the_mask_is_part_of_it() -> None:
    shapes = []

    class Looking:
        name = "looking"

        def begin(self, env: Any) -> None: ...

        def act(self, observation: np.ndarray, action_mask: np.ndarray) -> np.ndarray:
            shapes.append((observation.shape, action_mask.shape))
            return best_legal(np.zeros(action_mask.shape), action_mask)

    for mask_in_obs in (False, True):
        env = budget_vec(walk_log(2), 3, mask_in_obs=mask_in_obs)
        rollout(env, Looking(), env.dynamics.roots, 3)
        assert shapes[-1] == ((3, env.layout.size), (3, 2))


def test_progress_counts_every_episode() -> None:
    done: list[int] = []
    env = budget_vec(walk_log(2), 4)
    rollout(env, AlwaysChoice(0), env.dynamics.roots, episodes=10, progress=done.append)
    assert done == [4, 4, 2]


def test_the_responses_of_a_rollout_can_be_told_in_advance() -> None:
    env = think_vec(many_questions(), 7)
    tasks, drawn = env.dynamics.roots[:5], witness_draws(env.dynamics)
    rollout(env, RandomPolicy(0), tasks, episodes=4, seed=9)
    checked = 0
    for repetition in range(4):
        slot, episode = places(env, 5, 4, repetition)
        rows = env.dynamics.drawn_rows(tasks, slot, episode)
        played = set(zip(slot.tolist(), episode.tolist(), strict=True))
        for s, e, state, choice, position, row in drawn:
            if (s, e) in played:
                assert rows[state, choice, position] == row
                checked += 1
    assert checked > 40
