"""Reference policies of BudgetRoute that know no more than a live router: what a trained one has to beat.

Each family of references is a list of candidates that differ in one knob; `rlroute.evaluation.tune` keeps the
best on `val` at each weight or cap. *Small* is the cheapest choice, *large* the best on train among the
expensive ones. A call that the mask forbids falls back to the other of the two, then to any that is legal.

- always small; First-Large (always large: under a cap it spends the large calls first); the first k large;
- random mix: large with probability p at every step;
- per-step rule: logistic guess of what large would add to the chance of success here, against a threshold;
- myopic bandit: per choice a ridge estimate of success after it, minus its price.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rlroute import draws
from rlroute.features import TRAIN
from rlroute.graph import always, best_single, prospects, reach
from rlroute.logistic import fit_logistic, sigmoid
from rlroute.policies import Actions, Array, Policy, best_legal, dynamics_of
from rlroute.predictors import Ridge

Floats = NDArray[np.float64]
FIRST_CALLS = (1, 2, 3, 5, 8, 12)
PROBABILITIES = tuple(np.round(np.linspace(0.05, 0.95, 13), 3).tolist())
QUANTILES = np.linspace(0.02, 0.98, 25)
PRICE_SCALES = (0.0, 0.1, 0.2, 0.4, 0.7, 1.0, 1.5, 2.5, 4.0)
MARGINS = (0.0, 0.01, 0.02, 0.04, 0.06, 0.1, 0.15)


def small_and_large(dynamics: Any) -> tuple[int, int]:
    """The cheapest choice, and among the expensive ones the one that alone succeeds most often on train."""
    small = int(np.argmin(dynamics.pool.mean_cost_usd))
    expensive = np.flatnonzero(dynamics.expensive & (np.arange(dynamics.pool.size) != small))
    arrays = dynamics.arrays
    roots = np.flatnonzero(arrays.root & (dynamics.split == TRAIN))
    quality = always(arrays)[0][roots]
    return small, int(expensive[best_single(quality[:, expensive])])


@dataclass(frozen=True)
class Learned:
    """What the train split teaches, for every state of the log: `gain` (S,) and `success` (S, C)."""

    small: int
    large: int
    gain: Floats  # predicted gain in the chance of success from calling large rather than small
    success: Floats  # predicted chance of success after each choice

    @classmethod
    def of(cls, dynamics: Any) -> Learned:
        arrays = dynamics.arrays
        small, large = small_and_large(dynamics)
        after = prospects(arrays)
        weight = reach(arrays)
        x = step_features(dynamics)
        recorded = np.isfinite(after[:, small]) & np.isfinite(after[:, large])
        train = (dynamics.split == TRAIN) & ~arrays.terminal & (weight > 0) & recorded
        # A gain in probability is a soft label: how often large saves what small loses here.
        label = np.clip(after[train, large] - after[train, small], 0.0, 1.0)
        weights = fit_logistic(x[train], label, weight[train])
        # Rows are repeated in proportion to how often they are met, so that ridge needs no weights.
        met = np.flatnonzero(train)
        rng = np.random.default_rng(0)
        sample = rng.choice(met, size=max(4 * len(met), 1000), p=weight[met] / weight[met].sum())
        success = Ridge(0.03).fit(x[sample, :-1], after[sample]).predict(x[:, :-1])
        return cls(small, large, sigmoid(x @ weights), success)


def step_features(dynamics: Any) -> Floats:
    """What a live router sees of a step but its budget (S, F): text, extra numbers, priors, step, one."""
    arrays = dynamics.arrays
    step = np.asarray(arrays.step, np.float64)[:, None] / max(1, dynamics.horizon)
    one = np.ones((len(step), 1))
    parts = [dynamics.text, dynamics.features.extra, dynamics.prior, step, one]
    return np.concatenate([np.asarray(part, np.float64) for part in parts], axis=1)


class StepPolicy(ABC):
    """Large or small at every step; subclasses say where large is wanted."""

    name = "step policy"
    reads_terms = False

    def __init__(self, small: int, large: int) -> None:
        self.small, self.large = small, large

    def begin(self, env: Any) -> None:
        self.dynamics = dynamics_of(env)

    def act(self, observation: Array, action_mask: Array) -> Actions:
        wanted = self.wants_large()
        scores = np.zeros(action_mask.shape)
        scores[:, self.small] = np.where(wanted, 1.0, 2.0)
        scores[:, self.large] = np.where(wanted, 2.0, 1.0)
        return best_legal(scores, action_mask)

    @abstractmethod
    def wants_large(self) -> NDArray[np.bool_]:
        """(N,) for the slots of the environment."""


class FirstLarge(StepPolicy):
    """Large for the first `calls` steps (None: for as long as the mask allows), then small."""

    def __init__(self, small: int, large: int, calls: int | None = None) -> None:
        super().__init__(small, large)
        self.calls = np.inf if calls is None else calls
        self.name = "always small" if calls == 0 else "First-Large" if calls is None else f"first {calls} large"

    def wants_large(self) -> NDArray[np.bool_]:
        return np.asarray(self.dynamics.visits.sum(axis=1) < self.calls)


class RandomMix(StepPolicy):
    """Large with probability p at every step, as far as the cap allows; repeatable."""

    def __init__(self, small: int, large: int, probability: float, seed: int = 0) -> None:
        super().__init__(small, large)
        self.probability, self.key = probability, draws.key_from_seed(seed)
        self.name = f"large with p = {probability:g}"

    def wants_large(self) -> NDArray[np.bool_]:
        d = self.dynamics
        draw = draws.uniform(self.key, draws.Stream.POLICY, d.slot, d.episode, d.visits.sum(axis=1))
        return np.asarray(draw < self.probability)


class StepRule(StepPolicy):
    """Large where the predicted gain is at least `threshold`."""

    def __init__(self, learned: Learned, threshold: float) -> None:
        super().__init__(learned.small, learned.large)
        self.learned, self.threshold = learned, threshold
        self.name = f"large where the gain ≥ {threshold:.3f}"

    def wants_large(self) -> NDArray[np.bool_]:
        return np.asarray(self.learned.gain[self.dynamics.state] >= self.threshold)


class MyopicBandit:
    """The choice of the largest predicted success minus price; blind to later steps and to the budget left.

    The price is the cost weight (times `price_scale`) of the mean cost, plus `margin` for an expensive call.
    """

    def __init__(self, learned: Learned, price_scale: float = 1.0, margin: float = 0.0) -> None:
        self.learned, self.price_scale, self.margin = learned, price_scale, margin
        self.name = f"myopic bandit (price × {price_scale:g}, margin {margin:g})"

    def begin(self, env: Any) -> None:
        self.dynamics = dynamics_of(env)

    def act(self, observation: Array, action_mask: Array) -> Actions:
        d = self.dynamics
        price = self.price_scale * d.w_cost[:, None] * d.pool.mean_cost_usd / d.c_ref
        return best_legal(self.learned.success[d.state] - price - self.margin * d.expensive, action_mask)


def references(env: Any) -> dict[str, list[Policy]]:
    """All references as {family of references: candidates}, fitted on the train split of `env`'s log."""
    dynamics = dynamics_of(env)
    learned = Learned.of(dynamics)
    small, large = learned.small, learned.large
    live = np.flatnonzero((dynamics.split == TRAIN) & ~dynamics.arrays.terminal & (reach(dynamics.arrays) > 0))
    thresholds = np.unique(np.quantile(learned.gain[live], QUANTILES))
    return {
        "always small": [FirstLarge(small, large, 0)],
        "First-Large": [FirstLarge(small, large)],
        "first k large": [FirstLarge(small, large, k) for k in FIRST_CALLS],
        "random mix": [RandomMix(small, large, p) for p in PROBABILITIES],
        "per-step rule": [StepRule(learned, float(t)) for t in thresholds],
        "myopic bandit": [MyopicBandit(learned, s, m) for s in PRICE_SCALES for m in MARGINS],
    }
