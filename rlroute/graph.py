"""Totals of always calling one choice, by backward induction over the graph of states."""

from __future__ import annotations

from typing import Any

import numpy as np

from rlroute.arrays import LogArrays

# A choice stands for "the best single one" only if it answered at least this share of the roots of the most
# answered choice: a model that was asked ten easy questions is not the best.
MIN_SHARE_OF_ROOTS = 0.5
# Share of the worst responses that `reach` follows.
MIN_FOLLOWED = 0.1


def always(arrays: LogArrays) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Expected (quality, cost_usd, latency_s), each f64 (S, C), of "call m and accept" from each state on.

    Uniform over recorded attempts, without a prompt cache. The quality of an end is the success of its
    terminal state, else the quality of the last response. NaN where the choice was not recorded.
    """
    num_states, num_choices = arrays.num_states, arrays.num_choices
    totals = [np.full((num_states, num_choices), np.nan) for _ in range(3)]
    quality, cost, latency = totals
    quality[arrays.terminal] = arrays.success[arrays.terminal, None]
    cost[arrays.terminal] = latency[arrays.terminal] = 0.0

    row_cell = arrays.row_cell
    row_state, row_choice = np.divmod(row_cell, num_choices)
    # Steps increase along next_state: later steps are done first, and every row finds its successor finished.
    order = np.argsort(-arrays.step[row_state], kind="stable")
    edges = np.flatnonzero(np.diff(arrays.step[row_state[order]])) + 1
    for rows in np.split(order, edges):
        if not len(rows):
            continue
        ahead, column = arrays.next_state[rows], row_choice[rows]
        goes_on = ahead >= 0
        values = (
            np.where(goes_on, quality[ahead, column], arrays.quality[rows]),
            arrays.cost_usd[rows] + np.where(goes_on, cost[ahead, column], 0.0),
            arrays.latency_s[rows] + np.where(goes_on, latency[ahead, column], 0.0),
        )
        cells, local = np.unique(row_cell[rows], return_inverse=True)
        count = np.bincount(local)
        for total, value in zip(totals, values, strict=True):
            total.reshape(-1)[cells] = np.bincount(local, weights=value) / count
    return quality, cost, latency


def clairvoyant(arrays: LogArrays) -> np.ndarray:
    """The best quality on any recorded way from each state, thinking included, f64 (S,); NaN without one."""
    best = np.where(arrays.terminal, arrays.success, -np.inf).astype(np.float64)
    row_state = arrays.row_cell // arrays.num_choices
    order = np.argsort(-arrays.step[row_state], kind="stable")
    thinkers = np.flatnonzero(arrays.think_state >= 0)
    for step in np.unique(arrays.step)[::-1]:
        rows = order[_range_of(-arrays.step[row_state[order]], -step)]
        ahead = arrays.next_state[rows]
        np.maximum.at(best, row_state[rows], np.where(ahead >= 0, best[ahead], arrays.quality[rows]))
        at = thinkers[arrays.step[thinkers] == step]
        best[at] = np.maximum(best[at], best[arrays.think_state[at]])
    return np.where(np.isfinite(best), best, np.nan)


def _range_of(rising: np.ndarray, value: int) -> slice:
    """Where a value lies in a rising array."""
    return slice(*np.searchsorted(rising, [value, value + 1]))


def prospects(arrays: LogArrays) -> np.ndarray:
    """Expected quality of the end after each choice's response, f64 (S, C), if every later choice is drawn uniformly.

    The quality of an end is the success of its terminal state, else the quality of the last response; NaN where
    nothing is recorded.
    """
    value = np.zeros(arrays.num_states)
    value[arrays.terminal] = arrays.success[arrays.terminal]
    after = np.full((arrays.num_states, arrays.num_choices), np.nan)
    row_cell = arrays.row_cell
    row_step = arrays.step[row_cell // arrays.num_choices]
    for step in np.unique(row_step)[::-1]:  # steps rise along next states: what follows is done before
        rows = np.flatnonzero(row_step == step)
        ahead = arrays.next_state[rows]
        worth = np.where(ahead >= 0, value[ahead], np.nan_to_num(arrays.quality[rows]))
        cells, local = np.unique(row_cell[rows], return_inverse=True)
        after.reshape(-1)[cells] = np.bincount(local, weights=worth) / np.bincount(local)
        touched = np.unique(cells // arrays.num_choices)
        value[touched] = np.nanmean(after[touched], axis=1)
    return after


def reach(arrays: LogArrays) -> np.ndarray:
    """How much each state matters under uniform routing, f64 (S,): 1 at a root, 0 where nothing leads.

    A choice is drawn uniformly among those recorded, and its response followed to the share of its quality,
    but at least MIN_FOLLOWED (wholly where quality is unknown); where one can think, that is done as well.
    """
    num_choices = arrays.num_choices
    weight = arrays.root.astype(np.float64)
    recorded = (arrays.num_attempts > 0).sum(axis=1)
    row_cell = arrays.row_cell
    row_state = row_cell // num_choices
    share = 1.0 / (recorded[row_state] * arrays.num_attempts.reshape(-1)[row_cell])
    share *= np.clip(np.nan_to_num(arrays.quality, nan=1.0), MIN_FOLLOWED, 1.0)
    moves = np.flatnonzero(arrays.next_state >= 0)
    thinkers = np.flatnonzero(arrays.think_state >= 0)
    for step in np.unique(arrays.step):  # rising: a state's weight is complete before it is passed on
        at = thinkers[arrays.step[thinkers] == step]
        np.add.at(weight, arrays.think_state[at], weight[at])
        rows = moves[arrays.step[row_state[moves]] == step]
        np.add.at(weight, arrays.next_state[rows], weight[row_state[rows]] * share[rows])
    return weight


def best_single(quality: np.ndarray) -> int:
    """Column of the choice with the best mean quality over states (rows), if it answered enough of them."""
    answered = (~np.isnan(quality)).sum(axis=0)
    means = np.nansum(quality, axis=0) / np.maximum(answered, 1)
    eligible = (answered > 0) & (answered >= MIN_SHARE_OF_ROOTS * answered.max())
    return int(np.argmax(np.where(eligible, means, -np.inf)))


def reference(arrays: LogArrays, splits: np.ndarray) -> dict[str, Any]:
    """{choice, cost_usd, latency_s}: mean cost and latency over train roots of the best single choice there.

    All roots stand in where train holds none.
    """
    roots = np.flatnonzero(arrays.root & (splits == 0))
    if not len(roots):
        roots = np.flatnonzero(arrays.root)
    quality, cost, latency = (total[roots] for total in always(arrays))
    best = best_single(quality)
    return {
        "choice": arrays.choice_names[best],
        "cost_usd": float(np.nanmean(cost[:, best])),
        "latency_s": float(np.nanmean(latency[:, best])),
    }
