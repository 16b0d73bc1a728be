"""Off-policy estimates on logs of known truth."""

from __future__ import annotations

import numpy as np
import pytest

from rlroute.ope import CONFOUNDED, Estimate, effective_sample_size, estimate


def logged(rows: int = 6000) -> tuple[np.ndarray, ...]:
    """A logger that prefers choice 0 on hard questions, where everything fails more often."""
    rng = np.random.default_rng(0)
    hard = rng.random(rows) < 0.5
    p0 = np.where(hard, 0.9, 0.2)
    choice = (rng.random(rows) > p0).astype(int)
    success = np.where(hard, 0.3, 0.8) + np.where(choice == 0, 0.1, 0.0)  # choice 0 is the better one everywhere
    reward = (rng.random(rows) < success).astype(float)
    propensity = np.where(choice == 0, p0, 1 - p0)
    return hard, choice, reward, propensity


def test_snips_and_dr_find_the_value_that_the_raw_mean_gets_wrong() -> None:
    _, choice, reward, propensity = logged()
    always_0 = (choice == 0).astype(float)
    truth, raw = 0.65, reward[choice == 0].mean()
    zero = np.zeros(len(reward))
    found = estimate(reward, propensity, always_0, zero, zero)
    assert isinstance(found, Estimate)
    assert abs(raw - truth) > 0.1
    assert found.snips == pytest.approx(truth, abs=0.03)
    assert found.dr == pytest.approx(truth, abs=0.04)
    assert found.snips_ci95[0] < truth < found.snips_ci95[1]


def test_a_good_reward_model_narrows_dr() -> None:
    hard, choice, reward, propensity = logged()
    always_0 = (choice == 0).astype(float)
    model = np.where(hard, 0.3, 0.8)
    zero = np.zeros(len(reward))
    blind = estimate(reward, propensity, always_0, zero, zero)
    informed = estimate(reward, propensity, always_0, model + 0.1 * (choice == 0), model + 0.1)
    assert isinstance(blind, Estimate)
    assert isinstance(informed, Estimate)
    assert np.diff(informed.dr_ci95)[0] < 0.8 * np.diff(blind.dr_ci95)[0]


def test_without_propensity_nothing_but_confounded_is_said() -> None:
    one = np.ones(3)
    assert estimate(one, np.array([0.5, np.nan, 0.5]), one, one, one) == CONFOUNDED


def test_impossible_propensities_are_refused() -> None:
    one = np.ones(2)
    with pytest.raises(ValueError, match=r"propensity 0\.0"):
        estimate(one, np.array([0.5, 0.0]), one, one, one)


def test_effective_samples_count_equal_weights_fully_and_one_weight_once() -> None:
    assert effective_sample_size(np.full(50, 3.0)) == pytest.approx(50)
    assert effective_sample_size(np.array([1e9, 1, 1, 1])) == pytest.approx(1)
    assert effective_sample_size(np.zeros(3)) == 0
