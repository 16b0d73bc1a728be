"""Advantages: sums of surprises within each episode, and groups compared with themselves and with anchors."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("torch")

from rlroute.agents.advantages import anchored, gae, group_relative, leave_one_out, share_without_variance


def test_generalised_advantages_are_discounted_surprises_within_each_episode() -> None:
    rng = np.random.default_rng(0)
    steps, slots, gamma, lambda_ = 12, 5, 0.9, 0.7
    values, rewards, final = (rng.normal(size=(steps, slots)).astype(np.float32) for _ in range(3))
    last = rng.normal(size=slots).astype(np.float32)
    terminated = rng.random((steps, slots)) < 0.15
    truncated = ~terminated & (rng.random((steps, slots)) < 0.15)
    assert terminated.any()
    assert truncated.any()
    found = gae(rewards, values, last, terminated, truncated, final, gamma, lambda_)
    monte_carlo = gae(rewards, values, last, terminated, truncated, final, 1.0, 1.0)
    for slot in range(slots):
        for start in range(steps):
            expected, plain, weight, after = 0.0, 0.0, 1.0, 0.0
            for t in range(start, steps):  # the sum of discounted surprises, as the paper defines it
                if terminated[t, slot]:
                    after = 0.0
                elif truncated[t, slot]:
                    after = float(final[t, slot])
                else:
                    after = float(values[t + 1, slot] if t + 1 < steps else last[slot])
                expected += weight * (rewards[t, slot] + gamma * after - values[t, slot])
                weight *= gamma * lambda_
                plain += float(rewards[t, slot])
                if terminated[t, slot] or truncated[t, slot]:
                    break
            assert found[start, slot] == pytest.approx(expected, abs=1e-4)
            assert monte_carlo[start, slot] == pytest.approx(plain + after - values[start, slot], abs=1e-4)


def test_the_value_after_an_end_by_itself_is_never_read() -> None:
    ones, flags = np.ones((3, 2), np.float32), np.zeros((3, 2), bool)
    terminated = flags.copy()
    terminated[1] = True
    poisoned = np.full((3, 2), np.nan, np.float32)
    found = gae(ones, ones, np.ones(2, np.float32), terminated, flags, poisoned, 1.0, 1.0)
    np.testing.assert_allclose(found[:, 0], [1.0, 0.0, 1.0])


def test_a_group_is_compared_with_its_own_mean() -> None:
    returns = np.array([[1.0, 2.0, 6.0], [0.0, 0.0, 0.0]])
    np.testing.assert_allclose(group_relative(returns), [[-2, -1, 3], [0, 0, 0]])
    scaled = group_relative(returns, scale=True)
    assert scaled[0].std() == pytest.approx(1.0)
    assert (scaled[1] == 0).all()  # and not noise blown up, or no number


def test_leave_one_out_compares_each_with_the_others() -> None:
    returns = np.array([[1.0, 2.0, 6.0]])
    np.testing.assert_allclose(leave_one_out(returns), [[1 - 4, 2 - 3.5, 6 - 1.5]])
    with pytest.raises(ValueError, match="groups of 1: expected at least 2"):
        leave_one_out(np.ones((3, 1)))


def test_anchors_join_the_mean_and_the_batch_sets_the_scale() -> None:
    returns = np.array([[0.0, 1.0, 1.0], [0.5, 0.5, 0.5]])
    small, expert = np.array([0.0, 1.0]), np.array([1.0, 1.5])
    found = anchored(returns, (small, expert))
    expected = np.array([[0.0 - 0.6, 0.4, 0.4], [-0.3] * 3]) / returns.std()  # (2r − R_S − R_E) / (K + 2)
    np.testing.assert_allclose(found, expected)
    np.testing.assert_allclose(anchored(returns, ()), group_relative(returns) / returns.std())


def test_equal_returns_everywhere_stay_finite() -> None:
    alike = np.full((2, 4), 0.25)
    found = anchored(alike, (np.zeros(2), np.ones(2)))
    np.testing.assert_allclose(found, np.full((2, 4), (2 * 0.25 - 1) / 6))


def test_the_share_of_groups_without_variance_counts_whole_groups() -> None:
    returns = np.array([[1.0, 1.0], [1.0, 1.0 + 1e-12], [0.0, 1.0], [2.0, 0.0]])
    assert share_without_variance(returns) == 0.5


@pytest.mark.parametrize("estimator", [group_relative, leave_one_out])
def test_estimators_without_anchors_say_so(estimator: object) -> None:
    with pytest.raises(ValueError, match="found 1 anchors, expected none"):
        estimator(np.ones((2, 3)), (np.ones(2),))  # type: ignore[operator]
