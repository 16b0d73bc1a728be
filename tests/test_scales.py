"""The scales of observations: near the logarithm, alike as a kernel and on arrays, and with an answer to anything."""

from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.testing import assert_allclose

from rlroute.envs.scales import log2, money_feature, money_features, weight_feature
from rlroute.jit import bind, kernel

NUMBERS = np.exp(np.random.default_rng(0).uniform(math.log(2.0**-10), math.log(2.0**10), 5000))
ODD = np.array([0.0, -1.0, -0.0, 1e-300, 1e300, np.inf, -np.inf, np.nan, -np.nan, 2.0**-10, 2.0**10])


@kernel
def scale_all(numbers: np.ndarray, out: np.ndarray) -> None:
    """All scales of an array, by kernels."""
    for i in range(len(numbers)):
        out[i, 0] = log2(numbers[i])
        out[i, 1] = money_feature(numbers[i])
        out[i, 2] = weight_feature(numbers[i])


def test_the_table_is_near_the_logarithm() -> None:
    assert_allclose([log2(float(x)) for x in NUMBERS], np.log2(NUMBERS), atol=5e-5)


def test_amounts_are_observed_alike_one_by_one_and_in_arrays() -> None:
    amounts = np.concatenate([NUMBERS, ODD[:7]])
    assert_allclose(money_features(amounts), [money_feature(float(x)) for x in amounts], atol=1e-6)


def test_the_ends_of_scales() -> None:
    assert [weight_feature(w) for w in (0.0, 1e-3, 1e2, 1e9)] == [0.0, 0.0, 1.0, 1.0]
    assert [money_feature(x) for x in (0.0, 1 / 256, 1.0, 256.0, math.inf)] == [-1.0, -1.0, 0.0, 1.0, 1.0]


def test_whatever_the_number_it_is_on_the_scale_and_compiled_as_not() -> None:
    numbers = np.concatenate([NUMBERS, ODD])
    plain, compiled = np.empty((2, len(numbers), 3))
    scale_all(numbers, plain)
    pytest.importorskip("numba")
    bind(scale_all, numbers, compiled)(numbers, compiled)
    np.testing.assert_array_equal(compiled, plain)
    assert np.isfinite(plain).all()
    assert plain[:, 1].min() >= -1.0
    assert plain[:, 2].min() >= 0.0
    assert plain[:, 1:].max() <= 1.0
