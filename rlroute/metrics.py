"""Numbers that compare routers: frontiers, intervals and paired verdicts.

Everything here works on plain arrays. Costs are USD (or any one unit), qualities lie in [0, 1]. A *frontier*
is the upper, convex, non-decreasing hull of (cost, quality) points: two policies can always be mixed by a
coin, and money can always be left unspent, so every point on or under the hull is reachable. Left of the
cheapest point the hull runs to the origin, because answering nothing costs nothing and is worth nothing.

Sources: AIQ from RouterBench (paper and code differ, both are here under their own names), PGR, APGR and CPT
from RouteLLM, IQM and the stratified bootstrap from Agarwal et al. 2021.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Statistic = Callable[[Floats], Floats]  # reduces the last axis


# -------------------------------------------------------------------------------------------------- frontiers


def upper_hull(cost: ArrayLike, quality: ArrayLike) -> Ints:
    """Indices of the vertices of the upper convex non-decreasing hull, cheapest first.

    Points that cost more without being better are never vertices, so quality rises strictly along the result.
    Points with a value that is not finite are left out.
    """
    c, q = np.asarray(cost, float), np.asarray(quality, float)
    order = np.lexsort((-q, c))
    vertices: list[int] = []
    for i in order:
        if not (np.isfinite(c[i]) and np.isfinite(q[i])):
            continue
        if vertices and q[i] <= q[vertices[-1]]:
            continue
        while len(vertices) >= 2:
            a, b = vertices[-2], vertices[-1]
            if (q[b] - q[a]) * (c[i] - c[a]) > (q[i] - q[a]) * (c[b] - c[a]):
                break
            vertices.pop()
        vertices.append(int(i))
    return np.asarray(vertices, np.int64)


def _knots(cost: ArrayLike, quality: ArrayLike) -> tuple[Floats, Floats]:
    """The hull as knots of a piecewise linear function that starts at the origin."""
    c, q = np.asarray(cost, float), np.asarray(quality, float)
    # The origin is a point like any other: a vertex that lies under the line from it is not on the frontier.
    c, q = np.append(c, 0.0), np.append(q, 0.0)
    keep = upper_hull(c, q)
    return c[keep], q[keep]


def quality_at(cost: ArrayLike, quality: ArrayLike, at: ArrayLike) -> Floats:
    """Best quality that a mixture of the points reaches at mean cost `at`; flat beyond the dearest."""
    knots, values = _knots(cost, quality)
    return np.interp(np.asarray(at, float), knots, values)


def cost_to_reach(cost: ArrayLike, quality: ArrayLike, target: float) -> float:
    """Least mean cost at which a mixture of the points has quality `target`; NaN where none has."""
    knots, values = _knots(cost, quality)
    if target > values[-1]:
        return float("nan")
    return float(np.interp(target, values, knots))


def _area(cost: ArrayLike, quality: ArrayLike, low: float, high: float) -> float:
    knots, values = _knots(cost, quality)
    inside = knots[(knots > low) & (knots < high)]
    grid = np.concatenate(([low], inside, [high]))
    return float(np.trapezoid(np.interp(grid, knots, values), grid))


def aiq(cost: ArrayLike, quality: ArrayLike, cost_min: float, cost_max: float) -> float:
    """AIQ as the RouterBench paper defines it: mean quality of the hull over the pool's cost range.

    `cost_min` and `cost_max` are the mean costs of the cheapest and the dearest single choice, the same for
    every router compared.
    """
    if not 0 <= cost_min < cost_max:
        raise ValueError(f"the cost range must be increasing and not negative, got [{cost_min}, {cost_max}]")
    return _area(cost, quality, cost_min, cost_max) / (cost_max - cost_min)


def aiq_routerbench_code(cost: ArrayLike, quality: ArrayLike, cost_max: float) -> float:
    """AIQ as RouterBench's code computes it: from the router's own least cost, divided by `cost_max`.

    It depends on where the router's cheapest point lies, so compare it with other uses of that code only.
    """
    c, q = np.asarray(cost, float), np.asarray(quality, float)
    keep = upper_hull(c, q)
    low = float(c[keep[0]])
    if low >= cost_max:
        return 0.0
    grid = np.concatenate(([low], c[keep][(c[keep] > low) & (c[keep] < cost_max)], [cost_max]))
    return float(np.trapezoid(np.interp(grid, c[keep], q[keep]), grid)) / cost_max


# --------------------------------------------------------------------------------- weak against strong models


def performance_gap_recovered(quality: ArrayLike, weak: float, strong: float) -> Floats:
    """PGR = (quality − weak) / (strong − weak): 0 at the weak model, 1 at the strong one."""
    return (np.asarray(quality, float) - weak) / (strong - weak)


def average_gap_recovered(strong_share: ArrayLike, quality: ArrayLike, weak: float, strong: float) -> float:
    """APGR: area between the router and the weak model over the share of strong calls, in units of the full
    gap.

    The points are completed by the pure models at shares 0 and 1.
    """
    x = np.concatenate(([0.0], np.asarray(strong_share, float), [1.0]))
    y = np.concatenate(([weak], np.asarray(quality, float), [strong]))
    order = np.argsort(x, kind="stable")
    return float((np.trapezoid(y[order], x[order]) - weak) / (strong - weak))


def call_performance_threshold(
    strong_share: ArrayLike, quality: ArrayLike, weak: float, strong: float, target: float
) -> float:
    """CPT(target): least share of strong calls with PGR ≥ target, NaN if never.

    The curve is the running maximum of the points, and the crossing is interpolated between the two around
    it.
    """
    order = np.argsort(np.asarray(strong_share, float), kind="stable")
    x = np.asarray(strong_share, float)[order]
    y = np.maximum.accumulate(performance_gap_recovered(np.asarray(quality, float)[order], weak, strong))
    above = np.flatnonzero(y >= target - 1e-12)  # a crossing, but for rounding
    if len(above) == 0:
        return float("nan")
    i = int(above[0])
    if i == 0:
        return float(x[0])
    return float(x[i - 1] + (target - y[i - 1]) / (y[i] - y[i - 1]) * (x[i] - x[i - 1]))


def cost_per_success(cost: ArrayLike, success: ArrayLike) -> float:
    """CPS = Σ cost / Σ success, failures' costs included; infinite without a success."""
    total = float(np.sum(np.asarray(success, float)))
    return float(np.sum(np.asarray(cost, float))) / total if total > 0 else float("inf")


# -------------------------------------------------------------------------------------------------- intervals


def interquartile_mean(values: ArrayLike) -> Floats:
    """Mean of the middle half over the last axis; edge values count in part where a quarter is no integer."""
    v = np.sort(np.asarray(values, float), axis=-1)
    n = v.shape[-1]
    position = np.arange(n)
    # The share of each unit cell [i, i+1) that lies inside [n/4, 3n/4].
    weight = np.clip(np.minimum(position + 1, 0.75 * n) - np.maximum(position, 0.25 * n), 0, 1)
    return np.asarray(v @ weight / weight.sum())


def mean(values: Floats) -> Floats:
    """Mean over the last axis."""
    return np.asarray(values.mean(axis=-1))


def group_means(values: ArrayLike, groups: ArrayLike) -> tuple[Ints, Floats]:
    """The groups that occur, and the mean of `values` in each."""
    names, inverse = np.unique(np.asarray(groups), return_inverse=True)
    v = np.asarray(values, float)
    return names, np.bincount(inverse, weights=v) / np.bincount(inverse)


def bootstrap_interval(
    values: ArrayLike,
    strata: ArrayLike | None = None,
    statistic: Statistic = mean,
    level: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
) -> tuple[float, float]:
    """Percentile bootstrap interval of a statistic of independent values, resampled within each stratum."""
    v = np.asarray(values, float)
    if len(v) == 0:
        return float("nan"), float("nan")
    labels = np.zeros(len(v), np.int64) if strata is None else np.unique(np.asarray(strata), return_inverse=True)[1]
    rng = np.random.default_rng(seed)
    # Rows of one stratum stay together, so one draw a stratum fills a block of columns; blocks of resamples
    # bound the memory to a few million numbers.
    parts = [v[labels == s] for s in range(int(labels.max()) + 1)]
    block = max(1, 4_000_000 // len(v))
    results: list[Floats] = []
    for start in range(0, resamples, block):
        rows = min(block, resamples - start)
        sample = np.concatenate([part[rng.integers(len(part), size=(rows, len(part)))] for part in parts], axis=1)
        results.append(statistic(sample))
    tail = (1 - level) / 2
    low, high = np.quantile(np.concatenate(results), [tail, 1 - tail])
    return float(low), float(high)


def interval_over_groups(
    values: ArrayLike, groups: ArrayLike, level: float = 0.95, resamples: int = 2000, seed: int = 0
) -> tuple[float, float]:
    """Bootstrap interval of the mean over groups; episodes of one group are one observation."""
    return bootstrap_interval(group_means(values, groups)[1], level=level, resamples=resamples, seed=seed)


@dataclass(frozen=True)
class Comparison:
    """The verdict of `beats`: the mean paired difference a − b, its 95 % interval and the word for it."""

    verdict: Literal["beats", "loses", "tie"]
    difference: float
    low: float
    high: float
    groups: int

    def __str__(self) -> str:
        interval = f"[{self.low:+.4f}, {self.high:+.4f}]"
        return f"{self.verdict} ({self.difference:+.4f} {interval}, {self.groups} groups)"


def beats(a: ArrayLike, b: ArrayLike, groups: ArrayLike, resamples: int = 2000, seed: int = 0) -> Comparison:
    """Does a beat b? `a` and `b` are scores of the same episodes, `groups` says which belong together.

    'beats' or 'loses' if the 95 % paired bootstrap interval over groups of the mean difference excludes 0,
    else 'tie'.
    """
    difference = np.asarray(a, float) - np.asarray(b, float)
    per_group = group_means(difference, groups)[1]
    low, high = bootstrap_interval(per_group, resamples=resamples, seed=seed)
    verdict: Literal["beats", "loses", "tie"] = "beats" if low > 0 else "loses" if high < 0 else "tie"
    return Comparison(verdict, float(per_group.mean()), low, high, len(per_group))
