"""What could have been recorded: the distribution behind a log's responses, as dense arrays for the ceilings.

Built-in logs store it (table `outcomes`); for other logs the recorded attempts stand in for it. Environments
and policies never read this.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from rlroute.tables import index_in

if TYPE_CHECKING:
    from rlroute.arrays import LogArrays
    from rlroute.log import Log


@dataclass(frozen=True)
class Outcomes:
    """Per state, choice and kind of outcome: S states, C choices, K kinds.

    Two replies to one state give the same answer exactly when they are of the same kind, which is how the
    ceilings know what agreeing answers are worth; the kind `empty`, where there is one, is no answer at all.
    """

    kinds: tuple[str, ...]
    probability: np.ndarray  # (S, C, K) float64; sums to 1 over K where the choice is recorded, to 0 elsewhere
    next_state: np.ndarray  # (S, C, K) int32, -1: none
    quality: np.ndarray  # (S, C, K) float64, 0 where nothing is known
    cost_usd: np.ndarray  # (S, C, K) float64, expected
    verdict: np.ndarray  # (S, C, K) float64, probability that the checker says 1; NaN: no checker

    @property
    def available(self) -> np.ndarray:
        """Whether a choice can be called in a state, (S, C) bool."""
        return np.asarray(self.probability.sum(axis=-1) > 0.5)

    @property
    def mean_cost_usd(self) -> np.ndarray:
        """Expected cost of one call, (S, C) float64."""
        return np.asarray((self.probability * self.cost_usd).sum(axis=-1))


def outcomes_of(log: Log) -> Outcomes:
    """The stored distribution of a log, or its attempts as a stand-in."""
    return stored_outcomes(log) if log.outcomes is not None else empirical_outcomes(log)


def stored_outcomes(log: Log) -> Outcomes:
    """The table `outcomes` of a log, dense. Kinds keep the order in which the table first names them."""
    import pyarrow as pa
    import pyarrow.compute as pc

    table, arrays = log.outcomes, log.arrays
    ids = log.states["state_id"].combine_chunks()
    kinds = pc.unique(table["kind"])
    state = index_in(table["state_id"], ids)
    choice = index_in(table["choice"], pa.array(arrays.choice_names))
    kind = index_in(table["kind"], kinds)
    shape = (len(ids), len(arrays.choice_names), len(kinds))

    def dense(values: np.ndarray, fill: float) -> np.ndarray:
        out = np.full(shape, fill, values.dtype)
        out[state, choice, kind] = values
        return out

    def column(name: str) -> np.ndarray:
        return np.asarray(table[name].to_numpy().astype(np.float64))

    return Outcomes(
        kinds=tuple(kinds.to_pylist()),
        probability=dense(column("probability"), 0.0),
        next_state=dense(index_in(table["next_state_id"], ids), -1),
        quality=dense(np.nan_to_num(column("quality")), 0.0),
        cost_usd=dense(column("cost_usd"), 0.0),
        verdict=dense(column("verdict"), np.nan),
    )


def empirical_outcomes(log: Log, max_answers: int = 4) -> Outcomes:
    """The recorded attempts of a log, each as likely as the others of its cell.

    Kinds are the distinct answers (or next states) of a state, best mean quality first and then the
    commonest; answers beyond `max_answers` are merged into the last kind, so that rare wrong answers look
    alike. `empty` is last.
    """
    arrays = log.arrays
    cell = np.repeat(np.arange(len(arrays.cell) - 1), np.diff(arrays.cell))
    num_choices = len(arrays.choice_names)
    state, choice = np.divmod(cell, num_choices)
    kind = _answer_kinds(arrays, state, max_answers)
    shape = (len(arrays.step), num_choices, max_answers + 1)

    def mean(values: np.ndarray) -> np.ndarray:
        total, count = np.zeros(shape), np.zeros(shape)
        known = ~np.isnan(values)
        np.add.at(total, (state[known], choice[known], kind[known]), values[known])
        np.add.at(count, (state[known], choice[known], kind[known]), 1.0)
        return np.divide(total, count, out=np.full(shape, np.nan), where=count > 0)

    count = np.zeros(shape)
    np.add.at(count, (state, choice, kind), 1.0)
    next_state = np.full(shape, -1, np.int32)
    next_state[state, choice, kind] = arrays.next_state
    return Outcomes(
        kinds=(*(f"answer{k}" for k in range(max_answers)), "empty"),
        probability=count / np.maximum(count.sum(axis=-1, keepdims=True), 1.0),
        next_state=next_state,
        quality=np.nan_to_num(mean(np.asarray(arrays.quality, np.float64))),
        cost_usd=np.nan_to_num(mean(np.asarray(arrays.cost_usd, np.float64))),
        verdict=mean(np.asarray(arrays.verdict, np.float64)),
    )


def _answer_kinds(arrays: LogArrays, state: np.ndarray, max_answers: int) -> np.ndarray:
    """Kind of every response, (R,): rank of its answer within its state, `max_answers` for an empty one."""
    # In task logs replies have no answers; what tells two outcomes apart is where they lead.
    leads = np.asarray(arrays.next_state, np.int64)
    code = np.where(leads >= 0, leads + 2**32, np.asarray(arrays.answer, np.int64))
    kind = np.full(len(code), max_answers, np.int64)
    heard = np.flatnonzero(code >= 0)
    if not len(heard):
        return kind
    pairs, inverse, count = np.unique(
        np.stack([state[heard], code[heard]]), axis=1, return_inverse=True, return_counts=True
    )
    inverse = inverse.ravel()
    quality = np.bincount(inverse, np.nan_to_num(np.asarray(arrays.quality, np.float64)[heard])) / count
    order = np.lexsort((-count, -quality, pairs[0]))
    owner = pairs[0][order]
    starts = np.r_[0, np.flatnonzero(np.diff(owner)) + 1]
    rank = np.empty(len(order), np.int64)
    rank[order] = np.arange(len(order)) - np.repeat(starts, np.diff(np.r_[starts, len(owner)]))
    kind[heard] = np.minimum(rank, max_answers - 1)[inverse]
    return kind


def recorded_rows(arrays: LogArrays) -> np.ndarray:
    """Response row of the k-th attempt of every cell, in recorded order, (S, C, A) int64; -1: none."""
    num_choices = len(arrays.choice_names)
    first = np.asarray(arrays.cell[:-1], np.int64).reshape(-1, num_choices, 1)
    count = np.diff(np.asarray(arrays.cell, np.int64)).reshape(-1, num_choices, 1)
    attempt = np.arange(max(1, int(count.max(initial=1))))
    return np.where(attempt < count, first + attempt, -1)
