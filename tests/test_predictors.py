"""Single-shot predictors on plain arrays."""

from __future__ import annotations

import numpy as np
import pytest

from rlroute.predictors import (
    Boosted,
    LogCost,
    NearestNeighbours,
    Projection,
    Ridge,
    cross_fitted,
    squared_error,
    tune,
)


def linear_problem(rows: int = 400, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(rows, 6))
    return x, x @ rng.normal(size=(6, 3)) + 0.5 + 0.1 * rng.normal(size=(rows, 3))


@pytest.mark.parametrize("make", [Ridge, Boosted, lambda: NearestNeighbours(10)])
def test_every_predictor_beats_the_mean_on_a_learnable_problem(make) -> None:  # type: ignore[no-untyped-def]
    if make is Boosted:
        pytest.importorskip("sklearn")
    x, y = linear_problem()
    error = squared_error(make().fit(x[:300], y[:300]).predict(x[300:]), y[300:])
    assert error < 0.6 * squared_error(np.broadcast_to(y[:300].mean(axis=0), (100, 3)), y[300:])


def test_nearest_neighbours_average_the_closest_by_cosine_and_one_overall_mean() -> None:
    x = np.array([[1.0, 0.0], [2.0, 0.1], [0.0, 1.0]])
    y = np.array([[1.0], [0.0], [0.0]])
    # The two nearest by angle, plus the overall mean of 1/3 as a third.
    assert NearestNeighbours(2).fit(x, y).predict(np.array([[5.0, 0.0]]))[0, 0] == pytest.approx((1 + 1 / 3) / 3)


def test_several_k_at_once_equal_one_at_a_time() -> None:
    x, y = linear_problem()
    together = NearestNeighbours().fit(x[:300], y[:300]).predict_for(x[300:], (3, 17))
    for k, table in zip((3, 17), together, strict=True):
        assert np.allclose(table, NearestNeighbours(k).fit(x[:300], y[:300]).predict(x[300:]))


@pytest.mark.parametrize("make", [Ridge, Boosted, NearestNeighbours])
def test_choices_that_were_not_tried_on_a_row_are_left_out_and_never_make_nan(make) -> None:  # type: ignore[no-untyped-def]
    if make is Boosted:
        pytest.importorskip("sklearn")
    x, y = linear_problem()
    y[::2, 0] = np.nan
    y[:, 2] = np.nan
    table = make().fit(x, y).predict(x)
    assert np.isfinite(table).all()
    kept = y[1::2, 0]
    assert abs(table[1::2, 0].mean() - kept.mean()) < 0.2


def test_ridge_on_a_full_table_equals_ridge_column_by_column() -> None:
    x, y = linear_problem()
    together = Ridge(2.0).fit(x, y).predict(x)
    alone = np.column_stack([Ridge(2.0).fit(x, y[:, [c]]).predict(x) for c in range(3)])
    assert np.allclose(together, alone)


def test_predicted_cost_is_positive_and_right_on_average() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(500, 4))
    cost = np.exp(x @ np.array([[0.5], [0.2], [0.0], [0.0]]) - 8 + 0.4 * rng.normal(size=(500, 1)))
    cost = np.column_stack([cost, np.zeros(500)])  # a free choice
    table = LogCost().fit(x, cost).predict(x)
    assert (table[:, 0] > 0).all()
    assert table[:, 0].mean() == pytest.approx(cost[:, 0].mean(), rel=0.05)
    assert np.corrcoef(np.log(table[:, 0]), np.log(cost[:, 0]))[0, 1] > 0.6
    assert (table[:, 1] == 0).all()


def test_cross_fitting_never_shows_a_row_its_own_group() -> None:
    # Every group has its own feature direction and a random label: memorising is possible, learning is not.
    groups = np.repeat(np.arange(60), 2)
    rng = np.random.default_rng(0)
    x = np.repeat(np.eye(60), 2, axis=0)
    y = np.repeat(rng.integers(0, 2, 60), 2)[:, None].astype(float)
    train = np.ones(120, bool)
    table = cross_fitted(lambda: Ridge(0.01), x, y, train, groups)
    assert squared_error(table, y) > 0.2
    assert squared_error(Ridge(0.01).fit(x, y).predict(x), y) < 0.05


def test_rows_outside_train_are_predicted_from_all_of_train() -> None:
    x, y = linear_problem()
    train = np.arange(400) < 300
    table = cross_fitted(Ridge, x, y, train, np.arange(400))
    assert np.allclose(table[300:], Ridge().fit(x[:300], y[:300]).predict(x[300:]))


def test_tuning_prefers_the_knob_that_does_best_on_val() -> None:
    x, y = linear_problem(rows=60)
    train = np.arange(60) < 40
    assert tune(Ridge, (1e6, 0.01), x, y, train, ~train) == 0.01


def test_projection_keeps_the_direction_of_most_variance() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(300, 3)) * np.array([0.1, 5.0, 0.1])
    projected = Projection(1).fit(x).transform(x)
    assert abs(np.corrcoef(projected[:, 0], x[:, 1])[0, 1]) > 0.999
