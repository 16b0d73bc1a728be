"""The quality prior: how well each choice has done on states like this one, learned from the train split alone.

A ridge regression per choice from the features of a state to the mean recorded quality. It gives every choice block
of an observation its aptitude for the text at hand, and is stored in the policy so that a live loop can compute it too.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations

import numpy as np

NUM_FOLDS = 5
PENALTIES = (0.3, 1.0, 3.0, 10.0, 30.0)


@dataclass(frozen=True)
class QualityPrior:
    """Linear estimate ``features @ weights + bias``, clipped to [0, 1]."""

    weights: np.ndarray  # (num_features, num_targets)
    bias: np.ndarray  # (num_targets,)

    def __call__(self, features: np.ndarray) -> np.ndarray:
        """Features of shape (N, num_features) to estimates of shape (N, num_targets), float32."""
        # In float64, so that the float32 result is the same for one text as for a batch of them.
        estimate = features.astype(np.float64) @ self.weights.astype(np.float64) + self.bias
        return np.clip(estimate, 0.0, 1.0).astype(np.float32)


def fit_prior(
    features: np.ndarray,  # (N, num_features), the train states
    quality: np.ndarray,  # (N, num_targets), in [0, 1], NaN where nothing is recorded
    weight: np.ndarray,  # (N,), how much a state counts
    group: np.ndarray,  # (N,), states of one group never help to estimate one another
) -> tuple[QualityPrior, np.ndarray]:
    """The prior fitted on all rows, and its cross-fitted estimates for these rows, of shape (N, num_targets).

    Cross-fitting keeps a training episode honest: the estimate in its observation comes from a fit that has not
    seen its group, as it will be for a question nobody has recorded. Nor has the choice of its penalty, which is
    the one with the least cross-fitted squared error on the other folds.
    """
    num_features, num_choices = features.shape[1], quality.shape[1]
    fold = (group.astype(np.int64) * 2654435761 % 2**32 * NUM_FOLDS) >> 32
    weights = np.zeros((num_features, num_choices), np.float32)
    bias = np.zeros(num_choices, np.float32)
    estimates = np.zeros(quality.shape, np.float32)
    for choices in _same_rows(quality):
        known = np.flatnonzero(~np.isnan(quality[:, choices[0]]) & (weight > 0))
        if not len(known):
            bias[choices] = estimates[:, choices] = 0.5
            continue
        fits = _Fits(features[known], quality[np.ix_(known, choices)], weight[known], fold[known])
        penalty, penalty_of_fold = fits.best_penalties()
        weights[:, choices], bias[choices] = fits.solve(penalty)
        for k in range(NUM_FOLDS):
            fold_weights, fold_bias = fits.solve(penalty_of_fold[k], without=(k,))
            rows = np.flatnonzero(fold == k)
            estimates[np.ix_(rows, choices)] = np.clip(features[rows] @ fold_weights + fold_bias, 0.0, 1.0)
    return QualityPrior(weights, bias), estimates


def _same_rows(quality: np.ndarray) -> list[np.ndarray]:
    """Choices grouped by the rows in which they are recorded, so that full logs factorise one matrix only."""
    patterns: dict[bytes, list[int]] = {}
    for choice, missing in enumerate(np.isnan(quality).T):
        patterns.setdefault(missing.tobytes(), []).append(choice)
    return [np.array(choices) for choices in patterns.values()]


class _Fits:
    """Normal equations by fold, so that leaving one fold out is a subtraction."""

    def __init__(self, x: np.ndarray, y: np.ndarray, weight: np.ndarray, fold: np.ndarray) -> None:
        self.x, self.y, self.weight, self.fold = x, y.astype(np.float64), weight.astype(np.float64), fold
        self.gram, self.moment, self.mass, self.x_sum, self.y_sum = [], [], [], [], []
        for k in range(NUM_FOLDS):
            rows = np.flatnonzero(fold == k)
            wx = x[rows].astype(np.float64) * self.weight[rows, None]
            self.gram.append(_sparse_product(x[rows], wx))
            self.moment.append(wx.T @ self.y[rows])
            self.mass.append(self.weight[rows].sum())
            self.x_sum.append(wx.sum(axis=0))
            self.y_sum.append(self.weight[rows] @ self.y[rows])

    def solve(self, penalty: float, without: tuple[int, ...] = ()) -> tuple[np.ndarray, np.ndarray]:
        from scipy.linalg import solve

        kept = [k for k in range(NUM_FOLDS) if k not in without]
        mass = sum(self.mass[k] for k in kept)
        if mass <= 0:
            return np.zeros((self.x.shape[1], self.y.shape[1]), np.float32), np.full(self.y.shape[1], 0.5, np.float32)
        x_mean = sum(self.x_sum[k] for k in kept) / mass
        y_mean = sum(self.y_sum[k] for k in kept) / mass
        gram = sum(self.gram[k] for k in kept) - mass * np.outer(x_mean, x_mean)
        gram[np.diag_indices_from(gram)] += penalty
        moment = sum(self.moment[k] for k in kept) - mass * np.outer(x_mean, y_mean)
        weights = solve(gram, moment, assume_a="pos", overwrite_a=True, check_finite=False)
        return weights.astype(np.float32), (y_mean - x_mean @ weights).astype(np.float32)

    def best_penalties(self) -> tuple[float, list[float]]:
        """The penalty for all rows, and for every fold the one that is best on the other folds without it."""
        errors = np.zeros((len(PENALTIES), NUM_FOLDS, NUM_FOLDS))  # [penalty, fold scored, fold left out as well]
        for p, penalty in enumerate(PENALTIES):
            for pair in combinations(range(NUM_FOLDS), 2):
                fit = self.solve(penalty, without=pair)
                errors[(p, *pair)] = self._error(fit, pair[0])
                errors[(p, *pair[::-1])] = self._error(fit, pair[1])
        of_fold = errors.sum(axis=1).argmin(axis=0)
        return PENALTIES[int(errors.sum(axis=(1, 2)).argmin())], [PENALTIES[int(p)] for p in of_fold]

    def _error(self, fit: tuple[np.ndarray, np.ndarray], fold: int) -> float:
        rows = np.flatnonzero(self.fold == fold)
        residual = np.clip(self.x[rows] @ fit[0] + fit[1], 0.0, 1.0) - self.y[rows]
        return float((self.weight[rows, None] * residual**2).sum())


def _sparse_product(x: np.ndarray, wx: np.ndarray) -> np.ndarray:
    """``x.T @ wx``; hashed texts are nearly all zeros, which makes the sparse product some ten times quicker."""
    if x.size and np.count_nonzero(x) < 0.2 * x.size:
        from scipy.sparse import csr_array

        return np.asarray((csr_array(x.astype(np.float64)).T @ csr_array(wx)).todense())
    return np.asarray(x.T.astype(np.float64) @ wx)
