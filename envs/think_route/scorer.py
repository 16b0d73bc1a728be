"""Learned guesses that an answer is right, from what can be seen of it.

Both are logistic regressions fitted on the recorded answers of the train split. `AnswerScorer` is the scorer
of a FrugalGPT-like cascade: it also looks at the other answers heard and at the checker's verdict.
`AnswerEvidence` looks at one answer alone and returns how much likelier it is to be seen if right than if
wrong, which is what a belief needs.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from rlroute.envs.think_route.experience import Experience
from rlroute.logistic import fit_logistic, logit, sigmoid

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]
LISTENERS = 3  # random sets of heard answers per train state
STRONGEST = 3.0  # bound on the log-likelihood ratio of one answer


class AnswerLooks:
    """What an answer looks like: who gave it, how long it is for this choice, empty or cut off.

    Length counts twice, as characters of the answer and as completion tokens (where known), each centred and
    scaled per choice on train, with its square: an answer far from a choice's usual length is suspect either
    way.
    """

    def __init__(self, experience: Experience) -> None:
        arrays = experience.arrays
        self.choices = arrays.num_attempts.shape[1]
        self.empty = np.asarray(arrays.answer) < 0
        self.truncated = np.asarray(arrays.truncated)
        state, choice = np.divmod(np.asarray(arrays.row_cell), self.choices)
        train = experience.train[state]
        columns = []
        for length in (arrays.answer_chars, arrays.completion_tokens):
            value = np.log1p(np.maximum(np.asarray(length, np.float64), 0.0))
            for c in range(self.choices):
                own = choice == c
                seen = value[own & train]
                centre, scale = (seen.mean(), seen.std()) if len(seen) else (0.0, 1.0)
                value[own] = np.clip((value[own] - centre) / max(scale, 1e-3), -3, 3)
            columns += [value, value**2 - 1.0]
        self.lengths = np.stack(columns, axis=1)  # (R, 4)

    def __call__(self, choice: Ints, row: Ints) -> Floats:
        """(…, F) for responses `row` of `choice`, arrays of any one shape."""
        one_hot = (choice[..., None] == np.arange(self.choices)).astype(np.float64)
        lengths = self.lengths[row]
        flags = np.stack([self.empty[row], self.truncated[row]], axis=-1)
        return np.concatenate([one_hot, one_hot * lengths[..., :1], lengths, flags], axis=-1)


class AnswerEvidence:
    """Log-likelihood ratio (right to wrong) of what each recorded response looks like (R,)."""

    def __init__(self, experience: Experience, odds: Floats) -> None:
        """`odds` (S, C) are the calibrated log-odds of being right before anything is heard."""
        arrays = experience.arrays
        looks = AnswerLooks(experience)
        state, choice = np.divmod(np.asarray(arrays.row_cell), looks.choices)
        before = odds[state, choice]
        x = np.column_stack([before, looks(choice, np.arange(len(state))), np.ones(len(state))])
        train = experience.train[state]
        weights = fit_logistic(x[train], experience.worth[train], penalty=3.0)
        # The fit may rescale the odds before; what is left over is what the looks of the answer add.
        self.ratio = np.clip(x @ weights - before, -STRONGEST, STRONGEST)


class AnswerScorer:
    """Probability that each heard response is right."""

    def __init__(self, experience: Experience, with_verdict: bool, seed: int = 0) -> None:
        self.experience, self.with_verdict = experience, with_verdict
        self.looks = AnswerLooks(experience)
        self.prior = logit(experience.quality("ensemble"))
        arrays = experience.arrays
        rng = np.random.default_rng(seed)
        features, labels = [], []
        states = np.flatnonzero(experience.train & (arrays.num_attempts.sum(axis=1) > 0))
        choices = self.looks.choices
        for listener in range(LISTENERS):
            # Some random choices have been heard, as many as a cascade may hear, one attempt of each.
            pick = rng.permuted(np.broadcast_to(np.arange(choices), (len(states), choices)), axis=1)
            pick = pick[:, : 1 + listener % 3]
            cell = states[:, None] * choices + pick
            size = arrays.cell[cell + 1] - arrays.cell[cell]
            present = size > 0
            row = np.where(present, arrays.cell[cell] + (rng.random(cell.shape) * size).astype(np.int64), 0)
            x = self._features(states, pick, row, present, np.asarray(arrays.verdict)[row])
            features.append(x[present])
            labels.append(experience.worth[row][present])
        self.weights = fit_logistic(np.concatenate(features), np.concatenate(labels))

    def probability(self, dynamics: Any, rows: Ints) -> Floats:
        """(n, K) for the responses heard by the slots `rows`, in call order; junk where nothing was heard."""
        present = np.arange(dynamics.heard_row.shape[1]) < dynamics.num_heard[rows, None]
        row = np.where(present, dynamics.heard_row[rows], 0)
        choice = np.where(present, dynamics.heard_choice[rows], 0)
        x = self._features(dynamics.state[rows], choice, row, present, dynamics.verdict_seen[rows])
        return sigmoid(x @ self.weights)

    def _features(self, state: Ints, choice: Ints, row: Ints, present: Bools, verdict: NDArray[Any]) -> Floats:
        answer = np.where(present, self.experience.arrays.answer[row], -1)
        same = (answer[:, :, None] == answer[:, None, :]) & (answer[:, :, None] >= 0)
        agree = np.maximum(same.sum(axis=2) - 1, 0)
        others = present.sum(axis=1, keepdims=True) - 1
        columns = [
            np.take_along_axis(self.prior[state], choice, axis=1),
            agree,
            others - agree,
            agree > 0,
        ]
        if self.with_verdict:
            seen = np.isfinite(verdict)
            columns += [np.where(seen, 2 * np.nan_to_num(verdict) - 1, 0.0), seen]
        columns.append(np.ones(row.shape))
        return np.concatenate([self.looks(choice, row), np.stack(columns, axis=-1)], axis=-1)
