"""Rewards against the formulas they are named after, computed by hand."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from rlroute.envs.slots import idle_slots
from rlroute.rewards import RECENT, Reference, RewardRules, linear, replay_reward, reward_rules

# c_ref 2 USD, l_ref 4 s; sqrt of cost between 0.1 and 0.5 on train.
REFERENCE = Reference("best", cost_usd=2.0, latency_s=4.0, root_cost_p5=0.1, root_cost_p95=0.5)


def finish(
    rules: RewardRules,
    quality: float | list[float],
    cost_usd: float | list[float] = 0.0,
    weight: float = 0.0,
    format_: float = 0.0,
    ended: bool = True,
    recent: np.ndarray | None = None,
) -> np.ndarray:
    """The reward of episodes that end in this step, with these totals; `cost_usd` is of completion tokens."""
    qualities, costs = np.broadcast_arrays(np.atleast_1d(quality), np.atleast_1d(cost_usd))
    slots = idle_slots(len(qualities), {})
    slots["quality"], slots["output_cost_usd"], slots["format"] = qualities, costs, format_
    slots["cost_usd"] = 17.0  # prompt tokens included, which Router-R1 gives away
    slots["cost_weight"] = weight
    recent = no_episodes() if recent is None else recent
    return np.array([replay_reward(rules, recent, slots, i, ended) for i in range(len(slots))])


def no_episodes() -> np.ndarray:
    return np.zeros((2, RECENT + 1))


def router_r1(reference: Reference = REFERENCE, **how: str) -> RewardRules:
    return reward_rules("router_r1", reference, **how)


@pytest.mark.parametrize("weight", [0.0, 0.3, 0.9, 1.0])
@pytest.mark.parametrize("cost", [0.0, 0.04, 100.0])
def test_router_r1_pays_nothing_for_a_wrong_answer(weight: float, cost: float) -> None:
    assert finish(router_r1(), [0.0, 0.5, 0.99], cost, weight).tolist() == [0, 0, 0]


def test_router_r1_pays_a_right_answer_by_its_cost() -> None:
    reward = router_r1()
    # sqrt(c) at or below p5: C = 1, at or above p95: C = 0; 0.09 USD is sqrt 0.3, in the middle.
    costs = [0.0, 0.01, 0.09, 0.25, 9.0]
    assert_allclose(finish(reward, 1.0, costs, 0.4), [1.0, 1.0, 0.6 + 0.4 * 0.5, 0.6, 0.6])
    assert_allclose(finish(reward, 1.0, costs, 0.0), 1.0)
    assert_allclose(finish(reward, 1.0, costs, 1.0), [1, 1, 0.5, 0, 0], atol=1e-12)
    assert_allclose(finish(reward, 0.999, 0.09, 0.4), 0.8)


def test_router_r1_lies_between_one_minus_alpha_and_one_for_right_answers() -> None:
    costs = np.random.default_rng(0).exponential(0.1, 1000).tolist()
    for weight in (0.1, 0.5, 0.9):
        rewards = finish(router_r1(), 1.0, costs, weight)
        assert rewards.min() >= 1 - weight - 1e-12
        assert rewards.max() <= 1
        assert (np.diff(rewards[np.argsort(costs)]) <= 1e-12).all()


def test_router_r1_counts_half_where_costs_hardly_differ() -> None:
    flat = Reference("best", 2.0, 4.0, root_cost_p5=0.3, root_cost_p95=0.3 + 1e-12)
    assert_allclose(finish(router_r1(flat), 1.0, [0.0, 0.09, 9.0], 0.4), 0.6 + 0.4 * 0.5)
    narrow = Reference("best", 2.0, 4.0, root_cost_p5=0.3, root_cost_p95=0.3 + 1e-9)
    assert_allclose(finish(router_r1(narrow), 1.0, [0.0, 9.0], 0.4), [1.0, 0.6])


def test_router_r1_punishes_bad_format_whatever_the_answer() -> None:
    assert finish(router_r1(), [0.0, 1.0], 0.0, 0.5, format_=-1.0).tolist() == [-1, -1]


def test_router_r1_pays_only_at_the_end() -> None:
    assert finish(router_r1(), [0.0, 1.0], 0.0, 0.5, ended=False).tolist() == [0, 0]


def test_router_r1_with_f1_scales_by_the_recorded_quality() -> None:
    rewards = finish(router_r1(metric="f1"), [0.0, 0.25, 1.0], 0.09, 0.4)
    assert_allclose(rewards, np.array([0.0, 0.25, 1.0]) * (0.6 + 0.4 * 0.5))


def test_router_r1_over_a_running_window_takes_percentiles_of_the_last_thousand_episodes() -> None:
    rules, recent = router_r1(window="running"), no_episodes()
    costs = np.random.default_rng(1).exponential(0.1, 1500)
    rewards = finish(rules, 1.0, costs.tolist(), 0.4, recent=recent)
    for k in (0, 1, 40, 999, 1000, 1499):
        low, high = np.percentile(np.sqrt(costs[max(0, k - 999) : k + 1]), [5, 95])
        dear = np.clip((np.sqrt(costs[k]) - low) / (high - low), 0, 1) if high > low else 0.5
        assert rewards[k] == pytest.approx(0.6 + 0.4 * (1 - dear))
    # Unfinished episodes are not pushed.
    before = recent.copy()
    finish(rules, 1.0, [5.0], 0.4, ended=False, recent=recent)
    assert_array_equal(recent, before)


def test_linear_charges_cost_and_latency_in_units_of_the_reference() -> None:
    slots = idle_slots(3, {})
    slots["vector"] = [[1.0, 0.5, 2.0, 0.0], [0.0, 2.0, 4.0, 0.0], [0.25, 0.0, 0.0, -1.0]]
    slots["cost_weight"], slots["latency_weight"] = 0.4, 0.1
    rules = reward_rules("linear", REFERENCE)
    rewards = [replay_reward(rules, no_episodes(), slots, i, True) for i in range(3)]
    assert_allclose(rewards, [1 - 0.4 * 0.25 - 0.1 * 0.5, -0.4 - 0.1, 0.25 - 1])


def test_linear_steps_sum_to_the_return_of_the_episode() -> None:
    rng = np.random.default_rng(2)
    steps, n = 7, 40
    cost, latency = rng.exponential(1.0, (2, steps, n))
    quality = np.zeros((steps, n))
    quality[-1] = rng.random(n)
    w_c, w_l = rng.random(n), rng.random(n)
    total = linear(quality, cost, latency, w_c, w_l, 2.0, 4.0).sum(axis=0)
    assert_allclose(total, quality[-1] - w_c * cost.sum(axis=0) / 2.0 - w_l * latency.sum(axis=0) / 4.0)


def test_linear_survives_a_log_without_latencies() -> None:
    assert linear(0.0, 0.0, 0.0, 1.0, 1.0, 2.0, 0.0) == 0.0


def test_an_unknown_reward_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ValueError, match=r"'profit'.*linear.*router_r1"):
        reward_rules("profit", REFERENCE)
