"""Rewards against the formulas they are named after, computed by hand."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.testing import assert_allclose

from rlroute.rewards import Linear, Reference, Reward, RouterR1, Totals, make_reward

# c_ref 2 USD, l_ref 4 s; sqrt of cost between 0.1 and 0.5 on train.
REFERENCE = Reference("best", cost_usd=2.0, latency_s=4.0, root_cost_p5=0.1, root_cost_p95=0.5)


def finish(
    reward: Reward,
    quality: float | list[float],
    cost_usd: float | list[float] = 0.0,
    weight: float = 0.0,
    format_: float = 0.0,
    ended: bool = True,
) -> np.ndarray:
    """The reward of episodes that end in this step, with these totals; `cost_usd` is of completion tokens."""
    qualities, costs = np.broadcast_arrays(np.atleast_1d(quality), np.atleast_1d(cost_usd))
    totals = Totals.zeros(len(qualities))
    totals.quality[:], totals.output_cost_usd[:], totals.format[:] = qualities, costs, format_
    totals.cost_usd[:] = 17.0  # prompt tokens included, which Router-R1 gives away
    everyone = np.full(len(qualities), ended)
    return reward(totals.vector(), totals, everyone, np.full(len(qualities), weight), np.zeros(len(qualities)))


@pytest.mark.parametrize("weight", [0.0, 0.3, 0.9, 1.0])
@pytest.mark.parametrize("cost", [0.0, 0.04, 100.0])
def test_router_r1_pays_nothing_for_a_wrong_answer(weight: float, cost: float) -> None:
    assert finish(RouterR1(REFERENCE), [0.0, 0.5, 0.99], cost, weight).tolist() == [0, 0, 0]


def test_router_r1_pays_a_right_answer_by_its_cost() -> None:
    reward = RouterR1(REFERENCE)
    # sqrt(c) at or below p5: C = 1, at or above p95: C = 0; 0.09 USD is sqrt 0.3, in the middle.
    costs = [0.0, 0.01, 0.09, 0.25, 9.0]
    assert_allclose(finish(reward, 1.0, costs, 0.4), [1.0, 1.0, 0.6 + 0.4 * 0.5, 0.6, 0.6])
    assert_allclose(finish(reward, 1.0, costs, 0.0), 1.0)
    assert_allclose(finish(reward, 1.0, costs, 1.0), [1, 1, 0.5, 0, 0], atol=1e-12)
    assert_allclose(finish(reward, 0.999, 0.09, 0.4), 0.8)


def test_router_r1_lies_between_one_minus_alpha_and_one_for_right_answers() -> None:
    costs = np.random.default_rng(0).exponential(0.1, 1000).tolist()
    for weight in (0.1, 0.5, 0.9):
        rewards = finish(RouterR1(REFERENCE), 1.0, costs, weight)
        assert rewards.min() >= 1 - weight - 1e-12
        assert rewards.max() <= 1
        assert (np.diff(rewards[np.argsort(costs)]) <= 1e-12).all()


def test_router_r1_counts_half_where_costs_hardly_differ() -> None:
    flat = Reference("best", 2.0, 4.0, root_cost_p5=0.3, root_cost_p95=0.3 + 1e-12)
    assert_allclose(finish(RouterR1(flat), 1.0, [0.0, 0.09, 9.0], 0.4), 0.6 + 0.4 * 0.5)
    narrow = Reference("best", 2.0, 4.0, root_cost_p5=0.3, root_cost_p95=0.3 + 1e-9)
    assert_allclose(finish(RouterR1(narrow), 1.0, [0.0, 9.0], 0.4), [1.0, 0.6])


def test_router_r1_punishes_bad_format_whatever_the_answer() -> None:
    assert finish(RouterR1(REFERENCE), [0.0, 1.0], 0.0, 0.5, format_=-1.0).tolist() == [-1, -1]


def test_router_r1_pays_only_at_the_end() -> None:
    assert finish(RouterR1(REFERENCE), [0.0, 1.0], 0.0, 0.5, ended=False).tolist() == [0, 0]


def test_router_r1_with_f1_scales_by_the_recorded_quality() -> None:
    rewards = finish(RouterR1(REFERENCE, metric="f1"), [0.0, 0.25, 1.0], 0.09, 0.4)
    assert_allclose(rewards, np.array([0.0, 0.25, 1.0]) * (0.6 + 0.4 * 0.5))


def test_router_r1_over_a_running_window_takes_percentiles_of_the_last_thousand_episodes() -> None:
    reward = RouterR1(REFERENCE, window="running")
    costs = np.random.default_rng(1).exponential(0.1, (30, 50))
    seen: list[float] = []
    for batch in costs:
        seen = (seen + np.sqrt(batch).tolist())[-1000:]
        low, high = np.percentile(seen, [5, 95])
        expected = 0.6 + 0.4 * (1 - np.clip((np.sqrt(batch) - low) / (high - low), 0, 1))
        assert_allclose(finish(reward, 1.0, batch.tolist(), 0.4), expected)
    assert len(seen) == 1000
    # Unfinished episodes are not pushed.
    before = list(reward._recent)
    finish(reward, 1.0, [5.0], 0.4, ended=False)
    assert list(reward._recent) == before


def test_running_windows_are_not_shared_between_environments() -> None:
    first, second = (make_reward("router_r1", REFERENCE, window="running") for _ in range(2))
    finish(first, 1.0, [0.1, 0.2], 0.4)
    # Alone in its window an episode cannot be dear or cheap.
    assert_allclose(finish(second, 1.0, [9.0], 0.4), 0.8)


def test_linear_charges_cost_and_latency_in_units_of_the_reference() -> None:
    vector = np.array([[1.0, 0.5, 2.0, 0.0], [0.0, 2.0, 4.0, 0.0], [0.25, 0.0, 0.0, -1.0]])
    totals = Totals.zeros(3)
    rewards = Linear(REFERENCE)(vector, totals, np.ones(3, bool), np.full(3, 0.4), np.full(3, 0.1))
    assert_allclose(rewards, [1 - 0.4 * 0.25 - 0.1 * 0.5, -0.4 - 0.1, 0.25 - 1])


def test_linear_steps_sum_to_the_return_of_the_episode() -> None:
    rng = np.random.default_rng(2)
    steps, n = 7, 40
    vectors = rng.exponential(1.0, (steps, n, 4)) * [0, 1, 1, 0]
    quality = rng.random(n)
    vectors[-1, :, 0] = quality
    w_c, w_l = rng.random(n), rng.random(n)
    total = sum(Linear(REFERENCE)(v, Totals.zeros(n), np.zeros(n, bool), w_c, w_l) for v in vectors)
    cost, latency = vectors[:, :, 1].sum(axis=0), vectors[:, :, 2].sum(axis=0)
    assert_allclose(total, quality - w_c * cost / 2.0 - w_l * latency / 4.0)


def test_linear_survives_a_log_without_latencies() -> None:
    free = Reference("best", 2.0, 0.0, 0.1, 0.5)
    rewards = Linear(free)(np.zeros((2, 4)), Totals.zeros(2), np.ones(2, bool), np.ones(2), np.ones(2))
    assert rewards.tolist() == [0, 0]


def test_an_unknown_reward_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ValueError, match=r"'profit'.*linear.*router_r1"):
        make_reward("profit", REFERENCE)
