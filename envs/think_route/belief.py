"""What the learned sequential reference believes: how right each choice is, and how answers agree.

A question has a latent ease z (a grid of standard normal points). Choice m is right with probability p_m(z) =
sigmoid(a·logit q_m + s·z), where q_m is the ensemble's calibrated prediction and a keeps the mean over z at
q_m; given z, choices are right independently. Right answers to a question coincide with probability κ, wrong
ones with probability ω (an answer joins earlier ones in proportion to how many gave them), right and wrong
ones never. An empty answer is wrong. A checker says yes to right and to wrong answers with two probabilities.
s, κ, ω and the checker's probabilities are fitted on train; κ and ω depend on the question through its
nearest neighbours.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rlroute.envs.think_route.experience import Experience
from rlroute.envs.think_route.scorer import AnswerEvidence
from rlroute.logistic import fit_logistic, logit, sigmoid
from rlroute.predictors import NearestNeighbours

Floats = NDArray[np.float64]
GRID = np.linspace(-2.1, 2.1, 7)
GRID_WEIGHT = np.exp(-0.5 * GRID**2) / np.exp(-0.5 * GRID**2).sum()
SPREADS = (0.0, 0.5, 1.0, 1.5, 2.0, 2.5, 3.0, 4.0)
NEIGHBOURS = 30


@dataclass(frozen=True)
class Belief:
    """What the posterior is made of, for every state of a log."""

    right: Floats  # (S, C, Z) probability that a choice is right at each point of the grid
    right_coincide: Floats  # (S,) κ
    wrong_coincide: Floats  # (S,) ω
    looks: Floats  # (R,) log-likelihood ratio (right to wrong) of what a response looks like
    has_verdict: NDArray[np.bool_]  # (S,) a verdict is expected here
    yes_if_right: float
    yes_if_wrong: float
    spread: float

    @classmethod
    def fit(cls, experience: Experience, with_verdict: bool) -> Belief:
        arrays = experience.arrays
        guess, outcome = experience.quality("ensemble"), experience.recorded
        train = experience.train
        odds = _calibrated(guess, outcome, train)
        spread = _fit_spread(odds[train], outcome[train])
        first = _first_rows(arrays)
        kappa, omega = _coincidence(experience, first)
        known = np.isfinite(arrays.verdict) & with_verdict
        state = np.repeat(np.arange(len(first)), np.diff(arrays.cell[:: first.shape[1]]))
        used = known & train[state]
        good = experience.worth >= 0.5
        yes = np.nan_to_num(arrays.verdict) >= 0.5
        return cls(
            right=_at_grid(odds, spread),
            right_coincide=kappa,
            wrong_coincide=omega,
            looks=AnswerEvidence(experience, odds).ratio,
            has_verdict=_verdict_expected(experience, state, known),
            yes_if_right=_share(yes[used & good]),
            yes_if_wrong=_share(yes[used & ~good]),
            spread=spread,
        )


def _calibrated(guess: Floats, outcome: Floats, train: NDArray[np.bool_]) -> Floats:
    """Log-odds (S, C) after one Platt slope for all choices and one offset each, fitted on train."""
    x = logit(guess, 0.02)
    choices = x.shape[1]
    known = np.isfinite(outcome) & train[:, None]
    row, column = np.nonzero(known)
    design = np.zeros((len(row), choices + 2))
    design[np.arange(len(row)), column] = 1.0
    design[:, -2], design[:, -1] = x[row, column], 1.0
    if len(row) == 0:
        return x
    weights = fit_logistic(design, outcome[row, column])
    return np.asarray(x * weights[-2] + weights[-1] + weights[:choices])


def _at_grid(odds: Floats, spread: float) -> Floats:
    """Probability right (S, C, Z); the probit rule keeps the mean over the grid near sigmoid(odds)."""
    stretch = np.sqrt(1 + np.pi / 8 * spread**2)
    return sigmoid(odds[:, :, None] * stretch + spread * GRID)


def _fit_spread(odds: Floats, outcome: Floats) -> float:
    """The spread of z that makes the outcomes of different choices on one question likeliest."""
    known = np.isfinite(outcome)
    y = np.where(known, outcome, 0.0)
    best, best_value = 0.0, -np.inf
    for spread in SPREADS:
        p = np.clip(_at_grid(odds, spread), 1e-6, 1 - 1e-6)
        one = np.where(known[:, :, None], y[:, :, None] * np.log(p) + (1 - y[:, :, None]) * np.log(1 - p), 0.0)
        joint = one.sum(axis=1)
        top = joint.max(axis=1, keepdims=True)
        value = float((np.log(np.exp(joint - top) @ GRID_WEIGHT) + top[:, 0]).sum())
        if value > best_value:
            best, best_value = spread, value
    return best


def _first_rows(arrays: Any) -> NDArray[np.int64]:
    """Row of the first attempt of each (state, choice), −1 where there is none."""
    return np.where(arrays.num_attempts > 0, arrays.cell[:-1].reshape(arrays.num_attempts.shape), -1)


def _coincidence(experience: Experience, first: NDArray[np.int64]) -> tuple[Floats, Floats]:
    """How often right answers, and wrong ones, coincide (S,), from the neighbours' pairs of choices."""
    arrays = experience.arrays
    present = first >= 0
    row = np.where(present, first, 0)
    answer = np.where(present, arrays.answer[row], -1)
    right = present & (answer >= 0) & (experience.worth[row] >= 0.5)
    wrong = present & (answer >= 0) & ~right
    counts = np.zeros((len(first), 4))  # right pairs that agree, right pairs, wrong pairs that agree, wrong pairs
    for side, kind in enumerate((right, wrong)):
        for a in range(first.shape[1]):
            for b in range(a):
                both = kind[:, a] & kind[:, b]
                counts[:, 2 * side] += both & (answer[:, a] == answer[:, b])
                counts[:, 2 * side + 1] += both
    train = experience.train
    near = NearestNeighbours(NEIGHBOURS).fit(experience.features[train], counts[train]).predict(experience.features)
    tables = []
    for side, prior in enumerate((0.8, 0.2)):
        same, pairs = counts[train, 2 * side].sum(), counts[train, 2 * side + 1].sum()
        # A few pairs of the average question steady the ratio where the neighbours have hardly any.
        steady = 2.0 / NEIGHBOURS
        ratio = (near[:, 2 * side] + steady * (same + prior) / (pairs + 1.0)) / (near[:, 2 * side + 1] + steady)
        tables.append(np.clip(ratio, 0.01, 0.99))
    return tables[0], tables[1]


def _verdict_expected(experience: Experience, state: NDArray[np.int64], known: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """(S,) whether most answers to questions like this one carry a verdict."""
    total = np.bincount(state, minlength=len(experience.train))
    share = np.bincount(state, weights=known, minlength=len(total)) / np.maximum(total, 1)
    train = experience.train & (total > 0)
    if not known.any() or share[train].min(initial=1.0) > 0.9:
        return np.full(len(total), bool(known.any()))
    table = NearestNeighbours(5).fit(experience.features[train], share[train, None]).predict(experience.features)
    return np.asarray(table[:, 0] > 0.5)


def _share(yes: NDArray[np.bool_]) -> float:
    return float((yes.sum() + 0.5) / (len(yes) + 1.0))
