"""Groups whose episodes all end alike: where the plain advantage teaches nothing, the anchored one does (BoPO)."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose

pytest.importorskip("torch")

from rlroute.agents.advantages import anchored, group_relative

G = 8
COSTS = np.linspace(0.0, 1.0, 21)
bounded = st.floats(-2, 2)


def advantage(r: float, r_small: float, r_expert: float, size: int = G) -> float:
    """The anchored advantage of each of `size` episodes of return `r`, in units of return."""
    values = anchored(np.full((1, size), r), (np.array([r_small]), np.array([r_expert])))
    assert_allclose(values, values[0, 0])
    return float(values[0, 0])


@given(bounded, bounded, bounded, st.integers(2, 32))
def test_a_group_without_variance_is_told_by_its_anchors(r: float, r_small: float, r_expert: float, size: int) -> None:
    expected = (2 * r - r_small - r_expert) / (size + 2)
    assert_allclose(advantage(r, r_small, r_expert, size), expected, atol=1e-9)


@given(bounded, st.integers(2, 32))
def test_the_plain_advantage_of_such_a_group_is_zero(r: float, size: int) -> None:
    assert_allclose(group_relative(np.full((1, size), r)), 0.0, atol=1e-9)


@given(bounded, bounded, bounded, st.integers(0, 2**16))
def test_in_a_batch_it_is_told_the_same_in_units_of_the_batch(
    r: float, r_small: float, r_expert: float, seed: int
) -> None:
    returns = np.random.default_rng(seed).normal(size=(5, G))
    returns[2] = r
    small, expert = np.full(5, r_small), np.full(5, r_expert)
    together = anchored(returns, (small, expert))[2]
    assert_allclose(together * returns.std(), advantage(r, r_small, r_expert), atol=1e-9)


@pytest.mark.parametrize("weight", [0.1, 0.3, 1.2])
@pytest.mark.parametrize("small_successes", [0, 1, 2])
def test_identical_failures_on_hard_are_discouraged_exactly_where_the_anchors_did_better(
    weight: float, small_successes: int
) -> None:
    bonus, costs = 0.5, COSTS + 1e-3
    r_small = small_successes / 5 * (1 + bonus)

    def discouraged(r_expert: float) -> list[bool]:
        signs = [advantage(-weight * c, r_small, r_expert) < 0 for c in costs]
        assert signs == [r_small + r_expert > -2 * weight * c for c in costs]
        return signs

    assert all(discouraged(1 + bonus - weight * 0.6))  # an expert that succeeds: to fail alike never pays
    by_cost = discouraged(-r_small - weight)  # anchors so poor that it depends on the cost
    assert any(by_cost)
    assert not all(by_cost)


@pytest.mark.parametrize("weight", [0.1, 0.3, 1.2])
@pytest.mark.parametrize(("c_small", "c_large"), [(0.0, 1.0), (0.2, 0.8), (0.0, 0.3)])
def test_identical_failures_on_intractable_are_encouraged_exactly_up_to_the_middle_of_the_boundary_costs(
    weight: float, c_small: float, c_large: float
) -> None:
    costs = COSTS + 1e-3  # none of them the middle itself
    signs = [advantage(-weight * c, -weight * c_small, -weight * c_large) >= 0 for c in costs]
    assert signs == [c <= (c_small + c_large) / 2 for c in costs]
    assert any(signs)
    assert not all(signs)
    middle = (c_small + c_large) / 2
    assert_allclose(advantage(-weight * middle, -weight * c_small, -weight * c_large), 0.0, atol=1e-12)
