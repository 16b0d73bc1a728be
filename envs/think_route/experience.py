"""What the train split teaches the reference policies of ThinkRoute: labels, predictions, how answers agree.

Everything is fitted on train states. Predictions for the train states themselves are cross-fitted over
groups, so a belief fitted on top of them meets honest errors.

A response to a whole question or a last sub-question is worth its recorded quality. A response that leads to
another sub-question is worth what can be had there: the best mean quality of a single choice in the state it
leads to; one that leads to a terminal state, whether that is a success.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rlroute.graph import always
from rlroute.predictors import (
    Array,
    Boosted,
    LogCost,
    NearestNeighbours,
    Projection,
    Ridge,
    column_means,
    cross_fitted,
    squared_error,
    tune,
)

Floats = NDArray[np.float64]
TRAIN, VAL = 0, 1
NEIGHBOURS = (5, 10, 20, 40, 80)
MAX_TEXT_FEATURES = 384  # hashed texts are projected on so many principal components, for speed
PENALTIES = (0.1, 0.3, 1.0, 3.0, 10.0, 30.0)


def cell_means(arrays: Any, values: Array) -> Floats:
    """Mean over the attempts of each (state, choice): (R,) → (S, C), NaN where there is none."""
    states, choices = arrays.num_attempts.shape
    cell = np.repeat(np.arange(states * choices), np.diff(arrays.cell))
    known = np.isfinite(values)
    count = np.bincount(cell[known], minlength=states * choices)
    total = np.bincount(cell[known], weights=values[known], minlength=states * choices)
    with np.errstate(invalid="ignore"):
        return np.asarray(total / np.where(count, count, np.nan)).reshape(states, choices)


def response_worth(arrays: Any) -> Floats:
    """What accepting each response is worth (R,): its quality, or the best single choice where it leads."""
    worth = np.array(arrays.quality, np.float64)
    choices = arrays.num_attempts.shape[1]
    state = np.repeat(np.arange(len(arrays.step)), np.diff(arrays.cell[::choices]))
    leads = arrays.next_state >= 0
    # Steps grow along next states, so states of later steps are finished before they are looked up.
    for step in sorted(set(arrays.step[state[leads]].tolist()), reverse=True):
        rows = np.flatnonzero(leads & (arrays.step[state] == step))
        means = cell_means(arrays, worth)
        best = np.max(np.where(np.isfinite(means), means, 0.0), axis=1)
        best = np.where(arrays.terminal, arrays.success, best)
        worth[rows] = best[arrays.next_state[rows]]
    worth[np.isnan(worth)] = 0.0  # an empty reply to a sub-question ends the episode with nothing
    return worth


@dataclass
class Experience:
    """Tables of shape (S, C) fitted on train; made once for a log and shared by all references.

    `features` (S, D) are the text features; `recorded` and `recorded_cost` are means over attempts (USD), NaN
    where nothing was recorded.
    """

    arrays: Any
    split: NDArray[np.int8]
    features: Array
    seed_folds: int = 3
    _quality: dict[str, Floats] = field(default_factory=dict)
    _thinking: dict[str, tuple[Floats, Floats]] = field(default_factory=dict)

    @classmethod
    def of(cls, dynamics: Any) -> Experience:
        """From the dynamics of an environment: its log, split and text features."""
        arrays = dynamics.arrays
        text = np.asarray(dynamics.full_text_features(), np.float32)
        if text.shape[1] > MAX_TEXT_FEATURES:
            train = (np.asarray(dynamics.split) == TRAIN) & ~arrays.terminal
            text = Projection(MAX_TEXT_FEATURES).fit(text[train]).transform(text).astype(np.float32)
        # Whole questions and sub-questions are answered differently well; so are the steps.
        extra = [(~arrays.root).astype(np.float32)]
        if np.ptp(arrays.step) > 0:
            extra.append(np.asarray(arrays.step, np.float32) / max(1, int(arrays.step.max())))
        return cls(arrays, np.asarray(dynamics.split), np.column_stack([text, *extra]))

    @cached_property
    def train(self) -> NDArray[np.bool_]:
        return np.asarray((self.split == TRAIN) & ~self.arrays.terminal)

    @cached_property
    def val(self) -> NDArray[np.bool_]:
        return np.asarray((self.split == VAL) & ~self.arrays.terminal)

    @cached_property
    def worth(self) -> Floats:
        """(R,) what accepting each response is worth."""
        return response_worth(self.arrays)

    @cached_property
    def recorded(self) -> Floats:
        return cell_means(self.arrays, self.worth)

    @cached_property
    def recorded_cost(self) -> Floats:
        return cell_means(self.arrays, np.asarray(self.arrays.cost_usd, np.float64))

    @cached_property
    def cost(self) -> Floats:
        """Predicted cost of one call in USD."""
        return self._cross_fit(LogCost, self.recorded_cost)

    @cached_property
    def latency(self) -> Floats:
        """Predicted latency of one call in seconds: the mean of every choice."""
        recorded = cell_means(self.arrays, np.asarray(self.arrays.latency_s, np.float64))
        return self._means_by(self._kind, recorded)

    def quality(self, name: str) -> Floats:
        """Predicted worth in [0, 1] by predictor `name`: mean, task, knn, ridge, boosted or ensemble."""
        if name not in self._quality:
            if name == "ensemble":
                table = np.mean([self.quality(n) for n in ("knn", "ridge", "boosted")], axis=0)
            elif name == "mean":
                table = self._means_by(self._kind, self.recorded)
            elif name == "task":
                table = self._means_by(self._task_kind, self.recorded)
            else:
                table = self._cross_fit(self._maker(name), self.recorded)
            self._quality[name] = np.clip(table, 0.0, 1.0)
        return self._quality[name]

    def after_thinking(self, name: str) -> tuple[Floats, Floats]:
        """Predicted (quality, cost in USD) (S, C) of thinking first, then one choice for all sub-questions.

        −inf quality where there is nothing to think about.
        """
        if name not in self._thinking:
            target = np.asarray(self.arrays.think_state)
            thinks = target >= 0
            quality, cost, _ = always(self.arrays)
            after = [np.where(thinks[:, None], table[target], np.nan) for table in (quality, cost)]
            if name == "mean":
                tables = [self._means_by(self._kind, table) for table in after]
            elif name == "task":
                tables = [self._means_by(self._task_kind, table) for table in after]
            else:
                single = "knn" if name == "knn" else "ridge"
                tables = [self._cross_fit(self._maker(single), after[0]), self._cross_fit(LogCost, after[1])]
            tables[0] = np.where(thinks[:, None], np.clip(tables[0], 0.0, 1.0), -np.inf)
            self._thinking[name] = (tables[0], tables[1])
        return self._thinking[name]

    @cached_property
    def later(self) -> NDArray[np.int64]:
        """Sub-questions still to come after each state (S,), as its nearest neighbours on train have them."""
        arrays = self.arrays
        target = np.zeros(len(self.train))
        state = np.asarray(arrays.row_cell) // arrays.num_attempts.shape[1]
        ahead = np.asarray(arrays.next_state)
        leads = np.flatnonzero((ahead >= 0) & ~np.asarray(arrays.terminal)[ahead])
        if len(leads) == 0:
            return target.astype(np.int64)
        for step in np.unique(arrays.step[state[leads]])[::-1]:
            rows = leads[arrays.step[state[leads]] == step]
            np.maximum.at(target, state[rows], 1 + target[ahead[rows]])
        near = NearestNeighbours(5).fit(self.features[self.train], target[self.train, None])
        return np.where(arrays.root, 0, np.round(near.predict(self.features)[:, 0])).astype(np.int64)

    def _maker(self, name: str) -> Any:
        if name == "knn":
            k = self._best_k()
            return lambda: NearestNeighbours(k)
        if name == "ridge":
            alpha = tune(Ridge, PENALTIES, self.features, self.recorded, self.train, self.val)
            return lambda: Ridge(alpha)
        if name == "boosted":
            return Boosted
        raise ValueError(f"unknown predictor {name!r}: expected mean, task, knn, ridge, boosted or ensemble")

    def _best_k(self) -> int:
        ks = [k for k in NEIGHBOURS if k <= max(NEIGHBOURS[0], int(self.train.sum()) // 2)]
        search = NearestNeighbours().fit(self.features[self.train], self.recorded[self.train])
        tables = search.predict_for(self.features[self.val], ks)
        return ks[int(np.argmin([squared_error(table, self.recorded[self.val]) for table in tables]))]

    @cached_property
    def _kind(self) -> NDArray[np.int64]:
        """Whole questions and each step of sub-questions are different kinds of state."""
        return np.where(self.arrays.root, 0, 1 + self.arrays.step.astype(np.int64))

    @cached_property
    def _task_kind(self) -> NDArray[np.int64]:
        names = np.asarray(self.arrays.task_name, np.int64)
        return self._kind * (1 + int(names.max())) + names

    def _means_by(self, label: NDArray[np.int64], recorded: Floats) -> Floats:
        """Mean of every choice on train per label, the overall mean counting as one more observation."""
        overall = column_means(recorded[self.train])
        table = np.broadcast_to(overall, recorded.shape).copy()
        for value in np.unique(label):
            here = label == value
            rows = recorded[here & self.train]
            known = np.isfinite(rows)
            table[here] = (np.where(known, rows, 0.0).sum(axis=0) + overall) / (known.sum(axis=0) + 1.0)
        return np.nan_to_num(table)

    def _cross_fit(self, make: Any, target: Floats) -> Floats:
        table = np.zeros(target.shape)
        live = ~self.arrays.terminal
        table[live] = cross_fitted(
            make,
            self.features[live],
            target[live],
            self.train[live],
            self.arrays.group[live],
            self.seed_folds,
        )
        return table
