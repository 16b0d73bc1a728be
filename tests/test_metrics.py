"""Numbers that compare routers."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlroute import metrics


def test_hull_keeps_the_vertices_and_drops_what_lies_under_or_costs_more_for_less() -> None:
    cost = np.array([1.0, 2.0, 3.0, 4.0, 5.0, 2.5, np.nan])
    quality = np.array([0.2, 0.6, 0.65, 0.8, 0.7, 0.5, 1.0])
    assert metrics.upper_hull(cost, quality).tolist() == [0, 1, 3]


@given(st.lists(st.tuples(st.floats(0.01, 10), st.floats(0, 1)), min_size=1, max_size=12))
def test_no_point_lies_above_the_hull_and_the_hull_is_concave(points: list[tuple[float, float]]) -> None:
    cost, quality = np.array(points).T
    assert np.all(metrics.quality_at(cost, quality, cost) >= quality - 1e-9)
    grid = np.linspace(0, 12, 50)
    values = metrics.quality_at(cost, quality, grid)
    assert np.all(np.diff(values) >= -1e-12)
    assert np.all(np.diff(values, 2) <= 1e-9)


def test_quality_between_two_points_is_that_of_their_mix_and_left_of_them_on_the_line_to_the_origin() -> None:
    at = metrics.quality_at([1.0, 3.0], [0.4, 0.8], [0.5, 2.0, 9.0])
    assert at == pytest.approx([0.2, 0.6, 0.8])


def test_cost_to_reach_inverts_quality_at_and_is_nan_above_the_best() -> None:
    assert metrics.cost_to_reach([1.0, 3.0], [0.4, 0.8], 0.6) == pytest.approx(2.0)
    assert np.isnan(metrics.cost_to_reach([1.0, 3.0], [0.4, 0.8], 0.81))


def test_the_two_definitions_of_aiq_differ_as_described() -> None:
    # From cost 1 to 3 the hull rises from .4 to .8, then stays: mean over [1, 5] is (2·.6 + 2·.8)/4.
    assert metrics.aiq([1.0, 3.0], [0.4, 0.8], 1.0, 5.0) == pytest.approx(0.7)
    assert metrics.aiq_routerbench_code([1.0, 3.0], [0.4, 0.8], 5.0) == pytest.approx(2.8 / 5)
    with pytest.raises(ValueError, match="increasing"):
        metrics.aiq([1.0], [0.5], 2.0, 2.0)


def test_gap_recovered_is_zero_at_weak_one_at_strong_and_half_on_the_diagonal() -> None:
    assert metrics.performance_gap_recovered([0.4, 0.8], 0.4, 0.8).tolist() == [0, 1]
    assert metrics.average_gap_recovered([0.5], [0.6], 0.4, 0.8) == pytest.approx(0.5)
    assert metrics.average_gap_recovered([0.5], [0.8], 0.4, 0.8) == pytest.approx(0.75)


def test_threshold_is_the_first_crossing_of_the_running_maximum() -> None:
    share, quality = [0.0, 0.2, 0.4, 0.6, 1.0], [0.4, 0.6, 0.5, 0.7, 0.8]
    assert metrics.call_performance_threshold(share, quality, 0.4, 0.8, 0.5) == pytest.approx(0.2)
    assert metrics.call_performance_threshold(share, quality, 0.4, 0.8, 0.625) == pytest.approx(0.5)
    assert np.isnan(metrics.call_performance_threshold(share, quality, 0.4, 0.9, 0.95))


def test_cost_per_success_counts_the_cost_of_failures() -> None:
    assert metrics.cost_per_success([1.0, 2.0, 3.0], [1, 0, 1]) == 3.0
    assert metrics.cost_per_success([1.0], [0]) == float("inf")


def test_interquartile_mean_ignores_the_tails_and_weights_the_edges() -> None:
    assert metrics.interquartile_mean([-100, 1, 3, 100]) == pytest.approx(2.0)
    # Six values: half of the second and of the fifth count.
    assert metrics.interquartile_mean([0, 2, 3, 5, 8, 99]) == pytest.approx((1 + 3 + 5 + 4) / 3)


def test_bootstrap_interval_covers_the_mean_about_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)
    hits = 0
    for trial in range(200):
        low, high = metrics.bootstrap_interval(rng.normal(1.0, 2.0, 60), resamples=400, seed=trial)
        hits += low <= 1.0 <= high
    assert 180 <= hits <= 199


def test_stratified_bootstrap_removes_the_variance_between_strata() -> None:
    values, strata = np.repeat([0.0, 10.0], 50), np.repeat([0, 1], 50)
    assert metrics.bootstrap_interval(values, strata) == (5.0, 5.0)
    low, high = metrics.bootstrap_interval(values)
    assert high - low > 1.0


def test_beats_needs_the_interval_to_exclude_zero() -> None:
    rng = np.random.default_rng(1)
    groups = np.repeat(np.arange(100), 3)
    base = rng.normal(size=300)
    assert metrics.beats(base + 0.2 + 0.1 * rng.normal(size=300), base, groups).verdict == "beats"
    assert metrics.beats(base - 0.2, base, groups).verdict == "loses"
    assert metrics.beats(base + rng.normal(size=300), base, groups).verdict == "tie"
    assert metrics.beats(base, base, groups).verdict == "tie"


def test_pairing_finds_a_difference_that_unpaired_noise_would_hide() -> None:
    rng = np.random.default_rng(2)
    difficulty = 10 * rng.normal(size=80)
    verdict = metrics.beats(difficulty + 0.1 + 0.05 * rng.normal(size=80), difficulty, np.arange(80))
    assert verdict.verdict == "beats"
    assert verdict.difference == pytest.approx(0.1, abs=0.02)


def test_repetitions_of_one_group_are_one_observation() -> None:
    rng = np.random.default_rng(3)
    per_group = rng.normal(0.1, 1.0, 20)
    once = metrics.beats(per_group, np.zeros(20), np.arange(20))
    often = metrics.beats(np.repeat(per_group, 50), np.zeros(1000), np.repeat(np.arange(20), 50))
    assert (once.low, once.high, once.groups) == pytest.approx((often.low, often.high, often.groups))
