"""Single-shot predictors: the quality and the cost of every choice, guessed from what is known before any
call.

A predictor is fitted on rows of features (S, D) and a table of targets (S, C), one column a choice, NaN where
nothing was recorded, and returns a full table. They are deliberately the plain ones that published routers
have to beat: the k nearest neighbours by cosine, ridge regression, and boosted trees (scikit-learn, extra
`baselines`). `cross_fitted` gives every training row a prediction that has not seen its own
group, so that whatever is fitted on top of a predictor meets the same errors on train as on test.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol, Self, TypeVar

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Array = NDArray[Any]
Knob = TypeVar("Knob")
FEW_ROWS = 1000


class Predictor(Protocol):
    """Fits a table of targets on rows of features."""

    def fit(self, features: Array, target: Array) -> Self:
        """Fit on features (n, D) and targets (n, C); NaN marks a target that was not recorded."""
        ...

    def predict(self, features: Array) -> Floats:
        """Predicted targets (m, C), finite everywhere."""
        ...


def column_means(target: Array) -> Floats:
    """Mean of every column over what was recorded; of the whole table where a column is empty; else 0."""
    known = np.isfinite(target)
    count = known.sum(axis=0)
    total = np.where(known, target, 0.0).sum(axis=0, dtype=np.float64)
    overall = total.sum() / max(1, count.sum())
    return np.where(count > 0, total / np.maximum(count, 1), overall)


class NearestNeighbours:
    """Mean over the k nearest training rows by cosine; a choice that none of them tried gets its overall
    mean.

    The overall mean also counts as one more neighbour, which keeps a small k from shouting.
    """

    def __init__(self, k: int = 20) -> None:
        self.k = k

    def fit(self, features: Array, target: Array) -> Self:
        self.features = _unit_rows(features)
        self.known = np.isfinite(target).astype(np.float32)
        self.target = np.where(np.isfinite(target), target, 0.0).astype(np.float32)
        self.mean = column_means(target)
        return self

    def predict(self, features: Array) -> Floats:
        return self.predict_for(features, (self.k,))[0]

    def predict_for(self, features: Array, ks: Sequence[int]) -> list[Floats]:
        """The predictions for several k at the price of one search."""
        query = _unit_rows(features)
        tables = [np.empty((len(query), len(self.mean))) for _ in ks]
        most = min(max(ks), len(self.features))
        chunk = max(1, 8_000_000 // max(1, len(self.features)))
        for start in range(0, len(query), chunk):
            near = _largest(query[start : start + chunk] @ self.features.T, most)
            total = np.cumsum(self.target[near], axis=1, dtype=np.float64)
            count = np.cumsum(self.known[near], axis=1, dtype=np.float64)
            for table, k in zip(tables, ks, strict=True):
                last = min(k, most) - 1
                table[start : start + chunk] = (total[:, last] + self.mean) / (count[:, last] + 1.0)
        return tables


class Ridge:
    """Linear regression with an L2 penalty, `alpha` in units of the scatter's mean eigenvalue."""

    def __init__(self, alpha: float = 1.0) -> None:
        self.alpha = alpha

    def fit(self, features: Array, target: Array) -> Self:
        x = np.asarray(features, np.float64)
        weights = np.zeros((x.shape[1], target.shape[1]))
        bias = column_means(target)
        known = np.isfinite(target)
        # Choices that were tried on the same rows share one factorisation: a full log needs exactly one.
        patterns, of_choice = np.unique(known, axis=1, return_inverse=True)
        for pattern in range(patterns.shape[1]):
            rows, columns = patterns[:, pattern], np.flatnonzero(of_choice.ravel() == pattern)
            if rows.sum() < 2:
                continue
            centre = x[rows].mean(axis=0)
            part = x[rows] - centre
            y = np.asarray(target[np.ix_(rows, columns)], np.float64)
            y_mean = y.mean(axis=0)
            gram = part.T @ part
            penalty = self.alpha * max(np.trace(gram) / len(gram), 1e-12)
            gram[np.diag_indices_from(gram)] += penalty
            solved = np.linalg.solve(gram, part.T @ (y - y_mean))
            weights[:, columns] = solved
            bias[columns] = y_mean - centre @ solved
        self.weights, self.bias = weights, bias
        return self

    def predict(self, features: Array) -> Floats:
        return np.asarray(np.asarray(features, np.float64) @ self.weights + self.bias)


class Boosted:
    """One small ensemble of boosted trees a choice, on the leading principal components of the features.

    On fewer than `FEW_ROWS` rows the trees are smaller and fewer by half, because full ones overfit there.
    """

    def __init__(self, components: int = 32, trees: int = 60, leaves: int = 8, learning_rate: float = 0.08) -> None:
        self.components, self.trees, self.leaves, self.learning_rate = (
            components,
            trees,
            leaves,
            learning_rate,
        )

    def fit(self, features: Array, target: Array) -> Self:
        try:
            from sklearn.ensemble import HistGradientBoostingRegressor
        except ImportError as error:
            raise ImportError('boosted trees need scikit-learn: pip install "rlroute[baselines]"') from error
        self.projection = Projection(self.components).fit(features)
        x = self.projection.transform(features)
        self.mean = column_means(target)
        self.models: list[Any] = []
        shrink = 2 if len(x) < FEW_ROWS else 1
        for c in range(target.shape[1]):
            rows = np.isfinite(target[:, c])
            if rows.sum() < 20 or np.ptp(target[rows, c]) == 0:
                self.models.append(None)  # nothing to learn from
                continue
            model = HistGradientBoostingRegressor(
                max_iter=self.trees // shrink,
                max_leaf_nodes=self.leaves // shrink,
                learning_rate=self.learning_rate,
                min_samples_leaf=10,
                l2_regularization=1.0,
                max_bins=64,
                early_stopping=False,
                random_state=0,
            )
            self.models.append(model.fit(x[rows], target[rows, c]))
        return self

    def predict(self, features: Array) -> Floats:
        x = self.projection.transform(features)
        table = np.broadcast_to(self.mean, (len(x), len(self.mean))).copy()
        for c, model in enumerate(self.models):
            if model is not None:
                table[:, c] = model.predict(x)
        return table


class LogCost:
    """Cost in USD: ridge on the logarithm, corrected so that the mean over the training rows is right."""

    def __init__(self, alpha: float = 1.0) -> None:
        self.ridge = Ridge(alpha)

    def fit(self, features: Array, target: Array) -> Self:
        positive = np.isfinite(target) & (target > 0)
        self.mean = column_means(target)
        self.free = ~positive.any(axis=0)
        # Where a call was free now and then (errors), the logarithm is fitted on the calls that were not.
        self.ridge.fit(features, np.log(np.where(positive, target, np.nan)))
        fitted = np.exp(self.ridge.predict(features))
        smear = column_means(np.where(np.isfinite(target), fitted, np.nan))
        self.scale = np.where(smear > 0, self.mean / np.where(smear > 0, smear, 1.0), 1.0)
        self.low, self.high = self.mean / 20, self.mean * 20
        return self

    def predict(self, features: Array) -> Floats:
        table = np.exp(self.ridge.predict(features)) * self.scale
        return np.where(self.free, self.mean, np.clip(table, self.low, self.high))


class Projection:
    """The leading principal components of the features (no more than there are columns)."""

    def __init__(self, components: int) -> None:
        self.components = components

    def fit(self, features: Array) -> Self:
        x = np.asarray(features, np.float64)
        self.centre = x.mean(axis=0)
        covariance = (x - self.centre).T @ (x - self.centre) / max(1, len(x))
        _, vectors = np.linalg.eigh(covariance)
        self.axes = vectors[:, ::-1][:, : self.components]
        return self

    def transform(self, features: Array) -> Floats:
        return np.asarray((np.asarray(features, np.float64) - self.centre) @ self.axes)


def cross_fitted(
    make: Callable[[], Predictor], features: Array, target: Array, train: Array, groups: Array, folds: int = 3
) -> Floats:
    """Predictions for every row (S, C): rows outside `train` from a fit on all of train, rows inside it from
    fits that left their own group out.

    `train` is a mask (S,), `groups` (S,) integers: rows of one group are never split between folds.
    """
    table = np.empty(target.shape)
    rest = ~train
    table[rest] = make().fit(features[train], target[train]).predict(features[rest])
    fold = np.unique(groups, return_inverse=True)[1] % folds
    for k in range(folds):
        held, kept = train & (fold == k), train & (fold != k)
        if held.any():
            source = kept if kept.any() else held
            table[held] = make().fit(features[source], target[source]).predict(features[held])
    return table


def squared_error(prediction: Array, target: Array) -> float:
    """Mean squared error over what was recorded."""
    known = np.isfinite(target)
    return float(np.mean((prediction[known] - target[known]) ** 2)) if known.any() else 0.0


def tune(
    make: Callable[[Knob], Predictor],
    knobs: Sequence[Knob],
    features: Array,
    target: Array,
    train: Array,
    val: Array,
) -> Knob:
    """The knob with the least squared error on `val` after a fit on `train` (the first of equals)."""
    errors = []
    for knob in knobs:
        fitted = make(knob).fit(features[train], target[train])
        errors.append(squared_error(fitted.predict(features[val]), target[val]))
    return knobs[int(np.argmin(errors))]


def _unit_rows(features: Array) -> NDArray[np.float32]:
    x = np.asarray(features, np.float32)
    return x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), np.float32(1e-12))


def _largest(scores: Array, k: int) -> NDArray[np.int64]:
    """Columns of the k largest scores of every row, best first, equal scores in column order."""
    top = (
        np.argpartition(-scores, k - 1, axis=1)[:, :k]
        if k < scores.shape[1]
        else np.broadcast_to(np.arange(scores.shape[1]), scores.shape)
    )
    top = np.sort(top, axis=1)
    order = np.argsort(-np.take_along_axis(scores, top, axis=1), axis=1, kind="stable")
    return np.take_along_axis(top, order, axis=1)
